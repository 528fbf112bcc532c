"""Nearest centroids by the compiled module, on a CPU."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.native import Centroids, add_to_clusters


class NativeAssigner:
    """Nearest centroids by bounds of 8-bit codes, and exact distances where these leave a doubt.

    Args:
        largest: What no number of a row exceeds in size.
    """

    def __init__(self, largest: float) -> None:
        self._largest = largest

    def begin(
        self, centroids: NDArray[np.float32], sums: NDArray[np.int64] | None, exponent: int = 0
    ) -> None:
        """Begin a pass.

        Args:
            centroids: (k, d), with which rows are compared; they stay as they are meanwhile.
            sums: (k, d), zeros, to which the rows of each cluster are to be added; None: they are
                not wanted.
            exponent: The e of the unit of these sums, 2⁻ᵉ.
        """
        largest = max(self._largest, float(centroids.max()), -float(centroids.min()))
        self._centroids, self._sums = Centroids(centroids, largest), sums
        self._units = 2.0**exponent

    def assign(
        self, rows: NDArray[np.float32], labels: NDArray[np.int32], distances: NDArray[np.float64]
    ) -> None:
        """Find the nearest centroid of each row, and add the row to its sums.

        Args:
            rows: (n, d), finite.
            labels: (n,), what the nearest one was before, or -1; then what it is.
            distances: (n,), their squared distances.
        """
        self._centroids.assign(rows, labels, distances)
        if self._sums is not None:
            add_to_clusters(rows, labels, self._units, self._sums)

    def finish(self) -> None:
        """End a pass: the sums are complete."""
        del self._centroids
