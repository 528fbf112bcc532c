"""Kedro commands in processes of their own that start at once.

`python -m tests.quick_kedro` loads the libraries, and forks for every command. The commands do not
share more than what is loaded; to load it takes a new process seconds.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
MODULES = ("kedro.framework.session", "lowshot_kedro.pipelines", "lowshot_kedro.project.hooks")


class Command:
    """A command that runs; one at a time.

    Attributes:
        pid: The number of its process.
    """

    def __init__(self, folder: Path, *arguments: str, first: str = "", **environment: str) -> None:
        """Start it.

        Args:
            folder: Where it runs.
            arguments: Of kedro.
            first: A line of Python before it begins.
            environment: Variables that differ from those here.
        """
        self._printed = Path(tempfile.mkstemp()[1])
        request = {
            "folder": str(folder),
            "arguments": arguments,
            "first": first,
            "printed": str(self._printed),
            "environment": {**os.environ, "COLUMNS": "200", **environment},
        }
        self._server = _server()
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        self.pid = int(self._server.stdout.readline())

    def is_running(self) -> bool:
        """Whether it has not ended."""
        return not select.select([self._server.stdout], [], [], 0)[0]

    def wait(self) -> tuple[int, str]:
        """Wait until it ends; its exit status, negative after a signal, and all that it printed."""
        assert self._server.stdout is not None
        status = int(self._server.stdout.readline())
        printed = self._printed.read_text()
        self._printed.unlink()
        return status, printed


@cache
def _server() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.quick_kedro"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def serve() -> None:
    """Fork for every request; in the new process, return."""
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            become(request)
            return
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    sys.exit()


def become(request: dict[str, Any]) -> None:
    """Take over folder, environment and output of a request."""
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    printed = os.open(request["printed"], os.O_WRONLY | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, target in ((nothing, 0), (printed, 1), (printed, 2)):
        os.dup2(number, target)
    sys.argv = ["kedro", *request["arguments"]]
    exec(request["first"], {})


if __name__ == "__main__":
    for name in MODULES:
        import_module(name)
    serve()
    from kedro.framework.cli import main

    main()
