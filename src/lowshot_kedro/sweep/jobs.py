"""Independent jobs side by side, by Dask: in processes of this machine, or on a cluster.

A worker gets a job when it has nothing else to do, never a queue of them, so that a worker that
dies takes with it only what it was doing. Dask is imported when jobs are run by it, and not before.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import math
import os
import queue
import re
import shlex
import shutil
import signal
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import (
    AbstractContextManager,
    ExitStack,
    closing,
    contextmanager,
    nullcontext,
    suppress,
)
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from lowshot_kedro.child_processes import count_cores, environment, without_main_module
from lowshot_kedro.errors import InputError, in_one_line
from lowshot_kedro.extras import needed_by, require
from lowshot_kedro.memory import available_bytes, format_bytes, recent_peak_rss_bytes, restart_peak
from lowshot_kedro.progress import Progress, Stopwatch, shown_progress

if TYPE_CHECKING:
    from distributed import Client, Future

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

JOB_QUEUES = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "sge": "SGECluster",
    "lsf": "LSFCluster",
    "htcondor": "HTCondorCluster",
    "oar": "OARCluster",
    "moab": "MoabCluster",
}
MAX_AUTOMATIC_CLUSTER_JOBS = 10

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_LOG_VARIABLE = "DASK_LOGGING__DISTRIBUTED"
_PART_OF_FREE_MEMORY = 0.8
# We count the deaths of a worker; what the scheduler shows browsers stays on this machine.
_SCHEDULER_OPTIONS = {
    "allowed_failures": 0,
    "dashboard": False,
    "dashboard_address": "127.0.0.1:0",
}
_SECONDS_TO_CONNECT = 10
_SECONDS_TO_STOP = 1
_SECONDS_BETWEEN_LOOKS = 1
_SECONDS_BETWEEN_LINES = 10
_SECONDS_BETWEEN_COMPLAINTS = 300
_SECONDS_WITHOUT_LOCAL_WORKERS = 120


@dataclass(frozen=True)
class Job(Generic[Result]):
    """A function to be called in some process.

    Attributes:
        name: For the log and for errors: `diffusion/test/nl2/nbg1000000/k30/seed1`.
        function: A function of a module, so that other processes find it.
        arguments: Its arguments, small: names of files rather than what is in them.
        memory_bytes: What its process takes at most, with all that is imported.
        n_runs: How many runs it does, for the progress.
    """

    name: str
    function: Callable[..., Result]
    arguments: tuple[Any, ...]
    memory_bytes: int
    n_runs: int = 1


@dataclass(frozen=True)
class Workers:
    """The processes that run jobs: the parameters `sweep.scheduler`, `sweep.cluster` and so on.

    Attributes:
        scheduler: `local`: processes of this machine; the address of a Dask scheduler, such as
            `tcp://host:8786`, whose workers can import this package; or one of
            :data:`JOB_QUEUES`.
        cluster: Arguments of the class of dask_jobqueue: queue, cores, memory, walltime, … One job
            of the queue is one worker with all its cores, unless `processes` says otherwise.
        n_workers: Processes of this machine, or jobs of the queue. `auto`: as many processes as
            there are cores, runs, and room for in the memory; or as many jobs of the queue as
            there are runs, at most :data:`MAX_AUTOMATIC_CLUSTER_JOBS`. 0: no processes, one run
            after the other in this one. Without meaning for an address.
        memory_budget_bytes: For all processes of this machine together; None: 80 % of what is
            free. Without meaning elsewhere.
        is_kept: Whether processes of this machine wait for more jobs when theirs are done, until
            :func:`close_idle_workers` or the end of this process: what they have imported and
            opened is there for the next.
        max_tries: How often a run is tried whose worker dies. A scheduler at an address tries
            `distributed.scheduler.allowed-failures` + 1 times before this counts them.
    """

    scheduler: str = "local"
    cluster: Mapping[str, Any] = field(default_factory=dict)
    n_workers: int | str = "auto"
    memory_budget_bytes: int | None = None
    max_tries: int = 3
    is_kept: bool = False


@dataclass(frozen=True)
class _Outcome(Generic[Result]):
    """What a job returned, and what that took."""

    result: Result
    seconds: float
    peak_rss_bytes: int


@dataclass(frozen=True)
class _Engine:
    """Workers that can be given jobs.

    Attributes:
        client: Client of their scheduler.
        place: The machine or cluster that they are on, for messages.
        advice: Why a worker dies that dies again and again, and what helps.
        budget_bytes: For all jobs that run at a time.
        max_seconds_without_workers: Seconds without workers after which the run gives up.
        replace_lost: Called with the number of unfinished jobs about once a second. It waits for
            nobody.
    """

    client: Client
    place: str
    advice: str
    budget_bytes: float = math.inf
    max_seconds_without_workers: float = math.inf
    replace_lost: Callable[[int], None] = lambda n_unfinished: None


def check_workers(workers: Workers) -> None:
    """Refuse workers that cannot be had, before there is work for them.

    An address is called, and a job queue's arguments are tried without submitting anything.

    Raises:
        InputError: Naming the parameter of `sweep` that cannot be used.
    """
    if workers.n_workers != 0:
        require("distributed", f"sweep.n_workers = {workers.n_workers}")
    if workers.scheduler == "local":
        return
    is_address = _is_address(workers.scheduler)
    if not is_address and workers.scheduler not in JOB_QUEUES:
        raise InputError(
            f"sweep.scheduler: got {workers.scheduler!r}, expected local, an address such as "
            f"tcp://host:8786, or one of: {', '.join(JOB_QUEUES)}"
        )
    if workers.n_workers == 0:
        raise InputError(
            "sweep.n_workers: got 0, which is one run after the other in this process; expected "
            f"at least 1 with sweep.scheduler = {workers.scheduler}"
        )
    with _quiet_dask():
        if is_address:
            _connect(workers.scheduler).close()
        else:
            with _open_job_queue(workers):
                pass


def run_jobs(
    jobs: Sequence[Job[Result]], workers: Workers, description: str = "runs"
) -> Generator[tuple[Job[Result], Result], None, None]:
    """Call the functions of all jobs, as many at a time as the workers allow.

    In processes of this machine the biggest jobs begin, and the `memory_bytes` of all that run
    stay within the budget; a job that needs more than that runs alone. A job whose worker dies is
    tried again. When a job fails, the others are done nevertheless.

    Whoever stops iterating, closes the generator or interrupts it stops what is running, except at
    an address, whose workers finish what they have begun.

    Args:
        jobs: Independent of each other. What they return is in the memory of this process when
            its turn comes, and no longer kept by the workers.
        workers: Workers that :func:`check_workers` accepts.
        description: Name of all jobs together, for the progress bar.

    Yields:
        Each job and what it returned, as soon as it is done, in any order.

    Raises:
        InputError: At the end, if jobs failed because of their input, a file, or workers that
            died; at the start, if the workers cannot be had.
        RuntimeError: At the end, if a job failed for any other reason, which is its cause.
        ConnectionError: If the scheduler goes away.
    """
    if not jobs:
        return
    failures: list[tuple[str, Exception]] = []
    outcomes = _run_here(jobs) if workers.n_workers == 0 else _run_elsewhere(jobs, workers)
    progress = Progress(
        sum(job.n_runs for job in jobs),
        description,
        unit="run",
        seconds_between_lines=_SECONDS_BETWEEN_LINES,
    )
    with progress, closing(outcomes):
        for job, outcome in outcomes:
            progress.update(job.n_runs)
            if isinstance(outcome, Exception):
                logger.error("%s failed: %s", job.name, _in_one_line(outcome))
                failures.append((job.name, outcome))
                continue
            peak = format_bytes(outcome.peak_rss_bytes)
            logger.debug("%s: %.1f s, peak memory %s", job.name, outcome.seconds, peak)
            yield job, outcome.result
    if failures:
        _raise_failures(failures, len(jobs))


def _is_address(scheduler: str) -> bool:
    return "://" in scheduler or re.fullmatch(r".+:\d+", scheduler) is not None


def _in_one_line(error: BaseException) -> str:
    return in_one_line(error) or type(error).__name__


def _raise_failures(failures: Sequence[tuple[str, Exception]], n_jobs: int) -> None:
    summary = InputError(f"{len(failures)} of {n_jobs} runs failed", details=dict(failures))
    defects = [error for _, error in failures if not isinstance(error, InputError | OSError)]
    if defects:
        raise RuntimeError(str(summary)) from defects[0]
    raise summary from failures[0][1]


def _measured(function: Callable[..., Result], arguments: tuple[Any, ...]) -> _Outcome[Result]:
    restart_peak()
    watch = Stopwatch()
    result = function(*arguments)
    return _Outcome(result, watch.seconds, recent_peak_rss_bytes())


def _measured_quietly(
    function: Callable[..., Result], arguments: tuple[Any, ...]
) -> _Outcome[Result]:
    """Call a function with its log silent but for warnings: hundreds of runs would fill it."""
    package = logging.getLogger("lowshot_kedro")
    level = package.level
    package.setLevel(logging.WARNING)
    try:
        with shown_progress(False):
            return _measured(function, arguments)
    finally:
        package.setLevel(level)


def _run_here(
    jobs: Sequence[Job[Result]],
) -> Generator[tuple[Job[Result], _Outcome[Result] | Exception], None, None]:
    for job in jobs:
        outcome: _Outcome[Result] | Exception
        try:
            outcome = _measured_quietly(job.function, job.arguments)
        except Exception as error:
            outcome = error
        yield job, outcome


def _run_elsewhere(
    jobs: Sequence[Job[Result]], workers: Workers
) -> Generator[tuple[Job[Result], _Outcome[Result] | Exception], None, None]:
    with _quiet_dask(), _open_engine(jobs, workers) as engine:
        yield from _run_by(engine, jobs, workers.max_tries)


def _run_by(
    engine: _Engine, jobs: Sequence[Job[Result]], max_tries: int
) -> Generator[tuple[Job[Result], _Outcome[Result] | Exception], None, None]:
    """Hand out jobs, biggest first, and yield what comes back."""
    from distributed.scheduler import KilledWorker

    waiting = list(range(len(jobs)))
    running: dict[Any, tuple[int, Future[_Outcome[Result]]]] = {}
    finished: queue.SimpleQueue[Any] = queue.SimpleQueue()
    n_tries: Counter[int] = Counter()
    ready: list[tuple[Job[Result], _Outcome[Result] | Exception]] = []
    patience = _Patience(engine)
    looked = Stopwatch()

    while waiting or running or ready:
        if looked.seconds >= _SECONDS_BETWEEN_LOOKS:
            looked = Stopwatch()
            engine.replace_lost(len(waiting) + len(running))
        n_slots = _count_slots(engine)
        patience.look(n_slots)
        waiting.sort(key=lambda number: -jobs[number].memory_bytes)
        sizes = [jobs[number].memory_bytes for number, _ in running.values()]
        for number in _admit(jobs, waiting, sizes, n_slots, engine.budget_bytes):
            waiting.remove(number)
            future = _submit(engine.client, jobs[number], finished)
            running[future.key] = number, future
        # Only now, so that no worker waits for whoever takes the results.
        if ready:
            yield ready.pop()
            continue
        try:
            key = finished.get(timeout=_SECONDS_BETWEEN_LOOKS)
        except queue.Empty:
            continue
        number, future = running[key]
        if future.status in ("pending", "lost") and engine.client.status == "running":
            # Its worker died after the run and before we had the result: it is made again.
            _tell_when_done(future, finished)
            continue
        del running[key]
        outcome = _take(future, engine)
        if isinstance(outcome, KilledWorker):
            n_tries[number] += outcome.allowed_failures + 1
            if n_tries[number] < max_tries:
                logger.warning(
                    "%s: its worker died; the run is tried again (try %d of %d)",
                    jobs[number].name,
                    n_tries[number] + 1,
                    max_tries,
                )
                waiting.append(number)
                continue
            outcome = InputError(f"its worker died {n_tries[number]} times, {engine.advice}")
        ready.append((jobs[number], outcome))


class _Patience:
    """Tells that there are no workers, now and then, and gives up those that should be there."""

    def __init__(self, engine: _Engine) -> None:
        self._engine = engine
        self._alone: Stopwatch | None = None
        self._complain_at = 0.0

    def look(self, n_slots: int) -> None:
        """Take note of how many jobs can run at a time, and give up if that has long been none.

        Raises:
            InputError: If the workers have been away for too long.
        """
        if n_slots:
            self._alone = None
            return
        if self._alone is None:
            self._alone, self._complain_at = Stopwatch(), 0.0
        if self._alone.seconds >= self._engine.max_seconds_without_workers:
            raise InputError(
                f"{self._engine.place}: all worker processes died, and none starts, "
                f"{self._engine.advice}"
            )
        if self._alone.seconds >= self._complain_at:
            self._complain_at += _SECONDS_BETWEEN_COMPLAINTS
            logger.info("%s has no workers at the moment: waiting for them", self._engine.place)


def _admit(
    jobs: Sequence[Job[Any]],
    waiting: Sequence[int],
    running_bytes: Sequence[int],
    n_slots: int,
    budget_bytes: float,
) -> list[int]:
    """Which of the waiting jobs begin now: the first that fit, or one that never fits, alone."""
    admitted: list[int] = []
    n_running, used_bytes = len(running_bytes), sum(running_bytes)
    for number in waiting:
        if n_running >= n_slots:
            break
        size = jobs[number].memory_bytes
        if n_running and used_bytes + size > budget_bytes:
            continue
        if size > budget_bytes:
            logger.info(
                "%s takes about %s, more than sweep.memory_budget_gb, %s: it runs alone",
                jobs[number].name,
                format_bytes(size),
                format_bytes(budget_bytes),
            )
        admitted.append(number)
        n_running += 1
        used_bytes += size
    return admitted


def _count_slots(engine: _Engine) -> int:
    """How many jobs the workers that are there can run at a time."""
    try:
        return sum(engine.client.nthreads().values())
    except (OSError, AttributeError) as error:
        raise _gone(engine) from error


def _gone(engine: _Engine) -> ConnectionError:
    return ConnectionError(f"{engine.place} went away; start again to do the runs that are left")


def _submit(
    client: Client, job: Job[Result], finished: queue.SimpleQueue[Any]
) -> Future[_Outcome[Result]]:
    future = client.submit(
        _measured_quietly,
        job.function,
        job.arguments,
        key=f"{job.name}-{uuid.uuid4().hex}",
        pure=False,
    )
    _tell_when_done(future, finished)
    return future


def _tell_when_done(future: Future[_Outcome[Result]], finished: queue.SimpleQueue[Any]) -> None:
    future.add_done_callback(lambda done: finished.put(done.key))


def _take(future: Future[_Outcome[Result]], engine: _Engine) -> _Outcome[Result] | Exception:
    """Get what a job returned, or its error, which is then no longer kept elsewhere."""
    if future.status not in ("finished", "error"):
        raise _gone(engine)
    try:
        return future.result()
    except Exception as error:
        return error
    finally:
        future.release()


@contextmanager
def _open_engine(jobs: Sequence[Job[Any]], workers: Workers) -> Iterator[_Engine]:
    if workers.scheduler == "local":
        engine = _open_local_engine(jobs, workers)
    elif _is_address(workers.scheduler):
        engine = _open_distant_engine(workers.scheduler)
    else:
        engine = _open_job_queue_engine(jobs, workers)
    with engine as opened:
        yield opened


@contextmanager
def _open_local_engine(jobs: Sequence[Job[Any]], workers: Workers) -> Iterator[_Engine]:
    budget = workers.memory_budget_bytes
    if budget is None:
        budget = int(_PART_OF_FREE_MEMORY * available_bytes())
    n_cores = count_cores()
    if isinstance(workers.n_workers, int):
        n_workers = min(workers.n_workers, len(jobs))
    else:
        n_workers = min(n_cores, _count_fitting(jobs, budget))
    n_threads = max(1, n_cores // n_workers)
    processes = _idle_processes(n_workers, n_threads)
    if processes is None:
        logger.info(
            "%d worker process%s with %d thread%s each, %s for all runs at a time",
            n_workers,
            "" if n_workers == 1 else "es",
            n_threads,
            "" if n_threads == 1 else "s",
            format_bytes(budget),
        )
        processes = _start_processes(n_workers, n_threads)
    try:
        yield _Engine(
            processes.client,
            "this machine",
            "probably for want of memory; lower sweep.memory_budget_gb, or set sweep.n_workers = 1",
            budget,
            max_seconds_without_workers=_SECONDS_WITHOUT_LOCAL_WORKERS,
            replace_lost=lambda n_unfinished: processes.tended.look(),
        )
    except BaseException:
        processes.opened.close()
        raise
    if workers.is_kept:
        _idle.append(processes)
    else:
        processes.opened.close()


class _Processes(NamedTuple):
    """Worker processes of this machine.

    Attributes:
        n_workers: How many processes there are.
        n_threads: How many threads each has.
        client: Client of their scheduler.
        tended: Replaces them.
        opened: Closes them.
    """

    n_workers: int
    n_threads: int
    client: Client
    tended: _TendedCluster
    opened: ExitStack


# The processes that wait for the next jobs: at most one set.
_idle: list[_Processes] = []


def close_idle_workers() -> None:
    """End the processes that wait for more jobs because :attr:`Workers.is_kept` is true."""
    while _idle:
        _idle.pop().opened.close()


def _idle_processes(n_workers: int, n_threads: int) -> _Processes | None:
    """Processes that are there already; others that wait are ended."""
    if _idle and _idle[0][:2] == (n_workers, n_threads):
        return _idle.pop()
    close_idle_workers()
    return None


def _start_processes(n_workers: int, n_threads: int) -> _Processes:
    import dask
    from distributed import Client, LocalCluster

    variables = dict.fromkeys(_THREAD_VARIABLES, str(n_threads))
    variables[_LOG_VARIABLE] = os.environ.get(_LOG_VARIABLE, "critical")
    # Dask's own settings of malloc in the workers cost time and are not needed here. Nor is a
    # worker dead that gives no sign of life while it computes: its process is watched.
    settings: dict[str, Any] = {
        "distributed.nanny.pre-spawn-environ": {},
        "distributed.scheduler.worker-ttl": None,
    }
    with ExitStack() as opened:
        opened.enter_context(_quiet_dask())
        # For as long as they live: one that dies is replaced by another.
        opened.enter_context(environment(variables, restored=["PYTHONHASHSEED"]))
        opened.enter_context(without_main_module())
        with dask.config.set(settings):
            with _interrupts_held_back():
                cluster = LocalCluster(
                    n_workers=0,
                    threads_per_worker=1,
                    processes=True,
                    # Files that are mapped into memory would count, and runs be killed for them.
                    memory_limit=0,
                    scheduler_kwargs=_SCHEDULER_OPTIONS,
                )
                tended = _TendedCluster(cluster, n_workers)
                opened.callback(tended.close)
            tended.start()
        client = opened.enter_context(Client(cluster, set_as_default=False))
        return _Processes(n_workers, n_threads, client, tended, opened.pop_all())


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Keep Ctrl-C from threads that begin meanwhile, and from all processes that they start.

    The terminal sends it to all. The main thread gets it afterwards, and ends the others.
    """
    # It lets interrupts through when it begins, in whatever thread needs it first.
    resource_tracker.ensure_running()
    # A blocked signal goes to another thread, and Python tells the main thread of it all the same.
    come: list[int] = []
    handler = None
    if threading.current_thread() is threading.main_thread():
        handler = signal.getsignal(signal.SIGINT)
    if handler is not None:
        signal.signal(signal.SIGINT, lambda number, frame: come.append(number))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if handler is not None:
            signal.signal(signal.SIGINT, handler)
        if come:
            signal.raise_signal(come[0])


class _TendedCluster:
    """Worker processes of this machine, as many as there should be.

    Dask starts a process again that dies at work. A process that dies while it starts is given up,
    and with it the whole cluster where it is among the first.

    Args:
        cluster: A cluster of Dask, without workers yet.
        n_workers: How many there should be.
    """

    def __init__(self, cluster: Any, n_workers: int) -> None:
        self._cluster = cluster
        self._n_workers = n_workers
        self._starting: concurrent.futures.Future[None] | None = None

    def start(self) -> None:
        """Start all of them, and wait until each is there or has died."""
        self.look()
        self._wait()

    def look(self) -> None:
        """Start those that are missing, and wait for nothing."""
        if self._starting is None or self._starting.done():
            loop = self._cluster.loop.asyncio_loop
            self._starting = asyncio.run_coroutine_threadsafe(self._start_missing(), loop)

    def close(self) -> None:
        """End them, those that are busy too, and their scheduler."""
        self._n_workers = 0
        # Dask loses sight of those that nobody waits for any more.
        self._wait(_SECONDS_TO_CONNECT)
        with suppress(Exception):  # All of them end with this process at the latest.
            self._cluster.sync(self._stop)
            self._cluster.close()

    def _wait(self, seconds: float | None = None) -> None:
        if self._starting is not None:
            concurrent.futures.wait([self._starting], seconds)

    async def _start_missing(self) -> None:
        cluster = self._cluster
        self._forget_dead()
        while len(cluster.worker_spec) < self._n_workers:
            cluster.worker_spec.update(cluster.new_worker_spec())
        if set(cluster.worker_spec) - set(cluster.workers):
            with suppress(Exception):  # The next look replaces those that died.
                await cluster._correct_state()
            # Whoever awaits the cluster would complain of them once more.
            self._forget_dead()

    def _forget_dead(self) -> None:
        from distributed import Status

        for name, worker in list(self._cluster.workers.items()):
            if worker.status in (Status.closed, Status.failed):
                del self._cluster.workers[name]
                self._cluster.worker_spec.pop(name, None)

    async def _stop(self) -> None:
        # A cluster that is closed waits longer for workers that are busy.
        stops = (
            worker.close(timeout=_SECONDS_TO_STOP) for worker in self._cluster.workers.values()
        )
        await asyncio.gather(*stops, return_exceptions=True)


def _count_fitting(jobs: Sequence[Job[Any]], budget_bytes: int) -> int:
    """How many jobs can run at a time at most, one at least."""
    n_fitting = taken = 0
    for size in sorted(job.memory_bytes for job in jobs):
        taken += size
        if taken > budget_bytes:
            break
        n_fitting += 1
    return max(1, n_fitting)


@contextmanager
def _open_distant_engine(address: str) -> Iterator[_Engine]:
    with _connect(address) as client:
        yield _Engine(client, f"the scheduler at {address}", "probably for want of memory")


def _connect(address: str) -> Client:
    from distributed import Client

    try:
        return Client(address, timeout=_SECONDS_TO_CONNECT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"sweep.scheduler: no Dask scheduler answers at {address!r} ({_in_one_line(error)})"
        ) from error


@contextmanager
def _open_job_queue_engine(jobs: Sequence[Job[Any]], workers: Workers) -> Iterator[_Engine]:
    from distributed import Client

    _require_memory(jobs, workers)
    with _open_job_queue(workers) as cluster:
        n_jobs = workers.n_workers
        if not isinstance(n_jobs, int):
            n_jobs = min(len(jobs), MAX_AUTOMATIC_CLUSTER_JOBS)
        with Client(cluster, set_as_default=False) as client:
            try:
                cluster.sync(_submit_to_queue, cluster, n_jobs)
            except RuntimeError as error:
                raise InputError(f"sweep.cluster: {_in_one_line(error)}") from error

            def replace_lost(n_unfinished: int) -> None:
                # Dask forgets a job of the queue some seconds after it ended, as at its time limit.
                if len(cluster.workers) < n_jobs and len(client.nthreads()) < n_unfinished:
                    try:
                        cluster.sync(_submit_to_queue, cluster, n_jobs)
                    except RuntimeError as error:
                        logger.warning("no new worker: %s", _in_one_line(error))

            yield _Engine(
                client,
                f"the queue {workers.scheduler}",
                "probably for want of memory or time; raise memory or walltime in sweep.cluster",
                replace_lost=replace_lost,
            )


async def _submit_to_queue(cluster: Any, n_jobs: int) -> None:
    from distributed import Status

    # As its method scale, which tells nobody when the queue refuses a job.
    while len(cluster.worker_spec) < n_jobs:
        cluster.worker_spec.update(cluster.new_worker_spec())
    try:
        await cluster
    except RuntimeError:
        for job in cluster.workers.values():
            if job.job_id is None:
                job.status = Status.failed
        raise


@contextmanager
def _open_job_queue(workers: Workers) -> Iterator[Any]:
    """Start a scheduler in this process that can ask the queue for workers, but has none yet."""
    with needed_by(f"sweep.scheduler = {workers.scheduler}"):
        import dask_jobqueue

    cluster_class = getattr(dask_jobqueue, JOB_QUEUES[workers.scheduler])
    command = shlex.split(cluster_class.job_cls.submit_command)[0]
    if shutil.which(command) is None:
        raise InputError(
            f"sweep.scheduler: got {workers.scheduler!r}, but there is no command {command} here"
        )
    if "n_workers" in workers.cluster:
        raise InputError("sweep.cluster.n_workers: unknown; use sweep.n_workers")
    try:
        cluster = cluster_class(**_job_queue_arguments(workers))
    except (TypeError, ValueError, RuntimeError, OSError) as error:
        reason = _in_one_line(error)
        raise InputError(f"sweep.cluster: refused by {cluster_class.__name__}: {reason}") from error
    try:
        yield cluster
    finally:
        cluster.close()


def _job_queue_arguments(workers: Workers) -> dict[str, Any]:
    """`sweep.cluster`, so that a worker has one run at a time, and all its cores for it."""
    n_processes = int(_job_queue_argument(workers, "processes", 1))
    n_threads = max(1, int(_job_queue_argument(workers, "cores", 1)) // n_processes)
    exports = [f"export {variable}={n_threads}" for variable in _THREAD_VARIABLES]
    options = ["--nthreads", "1", "--memory-limit", "0"]
    scheduler_options = _job_queue_argument(workers, "scheduler_options", {})
    return {
        **workers.cluster,
        "processes": n_processes,
        "worker_extra_args": options + list(_job_queue_argument(workers, "worker_extra_args", [])),
        "job_script_prologue": exports
        + list(_job_queue_argument(workers, "job_script_prologue", [])),
        "scheduler_options": _SCHEDULER_OPTIONS | scheduler_options,
    }


def _job_queue_argument(workers: Workers, name: str, default: Any) -> Any:
    """What `sweep.cluster`, else a person's own settings of Dask, say."""
    import dask

    name_of_setting = f"jobqueue.{workers.scheduler}.{name.replace('_', '-')}"
    value = workers.cluster.get(name, dask.config.get(name_of_setting, None))
    return default if value is None else value


def _require_memory(jobs: Sequence[Job[Any]], workers: Workers) -> None:
    from dask.utils import parse_bytes

    memory = _job_queue_argument(workers, "memory", None)
    if memory is None:
        return
    allowed = parse_bytes(memory) / int(_job_queue_argument(workers, "processes", 1))
    largest = max(jobs, key=lambda job: job.memory_bytes)
    if largest.memory_bytes > allowed:
        raise InputError(
            f"sweep.cluster.memory: {format_bytes(allowed)} for each process, but {largest.name} "
            f"takes about {format_bytes(largest.memory_bytes)}"
        )


class _QuietDask:
    """Keeps what Dask logs in this process from the terminal, however many ask for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_users = 0
        self._levels: dict[logging.Logger, int] = {}

    def __enter__(self) -> None:
        with self._lock:
            self._n_users += 1
            if self._n_users == 1:
                self._silence()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._n_users -= 1
            if self._n_users == 0:
                for each, level in self._levels.items():
                    each.setLevel(level)

    def _silence(self) -> None:
        import distributed  # noqa: F401  sets the levels of its loggers

        names = [f"distributed{name}" for name in ("", ".client", ".gc")]
        self._levels = {logging.getLogger(name): logging.getLogger(name).level for name in names}
        for each in self._levels:
            each.setLevel(logging.CRITICAL)


_quietened = _QuietDask()


def _quiet_dask() -> AbstractContextManager[None]:
    """Keep what Dask logs in this process from the terminal, unless it is asked for."""
    return nullcontext() if _LOG_VARIABLE in os.environ else _quietened
