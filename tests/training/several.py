"""What processes do together in tests: functions of a module, which all of them find."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lowshot_kedro.errors import InputError
from lowshot_kedro.training import stopping
from lowshot_kedro.training.batch_norm import with_synchronized_batch_norm
from lowshot_kedro.training.batches import LearntBatch
from lowshot_kedro.training.checkpoints import Checkpoints
from lowshot_kedro.training.loop import Objective, train
from lowshot_kedro.training.processes import Processes
from lowshot_kedro.training.stopping import StoppedBySignal
from tests.other_processes import wait_for
from tests.training.making import MadeImages, network, parameters

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
    for given, images, targets, parts in job:
        first, last = sum(parts[: processes.rank]), sum(parts[: processes.rank + 1])
        here = with_synchronized_batch_norm(given, processes)
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
    """Count, one file after the other, from where an earlier attempt was when it was stopped."""
    folder, last = job
    n_attempts = len(list(folder.glob("attempt_*"))) if processes.is_first else 0
    saved = folder / "saved"
    number = processes.broadcast(int(saved.read_text()) if saved.exists() else 0)
    if processes.is_first:
        (folder / f"attempt_{n_attempts}").write_text(str(number))
    with stopping.stoppable():
        while number < last:
            time.sleep(0.05)
            total = int(processes.sum(torch.tensor(1)))
            if processes.is_first:
                with (folder / f"count_{number}").open("a") as file:
                    file.write(str(total))
            number += 1
            if stopping.is_wanted(processes):
                if processes.is_first:
                    saved.write_text(str(number))
                stopping.stop_if_wanted(processes, f"{number} of {last}")
    return number


def leave_one(processes: Processes, job: Any) -> None:
    """Leave in one process while the others wait for it."""
    if processes.rank == 1:
        raise SystemExit(3)
    processes.barrier()


class _Fit(Objective):
    """Drawn towards a target for each image; something happens before one of the batches."""

    def __init__(self, processes: Processes, at: int, happens: Callable[[], None]) -> None:
        self._processes, self._at, self._happens = processes, at, happens

    def __call__(self, outputs: torch.Tensor, batch: LearntBatch) -> torch.Tensor:
        self._at -= 1
        if self._at == 0:
            self._happens()
        index = batch.numbers
        targets = torch.stack([index, index**2], dim=1) / 100
        share = self._processes.n_processes / BATCH_SIZE
        ours = ((outputs - targets) ** 2).sum() * share
        mean = self._processes.sum(ours.detach()) / self._processes.n_processes
        return ours + (mean - ours.detach())


BATCH_SIZE = 4


def train_to_ends(processes: Processes, folder: Path) -> None:
    """One training by itself, and the same again: with a kill, with signals.

    A signal reaches one process alone; the last one reaches the process that has started them.
    """
    rank = processes.rank

    def trained(name: str, at: int = 0, happens: Callable[[], None] = lambda: None) -> None:
        saved = Checkpoints(folder / name, {}, processes)
        given = parameters(batch_size=BATCH_SIZE, checkpoint_minutes=0)
        fit = _Fit(processes, at, happens)
        train(network(0.2), fit, MadeImages(24), given, saved, processes)

    def be_killed() -> None:
        if rank == 1 and not (folder / "once").exists():
            (folder / "once").touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def be_told() -> None:
        if rank == 1:
            signal.raise_signal(signal.SIGUSR1)

    def tell_parent() -> None:
        if rank == 1:
            os.kill(os.getppid(), signal.SIGTERM)
            wait_for_note()

    trained("whole")
    trained("killed", 9, be_killed)
    try:
        trained("told", 4, be_told)
    except StoppedBySignal as stopped:
        (folder / f"told_{rank}").write_text(str(stopped))
    trained("told")
    trained("last", 4, tell_parent)


def wait_for_note() -> None:
    assert stopping._leader is not None
    assert wait_for(stopping._leader / "stop")
