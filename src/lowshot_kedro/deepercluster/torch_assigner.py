"""Nearest centroids by matrix products of PyTorch, on a GPU or on a CPU."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from lowshot_kedro.blocks import row_ranges
from lowshot_kedro.deepercluster.assigners import LANES

# What products may lose, besides float32: a GPU can be told to use fewer bits.
_PRODUCT_ROUNDING = {"highest": 2.0**-24, "high": 2.0**-10, "medium": 2.0**-7}


class TorchAssigner:
    """Nearest centroids by matrix products, and exact distances where these leave a doubt.

    Args:
        device: Where centroids and sums are, and blocks of rows go.
        work_bytes: Memory for what is made of a block beside it; in bytes.
    """

    def __init__(self, device: torch.device, work_bytes: int) -> None:
        self._device, self._work_bytes = device, work_bytes

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
        self._centroids = torch.from_numpy(centroids).to(self._device)
        self._middle = self._centroids.mean(0)
        self._shifted = self._centroids - self._middle
        squares = self._shifted.square().sum(1)
        self._halves = squares / 2
        self._max_square = float(squares.max())
        self._wanted = None if sums is None else torch.from_numpy(sums)
        self._sums = None if self._wanted is None else self._wanted.to(self._device)
        self._units = 2.0**exponent

    def assign(
        self, rows: NDArray[np.float32], labels: NDArray[np.int32], distances: NDArray[np.float64]
    ) -> None:
        """Find the nearest centroid of each row, and add the row to its sums.

        Args:
            rows: (n, d), finite.
            labels: (n,), what the nearest one is; what it was before is not asked.
            distances: (n,), their squared distances.
        """
        k, d = self._centroids.shape
        at_once = max(1, self._work_bytes // (9 * k + 60 * d))
        for first, last in row_ranges(len(rows), at_once):
            block = torch.from_numpy(rows[first:last]).to(self._device)
            found, away = self._assign(block)
            if self._sums is not None:
                # Integers come to the same sum in any order.
                units = (block.double() * self._units).round_().long()
                self._sums.index_add_(0, found, units)
            labels[first:last] = found.int().cpu().numpy()
            distances[first:last] = away.cpu().numpy()

    def _assign(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        shifted = rows - self._middle
        halves = torch.addmm(self._halves, shifted, self._shifted.T, alpha=-1)
        least, nearest = halves.min(1)
        # Twice what rounding can do to a difference of half squared distances, and to spare.
        n_roundings = 4 * (rows.shape[1] + 8)
        rounding = _PRODUCT_ROUNDING[torch.get_float32_matmul_precision()]
        square = shifted.double().square().sum(1)
        spare = (4 * rounding + n_roundings * 2.0**-24) * (square + self._max_square)
        # What float32 cannot hold leaves everything in doubt.
        limits = (least + spare).float()
        candidates = ~(halves > limits[:, None])
        distances = self._distances(rows, nearest)
        in_doubt = (candidates.sum(1) > 1).nonzero()[:, 0]
        at_once = max(1, self._work_bytes // (32 * halves.shape[1]))
        for begin, end in row_ranges(len(in_doubt), at_once):
            some = in_doubt[begin:end]
            pairs = candidates[some].nonzero()
            for_each = torch.empty(len(pairs), dtype=torch.float64, device=rows.device)
            step = max(1, self._work_bytes // (40 * rows.shape[1]))
            for first, last in row_ranges(len(pairs), step):
                places, numbers = pairs[first:last].T
                for_each[first:last] = self._distances(rows[some[places]], numbers)
            infinite = torch.full((len(some),), torch.inf, dtype=torch.float64, device=rows.device)
            best = infinite.scatter_reduce(0, pairs[:, 0], for_each, "amin")
            equal = for_each == best[pairs[:, 0]]
            most = torch.full((len(some),), len(self._centroids), device=rows.device)
            nearest[some] = most.scatter_reduce(0, pairs[equal, 0], pairs[equal, 1], "amin")
            distances[some] = best
        return nearest, distances

    def _distances(self, rows: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """Squared distances as :mod:`~lowshot_kedro.deepercluster.assigners` defines them."""
        total = torch.zeros(len(rows), LANES, dtype=torch.float64, device=rows.device)
        centroids = self._centroids[numbers]
        for first, last in row_ranges(rows.shape[1], LANES):
            difference = rows[:, first:last].double() - centroids[:, first:last].double()
            total[:, : last - first] += difference * difference
        distances = total[:, 0].clone()
        for lane in range(1, LANES):
            distances += total[:, lane]
        return distances

    def finish(self) -> None:
        """End a pass: the sums are complete."""
        if self._wanted is not None and self._sums is not None:
            # On a CPU they are one and the same.
            self._wanted.copy_(self._sums)
