"""Things that are no files, and a guard against waiting for them."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SECONDS = 30


def make_socket(path: Path) -> None:
    """A socket in the file system; its path may have but a hundred characters."""
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(f"/proc/self/fd/{descriptor}/{path.name}")
    finally:
        os.close(descriptor)


# What is made at a path → what a message calls it.
NO_FILES = {
    "named pipe": (os.mkfifo, "is a named pipe"),
    "socket": (make_socket, "is a socket"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "is a device"),
    "folder": (Path.mkdir, "is a folder"),
    "link to itself": (lambda path: path.symlink_to(path.name), "in a circle"),
}


@contextmanager
def no_waiting() -> Iterator[None]:
    """Fail instead of waiting for ever, as whoever opens a named pipe does."""

    def stop(*_: object) -> None:
        raise AssertionError("waits for something that does not come")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
