"""Exact search: the nearest of all vectors, whatever else is searched for at the same time.

Matrix products find candidates, which are ranked by the vectors themselves. A product is rounded
differently in other company, so candidates are taken into account that differ from the k-th by no
more than that.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro import native
from lowshot_kedro.blocks import KnnGraph, row_ranges
from lowshot_kedro.graph.quality import ExactSearch
from lowshot_kedro.graph.spaces import Space
from lowshot_kedro.graph.vectors import inverse_lengths, release

_QUERY_ROWS = 16384
# How many candidates all queries of a search have together at most.
_MAX_CANDIDATES = 2**22
# Candidates besides the k wanted, how many times as many where these are not enough, and how many
# at most: then every vector is ranked.
_SPARE = 16
_GROWTH = 8
_MAX_WIDTH = 512
# Queries that are compared with everything at a time.
_FEW_ROWS = 256
_UNIT_ROUNDOFF = 2.0**-24


class ExactNodes:
    """Vectors that are searched by comparing queries with all of them.

    Args:
        vectors: float32 (n, d), a memmap or array.
        space: Space in which they are compared.
        name: What messages call them.

    Raises:
        ValueError: For NaN or infinity.
    """

    def __init__(self, vectors: NDArray[np.float32], space: Space, name: str) -> None:
        self._vectors = vectors
        self._space = space
        self._name = name
        self._inverse_lengths: NDArray[np.float32] | None = None
        if space.is_euclidean:
            for _ in space.point_blocks(vectors, name):
                pass
        else:
            self._inverse_lengths = inverse_lengths(vectors, name)

    def search(self, queries: NDArray[np.float32], k: int) -> KnnGraph:
        """The k most similar vectors of each query.

        Args:
            queries: float32 (q, d), queries.
            k: How many, at most 8192.

        Returns:
            Numbers and similarities, of equal similarities the smaller number first; -1 and -inf
            where there are fewer than k. In memory besides: two blocks of vectors, and 50 MB.
        """
        return self._search(queries, k, k + _SPARE)

    def _search(self, queries: NDArray[np.float32], k: int, width: int) -> KnnGraph:
        n_vectors = len(self._vectors)
        width = min(width, n_vectors)
        block_rows = min(_QUERY_ROWS, max(1, _MAX_CANDIDATES // max(width, 1)))
        blocks = (
            self._search_block(queries[first:last], k, width)
            for first, last in row_ranges(len(queries), block_rows)
        )
        return KnnGraph.joined(blocks, k)

    def _search_block(self, queries: NDArray[np.float32], k: int, width: int) -> KnnGraph:
        points = self._space.points_of_queries(queries)
        found = ExactSearch(points, width, self._space)
        for first, block in self._space.point_blocks(self._vectors, self._name):
            found.add(block, first)
        ranked = KnnGraph(
            *native.rank_candidates(self._vectors, self._inverse_lengths, queries, found.indices, k)
        )
        release(self._vectors)
        if width == len(self._vectors):
            return ranked
        # What has not been found may still be as similar as the k-th.
        last = ranked.similarities[:, k - 1].astype(np.float64)
        unsure = np.flatnonzero(
            found.similarities[:, -1] >= last - _rounding(points, last, self._space)
        )
        if len(unsure):
            # Equal queries have equal neighbours.
            distinct, which = np.unique(queries[unsure], axis=0, return_inverse=True)
            distinct = np.ascontiguousarray(distinct)
            if _GROWTH * width > _MAX_WIDTH:
                among_more = self._compare_all(distinct, k)
            else:
                among_more = self._search(distinct, k, _GROWTH * width)
            ranked.indices[unsure] = among_more.indices[which.ravel()]
            ranked.similarities[unsure] = among_more.similarities[which.ravel()]
        return ranked

    def _compare_all(self, queries: NDArray[np.float32], k: int) -> KnnGraph:
        """The k most similar vectors of each query, by ranking all vectors."""
        vectors, lengths = self._vectors, self._inverse_lengths
        blocks = []
        for begin, end in row_ranges(len(queries), _FEW_ROWS):
            part = queries[begin:end]
            nothing = np.empty((len(part), 0), np.int32)
            best = KnnGraph(nothing, nothing.astype(np.float32))
            for first, last in row_ranges(len(vectors), native.MAX_NEIGHBORS):
                everything = np.tile(np.arange(last - first, dtype=np.int32), (len(part), 1))
                of_block = None if lengths is None else lengths[first:last]
                ranked = native.rank_candidates(vectors[first:last], of_block, part, everything, k)
                release(vectors)
                best = KnnGraph(*native.merge_neighbors(*best, *ranked, k, second_offset=first))
            blocks.append(best)
        return KnnGraph.joined(blocks, k)


def _rounding(
    points: NDArray[np.float32], similarities: NDArray[np.float64], space: Space
) -> NDArray[np.float64]:
    """How far products and ranking may differ about vectors that are at least so similar.

    Sums of d products are wrong by about √d roundings of the sum of their sizes, d at most: N. J.
    Higham and T. Mary, "A new approach to probabilistic rounding error analysis", SIAM Journal on
    Scientific Computing 41, 2019. A vector no farther than the distance D from x has a square of at
    most 2·|x|² + 2·D².
    """
    of_one = (min(2 * points.shape[1], 16 * np.sqrt(points.shape[1])) + 16) * _UNIT_ROUNDOFF
    if not space.is_euclidean:
        return np.full(len(points), of_one)
    squares = np.einsum("ij,ij->i", points, points, dtype=np.float64)
    rounding: NDArray[np.float64] = of_one * (3 * squares - 2 * similarities)
    return rounding
