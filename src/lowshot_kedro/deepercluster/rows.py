"""Rows that need not fit in memory, and the share of them that a process works on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.training.processes import Processes


class Rows(Protocol):
    """Rows of numbers that are read when they are asked for."""

    @property
    def n_rows(self) -> int:
        """How many there are."""
        ...

    @property
    def n_columns(self) -> int:
        """Numbers of a row."""
        ...

    def read(
        self, first: int, last: int, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Rows first..last-1, float32 (last - first, n_columns), in `out` if that is given."""
        ...

    def take(
        self, numbers: NDArray[np.int64], out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Some rows, float32 (len(numbers), n_columns), by their numbers, which increase."""
        ...


@dataclass(frozen=True)
class Share:
    """The rows of a collection that one of several processes works on.

    Shares of all processes stand one after the other, in the order of their ranks.

    Attributes:
        rows: The rows of this process; there may be none.
        first: The number of its first row among those of all processes.
        n_rows: Rows of all processes.
        processes: Those that work together.
    """

    rows: Rows
    first: int
    n_rows: int
    processes: Processes
