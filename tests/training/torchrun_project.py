"""What `torchrun` starts in a test: a pipeline of a project, of which two nodes work together."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from kedro.framework.cli import main
from kedro.pipeline import Pipeline, node

from lowshot_kedro import pipeline_registry
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


def run() -> None:
    """`kedro run`, with another demonstration."""
    others = pipeline_registry.register_pipelines
    together = Pipeline(
        [node(first, None, "found", name="a"), node(second, "found", "word", name="b")]
    )
    pipeline_registry.register_pipelines = lambda: {**others(), "demonstration": together}
    os.chdir(PROJECT)
    sys.argv = ["kedro", "run", "--pipelines", "demonstration"]
    try:
        main()
    except SystemExit as end:
        say(f"ended with {end.code}")


if __name__ == "__main__":
    run()
