"""The true neighbours, and how many of them were found."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import faiss
import numpy as np
from faiss.contrib.exhaustive_search import knn_ground_truth
from numpy.typing import NDArray

from common.vectors import VectorFile

# Similarities that differ by less are taken for equal.
TIE = 1e-6
BLOCK_ROWS = 65_536

# The normalised vectors, float32 (m, d), of nodes int64 (m,).
Take = Callable[[NDArray[np.int64]], NDArray[np.float32]]


class Recall(NamedTuple):
    """How much of the truth was found.

    Attributes:
        ids: Part of the true neighbours.
        ties: Part of the places taken by nodes at least as similar as the true k-th neighbour.
    """

    ids: float
    ties: float


@dataclass(frozen=True)
class Truth:
    """The most similar nodes of some queries.

    Attributes:
        queries: float32 (s, d), normalised.
        neighbors: int64 (s, k), found by comparison with every node.
        least: float32 (s,), similarity of the k-th of them.
        take: Reads the vectors of nodes.
    """

    queries: NDArray[np.float32]
    neighbors: NDArray[np.int64]
    least: NDArray[np.float32]
    take: Take

    def part(self, first: int, last: int) -> Truth:
        """Of queries first..last-1."""
        rows = slice(first, last)
        return replace(
            self,
            queries=self.queries[rows],
            neighbors=self.neighbors[rows],
            least=self.least[rows],
        )

    def recall(self, found: NDArray[np.int32]) -> Recall:
        """Compare neighbours with the truth.

        Args:
            found: int32 (s, k), -1 for none.

        Raises:
            ValueError: If there are other rows or columns, or a row names a node twice.
        """
        if found.shape != self.neighbors.shape:
            raise ValueError(f"shape {found.shape}, expected {self.neighbors.shape}")
        ids = ties = 0
        for number, row in enumerate(found.astype(np.int64)):
            nodes = row[row >= 0]
            if len(np.unique(nodes)) != len(nodes):
                raise ValueError(f"a node twice in {row.tolist()}")
            ids += len(np.intersect1d(nodes, self.neighbors[number]))
            similarities = self.take(nodes).astype(np.float64) @ self.queries[number]
            ties += int(np.count_nonzero(similarities >= self.least[number] - TIE))
        return Recall(ids / found.size, ties / found.size)


def truth_of(
    queries: NDArray[np.float32], blocks: Iterable[NDArray[np.float32]], k: int, take: Take
) -> Truth:
    """Compare queries with every node, one block of nodes in memory at a time.

    Args:
        queries: float32 (s, d), normalised.
        blocks: Of all nodes, float32 (m, d), normalised, in their order.
        k: How many neighbours.
        take: Reads the vectors of nodes.
    """
    similarities, neighbors = knn_ground_truth(  # type: ignore[no-untyped-call]
        queries, blocks, k, faiss.METRIC_INNER_PRODUCT, ngpu=0
    )
    return Truth(queries, neighbors, similarities[:, -1], take)


def truth_among(vectors: VectorFile, sample: NDArray[np.int64], k: int) -> Truth:
    """Of some rows among all rows.

    Args:
        vectors: All rows.
        sample: int64 (s,).
        k: How many neighbours.
    """
    blocks = vectors.normalized_blocks(BLOCK_ROWS)
    return truth_of(vectors.taken(sample), blocks, k, vectors.taken)
