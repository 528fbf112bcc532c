"""The parameters of the k-NN graph: section `graph`."""

from __future__ import annotations

from dataclasses import dataclass

from lowshot_kedro.graph.methods import METHODS
from lowshot_kedro.parameters import (
    AUTO,
    bytes_of,
    refuse,
    require_gigabytes,
    require_integer,
    require_part,
)

# `auto` chooses among these numbers of neighbours.
_NEIGHBORS = (5, 10, 20, 30)


def neighbor_candidates(max_k: int) -> tuple[int, ...]:
    """The numbers of neighbours among which one is chosen, up to a largest one."""
    return tuple(k for k in _NEIGHBORS if k <= max_k) or (max_k,)


def stored_columns(k: int | str, stored_k: int) -> int:
    """Columns of the stored background graph.

    Args:
        k: Neighbours that a run uses; `auto` chooses among those that are stored.
        stored_k: Columns wanted.

    Returns:
        stored_k, or the next power of two from k if that is more.
    """
    if isinstance(k, str):
        return stored_k
    return max(stored_k, 1 << (int(k) - 1).bit_length())


@dataclass(frozen=True)
class GraphParameters:
    """The k-NN graph over labelled and background images.

    `stored_k` becomes the number of columns that are stored, see :func:`stored_columns`.
    """

    k: int | str
    n_background: int | None
    stored_k: int
    method: str
    target_recall: float
    memory_budget_gb: float | None
    recall_sample: int

    def __post_init__(self) -> None:
        if self.k != AUTO:
            require_integer("k", self.k, 1, 1024, alternative=AUTO)
        require_integer("n_background", self.n_background, 0, null="all")
        require_integer("stored_k", self.stored_k, 1, 1024)
        if not isinstance(self.method, str) or not self.method:
            expected = f"one of: {', '.join(METHODS)}; or a description for faiss.index_factory"
            raise refuse("method", self.method, expected)
        require_part("target_recall", self.target_recall, 0.01)
        require_gigabytes("memory_budget_gb", self.memory_budget_gb)
        require_integer("recall_sample", self.recall_sample, 1)
        object.__setattr__(self, "stored_k", stored_columns(self.k, self.stored_k))

    @property
    def max_k(self) -> int:
        """k, or the most neighbours that `auto` may choose."""
        return max(self.candidates())

    def candidates(self, max_k: int | None = None) -> tuple[int, ...]:
        """The numbers of neighbours to choose from; k alone if it is a number.

        Args:
            max_k: The most that there are; None: as many as are stored.
        """
        if not isinstance(self.k, str):
            return (self.k,)
        return neighbor_candidates(self.stored_k if max_k is None else max_k)

    @property
    def memory_budget_bytes(self) -> int | None:
        """The budget, 1 GB being 10⁹ bytes; None: what is free."""
        return bytes_of(self.memory_budget_gb)
