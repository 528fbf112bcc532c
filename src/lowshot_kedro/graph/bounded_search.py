"""Search in lists that looks through as many lists as can hold a neighbour, for each query apart.

A search that looks through a fixed number of lists loses links where points lie apart: at the
border of a cluster neighbours are far, and stand in many lists. Here a list is looked through if
its centroid is near enough. For a point x in the list of centroid c, x - c and q - x point in
directions that have little to do with each other, so that about |q - c|² = |q - x|² + |x - c|².
A neighbour of q is no farther than the k-th found so far; |x - c|² is known, for each list on
average. How many times larger |q - c|² may be is the slack: the largest that occurs in a sample of
queries all of whose neighbours are known, and a little more.

Of the vectors in these lists few are near. Codes are rotated at random, so that their first P of w
columns hold about P/w of a squared distance, and those that hold too much tell that a vector is
farther than the k-th. That is J. Gao, C. Long, "High-dimensional approximate nearest neighbor
search: with reliable and efficient distance comparison operations" (SIGMOD 2023), which the scores
of codes take from there; how much is too much is set like the slack.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro import native
from lowshot_kedro.blocks import KnnGraph, row_ranges
from lowshot_kedro.graph.codes import as_scores, search_all, usual_prefix_share
from lowshot_kedro.graph.list_search import QUERY_ROWS, ListSearch, n_candidates

# Lists looked through for a first idea of how far the k-th neighbour is.
_FIRST_PROBES = 8
# Products of queries and centroids that are looked at together.
_MAX_PRODUCTS = 2**23
# Queries that look through fewer lists than these, or than four times as many, and so on, do so
# together.
_FEW_LISTS = 32
# Vectors that are compared in the time that looking up a list takes.
_WORTH_OF_LIST = 64
# Lists that queries look through, all queries together that are searched for at a time.
_MAX_PROBES = 2**22
# The sample's largest ratio of both sides of the rule is exceeded seldom, and by little.
_BEYOND_SAMPLE = 1.1
_WIDENING = 4
_TINY = float(np.finfo(np.float32).tiny)


class BoundedSearch:
    """Search over vectors in lists that finds all but a few in ten thousand neighbours.

    Args:
        lists: The vectors.

    Attributes:
        slack: How many times as large as expected the squared distance to a centroid may be; None:
            queries are compared with all vectors.
        prefix_share: What part of the largest squared distance that counts the first columns of
            codes may hold, as in :class:`~lowshot_kedro.native.Prefix`.
        squared_radii: float32 (n,), the squared distances of the vectors to the centroids of their
            lists, by position.
    """

    def __init__(self, lists: ListSearch) -> None:
        self.lists = lists
        self.slack: float | None = None
        self.prefix_share = 1.0
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

    def fit(self, queries: NDArray[np.float32], neighbors: KnnGraph) -> None:
        """Take the slack, and the share of first columns, from queries with known neighbours.

        Args:
            queries: float32 (s, d), queries.
            neighbors: (s, k), all their neighbours.
        """
        rows, columns = np.nonzero(neighbors.indices >= 0)
        encoder, division = self.lists.encoder, self.lists.division
        codes, _ = encoder.encode(queries)
        kth = np.where(neighbors.indices >= 0, neighbors.similarities, np.inf)
        kth = kth.min(axis=1, initial=np.inf)
        squares = self.lists.space.squared_distances(kth[rows].astype(np.float64))
        positions = division.positions[neighbors.indices[rows, columns]]
        holding = division.lists_of(positions)
        expected = np.maximum(squares, 0) + self._squared_spread[holding]
        of_links = codes.part(rows)
        found = self.distances_to_centroids(of_links, holding)
        self.slack = slack_of(found / np.maximum(expected, _TINY))
        shares = prefix_shares(
            of_links,
            self.lists.codes.values[positions],
            encoder.least_scores(kth[rows], of_links.biases),
        )
        self.prefix_share = prefix_share_of(shares, encoder.width)

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
        if self.slack is None or not k_there:
            squares = np.full(len(queries), np.inf)
            floors = np.full(len(queries), np.iinfo(np.int32).min, np.int32)
        else:
            # By the vectors themselves: codes that are cut off may look nearer than they are.
            first, _ = lists.candidates(codes.values, _FIRST_PROBES, k_there, k_there)
            kth = lists.rank(queries, first, k_there, scattered=True).similarities[:, -1]
            squares = np.maximum(lists.space.squared_distances(kth.astype(np.float64)), 0)
            floors = encoder.least_scores(kth, codes.biases)
        rows = np.arange(len(queries))
        ranked = KnnGraph(
            np.empty((len(queries), k), np.int32), np.empty((len(queries), k), np.float32)
        )
        while len(rows):
            part = codes.part(rows)
            found, scores = self._candidates(part, probes[rows], squares[rows], floors[rows], width)
            of_part = lists.rank(queries[rows], found, k, scattered=True)
            ranked.indices[rows], ranked.similarities[rows] = of_part
            if width == native.MAX_NEIGHBORS or not k_there:
                break
            # Where the last candidate may be nearer than the k-th, so may others behind it.
            least = encoder.least_scores(of_part.similarities[:, k_there - 1], part.biases)
            unsure = np.flatnonzero((found[:, -1] >= 0) & (scores[:, -1] >= least))
            rows, least = rows[unsure], least[unsure]
            squares[rows] = lists.space.squared_distances(
                ranked.similarities[rows, k_there - 1].astype(np.float64)
            )
            floors[rows] = np.maximum(floors[rows], least)
            width = min(_WIDENING * width, native.MAX_NEIGHBORS)
        result = KnnGraph(np.empty_like(ranked.indices), np.empty_like(ranked.similarities))
        result.indices[order], result.similarities[order] = ranked
        return result

    def _candidates(
        self,
        codes: native.Codes,
        nearest: NDArray[np.int32],
        squares: NDArray[np.float64],
        floors: NDArray[np.int32],
        width: int,
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Positions with the best scores, and these scores.

        Args:
            codes: Codes of the queries.
            nearest: int32 (q, p), the lists looked through in any case.
            squares: float64 (q,), squared distances of what counts.
            floors: int32 (q,), the least scores that count.
            width: How many positions to find for each query.
        """
        lists = self.lists
        if self.slack is None:
            return search_all(lists.codes, codes.values, width)
        in_lists = native.Lists(lists.division.offsets)
        found, scores = (np.empty((len(codes.values), width), np.int32) for _ in range(2))
        n_vectors = len(lists.codes.values)
        n_lists = len(lists.division.centroids)
        everything = native.Lists(np.array([0, n_vectors], np.int64))
        for rows, probes in self._probes(codes, nearest, squares):
            if probes.shape[1] * max(n_vectors // n_lists, _WORTH_OF_LIST) > n_vectors:
                members, probes = everything, np.zeros((len(rows), 1), np.int32)
            else:
                members = in_lists
            found[rows], scores[rows] = native.search_lists(
                lists.codes,
                members,
                codes.values[rows],
                probes,
                width,
                floors[rows],
                native.Prefix(codes.biases[rows], self.prefix_share),
            )
        return found, scores

    def _probes(
        self, codes: native.Codes, nearest: NDArray[np.int32], squares: NDArray[np.float64]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int32]]]:
        """The lists that are near enough, for queries that look through about equally many.

        Few queries, far from everything, look through most lists. By themselves they share these,
        and leave to the others the lists that those share.

        Yields:
            int64 (q,), some queries; and int32 (q, p), their lists, -1 behind the last of each row.
        """
        n_lists = len(self.lists.division.centroids)
        waiting: list[tuple[NDArray[np.int64], NDArray[np.int32]]] = []
        begin = n_waiting = 0
        for first, last in row_ranges(len(codes.values), max(64, _MAX_PRODUCTS // n_lists)):
            part = codes.part(slice(first, last))
            near = self._near(part, nearest[first:last], squares[first:last])
            if waiting and n_waiting + len(near[1]) > _MAX_PROBES:
                yield from _by_count(waiting, begin)
                waiting, begin, n_waiting = [], first, 0
            waiting.append(near)
            n_waiting += len(near[1])
        if waiting:
            yield from _by_count(waiting, begin)

    def _near(
        self, codes: native.Codes, nearest: NDArray[np.int32], squares: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """How many lists are near enough to each query, and these lists."""
        assert self.slack is not None
        encoder = self.lists.encoder
        scores = native.score_all(self.lists.centroids.codes, codes.values)
        # The rule, slack times the expected square, as a bound for scores.
        scores -= as_scores(encoder.scores_at(self.slack * self._squared_spread))
        near = scores >= as_scores(encoder.scores_at(self.slack * squares, codes.biases))[:, None]
        rows, places = np.nonzero(nearest >= 0)
        near[rows, nearest[rows, places]] = True
        return near.sum(axis=1), (np.flatnonzero(near) % near.shape[1]).astype(np.int32)


def _by_count(
    blocks: Sequence[tuple[NDArray[np.int64], NDArray[np.int32]]], first: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int32]]]:
    """Numbers of rows that have about equally many entries, and int32 (q, p), these.

    Args:
        blocks: Counts and entries of rows, one row's after the other's.
        first: Number of the first row.
    """
    counts, entries = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    sizes = np.log(np.maximum(counts, _FEW_LISTS) / _FEW_LISTS) / np.log(_WIDENING)
    of_rows = sizes.astype(np.int8)
    of_entries = np.repeat(of_rows, counts)
    for size in np.unique(of_rows):
        rows = np.flatnonzero(of_rows == size)
        lists = np.full((len(rows), counts[rows].max()), -1, np.int32)
        lists[np.arange(lists.shape[1]) < counts[rows, None]] = entries[of_entries == size]
        yield first + rows, lists


def slack_of(ratios: NDArray[np.float64]) -> float:
    """The slack with which the rule finds all links of a sample, and nearly all others.

    Args:
        ratios: float64 (m,), for each link the squared distance to the centroid of the list that
            holds the neighbour, divided by the one that the rule expects.
    """
    return _BEYOND_SAMPLE * float(ratios.max(initial=1.0))


def prefix_shares(
    queries: native.Codes, neighbors: NDArray[np.int8], floors: NDArray[np.int32]
) -> NDArray[np.float64]:
    """What part of the squared distance at its query's floor the first columns of a link hold.

    Args:
        queries: Codes (m, w), of the query of each link.
        neighbors: int8 (m, w), codes of its neighbour.
        floors: int32 (m,), the least score that counts for the query.
    """
    columns = slice(0, native.CODE_WIDTH_UNIT)
    differences = queries.values[:, columns].astype(np.int32) - neighbors[:, columns]
    whole = -2 * (floors.astype(np.float64) + queries.biases)
    shares: NDArray[np.float64] = (differences**2).sum(axis=1) / np.maximum(whole, 1)
    return shares


def prefix_share_of(shares: NDArray[np.float64], width: int) -> float:
    """The part that first columns may hold with which nearly all links are found.

    That is what all but one in a hundred thousand hold if codes are rotated at random, and no less
    than the largest of a sample and a little more: codes are only flipped and transformed, which
    spreads vectors of few coordinates less evenly.

    Args:
        shares: float64 (m,), of the links of a sample.
        width: Columns of the codes.
    """
    if width <= native.CODE_WIDTH_UNIT:
        return 1.0
    return max(usual_prefix_share(width), _BEYOND_SAMPLE * float(shares.max(initial=0.0)))
