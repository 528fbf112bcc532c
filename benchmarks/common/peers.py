"""The peers: plain products by other libraries, and the fastest scaling of columns each can have.

Each has the same two methods, `multiply` and `normalize`, which together are one step.
"""

from __future__ import annotations

import warnings
from typing import ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from common import mkl
from lowshot_kedro import native
from lowshot_kedro.diffusion import PropagationMatrix
from lowshot_kedro.diffusion.backends.native_backend import inverse


class Peer(Protocol):
    """One library, holding W in the form that it likes best."""

    name: ClassVar[str]

    def multiply(
        self, scores: NDArray[np.float32], out: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """W scores.

        Args:
            scores: float32 (n, c).
            out: float32 (n, c), for the result.

        Returns:
            `out`, or an array of its own where the library cannot write into a given one.
        """
        ...

    def normalize(self, scores: NDArray[np.float32]) -> None:
        """Scale the columns to sum 1, in place."""
        ...


class MklPeer:
    """MKL's inspector-executor product; columns are scaled by this project's parallel loops.

    MKL has no function that scales columns, and its product should not suffer from a slow one.

    Args:
        matrix: W.
        n_columns: Columns of the scores to come.
        n_products: How many products are to come.
    """

    name: ClassVar[str] = "mkl"

    def __init__(self, matrix: PropagationMatrix, n_columns: int, n_products: int) -> None:
        self._matrix = mkl.InspectedMatrix(matrix.rows, matrix.values(), n_columns, n_products)

    @staticmethod
    def missing() -> str | None:
        """Why this peer cannot run here, or None."""
        return "MKL is not installed" if mkl.library() is None else None

    def multiply(
        self, scores: NDArray[np.float32], out: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """W scores."""
        self._matrix.multiply(scores, out)
        return out

    def normalize(self, scores: NDArray[np.float32]) -> None:
        """Two passes of the compiled module."""
        native.scale_columns(scores, inverse(native.column_sums(scores)))


class TorchPeer:
    """torch.sparse on the CPU.

    Args:
        matrix: W.
    """

    name: ClassVar[str] = "torch"

    def __init__(self, matrix: PropagationMatrix) -> None:
        # Offsets and columns have to be of one type, the smaller of which is faster.
        dtype = np.int32 if matrix.n_edges <= np.iinfo(np.int32).max else np.int64
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse ")
            self._matrix = torch.sparse_csr_tensor(
                torch.from_numpy(matrix.rows.indptr.astype(dtype, copy=False)),
                torch.from_numpy(matrix.rows.indices.astype(dtype, copy=False)),
                torch.from_numpy(matrix.values()),
                size=(matrix.n_nodes, matrix.n_nodes),
                check_invariants=False,
            )

    @staticmethod
    def missing() -> str | None:
        """Why this peer cannot run here, or None."""
        indptr, index = torch.tensor([0, 1], dtype=torch.int32), torch.tensor([0]).int()
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Sparse ")
                matrix = torch.sparse_csr_tensor(indptr, index, torch.ones(1), size=(1, 1))
                torch.mm(matrix, torch.ones((1, 1)))
        except RuntimeError as error:
            return f"this torch has no sparse product: {str(error).splitlines()[0]}"
        return None

    def multiply(
        self, scores: NDArray[np.float32], out: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """W scores."""
        torch.mm(self._matrix, torch.from_numpy(scores), out=torch.from_numpy(out))
        return out

    def normalize(self, scores: NDArray[np.float32]) -> None:
        """Two passes of torch, in single precision: in double, torch's sum takes many times longer.

        What that costs in accuracy is seen in the comparison before the measurement.
        """
        tensor = torch.from_numpy(scores)
        sums = tensor.sum(dim=0)
        tensor *= torch.where(sums == 0, 1, 1 / sums)


class ScipyPeer:
    """scipy.sparse, in one thread as always, and numpy.

    Args:
        matrix: W.
    """

    name: ClassVar[str] = "scipy"

    def __init__(self, matrix: PropagationMatrix) -> None:
        self._matrix = to_scipy(matrix, np.float32)

    @staticmethod
    def missing() -> str | None:
        """Never."""
        return None

    def multiply(
        self, scores: NDArray[np.float32], out: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """W scores, in a new array."""
        product: NDArray[np.float32] = self._matrix @ scores
        return product

    def normalize(self, scores: NDArray[np.float32]) -> None:
        """Two passes of numpy. Sums over many rows in single precision would not be right."""
        scores *= inverse(scores.sum(axis=0, dtype=np.float64))


def to_scipy(matrix: PropagationMatrix, dtype: type[np.floating]) -> sparse.csr_array:
    """W as a matrix of scipy, with 32-bit indices where they suffice."""
    indptr = matrix.rows.indptr
    if matrix.n_edges <= np.iinfo(np.int32).max:
        indptr = indptr.astype(np.int32)
    values = matrix.values().astype(dtype, copy=False)
    shape = (matrix.n_nodes, matrix.n_nodes)
    return sparse.csr_array((values, matrix.rows.indices, indptr), shape=shape)


def neighbor_matrix(neighbors: NDArray[np.int32], n_nodes: int) -> sparse.csr_array:
    """Float32 (m, n_nodes) of scipy, 1 for each neighbour in a list (m, k); -1 is none."""
    present = neighbors >= 0
    indptr = np.concatenate([[0], np.cumsum(present.sum(axis=1))])
    if indptr[-1] <= np.iinfo(np.int32).max:
        indptr = indptr.astype(np.int32)
    ones = np.ones(indptr[-1], np.float32)
    return sparse.csr_array((ones, neighbors[present], indptr), shape=(len(neighbors), n_nodes))
