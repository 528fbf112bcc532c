"""What computes a diffusion step. All back ends give the same result, in float32 rounding."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from lowshot_kedro import native
from lowshot_kedro.diffusion.matrix import PropagationMatrix
from lowshot_kedro.errors import InputError
from lowshot_kedro.matrices import require_nodes

BACKENDS = ("auto", "native", "mkl", "scipy")


class Backend(Protocol):
    """The two operations that a propagation consists of."""

    name: str

    def step(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """One diffusion step: W L, then every column scaled to sum 1; a zero column stays zero.

        Args:
            scores: float32 (N, C), L. The back end may keep and overwrite it afterwards.

        Returns:
            float32 (N, C).
        """
        ...

    def sum_neighbors(
        self, neighbors: NDArray[np.int32], scores: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Sum of the scores of each point's neighbours.

        Args:
            neighbors: int32 (T, k), -1 for none.
            scores: float32 (N, C).

        Returns:
            float32 (T, C).
        """
        ...


class NativeBackend:
    """The compiled module, with its own product or MKL's.

    Args:
        matrix: W.
        product: `own` or `mkl`.
    """

    def __init__(self, matrix: PropagationMatrix, product: str) -> None:
        self.name = "native" if product == "own" else "mkl"
        self._matrix = matrix
        self._product = product
        self._spare: NDArray[np.float32] | None = None

    def step(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """One diffusion step; two score matrices take turns."""
        out = self._spare
        if out is None or out.shape != scores.shape:
            out = np.empty_like(scores)
        native.diffusion_step(*self._matrix, scores, out, self._product)
        self._spare = scores
        return out

    def sum_neighbors(
        self, neighbors: NDArray[np.int32], scores: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Sum of the scores of each point's neighbours."""
        return native.sum_neighbors(neighbors, scores)


class ScipyBackend:
    """The definition written down, in float64: the truth that the others are tested against.

    Args:
        matrix: W.
    """

    name = "scipy"

    def __init__(self, matrix: PropagationMatrix) -> None:
        n = matrix.n_nodes
        values = matrix.values.astype(np.float64)
        self._matrix = sparse.csr_array((values, matrix.indices, matrix.indptr), shape=(n, n))

    def step(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """One diffusion step."""
        product = self._matrix @ scores.astype(np.float64)
        sums = product.sum(axis=0)
        normalized: NDArray[np.float64] = product / np.where(sums == 0, 1, sums)
        return normalized.astype(np.float32)

    def sum_neighbors(
        self, neighbors: NDArray[np.int32], scores: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Sum of the scores of each point's neighbours."""
        # scipy trusts its caller, and would read beyond the scores.
        require_nodes(neighbors, len(scores), "neighbors")
        present = neighbors >= 0
        indptr = np.concatenate([[0], np.cumsum(present.sum(axis=1))])
        ones = np.ones(indptr[-1])
        shape = (len(neighbors), len(scores))
        links = sparse.csr_array((ones, neighbors[present], indptr), shape=shape)
        sums: NDArray[np.float64] = links @ scores.astype(np.float64)
        return sums.astype(np.float32)


def create_backend(name: str, matrix: PropagationMatrix) -> Backend:
    """A back end by its name.

    Args:
        name: `native` (our C), `mkl` (Intel MKL's product), `scipy` (float64, slow, readable), or
            `auto`: mkl where MKL is installed, else native.
        matrix: W.

    Raises:
        ValueError: For an unknown name, or mkl where MKL is not installed.
    """
    if name == "auto":
        name = "mkl" if native.mkl_available() else "native"
    if name == "mkl" and not native.mkl_available():
        raise InputError("diffusion.backend: got 'mkl', but Intel MKL is not installed; use auto")
    if name == "scipy":
        return ScipyBackend(matrix)
    if name in ("native", "mkl"):
        return NativeBackend(matrix, "own" if name == "native" else "mkl")
    raise InputError(f"diffusion.backend: got {name!r}, expected one of: {', '.join(BACKENDS)}")
