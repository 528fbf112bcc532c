"""A process of its own that is stopped when it takes too long or too much memory."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

# How often the parent looks at the process.
SECONDS_BETWEEN_LOOKS = 0.1
# How the reasons begin.
STOPPED, OUT_OF_MEMORY = "stopped after", "out of memory"

Report = Callable[[Any], None]


class Limits(NamedTuple):
    """Where a process is stopped.

    Attributes:
        seconds: From one report to the next. Before the first there is no limit: libraries are
            imported then.
        n_bytes: Resident memory of the process, where the system tells it (Linux).
    """

    seconds: float
    n_bytes: float


class Ended(NamedTuple):
    """What came of it.

    Attributes:
        reports: In their order.
        reason: Why it ended early; None: it did all it had to.
        peak: Largest resident memory that was seen from outside, in bytes; 0: none was.
    """

    reports: list[Any]
    reason: str | None
    peak: int


class _Failure(NamedTuple):
    """What the process says when it gives up."""

    reason: str


def run_within(
    limits: Limits,
    function: Callable[..., None],
    *arguments: Any,
    report_to: Report = lambda _: None,
) -> Ended:
    """Call a function in a fresh process, and kill the process at its limits.

    Args:
        limits: Of time and memory.
        function: Of a module. Called with the arguments and a function that takes reports, which
            have to be such that they can be pickled.
        arguments: Of the function.
        report_to: Gets each report as soon as it is there.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(sender, function, arguments))
    process.start()
    sender.close()
    reports: list[Any] = []

    def take(report: Any) -> None:
        reports.append(report)
        report_to(report)

    try:
        reason, peak = _follow(process.pid, receiver, limits, take)
    except BaseException:
        process.kill()
        raise
    if reason is not None:
        process.kill()
    process.join()
    if reason is None and process.exitcode:
        reason = _description_of(process.exitcode)
    return Ended(reports, reason, peak)


def _follow(
    process_id: int | None, receiver: Connection, limits: Limits, take: Report
) -> tuple[str | None, int]:
    """Wait for the end of a process, or for a reason to end it; the peak that was seen."""
    last_report: float | None = None
    peak = 0
    while True:
        if receiver.poll(SECONDS_BETWEEN_LOOKS):
            try:
                message = receiver.recv()
            except EOFError:
                return None, peak
            if isinstance(message, _Failure):
                return message.reason, peak
            last_report = time.monotonic()
            take(message)
            continue
        taken, highest = _resident(process_id)
        peak = max(peak, highest)
        if taken > limits.n_bytes:
            return f"{OUT_OF_MEMORY}: more than {limits.n_bytes / 1e9:.1f} GB", peak
        if last_report is not None and time.monotonic() - last_report > limits.seconds:
            return f"{STOPPED} {limits.seconds:g} s", peak


def _call(sender: Connection, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """What the process does. Standard output is for results, so nobody else writes there."""
    with contextlib.redirect_stdout(sys.stderr):
        try:
            function(*arguments, sender.send)
        except MemoryError as error:
            sender.send(_Failure(f"{OUT_OF_MEMORY}: {error or 'MemoryError'}"))
        except (Exception, SystemExit) as error:
            traceback.print_exc()
            sender.send(_Failure(" ".join(f"{type(error).__name__}: {error}".split())))


def _resident(process_id: int | None) -> tuple[int, int]:
    """Resident memory of a process now and at most, in bytes; zeros where nobody tells."""
    found = {"VmRSS": 0, "VmHWM": 0}
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process_id}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in found:
                found[name] = int(value.split()[0]) * 1024
    return found["VmRSS"], found["VmHWM"]


def _description_of(exit_code: int) -> str:
    """Of a process that ended by itself, and not well."""
    if exit_code == -signal.SIGKILL:
        return f"{OUT_OF_MEMORY}: killed by the system"
    if exit_code < 0:
        return f"ended by signal {-exit_code}"
    return f"ended with exit code {exit_code}"
