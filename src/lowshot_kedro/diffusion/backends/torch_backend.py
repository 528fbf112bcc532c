"""PyTorch's sparse product, on a GPU where there is one."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.blocks import row_ranges
from lowshot_kedro.diffusion.backends.scipy_backend import neighbor_matrix
from lowshot_kedro.diffusion.matrix import PropagationMatrix
from lowshot_kedro.diffusion.variants import Adjustment, LabeledRows
from lowshot_kedro.extras import needed_by

with needed_by("back end torch"):
    import torch

BLOCK_ROWS = 4096


class TorchBackend:
    """Scores and matrix live on the device; labels go there, scores of test points come back.

    Adjustments are numpy functions: on a GPU each one moves the scores to the CPU and back.

    Args:
        matrix: W.
        device: Device of torch that holds them, for instance `cuda`.
    """

    name: ClassVar[str] = "torch"

    def __init__(self, matrix: PropagationMatrix, device: str = "cpu") -> None:
        self._device = torch.device(device)
        self._n_nodes = matrix.n_nodes
        self._matrix = self._csr(
            matrix.rows.indptr, matrix.rows.indices, matrix.values(), matrix.n_nodes
        )
        self._scores = torch.empty((0, 0), device=self._device)

    @staticmethod
    def bytes_held(matrix: PropagationMatrix, precision: str) -> tuple[int, int]:
        """The values, and on a GPU the whole matrix; old scores, product, a temporary one."""
        return 4 * matrix.n_edges, 3 * 4 * matrix.n_nodes

    def start(self, labeled: LabeledRows) -> None:
        """L ← L₀."""
        self._labeled = labeled
        self._scores = torch.zeros((self._n_nodes, labeled.n_columns), device=self._device)
        rows, columns, values = (
            torch.from_numpy(array).to(self._device)
            for array in (
                labeled.rows.astype(np.int64),
                labeled.columns.astype(np.int64),
                labeled.values,
            )
        )
        self._scores[rows, columns] = values

    def step(self, adjustments: Sequence[Adjustment] = ()) -> None:
        """L ← W L, columns scaled to sum 1."""
        self._scores = self._matrix @ self._scores
        self._normalize_columns()
        for adjust in adjustments:
            scores = self._scores.cpu()
            adjust(scores.numpy(), self._labeled)
            self._scores = scores.to(self._device)
            self._normalize_columns()

    def read(self, neighbors: NDArray[np.int32]) -> NDArray[np.float32]:
        """Sum of the scores of each point's neighbours."""
        links = neighbor_matrix(neighbors, self._n_nodes)
        sums = self._csr(links.indptr, links.indices, links.data, self._n_nodes) @ self._scores
        return sums.cpu().numpy()

    def step_and_read(self, neighbors: NDArray[np.int32]) -> NDArray[np.float32]:
        """Make a whole step, and sum up the scores of each point's neighbours."""
        self.step()
        return self.read(neighbors)

    def _normalize_columns(self) -> None:
        # Asked for a sum in float64, torch takes far longer than for making the block float64.
        sums = torch.zeros(self._scores.shape[1], dtype=torch.float64, device=self._device)
        for first, last in row_ranges(self._n_nodes, BLOCK_ROWS):
            sums += self._scores[first:last].to(torch.float64).sum(dim=0)
        self._scores /= torch.where(sums == 0, 1, sums).to(torch.float32)

    def _csr(
        self,
        indptr: NDArray[np.integer],
        indices: NDArray[np.integer],
        values: NDArray[np.floating],
        n_columns: int,
    ) -> torch.Tensor:
        # Offsets and columns have to be of one type, the smaller of which is faster.
        dtype = np.int32 if len(indices) <= np.iinfo(np.int32).max else np.int64
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            return torch.sparse_csr_tensor(
                torch.from_numpy(indptr.astype(dtype, copy=False)),
                torch.from_numpy(indices.astype(dtype, copy=False)),
                torch.from_numpy(values.astype(np.float32, copy=False)),
                size=(len(indptr) - 1, n_columns),
                # Columns stand out of order within a row, which products do not mind.
                check_invariants=False,
            ).to(self._device)
