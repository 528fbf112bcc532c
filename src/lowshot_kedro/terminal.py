"""Log lines beside progress bars: a bar goes away while a line is written, and comes back below it.

Both end in the same terminal, mostly by two streams, so whoever writes has to know of the bars.
"""

from __future__ import annotations

import logging
import multiprocessing
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm


def can_show_bars(stdout_too: bool) -> bool:
    """Whether a bar that is drawn again and again looks like one bar, and not like many lines.

    Args:
        stdout_too: Whether lines on the standard output have to come to the same terminal: where
            they go through a pipe, they cannot be kept from the bars.
    """
    if _is_terminal(sys.stderr):
        return not stdout_too or _is_terminal(sys.stdout)
    # What notebooks show below a cell knows how to begin a line again.
    return type(sys.stderr).__module__.partition(".")[0] == "ipykernel" and not stdout_too


def _is_terminal(stream: object) -> bool:
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]
    except (AttributeError, ValueError):  # there is none, or it is closed
        return False


def is_child_process() -> bool:
    """Whether another process has started this one for a part of its work."""
    return multiprocessing.parent_process() is not None


@contextmanager
def above_bars() -> Iterator[None]:
    """Let lines be written to the terminal meanwhile, above the bars that are there."""
    if is_child_process():
        # It draws no bars. And the lock of the bars is shared: who dies with it stops all others.
        yield
        return
    with tqdm.external_write_mode(file=sys.stderr):
        yield


def _writes_to_terminal(handler: logging.Handler) -> bool:
    if isinstance(handler, logging.StreamHandler):
        stream = handler.stream
    else:  # such as rich's
        stream = getattr(getattr(handler, "console", None), "file", None)
    ours = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    return stream is not None and any(stream is each for each in ours)


class _AroundBars(logging.Handler):
    """Has a handler write above the bars."""

    def __init__(self, handler: logging.Handler) -> None:
        super().__init__(handler.level)
        self.handler = handler

    def emit(self, record: logging.LogRecord) -> None:
        with above_bars():
            self.handler.handle(record)


class _RootAboveBars:
    """What the root logger writes to the terminal stays clear of bars, however many there are."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_users = 0

    def __enter__(self) -> None:
        root = logging.getLogger()
        with self._lock:
            self._n_users += 1
            if self._n_users == 1:
                root.handlers = [
                    _AroundBars(handler) if _writes_to_terminal(handler) else handler
                    for handler in root.handlers
                ]

    def __exit__(self, *_: object) -> None:
        root = logging.getLogger()
        with self._lock:
            self._n_users -= 1
            if self._n_users == 0:
                root.handlers = [
                    handler.handler if isinstance(handler, _AroundBars) else handler
                    for handler in root.handlers
                ]


class _WrittenAboveBars(logging.Handler):
    """Writes records to the standard error stream, unless the program's own log does so.

    The handlers of the root logger belong to whoever calls this package. They come next, and get a
    line without bars, which the bars take again when they move on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        others = [
            handler
            for handler in logging.getLogger().handlers
            if _writes_to_terminal(handler) and record.levelno >= handler.level
        ]
        if not others:
            tqdm.write(self.format(record), file=sys.stderr)
            return
        with tqdm.get_lock():
            for bar in list(getattr(tqdm, "_instances", [])):
                bar.clear(nolock=True)


class _ShownLog:
    """What this package logs, on the standard error stream, once however many threads ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_users = 0
        self._level = logging.NOTSET
        self._handler = _WrittenAboveBars()

    def __enter__(self) -> None:
        package = logging.getLogger(__package__)
        with self._lock:
            self._n_users += 1
            if self._n_users == 1:
                self._level = package.level
                package.addHandler(self._handler)
                package.setLevel(min(package.getEffectiveLevel(), logging.INFO))

    def __exit__(self, *_: object) -> None:
        package = logging.getLogger(__package__)
        with self._lock:
            self._n_users -= 1
            if self._n_users == 0:
                package.removeHandler(self._handler)
                package.setLevel(self._level)


root_above_bars = _RootAboveBars()
shown_log = _ShownLog()
