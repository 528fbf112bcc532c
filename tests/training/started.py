"""Several processes for one test, forked from one that has imported all they need."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from lowshot_kedro.training.processes import Processes


def forking() -> Any:
    """What starts processes that have imported already what takes long."""
    context = multiprocessing.get_context("forkserver")
    # The second is imported by the first optimiser.
    context.set_forkserver_preload(["tests.training.making", "torch._dynamo", "torchvision"])
    return context


def in_processes(
    n_processes: int, work: Callable[[Processes, Any], Any], job: Any, folder: Path
) -> Any:
    """What the first of several processes returns.

    Args:
        n_processes: At least 2.
        work: A function of a module.
        job: What it is given besides the processes.
        folder: An empty one, for files of the processes.
    """
    folder.mkdir()
    context = forking()
    started = [
        context.Process(target=_work, args=(rank, n_processes, work, job, folder))
        for rank in range(n_processes)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0] * n_processes
    return torch.load(folder / "result", weights_only=False)


def _work(
    rank: int, n_processes: int, work: Callable[[Processes, Any], Any], job: Any, folder: Path
) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=n_processes)
    result = work(Processes(rank, n_processes, torch.device("cpu")), job)
    if rank == 0:
        torch.save(result, folder / "result")
    distributed.barrier()
    distributed.destroy_process_group()
