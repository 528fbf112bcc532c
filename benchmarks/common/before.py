"""Another checkout of this project, such as the code before a change, measured in the same run."""

from __future__ import annotations

import argparse
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

_STANDARD_ERROR = 2
BENCHMARKS = Path(__file__).parents[1]

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

# Libraries may print while they are imported: what comes back goes by a way of its own.
_CALL = """
import os, pickle, sys
with open(sys.argv[1], "rb") as given:
    function, arguments, keywords = pickle.load(given)
with open(sys.argv[2], "wb") as results:
    pickle.dump(function(*arguments, **keywords), results)
"""


def checkout(text: str) -> Path:
    """The folder of a checkout that has been built, for a command line."""
    folder = Path(text).resolve()
    if not any(folder.glob("src/lowshot_kedro/native/_native.*")):
        raise argparse.ArgumentTypeError(
            f"{text}: no built checkout of this project; there, run "
            "PYTHONPATH=src python src/lowshot_kedro/native/build_native.py"
        )
    return folder


def in_checkout(
    folder: Path,
    function: Callable[Parameters, Result],
    exchange: Path,
    *arguments: Parameters.args,
    **keywords: Parameters.kwargs,
) -> Result:
    """Call a function of a module of benchmarks/ in a process that has another checkout's code.

    Args:
        folder: The checkout.
        function: Must use only what that code has.
        exchange: Folder for what is handed over.
        *arguments: Of the function.
        **keywords: Of the function.
    """
    given, results = exchange / "given.pickle", exchange / "results.pickle"
    given.write_bytes(pickle.dumps((function, arguments, keywords)))
    path = os.pathsep.join([str(folder / "src"), str(BENCHMARKS)])
    try:
        subprocess.run(
            [sys.executable, "-c", _CALL, str(given), str(results)],
            env={**os.environ, "PYTHONPATH": path},
            stdout=_STANDARD_ERROR,
            check=True,
        )
        found: Result = pickle.loads(results.read_bytes())
    finally:
        given.unlink(missing_ok=True)
        results.unlink(missing_ok=True)
    return found
