"""Stopping a training by a signal: the signal is kept, and looked at where all processes can stop.

While a training runs, SIGTERM, SIGUSR1 and the signal by which submitit announces the end of a job
set a flag. After every step the processes tell each other whether one of them has been asked, so
that all save the same step and end, whichever of them the signal has reached. What others had to do
at the signal is done after that: submitit puts its job into the queue again. SIGUSR1 in a job of
SLURM that somebody has submitted by other means does the same. Ctrl-C is none of these: it ends the
training where it is.
"""

from __future__ import annotations

import inspect
import logging
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lowshot_kedro.errors import in_one_line
from lowshot_kedro.training.processes import Processes

logger = logging.getLogger(__name__)

# Some send a signal to a process and to the group of processes in which it is.
SECONDS_OF_ONE_REQUEST = 1
_SECONDS_TO_REQUEUE = 60
_NOTE, _ASKING = "stop", "asking-"


class StoppedBySignal(SystemExit):
    """A training has saved what it has done, and ends because a signal asked for it.

    As an end of the process, it has the status by which shells tell of a signal.

    Args:
        number: The signal.
        after: How far the training has come.
    """

    def __init__(self, number: int, after: str) -> None:
        super().__init__(128 + number)
        self.number, self.after = number, after

    def __str__(self) -> str:
        return (
            f"stopped by {signal.Signals(self.number).name} after {self.after}; the same command "
            "continues"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.number, self.after)


def stop_signals() -> list[signal.Signals]:
    """The signals that ask for an end, in this process."""
    found = [signal.SIGTERM, signal.SIGUSR1]
    if "SUBMITIT_EXECUTOR" in os.environ:
        # As submitit itself reads it.
        name = f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}"
        found.append(signal.Signals[name])
    return found


class Handlers:
    """Handlers of the signals that ask for an end, and those that were there before.

    Signals that somebody has had ignored stay so.

    Args:
        handler: Called with the number of a signal.
    """

    def __init__(self, handler: Callable[[int], None]) -> None:
        self._before: dict[int, Any] = {}
        for number in stop_signals():
            before = signal.getsignal(number)
            # None: what set it was not Python, which cannot put it back.
            if before not in (None, signal.SIG_IGN):
                self._before[number] = before
                signal.signal(number, lambda number, _: handler(number))

    def restore(self) -> None:
        """Put back those that were there before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def hand_on(self, number: int) -> bool:
        """Do what the signal would have led to, now that all is saved.

        Where that is nothing but the end of the process, SIGUSR1 in a job of SLURM puts the job
        into the queue again.

        Returns:
            Whether a handler that was there before has returned: it wants the process to go on.
        """
        before = self._before.get(number)
        if callable(before):
            before(number, inspect.currentframe())
            return True
        if number == signal.SIGUSR1:
            _requeue()
        return False


class _Request:
    """What signals have asked of this process since it can be stopped."""

    def __init__(self) -> None:
        self.number = 0
        self._terminated_at: float | None = None

    def take(self, number: int) -> None:
        """Keep a signal. Another SIGTERM after the first one ends the process at once."""
        self.number = self.number or number
        if number != signal.SIGTERM:
            return
        now = time.monotonic()
        if self._terminated_at is None:
            self._terminated_at = now
        elif now - self._terminated_at > SECONDS_OF_ONE_REQUEST:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


# Of this process: there is one set of handlers, and one that has started it.
_request = _Request()
_handlers: Handlers | None = None
_leader: Path | None = None
_is_stoppable = False


def follow(folder: Path) -> None:
    """Let this process be stopped by the one that has started it, by :func:`tell_followers`.

    What comes after the stop is then the business of that one.

    Args:
        folder: Where that one leaves its note.
    """
    global _leader
    _leader = folder


def tell_followers(folder: Path, number: int) -> bool:
    """Ask processes to stop that :func:`follow` a folder.

    Args:
        folder: That folder.
        number: The signal that asks for it.

    Returns:
        Whether one of them can be asked. Otherwise nothing is done.
    """
    if not any(folder.glob(f"{_ASKING}*")):
        return False
    unfinished = folder / f".partial-{_NOTE}"
    unfinished.write_text(str(int(number)))
    unfinished.replace(folder / _NOTE)
    return True


@contextmanager
def stoppable() -> Iterator[None]:
    """Keep signals that ask for an end for whoever asks for them.

    Outside the main thread nothing is kept. A signal that comes when nobody asks any more has its
    usual effect at the end of this.
    """
    global _request, _handlers, _is_stoppable
    if _is_stoppable:
        yield
        return
    _is_stoppable, _request = True, _Request()
    if threading.current_thread() is threading.main_thread():
        _handlers = Handlers(_request.take)
    asking = None if _leader is None else _leader / f"{_ASKING}{os.getpid()}"
    if asking is not None:
        asking.touch()
    try:
        yield
    finally:
        if asking is not None:
            asking.unlink(missing_ok=True)
        handlers, _handlers, _is_stoppable = _handlers, None, False
        if handlers is not None:
            handlers.restore()
    if _request.number:
        signal.raise_signal(_request.number)


def ask(processes: Processes, flag: bool = False) -> tuple[bool, int]:
    """Whether a flag is set in any process, and whether a signal asks for an end.

    All processes call this, and it is one collective.

    Args:
        processes: Those that work together.
        flag: Of this process.

    Returns:
        Whether it is set in any of them, and the number of the signal, 0 for none. The same in all.
    """
    number = _number_here()
    if processes.n_processes == 1:
        return flag, number
    import torch

    told = processes.stack(torch.tensor([int(flag), number])).amax(dim=0)
    return bool(told[0]), int(told[1])


def is_wanted(processes: Processes) -> bool:
    """Whether a signal asks for an end, in any process. All call this together.

    Who is asked saves what is needed to go on and calls :func:`stop_if_wanted`.
    """
    return ask(processes)[1] != 0


def stop_if_wanted(processes: Processes, after: str) -> None:
    """End the work if a signal asks for it, with all done that is needed to go on.

    All processes call this together.

    Args:
        processes: Those that work together.
        after: What has been done, for people: `epoch 3`.

    Raises:
        StoppedBySignal: If so; and whatever handlers raise that were there before.
    """
    number = ask(processes)[1]
    if number:
        stop(processes, number, after)


def stop(processes: Processes, number: int, after: str) -> None:
    """End the work because of a signal, with all done that is needed to go on.

    All processes call this together. It returns if another handler of the signal, which was there
    before, wants the process to go on, as submitit's for SIGTERM does: SLURM itself ends a job.

    Args:
        processes: Those that work together.
        number: The signal, as :func:`ask` has told.
        after: As for :func:`stop_if_wanted`.

    Raises:
        StoppedBySignal: Unless it goes on; and whatever that handler raises.
    """
    stopped = StoppedBySignal(number, after)
    # Whoever leads this process does what is to be done, once.
    handlers = _handlers if processes.is_first and _leader is None else None
    goes_on = False
    try:
        if handlers is not None:
            goes_on = handlers.hand_on(number)
    except BaseException:
        # The others end when this one has done with it: their end could be that of the whole job.
        processes.barrier()
        raise
    goes_on = processes.any(goes_on)
    _request.number = 0
    if not goes_on:
        if processes.is_first:
            logger.warning("%s", stopped)
        raise stopped
    if processes.is_first:
        logger.warning("%s: saved after %s", signal.Signals(number).name, after)


def _number_here() -> int:
    if _request.number or _leader is None:
        return _request.number
    try:
        return int((_leader / _NOTE).read_text())
    except FileNotFoundError:
        return 0


def _requeue() -> None:
    """Put the job of SLURM in which this process runs into the queue again, if it is in one."""
    job, command = os.environ.get("SLURM_JOB_ID"), shutil.which("scontrol")
    if job is None or command is None:
        return
    try:
        subprocess.run(
            [command, "requeue", job],
            check=True,
            capture_output=True,
            text=True,
            timeout=_SECONDS_TO_REQUEUE,
        )
    except (OSError, subprocess.SubprocessError) as error:
        reason = in_one_line(getattr(error, "stderr", None) or error)
        logger.warning("SLURM job %s is not in the queue again: %s", job, reason)
    else:
        logger.warning("SLURM job %s is in the queue again", job)
