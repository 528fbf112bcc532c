"""Several processes of this machine, started by torch's own launcher and ended with this one."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection, wait
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from lowshot_kedro.child_processes import count_cores, environment, without_main_module
from lowshot_kedro.errors import InputError
from lowshot_kedro.training import stopping
from lowshot_kedro.training.group import do_part, error_file, raise_failure
from lowshot_kedro.training.processes import Job, Processes, ProcessOptions, Result
from lowshot_kedro.training.stopping import Handlers, StoppedBySignal

logger = logging.getLogger(__name__)

_PACKAGE = __name__.partition(".")[0]
_THREADS = "OMP_NUM_THREADS"
_SECONDS_BETWEEN_LOOKS = 0.1
_SECONDS_TO_END = 5
# The launcher looks ten times a second.
_SECONDS_TO_NOTICE = 1
# Signals that the launcher handles. Those that ask for an end are handled here.
_SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def run_on_this_machine(
    work: Callable[[Processes, Job], Result],
    job: Job,
    n_processes: int,
    options: ProcessOptions,
    reached: Callable[[], object] | None = None,
) -> Result:
    """Do a piece of work in several new processes.

    Each gets its share of the cores as threads, unless OMP_NUM_THREADS says how many. What they log
    goes to the log of this process: all of the first one, warnings of the others. They end when
    this process does, under Linux also if it is killed. A signal that asks this one for an end is
    passed on to them while they train, and otherwise ends all.

    When one of them is killed, the others end, and all begin again, as often as the options say.
    What a process raises is never tried again.

    Args:
        work: As for :func:`~lowshot_kedro.training.processes.run_in_processes`.
        job: Likewise.
        n_processes: At least 2.
        options: Likewise.
        reached: Likewise.

    Returns:
        What the first process returns.

    Raises:
        InputError: If that is what a process raised, or if one was killed.
        RuntimeError: If a process failed for another reason.
        KeyboardInterrupt: At Ctrl-C.
        StoppedBySignal: If the work has ended with that.
    """
    n_restarts, before = 0, None
    with _own_signals() as asked:
        while True:
            now = None if reached is None else reached()
            n_restarts, before = n_restarts if now == before else 0, now
            try:
                return _launch(work, job, n_processes, options.device, asked)
            except _Killed as killed:
                if n_restarts == options.max_restarts or not killed.is_tried_again or asked.number:
                    raise InputError(str(killed)) from None
                n_restarts += 1
                logger.warning(
                    "%s; all begin again with what is saved (restart %d of %d)",
                    killed,
                    n_restarts,
                    options.max_restarts,
                )


class _Killed(Exception):
    """One of the processes has ended without an error of its own.

    Args:
        rank: Which.
        n_processes: Of how many.
        status: What the system says of its end.
    """

    def __init__(self, rank: int, n_processes: int, status: int) -> None:
        super().__init__(f"process {rank} of {n_processes} {_end_of(status)}")
        # Ctrl-C is meant.
        self.is_tried_again = status < 0 and -status != signal.SIGINT


def _launch(
    work: Callable[[Processes, Job], Result],
    job: Job,
    n_processes: int,
    device: str,
    asked: _Asked,
) -> Result:
    """Start the processes once, and wait for their end."""
    threads = os.environ.get(_THREADS, str(max(1, count_cores() // n_processes)))
    logger.info("%d processes with %s threads each", n_processes, threads)
    level = logging.getLogger(_PACKAGE).getEffectiveLevel()
    with (
        TemporaryDirectory(prefix="lowshot-kedro-") as name,
        environment({_THREADS: threads}, restored=["TORCHELASTIC_SIGNALS_TO_HANDLE"]),
        without_main_module(),
        _silent_launcher(),
        _logged_here(n_processes) as logs,
    ):
        asked.folder = folder = Path(name)
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=n_processes,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=0,
            start_method="spawn",
            logs_specs=DefaultLogsSpecs(log_dir=name),
            signals_to_handle=",".join(number.name for number in _SIGNALS),
        )
        start_method = multiprocessing.get_start_method(allow_none=True)
        arguments = (pickle.dumps((work, job)), device, folder, logs, level, start_method)
        try:
            returned: dict[int, Any] = elastic_launch(config, _work_here)(*arguments)
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            killed = _Killed(rank, n_processes, failure.exitcode)
            if not error_file(folder, rank).exists():
                raise killed from None
            raise_failure(folder, n_processes, killed)
    result: Result = pickle.loads(returned[0])
    if isinstance(result, StoppedBySignal):
        asked.hand_on(result.number)
        raise result
    return result


def _work_here(
    call: bytes,
    device: str,
    folder: Path,
    logs: Sequence[Connection],
    level: int,
    start_method: str | None,
) -> bytes | None:
    """What each of the new processes does."""
    # A spawned process spawns: each worker of a loader would import torch, anew in every epoch.
    multiprocessing.set_start_method(start_method, force=True)
    # Ctrl-C sends it, and torch has Linux send it when the process ends that has started this one.
    # A collective that waits for others would keep Python from noticing.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # OpenMP allows a list, of which the first number is for threads that no others have started.
    torch.set_num_threads(int(os.environ[_THREADS].partition(",")[0]))
    stopping.follow(folder)
    rank = int(os.environ["RANK"])
    logging.getLogger().addHandler(_Sender(logs[rank]))
    logging.getLogger(_PACKAGE).setLevel(level if rank == 0 else max(level, logging.WARNING))
    try:
        return do_part(call, device, folder)
    except StoppedBySignal as stopped:
        # All of them end with it, each by itself.
        return pickle.dumps(stopped)
    except Exception:
        # The launcher names the first that ends. This one may have failed for want of another.
        time.sleep(_SECONDS_TO_NOTICE)
        raise
    except (KeyboardInterrupt, SystemExit) as error:
        # The launcher would take this process for done, and wait for its result for ever.
        raise RuntimeError(f"the work ended with {error!r}") from error


def _end_of(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    number = signal.Signals(-status)
    why = ", probably for want of memory" if number == signal.SIGKILL else ""
    return f"was killed by {number.name}{why}"


class _Asked:
    """What signals have asked of this process while others work for it.

    Attributes:
        folder: Of the processes that work; None: there are none yet.
        number: The signal that asks for an end; 0: none.
        handlers: Of such signals; None: they have been left alone.
    """

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.number = 0
        self.handlers: Handlers | None = None
        self._came = 0.0

    def take(self, number: int) -> None:
        """Pass a signal on to processes that can be stopped, and end others as the launcher does.

        Another one later ends them at once.
        """
        if self.number:
            if time.monotonic() - self._came > stopping.SECONDS_OF_ONE_REQUEST:
                raise SignalException("again", signal.SIGKILL)
            return
        self.number, self._came = number, time.monotonic()
        if self.folder is None or not stopping.tell_followers(self.folder, number):
            raise SignalException("nothing to be saved", signal.Signals(number))

    def hand_on(self, number: int) -> None:
        """Do what the signal would have led to, now that the processes have ended."""
        self.number = 0
        if self.handlers is not None:
            self.handlers.hand_on(number)


@contextmanager
def _own_signals() -> Iterator[_Asked]:
    """Take back the handlers of signals that the launcher replaces, and have them do their work.

    The launcher's raise an error, an ordinary one, that ends the new processes.

    Yields:
        What is asked by signals that the launcher leaves alone.
    """
    asked = _Asked()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    # None: what set it was not Python, which cannot put it back.
    handlers = {number: handler for number, handler in handlers.items() if handler is not None}
    come = 0
    asked.handlers = Handlers(asked.take)
    try:
        yield asked
        # The work has ended before it could be asked.
        come = asked.number
    except SignalException as error:
        come = asked.number or error.sigval
    finally:
        asked.handlers.restore()
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if come:
        signal.raise_signal(come)
        # Whatever handled it wants this process to go on.
        raise KeyboardInterrupt


@contextmanager
def _silent_launcher() -> Iterator[None]:
    """Keep what torch logs of processes that fail to itself: it is raised."""
    nothing = logging.NullHandler()
    names = ("torch.distributed.elastic", "torch.multiprocessing")
    before = {each: each.propagate for each in map(logging.getLogger, names)}
    for each in before:
        each.propagate = False
        each.addHandler(nothing)
    try:
        yield
    finally:
        for each, propagate in before.items():
            each.propagate = propagate
            each.removeHandler(nothing)


class _Sender(QueueHandler):
    """Sends what this process logs to the one that has started it."""

    def __init__(self, pipe: Connection) -> None:
        super().__init__(pipe)  # type: ignore[arg-type]
        self._pipe = pipe

    def enqueue(self, record: logging.LogRecord) -> None:
        """Send it; the end of a pipe that nobody reads is the end of this process, too."""
        with suppress(OSError):
            self._pipe.send(record)


@contextmanager
def _logged_here(n_processes: int) -> Iterator[list[Connection]]:
    """Log what other processes log, by the handlers of the same logger.

    They share no queue: its lock would stay locked when one of them is killed while it logs.

    Yields:
        Where each of them sends its records.
    """
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe(duplex=False) for _ in range(n_processes)]
    over = threading.Event()

    def relay() -> None:
        readers: list[Any] = [reader for reader, _ in pipes]
        while readers:
            ready: list[Any] = wait(readers, timeout=_SECONDS_BETWEEN_LOOKS)
            if not ready and over.is_set():
                return
            for reader in ready:
                try:
                    record = reader.recv()
                except (OSError, EOFError, pickle.UnpicklingError):
                    readers.remove(reader)
                else:
                    logging.getLogger(record.name).handle(record)

    thread = threading.Thread(target=relay, name="relayed-log", daemon=True)
    thread.start()
    try:
        yield [writer for _, writer in pipes]
    finally:
        over.set()
        for _, writer in pipes:
            writer.close()
        thread.join(_SECONDS_TO_END)
        for reader, _ in pipes:
            reader.close()
