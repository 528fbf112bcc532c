"""What one of several processes does: it joins the others, works, and leaves its error behind."""

from __future__ import annotations

import os
import pickle
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple, NoReturn

import torch
import torch.distributed

from lowshot_kedro.devices import choose_device
from lowshot_kedro.errors import InputError
from lowshot_kedro.training.processes import Processes

# The others wait while one of them computes features, or evaluates.
_LONGEST_WAIT = timedelta(days=7)


@contextmanager
def joined_group(device: str) -> Iterator[Processes]:
    """Be one of the processes that the environment variables of `torchrun` tell of.

    They are the default group of torch.distributed until this is left. Collectives of tensors on
    the CPU run by gloo, those of tensors on a GPU by NCCL where PyTorch finds one. Neither gives up
    within a week. After an error a group with NCCL is left to the end of the process, which the
    others notice, since it may wait for them when it is asked to close.

    Args:
        device: As for :func:`device_here`.
    """
    n_processes = int(os.environ["WORLD_SIZE"])
    here = device_here(device)
    if n_processes == 1:
        yield Processes(0, 1, here)
        return
    has_nccl = torch.cuda.is_available() and torch.distributed.is_nccl_available()
    backend = "cpu:gloo,cuda:nccl" if has_nccl else "gloo"
    torch.distributed.init_process_group(backend, timeout=_LONGEST_WAIT)
    try:
        yield Processes(int(os.environ["RANK"]), n_processes, here)
    except BaseException:
        if backend == "gloo":
            torch.distributed.destroy_process_group()
        raise
    torch.distributed.destroy_process_group()


def device_here(device: str) -> torch.device:
    """The device of this process: the CPU, or the GPU with its number, used from now on.

    Args:
        device: One of :data:`lowshot_kedro.devices.DEVICES`.

    Raises:
        InputError: If this machine has fewer GPUs than processes.
    """
    chosen = choose_device(device)
    if chosen.type != "cuda":
        return chosen
    number, n_gpus = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    if number >= n_gpus:
        raise InputError(
            f"and {number + 1} processes on a machine on which PyTorch finds {n_gpus} GPUs",
            parameter="device",
            found=device,
            expected="a GPU for every process, or device = cpu",
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def do_part(call: bytes, device: str, folder: Path) -> bytes | None:
    """Join the other processes and work with them.

    Args:
        call: The function and the job, pickled: what torch sends from process to process otherwise
            has its tensors in memory that all of them share.
        device: As for :func:`device_here`.
        folder: Where an error is left for :func:`raise_failure`.

    Returns:
        What the work returns in the first process, pickled; None in others.
    """
    rank = int(os.environ["RANK"])
    kept = error_file(folder, rank)
    kept.unlink(missing_ok=True)
    # Before the others notice that this process leaves, or cannot join them.
    with _failure_kept(kept, rank), joined_group(device) as processes, _failure_kept(kept, rank):
        work, job = pickle.loads(call)
        result = work(processes, job)
        return pickle.dumps(result) if processes.is_first else None


def error_file(folder: Path, rank: int) -> Path:
    """Where a process leaves its error."""
    return folder / f"error_{rank}.pickle"


@contextmanager
def _failure_kept(path: Path, rank: int) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not path.exists():
            _Failure(time.time(), rank, _sendable(error), traceback.format_exc()).write(path)
        raise


class _Failure(NamedTuple):
    """What went wrong in one process.

    Attributes:
        time: When, in seconds since the epoch.
        rank: In which process.
        error: The error, if it is about an input or a file and can be sent.
        text: Its traceback.
    """

    time: float
    rank: int
    error: InputError | OSError | None
    text: str

    def write(self, path: Path) -> None:
        """Write it whole or not at all: the process may be ended meanwhile."""
        unfinished = path.with_name(f".partial-{path.name}")
        unfinished.write_bytes(pickle.dumps(self))
        unfinished.replace(path)


def _sendable(error: Exception) -> InputError | OSError | None:
    if not isinstance(error, InputError | OSError):
        return None
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return None
    return error


def raise_failure(folder: Path, n_processes: int, otherwise: Exception) -> NoReturn:
    """Raise the error that made several processes fail.

    When one process ends, the others fail because it is gone. So an error about an input counts
    before others, and what came first before what came later.

    Args:
        folder: Where they have left their errors.
        n_processes: How many they were.
        otherwise: Raised if none of them has left an error, as when it was killed.

    Raises:
        InputError: If that is what one of them raised.
        OSError: If the first of them raised it.
        RuntimeError: With the traceback of the first.
    """
    failures: list[_Failure] = [
        pickle.loads(path.read_bytes()) for path in folder.glob("error_*.pickle")
    ]
    if not failures:
        raise otherwise
    first = min(failures, key=lambda each: (not isinstance(each.error, InputError), each.time))
    told = RuntimeError(f"process {first.rank} of {n_processes} failed:\n{first.text}")
    if first.error is None:
        raise told from None
    raise first.error from told
