"""Stopping long work: Ctrl-C while compiled loops run, and while other threads do.

Python hands a signal to its handlers between two instructions of the main thread. A compiled loop
has none, and other threads get no signals at all. So loops ask :func:`require_no_stop` now and
then, which lets handlers run, and whoever waits for other threads tells them by an event.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import TypeVar

Result = TypeVar("Result")

SECONDS_BETWEEN_LOOKS = 0.1


class Stopped(Exception):
    """Raised in a thread whose work nobody waits for any more."""


class _Current(threading.local):
    event: threading.Event | None = None


_current = _Current()
# What the interpreter itself calls to run the handlers of signals that have arrived.
_run_signal_handlers = ctypes.pythonapi.PyErr_CheckSignals


@contextmanager
def stopping_at(event: threading.Event) -> Iterator[None]:
    """Let what this thread does be stopped by an event.

    Args:
        event: Set by whoever does not wait any more.
    """
    outer, _current.event = _current.event, event
    try:
        yield
    finally:
        _current.event = outer


def require_no_stop() -> None:
    """Let signal handlers run, and stop where that has been asked for.

    Raises:
        KeyboardInterrupt: Or whatever else a handler raises, in the main thread.
        Stopped: If the event of this thread is set.
    """
    _run_signal_handlers()
    if _current.event is not None and _current.event.is_set():
        raise Stopped


def result_of(future: Future[Result]) -> Result:
    """What another thread returns or raises; meanwhile this one can be stopped itself.

    Args:
        future: The future of the other thread's work, which whoever calls this tells to stop.

    Raises:
        BaseException: What :func:`require_no_stop` raises, or the other thread.
    """
    while not future.done() and not wait([future], SECONDS_BETWEEN_LOOKS).done:
        require_no_stop()
    return future.result()
