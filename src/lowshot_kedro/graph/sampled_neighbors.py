"""The true neighbours of a few vectors among all: found by codes, ranked by the vectors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro import native
from lowshot_kedro.blocks import KnnGraph
from lowshot_kedro.graph.codes import VectorEncoder

# Gets queries and their candidates, and returns the k most similar ones.
Ranking = Callable[[NDArray[np.float32], NDArray[np.int32]], KnnGraph]


class SampledNeighbors:
    """The nearest neighbours of a few vectors, found while the codes of all pass by.

    Args:
        queries: float32 (s, d), queries.
        k: How many neighbours to find.
        width: How many candidates of each part of the vectors are ranked.
        encoder: Encoder of all vectors.

    Attributes:
        codes: Codes of the queries.
        neighbors: (s, k), the most similar vectors so far; -1 and -inf where there are fewer.
    """

    def __init__(
        self, queries: NDArray[np.float32], k: int, width: int, encoder: VectorEncoder
    ) -> None:
        self._queries = queries
        self._width = width
        self._encoder = encoder
        self.codes, _ = encoder.encode(queries)
        self.neighbors = KnnGraph(
            np.full((len(queries), k), -1, np.int32),
            np.full((len(queries), k), -np.inf, np.float32),
        )
        # The best score that a vector may have that has not been ranked; below all scores if every
        # one that may be a neighbour has been.
        self._left_out = np.full(len(queries), np.iinfo(np.int64).min, np.int64)

    def add(self, codes: native.Codes, rank: Ranking, first_number: int = 0) -> NDArray[np.int32]:
        """Compare the queries with some vectors.

        Args:
            codes: Codes of these vectors.
            rank: Ranks candidates, int32 (s, width), by their places among these codes; -1 is none.
            first_number: What is added to the numbers that rank returns.

        Returns:
            The candidates: those with the best scores of all that may be among the nearest, best
            first.
        """
        everything = native.Lists(np.array([0, len(codes.values)], np.int64))
        probes = np.zeros((len(self._queries), 1), np.int32)
        found, scores = native.search_lists(
            codes, everything, self.codes.values, probes, self._width, self._least_scores()
        )
        is_full = found[:, -1] >= 0
        self._left_out[is_full] = np.maximum(self._left_out, scores[:, -1])[is_full]
        k = self.neighbors.indices.shape[1]
        self.neighbors = KnnGraph(
            *native.merge_neighbors(
                *self.neighbors, *rank(self._queries, found), k, second_offset=first_number
            )
        )
        return found

    @property
    def is_sure(self) -> NDArray[np.bool_]:
        """Whether codes leave no doubt that these are all neighbours, for each query."""
        return np.asarray(self._left_out < self._least_scores())

    def _least_scores(self) -> NDArray[np.int32]:
        """The least score of a vector that may be among the nearest of each query."""
        kth = self.neighbors.similarities[:, -1]
        return self._encoder.least_scores(kth, self.codes.biases)
