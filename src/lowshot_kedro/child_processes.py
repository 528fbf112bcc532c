"""What processes that this one starts get from it: cores, environment, and no program to import."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

_MAX_WORKERS = 16


def count_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def choose_num_workers(num_workers: int | None) -> int:
    """How many processes decode images: None means one for every core, 16 at most.

    Processes of torch.distributed on one machine share its cores.
    """
    if num_workers is not None:
        return num_workers
    cores = int(os.environ.get("SLURM_CPUS_PER_TASK", "0"))
    if not cores:
        cores = count_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(max(cores, 1), _MAX_WORKERS)


def leave_signals_to_parent(_: int) -> None:
    """Let a worker of a loader outlive signals that are meant for whoever has started it.

    A signal to all processes of a job reaches workers too, which are needed until the training has
    saved. Its own parent ends a worker by SIGTERM as before.

    Args:
        _: Number of the worker, as loaders give it.
    """
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):
        return
    # Other threads may get it still.
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    threading.Thread(target=_end_when_told, name="signals", daemon=True).start()


def _end_when_told() -> None:
    parent = multiprocessing.parent_process()
    while parent is not None and signal.sigwaitinfo([signal.SIGTERM]).si_pid != parent.pid:
        pass
    os._exit(0)


@contextmanager
def environment(variables: Mapping[str, str], restored: Sequence[str] = ()) -> Iterator[None]:
    """Set environment variables for processes started meanwhile.

    Args:
        variables: Name and value.
        restored: Names of others that somebody else sets meanwhile.
    """
    names = (*variables, *restored)
    before = {name: os.environ[name] for name in names if name in os.environ}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in names:
            os.environ.pop(name, None)
        os.environ.update(before)


@contextmanager
def without_main_module() -> Iterator[None]:
    """Keep processes started meanwhile from importing the program that this one runs.

    They need nothing of it, and `kedro` would take time and memory, and set up their logs.
    """
    main = sys.modules["__main__"]
    spec, file = main.__spec__, main.__dict__.pop("__file__", None)
    main.__spec__ = None
    try:
        yield
    finally:
        main.__spec__ = spec
        if file is not None:
            main.__file__ = file
