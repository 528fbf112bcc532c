"""Processes that use a result while a test does something else with it."""

import os
import shutil
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from lowshot_kedro.locks import Claims, ResultInUseError, written_by_one


def claim_to_read(path):
    claims = Claims()
    claims.to_read([path])
    return claims


def claim_to_write(path):
    claims = Claims()
    claims.to_write([path])
    return claims


@contextmanager
def written(path):
    with written_by_one(path):
        yield


@contextmanager
def read(path):
    claims = claim_to_read(path)
    yield
    claims.release()


@contextmanager
def claimed(path):
    claims = claim_to_write(path)
    yield
    claims.release()


def wait_for(path):
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return path.exists()


def fork(function):
    """Another process, which is nobody's worker; its number."""
    pid = os.fork()
    if pid == 0:
        try:
            function()
        finally:
            os._exit(0)
    return pid


def join(pid):
    with suppress(ChildProcessError):
        os.waitpid(pid, 0)


@contextmanager
def another_process(use, path):
    """A process that uses a result until this is left or the process is killed."""
    folder = Path(tempfile.mkdtemp())
    end = folder / "end"

    def begin(refused=""):
        # Nobody sees a file of which the content is still to come.
        (folder / "unsaid").write_text(refused)
        (folder / "unsaid").rename(folder / "begun")

    def work():
        try:
            with use(path):
                begin()
                wait_for(end)
        except ResultInUseError as error:
            begin(str(error))

    pid = fork(work)
    try:
        assert wait_for(folder / "begun")
        refused = (folder / "begun").read_text()
        if refused:
            raise ResultInUseError(refused)
        yield pid
    finally:
        end.touch()
        join(pid)
        shutil.rmtree(folder)
