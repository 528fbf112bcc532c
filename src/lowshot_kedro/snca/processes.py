"""What the processes of torch.distributed tell each other for one loss of all of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import distributed


def rank_and_number() -> tuple[int, int]:
    """Of this process in the default group, and how many there are; 0 and 1 without a group."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def gather(tensor: torch.Tensor) -> torch.Tensor:
    """Tensors of one shape from all processes, (processes, …) in the order of ranks."""
    _, n_processes = rank_and_number()
    gathered = [torch.empty_like(tensor) for _ in range(n_processes)]
    distributed.all_gather(gathered, tensor.contiguous())
    return torch.stack(gathered)


def gather_numbers(numbers: Sequence[float], device: torch.device) -> list[list[float]]:
    """As many numbers from each process, in the order of ranks."""
    found: list[list[float]] = gather(
        torch.tensor(numbers, dtype=torch.float64, device=device)
    ).tolist()
    return found


def gather_rows(tensor: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    """Rows of all processes, one after the other in the order of ranks.

    Args:
        tensor: (n, …), the rows of this process.
        sizes: How many rows each process has.
    """
    padded = tensor.new_zeros((max(sizes), *tensor.shape[1:]))
    padded[: len(tensor)] = tensor
    return torch.cat([part[:size] for part, size in zip(gather(padded), sizes, strict=True)])
