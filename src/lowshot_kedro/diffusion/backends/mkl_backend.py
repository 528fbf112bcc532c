"""Intel MKL's sparse product, for comparison: it needs an array of values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro import native
from lowshot_kedro.diffusion.backends.native_backend import inverse
from lowshot_kedro.diffusion.matrix import PropagationMatrix
from lowshot_kedro.diffusion.variants import Adjustment, LabeledRows


class MklBackend:
    """Plain products of all rows with all classes, each followed by scaling the columns.

    Args:
        matrix: W.
    """

    name: ClassVar[str] = "mkl"

    def __init__(self, matrix: PropagationMatrix) -> None:
        self._matrix = native.SparseMatrix(
            matrix.rows.indptr, matrix.rows.indices, None, matrix.values()
        )
        self._scores = np.empty((0, 0), np.float32)
        self._spare = np.empty((0, 0), np.float32)

    @staticmethod
    def bytes_held(matrix: PropagationMatrix, precision: str) -> tuple[int, int]:
        """The values, and two matrices of scores."""
        per_class = 2 * 4 * matrix.n_nodes + native.block_sum_bytes(matrix.n_nodes)
        return 4 * matrix.n_edges, per_class

    def start(self, labeled: LabeledRows) -> None:
        """L ← L₀."""
        self._labeled = labeled
        self._scores = np.zeros((self._matrix.n_nodes, labeled.n_columns), np.float32)
        self._scores[labeled.rows, labeled.columns] = labeled.values

    def step(self, adjustments: Sequence[Adjustment] = ()) -> None:
        """L ← W L, columns scaled to sum 1."""
        if self._spare.shape != self._scores.shape:
            self._spare = np.empty_like(self._scores)
        native.multiply_mkl(self._matrix, self._scores, self._spare)
        self._scores, self._spare = self._spare, self._scores
        self._normalize_columns()
        for adjust in adjustments:
            adjust(self._scores, self._labeled)
            self._normalize_columns()

    def read(self, neighbors: NDArray[np.int32]) -> NDArray[np.float32]:
        """Sum of the scores of each point's neighbours."""
        return native.sum_neighbors(neighbors, self._scores)

    def step_and_read(self, neighbors: NDArray[np.int32]) -> NDArray[np.float32]:
        """Make a whole step, and sum up the scores of each point's neighbours."""
        self.step()
        return self.read(neighbors)

    def _normalize_columns(self) -> None:
        native.scale_columns(self._scores, inverse(native.column_sums(self._scores)))
