"""Several processes that are threads of one, which takes no time to start."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Barrier, BrokenBarrierError
from typing import Any

import torch

from lowshot_kedro.training.processes import Processes


@dataclass(frozen=True)
class _Threads(Processes):
    meeting: Barrier = field(default_factory=lambda: Barrier(1))
    table: list[Any] = field(default_factory=list)

    def _all(self, value: Any) -> list[Any]:
        self.table[self.rank] = value
        self.meeting.wait()
        values = list(self.table)
        self.meeting.wait()
        return values

    def stack(self, tensor: torch.Tensor) -> torch.Tensor:
        return torch.stack(self._all(tensor.detach().clone()))

    def add_up(self, tensor: torch.Tensor) -> None:
        tensor[...] = sum(self._all(tensor.clone()))

    def broadcast(self, value: Any) -> Any:
        return self._all(value)[0]


def in_threads(n_processes: int, work: Callable[[Processes], Any]) -> list[Any]:
    """What each of several processes returns; the error of the first that fails is raised."""
    meeting, table = Barrier(n_processes), [None] * n_processes

    def one(rank: int) -> Any:
        try:
            return work(
                _Threads(rank, n_processes, torch.device("cpu"), meeting=meeting, table=table)
            )
        except BaseException:
            meeting.abort()
            raise

    with ThreadPoolExecutor(n_processes) as pool:
        futures = [pool.submit(one, rank) for rank in range(n_processes)]
    errors = [error for future in futures if (error := future.exception()) is not None]
    for error in sorted(errors, key=lambda each: isinstance(each, BrokenBarrierError)):
        raise error
    return [future.result() for future in futures]
