"""Search in lists that looks through as many lists as can hold a neighbour, for each query apart.

A search that looks through a fixed number of lists loses links where points lie apart: at the
border of a cluster neighbours are far, and stand in many lists. Here a list is looked through if
its centroid is near enough. For a point x in the list of centroid c, x - c and q - x point in
directions that have little to do with each other, so that about |q - c|² = |q - x|² + |x - c|².
A neighbour of q is no farther than the k-th found so far; |x - c|² is known, for each list on
average. How many times larger |q - c|² may be is the slack: as much as nearly all links of the
stored graph need, and no less than the largest that occurs in a sample of queries all of whose
neighbours are known.

Of the vectors in these lists few are near. Codes are rotated at random, so that their first P of w
columns hold about P/w of a squared distance, and those that hold too much tell that a vector is
farther than the k-th. That is J. Gao, C. Long, "High-dimensional approximate nearest neighbor
search: with reliable and efficient distance comparison operations" (SIGMOD 2023), which the scores
of codes take from there; how much is too much is set like the slack.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro import native
from lowshot_kedro.blocks import KnnGraph, row_ranges
from lowshot_kedro.graph.codes import as_scores, usual_prefix_share
from lowshot_kedro.graph.list_search import QUERY_ROWS, ListSearch, n_candidates

# Lists looked through for a first idea of how far the k-th neighbour is.
_FIRST_PROBES = 8
# The part of the links that may be lost because the neighbour's list is not looked through.
_LOST_TO_SLACK = 5e-5
# What a sample has at most is exceeded seldom, and by little.
_BEYOND_SAMPLE = 1.1
# Numbers of first columns that tell whether a vector may be near.
PREFIXES = (native.CODE_WIDTH_UNIT, 2 * native.CODE_WIDTH_UNIT)
_WIDENING = 4
_TINY = float(np.finfo(np.float32).tiny)


class BoundedSearch:
    """Search over vectors in lists that finds all but a few in ten thousand neighbours.

    Args:
        lists: The vectors.

    Attributes:
        slack: How many times as large as expected the squared distance to a centroid may be; None:
            queries are compared with all vectors.
        shares: What parts of the largest squared distance that counts the first 64 and 128 columns
            of codes may hold, as in :class:`~lowshot_kedro.native.Prefix`.
        squared_radii: float32 (n,), the squared distances of the vectors to the centroids of their
            lists, by position.
    """

    def __init__(self, lists: ListSearch) -> None:
        self.lists = lists
        self.slack: float | None = None
        self.shares = (1.0, 1.0)
        n_vectors = len(lists.division.numbers)
        n_lists = len(lists.division.centroids)
        sums = np.zeros(n_lists)
        self.squared_radii = np.empty(n_vectors, np.float32)
        for first, last in row_ranges(n_vectors, QUERY_ROWS):
            of_rows = lists.division.lists(first, last)
            codes = lists.codes.part(slice(first, last))
            squares = np.maximum(self.distances_to_centroids(codes, of_rows), 0)
            self.squared_radii[first:last] = squares
            sums += np.bincount(of_rows, squares, n_lists)
        self._squared_spread = sums / np.maximum(np.diff(lists.division.offsets), 1)

    def fit(
        self,
        queries: NDArray[np.float32],
        neighbors: KnnGraph,
        likely: NDArray[np.float64] | None = None,
    ) -> None:
        """Take the slack, and the share of first columns, from queries with known neighbours.

        Args:
            queries: float32 (s, d), queries.
            neighbors: (s, k), all their neighbours.
            likely: As for :func:`slack_of`.
        """
        rows, columns = np.nonzero(neighbors.indices >= 0)
        encoder = self.lists.encoder
        codes, _ = encoder.encode(queries)
        kth = np.where(neighbors.indices >= 0, neighbors.similarities, np.inf)
        kth = kth.min(axis=1, initial=np.inf)[rows]
        positions = self.lists.division.positions[neighbors.indices[rows, columns]]
        of_links = codes.part(rows)
        self.slack = slack_of(self.ratios(of_links, kth, positions), likely)
        neighbors_of_links = self.lists.codes.values[positions]
        least = encoder.least_scores(kth, of_links.biases)
        self.shares = shares_of(prefix_shares(of_links, neighbors_of_links, least), encoder.width)

    def ratios(
        self, queries: native.Codes, kth: NDArray[np.float32], positions: NDArray[np.integer[Any]]
    ) -> NDArray[np.float64]:
        """For links, the squared distance to the centroid, divided by the one that is expected.

        Args:
            queries: Codes (m, w), of the query of each link.
            kth: float32 (m,), the similarity of its k-th neighbour.
            positions: integer (m,), where the neighbour stands.
        """
        holding = self.lists.division.lists_of(positions)
        squares = self.lists.space.squared_distances(kth.astype(np.float64))
        expected = np.maximum(squares, 0) + self._squared_spread[holding]
        ratios: NDArray[np.float64] = self.distances_to_centroids(queries, holding) / np.maximum(
            expected, _TINY
        )
        return ratios

    def distances_to_centroids(
        self, codes: native.Codes, lists: NDArray[np.int32]
    ) -> NDArray[np.float64]:
        """The squared distance of each query to the centroid of one list."""
        scores = native.score_pairs(self.lists.centroids.codes, lists, codes.values)
        return self.lists.encoder.squared_distances(scores, codes.biases)

    def nearest(self, queries: NDArray[np.float32], k: int, width: int = 0) -> KnnGraph:
        """The k most similar vectors of each query.

        Args:
            queries: float32 (q, d), queries.
            k: How many.
            width: How many candidates to rank, if that is more than usual. More are ranked where
                codes cannot tell them from the k-th.

        Returns:
            Numbers and similarities, of equal similarities the smaller number first; -1 and -inf
            where there are fewer than k. In memory besides: for 65536 queries their codes and
            candidates.
        """
        width = min(native.MAX_NEIGHBORS, max(n_candidates(k), width))
        blocks = (
            self._nearest(queries[first:last], k, width)
            for first, last in row_ranges(len(queries), QUERY_ROWS)
        )
        return KnnGraph.joined(blocks, k)

    def _nearest(self, queries: NDArray[np.float32], k: int, width: int) -> KnnGraph:
        lists, encoder = self.lists, self.lists.encoder
        codes, _ = encoder.encode(queries)
        k_there = min(k, len(lists.division.numbers))
        probes = lists.probes(codes.values, _FIRST_PROBES)
        # Neighbouring queries share lists, whose codes are then read once for all of them.
        order = np.argsort(probes[:, 0], kind="stable")
        queries, probes = queries[order], probes[order]
        codes = codes.part(order)
        bounds = floors = np.full(len(queries), np.iinfo(np.int32).min, np.int32)
        if k_there:
            # By the vectors themselves: codes that are cut off may look nearer than they are.
            first = self._first(codes, probes, k_there)
            kth = lists.rank(queries, first, k_there, scattered=True).similarities[:, -1]
            floors = encoder.least_scores(kth, codes.biases)
            if self.slack is not None:
                bounds = self._bounds(codes, probes, kth)
        rows = np.arange(len(queries))
        ranked = KnnGraph(
            np.empty((len(queries), k), np.int32), np.empty((len(queries), k), np.float32)
        )
        while len(rows):
            part = codes.part(rows)
            found, scores = self._candidates(part, bounds[rows], floors[rows], width)
            of_part = lists.rank(queries[rows], found, k, scattered=True)
            ranked.indices[rows], ranked.similarities[rows] = of_part
            if width == native.MAX_NEIGHBORS or not k_there:
                break
            # Where the last candidate may be nearer than the k-th, so may others behind it.
            least = encoder.least_scores(of_part.similarities[:, k_there - 1], part.biases)
            unsure = np.flatnonzero((found[:, -1] >= 0) & (scores[:, -1] >= least))
            rows, least = rows[unsure], least[unsure]
            floors[rows] = np.maximum(floors[rows], least)
            width = min(_WIDENING * width, native.MAX_NEIGHBORS)
        result = KnnGraph(np.empty_like(ranked.indices), np.empty_like(ranked.similarities))
        result.indices[order], result.similarities[order] = ranked
        return result

    def _first(
        self, codes: native.Codes, probes: NDArray[np.int32], count: int
    ) -> NDArray[np.int32]:
        """Positions of so many vectors near to each query, int32 (q, count)."""
        lists = self.lists
        in_lists = native.Lists(lists.division.offsets)
        found, _ = native.search_lists(lists.codes, in_lists, codes.values, probes, count)
        short = np.flatnonzero(found[:, -1] < 0)
        if len(short):
            queries = np.ascontiguousarray(codes.values[short])
            found[short], _ = lists.candidates(queries, 4 * _FIRST_PROBES, count, count)
        return found

    def _bounds(
        self, codes: native.Codes, probes: NDArray[np.int32], kth: NDArray[np.float32]
    ) -> NDArray[np.int32]:
        """The least scores of centroids whose lists are looked through.

        Args:
            codes: Codes of the queries.
            probes: int32 (q, p), lists that are looked through in any case, -1 for none.
            kth: float32 (q,), the least similarity that counts.
        """
        assert self.slack is not None
        squares = np.maximum(self.lists.space.squared_distances(kth.astype(np.float64)), 0)
        bounds = as_scores(self.lists.encoder.scores_at(self.slack * squares, codes.biases))
        centroids = self._allowing_centroids
        for lists in probes.T:
            scores = native.score_pairs(centroids, np.maximum(lists, 0), codes.values)
            bounds = np.where(lists < 0, bounds, np.minimum(bounds, scores))
        return bounds

    @property
    def _allowing_centroids(self) -> native.Codes:
        """Codes of centroids, each nearer to everything by what the rule allows its list."""
        codes = self.lists.centroids.codes
        if self.slack is None:
            return codes
        allowed = as_scores(self.lists.encoder.scores_at(self.slack * self._squared_spread))
        most = native.largest_bias(codes.values.shape[1]) // 2
        biases = np.clip(codes.biases - allowed.astype(np.int64), -most, most)
        return native.Codes(codes.values, biases.astype(np.int32))

    def _candidates(
        self,
        codes: native.Codes,
        bounds: NDArray[np.int32],
        floors: NDArray[np.int32],
        width: int,
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Positions with the best scores, and these scores.

        Args:
            codes: Codes of the queries.
            bounds: int32 (q,), the least scores of centroids whose lists are looked through.
            floors: int32 (q,), the least scores that count.
            width: How many positions to find for each query.
        """
        lists = self.lists
        return native.search_lists_in_reach(
            lists.codes,
            lists.division.offsets,
            self._allowing_centroids,
            codes,
            bounds,
            floors,
            width,
            self.shares,
        )


def slack_of(known: NDArray[np.float64], likely: NDArray[np.float64] | None = None) -> float:
    """The slack with which the rule finds all links of a sample, and nearly all others.

    Args:
        known: float64 (m,), ratios of all links of a sample: the squared distance to the centroid
            of the list that holds the neighbour, divided by the one that the rule expects.
        likely: float64 (n,), the same of many more links, of which a few may be missing; None:
            there are no others, and what the sample needs is taken a little larger.
    """
    largest = float(known.max(initial=1.0))
    if likely is None:
        return _BEYOND_SAMPLE * largest
    if not len(likely):
        return largest
    return max(largest, float(np.quantile(likely, 1 - _LOST_TO_SLACK, method="higher")))


def prefix_shares(
    queries: native.Codes, neighbors: NDArray[np.int8], floors: NDArray[np.int32]
) -> NDArray[np.float64]:
    """What parts of the squared distance at its query's floor first columns of a link hold.

    Args:
        queries: Codes (m, w), of the query of each link.
        neighbors: int8 (m, w), codes of its neighbour.
        floors: int32 (m,), the least score that counts for the query.

    Returns:
        float64 (2, m), for each number of columns in PREFIXES.
    """
    whole = -2 * (floors.astype(np.float64) + queries.biases)
    squares = []
    for first, last in row_ranges(PREFIXES[-1], PREFIXES[0]):
        columns = slice(first, last)
        differences = queries.values[:, columns].astype(np.int32) - neighbors[:, columns]
        squares.append((differences**2).sum(axis=1))
    of_prefixes = np.cumsum(squares, axis=0)[[columns // PREFIXES[0] - 1 for columns in PREFIXES]]
    shares: NDArray[np.float64] = of_prefixes / np.maximum(whole, 1)
    return shares


def shares_of(shares: NDArray[np.float64], width: int) -> tuple[float, float]:
    """The parts that first columns may hold with which nearly all links are found.

    That is what all but one in a hundred thousand hold if codes are rotated at random, and no less
    than the largest of a sample and a little more: codes are only flipped and transformed, which
    spreads vectors of few coordinates less evenly.

    Args:
        shares: float64 (2, m), of the links of a sample.
        width: Columns of the codes.
    """
    first, second = (
        _share_of(of_links, columns, width)
        for of_links, columns in zip(shares, PREFIXES, strict=True)
    )
    return first, second


def _share_of(shares: NDArray[np.float64], columns: int, width: int) -> float:
    if width <= columns:
        return 1.0
    usual = usual_prefix_share(width, columns)
    return max(usual, _BEYOND_SAMPLE * float(shares.max(initial=0.0)))
