"""Rows to their nearest centroids, and their sums, block by block: on a CPU or on a GPU.

The squared distance of a row x from a centroid c is Σ (x_j − c_j)², in float64, where column j is
added to sum j mod 16, in the order of the columns, and then the 16 sums are added in their order.
All assigners give these bits, and of equal distances the centroid with the lowest number. How they
come to know which centroids have to be looked at is theirs alone.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

LANES = 16
UNKNOWN = -1


class Assigner(Protocol):
    """Finds nearest centroids, and adds up rows, in one pass after the other."""

    def begin(
        self, centroids: NDArray[np.float32], sums: NDArray[np.int64] | None, exponent: int = 0
    ) -> None:
        """Begin a pass.

        Args:
            centroids: (k, d), with which rows are compared; they stay as they are meanwhile.
            sums: (k, d), zeros, to which the rows of each cluster are to be added; None: they are
                not wanted.
            exponent: The e of the unit of these sums, 2⁻ᵉ. Each number is rounded to that, to the
                nearest, ties to even.
        """
        ...

    def assign(
        self, rows: NDArray[np.float32], labels: NDArray[np.int32], distances: NDArray[np.float64]
    ) -> None:
        """Find the nearest centroid of each row, and add the row to its sums.

        Args:
            rows: (n, d), finite.
            labels: (n,), what the nearest one was before, or -1; then what it is.
            distances: (n,), their squared distances.
        """
        ...

    def finish(self) -> None:
        """End a pass: the sums are complete."""
        ...
