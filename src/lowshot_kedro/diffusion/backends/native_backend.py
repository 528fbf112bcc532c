"""The compiled module's own loops: the fast back end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro import native
from lowshot_kedro.diffusion.matrix import PropagationMatrix
from lowshot_kedro.diffusion.variants import Adjustment, LabeledRows

# Scores are kept sparse while at most this part of them is not zero: a sparse entry is as large as
# two dense ones, and adding it up takes several times longer.
SPARSE_PART = 1 / 8
# How full the next scores will be is estimated from this many rows.
SAMPLE_ROWS = 4096


def inverse(sums: NDArray[np.float64]) -> NDArray[np.float32]:
    """What scales columns of these sums to 1; 1 for a zero column."""
    return (1 / np.where(sums == 0, 1, sums)).astype(np.float32)


class NativeBackend:
    """Steps by the compiled module, on scores in the form in which it is fastest.

    Columns are not scaled when they are computed, but when they are read the next time: what is
    stored is L times the column's last sum. Each step starts from scaled columns, so magnitudes
    never drift. The first steps work on sparse scores, and in the last one only the rows that
    somebody reads are computed. None of this changes a bit of the results.

    Args:
        matrix: W.
        precision: `float32`, or `bfloat16` for stored scores; sums are float32 either way.
    """

    name: ClassVar[str] = "native"

    def __init__(self, matrix: PropagationMatrix, precision: str = "float32") -> None:
        self._matrix = matrix
        self._dtype = np.dtype(np.uint16 if precision == "bfloat16" else np.float32)
        self._scores: native.DenseScores | native.SparseScores = np.empty((0, 0), np.float32)
        self._spare: native.DenseScores | None = None
        self._sums = np.empty(0)

    @staticmethod
    def bytes_held(matrix: PropagationMatrix, precision: str) -> tuple[int, int]:
        """Two matrices of scores, and sums of columns for blocks of rows."""
        score_bytes = 2 if precision == "bfloat16" else 4
        return 0, 2 * score_bytes * matrix.n_nodes + native.block_sum_bytes(matrix.n_nodes)

    def start(self, labeled: LabeledRows) -> None:
        """L ← L₀, sparse."""
        shape = (self._matrix.n_nodes, labeled.n_columns)
        # Memory of the last slice serves again, if it has the right width.
        held = (self._spare, self._scores)
        self._spare = next(
            (array for array in held if isinstance(array, np.ndarray) and array.shape == shape),
            None,
        )
        del held
        self._labeled = labeled
        self._scores = native.sparse_scores(
            labeled.rows, labeled.columns, labeled.values, shape, self._dtype
        )
        self._sums = native.column_sums(self._scores)

    def step(self, adjustments: Sequence[Adjustment] = ()) -> None:
        """L ← W L; two score matrices take turns."""
        rows, factors = self._matrix.rows, inverse(self._sums)
        if isinstance(self._scores, native.SparseScores):
            product = self._sparse_product(factors) if not adjustments else None
            if product is not None:
                self._scores, self._sums = product
                return
        out = self._take_spare()
        self._sums = native.multiply(rows, self._scores, factors, out)
        if not isinstance(self._scores, native.SparseScores):
            self._spare = self._scores
        self._scores = out
        for adjust in adjustments:
            assert out.dtype == np.float32
            native.scale_columns(out, inverse(self._sums))
            adjust(out, self._labeled)
            self._sums = native.column_sums(out)

    def read(self, neighbors: NDArray[np.int32]) -> NDArray[np.float32]:
        """Sum of the scores of each point's neighbours."""
        return native.sum_neighbors(neighbors, self._scores, inverse(self._sums))

    def step_and_read(self, neighbors: NDArray[np.int32]) -> NDArray[np.float32]:
        """One step for the rows that are read.

        The columns of W L sum to Σ_j (Σ_i W_ij) L_jc, so no other row is needed to scale them.
        """
        factors = inverse(self._sums)
        sums = native.column_sums(self._scores, self._matrix.column_totals) * factors
        wanted, position = compact(neighbors, self._matrix.n_nodes)
        if self._spare is not None:
            out = self._spare[: len(wanted)]
        else:
            out = aligned_empty((len(wanted), len(factors)), self._dtype)
        native.multiply(self._matrix.rows, self._scores, factors, out, wanted)
        return native.sum_neighbors(position, out, inverse(sums))

    def _sparse_product(
        self, factors: NDArray[np.float32]
    ) -> tuple[native.SparseScores, NDArray[np.float64]] | None:
        """W L as sparse scores, or None if it would be too full."""
        scores = self._scores
        assert isinstance(scores, native.SparseScores)
        n_nodes, n_columns = self._matrix.n_nodes, scores.n_columns
        capacity = int(SPARSE_PART * n_nodes * n_columns)
        if n_nodes > 4 * SAMPLE_ROWS:
            sample = np.linspace(0, n_nodes - 1, SAMPLE_ROWS).astype(np.int32)
            room = SAMPLE_ROWS * n_columns
            probe = native.multiply_sparse(self._matrix.rows, scores, factors, room, sample)
            assert probe is not None
            if len(probe[0].entries) / room > SPARSE_PART:
                return None
        return native.multiply_sparse(self._matrix.rows, scores, factors, capacity)

    def _take_spare(self) -> Any:
        shape = (self._matrix.n_nodes, len(self._sums))
        spare, self._spare = self._spare, None
        if spare is None or spare.shape != shape:
            return aligned_empty(shape, self._dtype)
        return spare


def compact(
    neighbors: NDArray[np.int32], n_nodes: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The distinct rows in a neighbour list, and the list in terms of positions among those.

    Args:
        neighbors: int32 (T, k), rows, -1 for none.
        n_nodes: Number of rows.

    Returns:
        int32 (R,), increasing; int32 (T, k), -1 for none. In memory: 4 bytes a node.
    """
    positions = np.full(n_nodes + 1, -1, np.int32)
    positions[neighbors] = 0
    positions[-1] = -1
    rows = np.flatnonzero(positions == 0).astype(np.int32)
    positions[rows] = np.arange(len(rows), dtype=np.int32)
    return rows, positions[neighbors]


def aligned_empty(shape: tuple[int, int], dtype: np.dtype[Any], bytes_: int = 64) -> NDArray[Any]:
    """An uninitialised array that begins at a cache line: rows then touch as few as possible."""
    n_bytes = shape[0] * shape[1] * dtype.itemsize
    memory = np.empty(n_bytes + bytes_, np.uint8)
    begin = -memory.ctypes.data % bytes_
    return memory[begin : begin + n_bytes].view(dtype).reshape(shape)
