"""The definition written down, in float64: the truth that the others are tested against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from lowshot_kedro.diffusion.matrix import PropagationMatrix
from lowshot_kedro.diffusion.variants import Adjustment, LabeledRows


class ScipyBackend:
    """The definition as float64 matrices of scipy, line by line.

    Args:
        matrix: W.
    """

    name: ClassVar[str] = "scipy"

    def __init__(self, matrix: PropagationMatrix) -> None:
        self._matrix = matrix.to_scipy()
        self._scores = np.empty((0, 0))

    @staticmethod
    def bytes_held(matrix: PropagationMatrix, precision: str) -> tuple[int, int]:
        """The matrix once more, and three matrices of scores: old, product, scaled."""
        return 12 * matrix.n_edges, 3 * 8 * matrix.n_nodes

    def start(self, labeled: LabeledRows) -> None:
        """L ← L₀."""
        self._labeled = labeled
        self._scores = np.zeros((self._matrix.shape[0], labeled.n_columns))
        self._scores[labeled.rows, labeled.columns] = labeled.values

    def step(self, adjustments: Sequence[Adjustment] = ()) -> None:
        """L ← W L, columns scaled to sum 1."""
        self._scores = normalize_columns(self._matrix @ self._scores)
        for adjust in adjustments:
            adjust(self._scores, self._labeled)
            self._scores = normalize_columns(self._scores)

    def read(self, neighbors: NDArray[np.int32]) -> NDArray[np.float32]:
        """Sum of the scores of each point's neighbours."""
        sums: NDArray[np.float64] = neighbor_matrix(neighbors, len(self._scores)) @ self._scores
        return sums.astype(np.float32)

    def step_and_read(self, neighbors: NDArray[np.int32]) -> NDArray[np.float32]:
        """Make a whole step, and sum up the scores of each point's neighbours."""
        self.step()
        return self.read(neighbors)


def normalize_columns(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Columns scaled to sum 1; a zero column stays zero."""
    sums = scores.sum(axis=0)
    normalized: NDArray[np.float64] = scores / np.where(sums == 0, 1, sums)
    return normalized


def neighbor_matrix(neighbors: NDArray[np.int32], n_nodes: int) -> sparse.csr_array:
    """Float64 (T, N), 1 for each neighbour of each point; for one listed twice, 2."""
    present = neighbors >= 0
    indptr = np.concatenate([[0], np.cumsum(present.sum(axis=1))])
    ones = np.ones(indptr[-1])
    return sparse.csr_array((ones, neighbors[present], indptr), shape=(len(neighbors), n_nodes))
