"""What processes do together in tests: functions of a module, which all of them find."""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import torch

from lowshot_kedro.errors import InputError
from lowshot_kedro.training.batch_norm import with_synchronized_batch_norm
from lowshot_kedro.training.processes import Processes

logger = logging.getLogger("lowshot_kedro.tests")


def whoami(processes: Processes, job: Any) -> tuple[int, int, str, Any]:
    return processes.rank, processes.n_processes, str(processes.device), job


def exchange(processes: Processes, job: Any) -> dict[str, Any]:
    """All that processes tell each other; what differs between them is gathered."""
    rank = processes.rank
    logger.info("told by %d", rank)
    logger.warning("warned by %d", rank)
    ours = torch.arange(2 * rank, dtype=torch.float64).reshape(rank, 2) + 10 * rank
    summed = processes.sum(torch.tensor([0.1, 0.2, 0.3]) * (rank + 1))
    processes.barrier()
    return {
        "rows": processes.gather(ours),
        "numbers": processes.gather(torch.tensor([rank] * (2 - rank))),
        "flags": processes.gather(torch.tensor([rank == 1])),
        "half": processes.gather(torch.full((1, 1), 1.5 + rank, dtype=torch.bfloat16)),
        "none": processes.gather(torch.empty(0, 3)),
        "sum": processes.gather(summed[None]),
        "any": [processes.any(False), processes.any(rank == 1)],
        "broadcast": processes.gather(torch.tensor([processes.broadcast(rank + 7)])),
        "threads": processes.gather(torch.tensor([torch.get_num_threads()])),
        "spawns": processes.gather(torch.tensor([multiprocessing.get_start_method() == "spawn"])),
    }


def forward_and_backward(
    network: torch.nn.Module, images: torch.Tensor, targets: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Two steps of a loss that is the sum over images, and what evaluation makes of them then."""
    images = images.clone().requires_grad_()
    network.train()
    for _ in range(2):
        outputs = network(images)
        (outputs * targets).sum().backward()
    network.eval()
    gradients = {f"d {name}": each.grad for name, each in network.named_parameters()}
    return {
        **gradients,
        "d images": images.grad,
        "outputs": outputs.detach(),
        "evaluated": network(images).detach(),
        **{name: each.detach().clone() for name, each in network.state_dict().items()},
    }


def normalize(processes: Processes, job: list[Any]) -> list[dict[str, torch.Tensor]]:
    """Forward and backward of networks, each process with its part of the images.

    Rows are gathered, gradients of weights are added up.
    """
    results = []
    for network, images, targets, parts in job:
        first, last = sum(parts[: processes.rank]), sum(parts[: processes.rank + 1])
        here = with_synchronized_batch_norm(network, processes)
        found = forward_and_backward(here, images[first:last], targets[first:last])
        for name, tensor in found.items():
            if name in ("d images", "outputs", "evaluated"):
                found[name] = processes.gather(tensor)
            elif name.startswith("d "):
                found[name] = processes.sum(tensor)
            else:
                assert not processes.any(not torch.equal(tensor, processes.broadcast(tensor)))
        results.append(found)
    return results


def everything(processes: Processes, job: tuple[Any, Path]) -> None:
    """As much as one start of processes can show, and then an error in one while others wait."""
    networks, path = job
    results = exchange(processes, None), normalize(processes, networks)
    if processes.is_first:
        torch.save(results, path)
    else:
        raise InputError(parameter="learning_rate", found=-1, expected="a number above 0")
    processes.barrier()


def kill_one(processes: Processes, job: Any) -> None:
    """Be killed in one process while the others wait for it."""
    if processes.rank == 1:
        os.kill(os.getpid(), 9)
    processes.barrier()


def fail(processes: Processes, error: Exception) -> None:
    raise error


def wait_long(processes: Processes, folder: Path) -> None:
    """Work, or wait in a collective, until somebody ends it."""
    written = folder / f"{processes.rank}.unfinished"
    written.write_text(str(os.getpid()))
    written.rename(folder / f"{processes.rank}.pid")
    if processes.is_first:
        time.sleep(600)
    processes.barrier()


def count_up(processes: Processes, job: tuple[Path, int]) -> int:
    """Count, one file after the other, from where an earlier attempt has got to."""
    folder, last = job
    n_attempts = len(list(folder.glob("attempt_*"))) if processes.is_first else 0
    if processes.is_first:
        (folder / f"attempt_{n_attempts}").touch()
    number = processes.broadcast(len(list(folder.glob("count_*"))))
    while number < last:
        time.sleep(0.05)
        total = int(processes.sum(torch.tensor(1)))
        if processes.is_first:
            (folder / f"count_{number}").write_text(str(total))
        number += 1
    return number


def leave_one(processes: Processes, job: Any) -> None:
    """Leave in one process while the others wait for it."""
    if processes.rank == 1:
        raise SystemExit(3)
    processes.barrier()
