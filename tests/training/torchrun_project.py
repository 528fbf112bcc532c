"""What `torchrun` starts in a test: a pipeline of a project, of which two nodes work together."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

from kedro.framework.project import pipelines
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.pipeline import Pipeline, node

from lowshot_kedro.errors import InputError
from lowshot_kedro.training.processes import ProcessOptions, run_in_processes
from tests.training.several import exchange

PROJECT = Path(sys.argv[1])


def say(what: object) -> None:
    # In one piece: others write too.
    os.write(1, f"{os.environ['RANK']}: {what}\n".encode())


def first() -> list[int]:
    try:
        run_in_processes(exchange, None, ProcessOptions(PROJECT, 3, "cpu"))
    except InputError as error:
        say(error)
    found: list[int] = run_in_processes(exchange, None, ProcessOptions(PROJECT))["numbers"].tolist()
    say(f"node first {found}")
    return found


def second(found: Any) -> str:
    with (PROJECT / "written").open("a") as file:
        file.write("once")
    numbers = run_in_processes(exchange, found, ProcessOptions(PROJECT, 2, "cpu"))["numbers"]
    say(f"node second {numbers.tolist()}")
    return "word"


if __name__ == "__main__":
    bootstrap_project(PROJECT)
    logging.disable(logging.INFO)
    with KedroSession.create(PROJECT) as session:
        pipelines["demonstration"] = Pipeline(
            [node(first, None, "found", name="a"), node(second, "found", "word", name="b")]
        )
        results = session.run(pipeline_names=["demonstration"])
    say(f"returned {list(results)}")
