"""Processes that `torchrun` has started: the first one leads, the others do what it tells them.

`torchrun --nproc-per-node 2 -m kedro run` starts the same command several times. Nodes of a
pipeline run in the first process alone, and only that one reads and writes the catalog. The others
wait for work that is done together, for hours if need be.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lowshot_kedro.errors import InputError
from lowshot_kedro.progress import shown_progress
from lowshot_kedro.training.processes import Job, Processes, Result, is_launched

logger = logging.getLogger(__name__)

_PACKAGE = __name__.partition(".")[0]

# The processes that wait for this one, while it leads.
_led: list[Processes] = []


@contextmanager
def launched_processes() -> Iterator[bool]:
    """Let the first process that was launched go on, and the others work for it meanwhile.

    Yields:
        True in the first process, at once, whose end of the `with` statement ends the others; False
        in the others, when they are no longer needed. True in a process that stands alone.

    Raises:
        SystemExit: In another than the first process, if its part failed.
    """
    if not is_launched():
        yield True
        return
    from lowshot_kedro.training.group import joined_group

    with joined_group("cpu") as processes:
        if not processes.is_first:
            _serve(processes)
            yield False
            return
        _led.append(processes)
        try:
            yield True
        finally:
            if _led:
                _led.pop().broadcast(None)


def run_launched(work: Callable[[Processes, Job], Result], job: Job, device: str) -> Result:
    """Do a piece of work in all processes that were launched.

    Args:
        work: As for :func:`~lowshot_kedro.training.processes.run_in_processes`.
        job: Likewise.
        device: As for :func:`~lowshot_kedro.training.group.device_here`.

    Returns:
        What the first process returns; where all of them call this, in all of them.
    """
    from lowshot_kedro.training.group import joined_group

    if _led:
        _led[0].broadcast((work, job, device))
        try:
            return work(_on_device(_led[0], device), job)
        except BaseException:
            # They are in the midst of it, and no longer listen: they notice when this process ends.
            _led.clear()
            raise
    with joined_group(device) as processes:
        return processes.broadcast(work(processes, job))


def _on_device(processes: Processes, device: str) -> Processes:
    from lowshot_kedro.training.group import device_here

    return Processes(processes.rank, processes.n_processes, device_here(device))


def _serve(processes: Processes) -> None:
    """Do what the first process says until it says that there is no more."""
    # A collective that waits for others would keep Python from noticing.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    logging.getLogger(_PACKAGE).setLevel(logging.WARNING)
    with shown_progress(False):
        while (told := _told(processes)) is not None:
            work, job, device = told
            try:
                work(_on_device(processes, device), job)
            except (InputError, OSError) as error:
                logger.error("process %d: %s", processes.rank, error)
                raise SystemExit(1) from error


def _told(processes: Processes) -> Any:
    try:
        return processes.broadcast(None)
    except RuntimeError as error:
        logger.error("process %d: the first process has ended (%s)", processes.rank, error)
        raise SystemExit(1) from error
