"""Progress of a running job: seconds, bars in a terminal, lines in the log."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING

from tqdm import tqdm

from lowshot_kedro.deprecated import old_names
from lowshot_kedro.memory import format_bytes, peak_rss_bytes, rss_bytes
from lowshot_kedro.terminal import can_show_bars, is_child_process, root_above_bars, shown_log

logger = logging.getLogger(__name__)
# Of lines that stand in the place of bars.
LOOPS = f"{__name__}.loops"
_loops = logging.getLogger(LOOPS)

_SECONDS_BETWEEN_LINES = 30


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds until now."""
        return time.perf_counter() - self._start


@contextmanager
def logged_step(what: str) -> Iterator[None]:
    """Log how long a step took and how much memory the process had taken at most by then."""
    watch = Stopwatch()
    yield
    logger.info("%s: %.1f s, peak %s", what, watch.seconds, format_bytes(peak_rss_bytes()))


_bars_shown: ContextVar[bool | None] = ContextVar("bars_shown", default=None)


@contextmanager
def shown_progress(shown: bool) -> Iterator[None]:
    """Show bars, and what this package logs, on the standard error stream, or no bars at all.

    This is for programs that call functions of this package without a log of their own.

    Args:
        shown: Whether to show them. Where a bar cannot be drawn, as in a file, a line of the log
            now and then takes its place.
    """
    token = _bars_shown.set(shown)
    try:
        with shown_log if shown else nullcontext():
            yield
    finally:
        _bars_shown.reset(token)


class Progress:
    """How far a long loop is: a bar in a terminal, elsewhere a line of the log now and then.

    :func:`shown_progress` decides otherwise. A process that works for another one has no bars:
    several would draw over each other.

    Args:
        total: Rows to be done.
        description: What the loop does, in a few words.
        done: Rows that an earlier run has done.
        unit: What a row is.
        seconds_between_lines: Seconds between lines of the log; None: the usual ones.
    """

    def __init__(
        self,
        total: int,
        description: str,
        done: int = 0,
        unit: str = "vector",
        seconds_between_lines: float | None = None,
    ) -> None:
        shown = _bars_shown.get()
        if shown is None:
            is_drawn = can_show_bars(stdout_too=True) and not is_child_process()
        else:
            is_drawn = shown and can_show_bars(stdout_too=False)
        self._bar = tqdm(
            total=total,
            desc=description,
            initial=done,
            unit=unit,
            disable=not is_drawn,
            # A terminal may not know how wide it is.
            ncols=shutil.get_terminal_size().columns,
            unit_scale=unit == "byte",
            unit_divisor=1024,
        )
        self._total, self._description, self._unit = total, description, unit
        self._before = self._done = done
        self._watch = Stopwatch()
        self._logged_at = 0.0
        self._seconds_between_lines = seconds_between_lines
        self._closing = ExitStack()
        if is_drawn and shown is None:
            self._closing.enter_context(root_above_bars)
        self._closing.callback(self._bar.close)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def update(self, n_rows: int, note: str = "") -> None:
        """Count n_rows more rows as done.

        Args:
            n_rows: How many.
            note: What is known so far, shown behind the bar and in lines of the log.
        """
        if note:
            self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(n_rows)
        self._done += n_rows
        seconds = self._watch.seconds
        between = self._seconds_between_lines
        if between is None:
            between = _SECONDS_BETWEEN_LINES
        if self._bar.disable and seconds - self._logged_at >= between:
            self._logged_at = seconds
            rate = (self._done - self._before) / seconds
            _loops.info(
                "%s: %d of %d %ss (%.0f %%), %.3g a second, %.0f s left, %s%s",
                self._description,
                self._done,
                self._total,
                self._unit,
                100 * self._done / max(self._total, 1),
                rate,
                (self._total - self._done) / max(rate, 1e-9),
                format_bytes(rss_bytes()),
                f", {note}" if note else "",
            )


if not TYPE_CHECKING:
    __getattr__ = old_names(__name__)
