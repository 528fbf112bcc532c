"""From neighbour lists to the matrix that spreads labels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro import native
from lowshot_kedro.errors import InputError

EDGE_WEIGHTS = ("constant",)


class PropagationMatrix(NamedTuple):
    """A sparse matrix W (N, N) in compressed sparse rows.

    Attributes:
        indptr: int64 (N + 1,), row i stands at indptr[i] .. indptr[i + 1].
        indices: int32 (nnz,), columns, increasing in each row.
        values: float32 (nnz,).
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    values: NDArray[np.float32]

    @property
    def n_nodes(self) -> int:
        """N."""
        return len(self.indptr) - 1

    @property
    def n_bytes(self) -> int:
        """Memory of the three arrays."""
        return sum(array.nbytes for array in self)


def propagation_matrix(
    neighbors: NDArray[np.int32], edge_weight: str = "constant"
) -> PropagationMatrix:
    """W = D⁻¹(A + Aᵀ) of a neighbour list.

    Args:
        neighbors: int32 (N, k), -1 for none. A[i, j] = 1 if j is a neighbour of i.
        edge_weight: `constant`: an edge weighs 1, a mutual one 2.

    Returns:
        The matrix, rows summing to 1; the row of a node without any neighbour is zero.

    Raises:
        ValueError: For a neighbour out of range, or an unknown edge_weight.
    """
    if edge_weight not in EDGE_WEIGHTS:
        raise InputError(
            f"diffusion.edge_weight: got {edge_weight!r}, expected one of: "
            f"{', '.join(EDGE_WEIGHTS)}"
        )
    indptr, indices, values = native.symmetrize(neighbors)
    native.normalize_rows(indptr, values)
    return PropagationMatrix(indptr, indices, values)
