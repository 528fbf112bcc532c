"""Links between the background and the points that join it, found in the background's lists.

A background point gets a labelled neighbour if that is more similar to it than its k-th neighbour
so far. The stored graph says how similar that one is, which bounds how far from a list's centroid a
labelled point can be that matters to the list's points; the rule is that of
:mod:`lowshot_kedro.graph.bounded_search`. What codes leave is compared by the vectors themselves.

Links of the stored graph tell how much slack the rule needs. A sample of the points is compared
with everything: one half of it says whether they need more, the other half tells what part of the
links has been found.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro import native
from lowshot_kedro.blocks import KnnGraph, row_ranges
from lowshot_kedro.graph.background import UnlabeledNodes
from lowshot_kedro.graph.bounded_search import (
    BoundedSearch,
    prefix_shares,
    shares_of,
    slack_of,
)
from lowshot_kedro.graph.codes import as_scores
from lowshot_kedro.graph.index import compare_with_all
from lowshot_kedro.graph.list_search import QUERY_ROWS, Division, ListSearch, n_candidates
from lowshot_kedro.graph.quality import ROUNDING, neighbors_found, sample_rows
from lowshot_kedro.graph.workspace import Workspace
from lowshot_kedro.progress import Progress, logged_step

logger = logging.getLogger(__name__)

# A sample of points is compared with everything: about so many links, at least and at most so many
# points, or all if there are no more.
_SAMPLED_LINKS = 4000
_MIN_SAMPLE = 128
_MAX_SAMPLE = 512
# Background points whose links in the stored graph tell about slack.
_BACKGROUND_SAMPLE = 2048
# The part of the links that is promised to be found.
WANTED_SHARE = 0.999
_MIN_CANDIDATES = 8
# Queries that stand together where they are compared with every point.
_LIST_ROWS = 256
_WIDENING = 4
_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Points:
    """Points that join the background.

    Attributes:
        vectors: float32 (m, d), normalised.
        inverse_lengths: float32 (m,).
        codes: Codes of these vectors.
    """

    vectors: NDArray[np.float32]
    inverse_lengths: NDArray[np.float32]
    codes: native.Codes

    def part(self, rows: NDArray[np.integer[Any]]) -> Points:
        """A copy of the points in some rows."""
        return Points(self.vectors[rows], self.inverse_lengths[rows], self.codes.part(rows))


class LinksToPoints(NamedTuple):
    """Background points to which points are nearer than their k-th neighbour so far.

    Attributes:
        rows: int64 (m,), background points.
        positions: int64 (m,), where they stand in the lists.
        least: float32 (m,), the similarity of that k-th neighbour.
        nearest: (m, k), the most similar of the points, among them some that are not nearer.
    """

    rows: NDArray[np.int64]
    positions: NDArray[np.int64]
    least: NDArray[np.float32]
    nearest: KnnGraph


class _Pairs(NamedTuple):
    """Links from the background to labelled points that there should be.

    Attributes:
        rows: int64 (m,), background points.
        labeled: int64 (m,), labelled points.
        similarities: float32 (m,).
    """

    rows: NDArray[np.int64]
    labeled: NDArray[np.int64]
    similarities: NDArray[np.float32]


class LinksInLists:
    """Searches that look through the lists of the background that can hold neighbours.

    Args:
        labeled_vectors: float32 (L, d), normalised.
        test_vectors: float32 (T, d), normalised.
        unlabeled: The background; its index is not looked at.
        division: Division of the background into lists.
        k: Neighbours of each.
        workspace: Folder for codes that the budget has no room for.
    """

    def __init__(
        self,
        labeled_vectors: NDArray[np.float32],
        test_vectors: NDArray[np.float32],
        unlabeled: UnlabeledNodes,
        division: Division,
        k: int,
        workspace: Workspace,
    ) -> None:
        self._k, self._workspace = k, workspace
        # Side by side, since they are read in the order of the lists, again and again.
        self._least = np.empty(len(unlabeled.vectors), np.float32)
        for first, last in row_ranges(len(self._least), QUERY_ROWS):
            self._least[first:last] = unlabeled.neighbors.similarities[first:last, k - 1]
        self._n_sampled = min(max(_SAMPLED_LINKS // k, _MIN_SAMPLE), _MAX_SAMPLE)
        with logged_step("insertion: encoding the background"):
            lists = ListSearch.of(unlabeled.vectors, division, workspace, "background_vectors")
            self._background = BoundedSearch(lists)
        codes, inverse_lengths = lists.encoder.encode(labeled_vectors)
        assert inverse_lengths is not None
        self._labeled = Points(labeled_vectors, inverse_lengths, codes)
        self._test_vectors = test_vectors
        self._slack: float | None = None
        self._shares = (1.0, 1.0)
        with logged_step("insertion: comparing a sample with everything"):
            ratios, ratios_of_members = self._ratios_of_background(unlabeled.neighbors)
            self._sampled, self._wanted = self._sample_points(ratios)
            self._pairs = self._sample_pairs(ratios_of_members)

    def of_points(self) -> tuple[KnnGraph, KnnGraph]:
        """The most similar background and labelled points of labelled and then of test points."""
        found = []
        for first, last in row_ranges(self._n_points, QUERY_ROWS):
            points = self._points(np.arange(first, last))
            of_background = self._background.nearest(points, self._k)
            found.append((of_background, self._labeled_of(points, of_background)))
        of_background, of_labeled = (
            KnnGraph.joined((both[which] for both in found), self._k) for which in (0, 1)
        )
        return of_background, of_labeled

    def labeled_of_background(self) -> tuple[NDArray[np.int64], KnnGraph]:
        """Background points that get labelled neighbours, and the most similar of these."""
        found = list(self._links(self._labeled, self._slack))
        rows = [np.empty(0, np.int64), *(links.rows for links in found)]
        return np.concatenate(rows), KnnGraph.joined((links.nearest for links in found), self._k)

    def quality(
        self, neighbors: NDArray[np.int32], labeled: KnnGraph, test: KnnGraph
    ) -> dict[str, Any]:
        """What part of the links that there should be has been found, on a sample.

        Args:
            neighbors: int32 (N, k), the graph over labelled and background points.
            labeled: Its links out of labelled points.
            test: The links of test points.
        """
        n_labeled = len(labeled.indices)
        is_labeled = self._sampled < n_labeled
        of_labeled = self._sampled[is_labeled], self._wanted[is_labeled]
        of_test = self._sampled[~is_labeled] - n_labeled, self._wanted[~is_labeled]
        return {
            "links_to_labeled": self._share_of_pairs(neighbors, n_labeled),
            "links_of_labeled": self._share_of_points(labeled, *of_labeled),
            "links_of_test": self._share_of_points(test, *of_test),
        }

    def _share_of_points(
        self, found: KnnGraph, rows: NDArray[np.int64], wanted: NDArray[np.float32]
    ) -> dict[str, Any]:
        hits, possible = neighbors_found(found.similarities[rows], wanted, self._k)
        return _share(int(hits.sum()), int(possible.sum()), len(rows))

    def _share_of_pairs(self, neighbors: NDArray[np.int32], n_labeled: int) -> dict[str, Any]:
        pairs = self._pairs
        of_rows = neighbors[n_labeled + pairs.rows]
        linked = (of_rows == pairs.labeled[:, None]).any(axis=1)
        # A point that has k nearer neighbours by now does not want the link any more.
        lost = np.flatnonzero(~linked)
        last = of_rows[lost, -1].astype(np.int64)
        background = self._background.lists
        vectors = np.zeros((len(lost), background.vectors.shape[1]), np.float32)
        among_labeled = (last >= 0) & (last < n_labeled)
        vectors[among_labeled] = self._labeled.vectors[last[among_labeled]]
        behind = last >= n_labeled
        vectors[behind] = background.queries(last[behind] - n_labeled)
        queries = background.queries(pairs.rows[lost])
        least = np.where(last < 0, -np.inf, np.einsum("ij,ij->i", vectors, queries))
        n_lost = int((pairs.similarities[lost] > least + ROUNDING).sum())
        n_linked = int(linked.sum())
        return _share(n_linked, n_linked + n_lost, len(np.unique(pairs.labeled)))

    @property
    def _n_points(self) -> int:
        return len(self._labeled.vectors) + len(self._test_vectors)

    def _points(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Labelled and then test points, by increasing numbers, as if they stood in one matrix."""
        n_labeled = len(self._labeled.vectors)
        of_labeled = self._labeled.vectors[rows[rows < n_labeled]]
        return np.concatenate([of_labeled, self._test_vectors[rows[rows >= n_labeled] - n_labeled]])

    def _labeled_of(self, queries: NDArray[np.float32], of_background: KnnGraph) -> KnnGraph:
        """The most similar labelled points, where they are nearer than all these neighbours."""
        least = of_background.similarities[:, -1]
        codes, _ = self._background.lists.encoder.encode(queries)
        hit, nearest = self._nearest(
            self._labeled, codes, least, self._among_all(self._labeled), lambda rows: queries[rows]
        )
        found = KnnGraph(
            np.full(of_background.indices.shape, -1, np.int32),
            np.full(of_background.indices.shape, -np.inf, np.float32),
        )
        found.indices[hit], found.similarities[hit] = nearest
        return found

    def _ratios_of_background(
        self, neighbors: KnnGraph
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What the rules expect of the links of a sample of the stored graph.

        Returns:
            Ratios of both sides of the rule, once as if the row were a point that joins, and once
            as if its neighbour were.
        """
        background, k = self._background, self._k
        division = background.lists.division
        rows = sample_rows(len(neighbors.indices), _BACKGROUND_SAMPLE)
        linked = neighbors.indices[rows, :k]
        links_of, columns = np.nonzero((linked >= 0) & (linked != rows[:, None]))
        # The numbers may be those of nothing, which is told when the graph is copied.
        there = linked[links_of, columns] < len(neighbors.indices)
        links_of, columns = links_of[there], columns[there]
        least = np.asarray(neighbors.similarities[rows, k - 1])[links_of]
        positions = division.positions
        of_rows = positions[rows[links_of]]
        of_linked = positions[linked[links_of, columns]]
        codes = background.lists.codes
        return (
            background.ratios(codes.part(of_rows), least, of_linked),
            self._ratios_of_members(codes.part(of_linked), least, of_rows),
        )

    def _ratios_of_members(
        self,
        points: native.Codes,
        least: NDArray[np.float32],
        positions: NDArray[np.integer[Any]],
    ) -> NDArray[np.float64]:
        """For links from the background, the same as :meth:`BoundedSearch.ratios`.

        Args:
            points: Codes (m, w), of the point that each leads to.
            least: float32 (m,), the similarity of the k-th neighbour of each background point.
            positions: integer (m,), where that one stands.
        """
        background = self._background
        lists = background.lists.division.lists_of(positions)
        distances = background.distances_to_centroids(points, lists)
        ratios: NDArray[np.float64] = distances / np.maximum(self._reach(positions, least), _TINY)
        return ratios

    def _sample_points(
        self, ratios: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Set the slack of searches for points by a sample of them.

        Args:
            ratios: Of links of the stored graph.

        Returns:
            int64 (s,), which of them tell how good the search is, labelled points first; and
            float32 (s, k), the similarities of their neighbours.
        """
        sampled = sample_rows(self._n_points, self._n_sampled)
        vectors = self._points(sampled)
        found = self._background.nearest(vectors, self._k)
        if len(sampled) == self._n_sampled:
            fitted = KnnGraph(found.indices[::2], found.similarities[::2])
            self._background.fit(vectors[::2], fitted, ratios)
        of_labeled = compare_with_all(self._labeled.vectors, vectors, self._k)
        similarities = np.concatenate([found.similarities, of_labeled.similarities], axis=1)
        wanted = -np.sort(-similarities, axis=1)[:, : self._k]
        return sampled[1::2], wanted[1::2]

    def _sample_pairs(self, ratios_of_members: NDArray[np.float64]) -> _Pairs:
        """Set the slack of links to labelled points by a sample of these.

        Args:
            ratios_of_members: Of links of the stored graph.

        Returns:
            Links to other labelled points, which tell how good the search is.
        """
        n_labeled = len(self._labeled.vectors)
        sampled = sample_rows(n_labeled, self._n_sampled)
        points = self._labeled.part(sampled)
        background, encoder = self._background, self._background.lists.encoder
        ratios, shares = [np.zeros(0)], [np.zeros((2, 0))]
        pairs = [_Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))]
        for links in self._links(points, None):
            nearer = links.nearest.similarities > links.least[:, None]
            links_of, columns = np.nonzero(nearer & (links.nearest.indices >= 0))
            of_sample = links.nearest.indices[links_of, columns]
            fitted, kept = (np.flatnonzero(of_sample % 2 == half) for half in (0, 1))
            pairs.append(
                _Pairs(
                    links.rows[links_of[kept]],
                    sampled[of_sample[kept]],
                    links.nearest.similarities[links_of[kept], columns[kept]],
                )
            )
            of_links = points.codes.part(of_sample[fitted])
            least = links.least[links_of[fitted]]
            positions = links.positions[links_of[fitted]]
            ratios.append(self._ratios_of_members(of_links, least, positions))
            queries = background.lists.codes.part(positions)
            floors = encoder.least_scores(least, queries.biases)
            shares.append(prefix_shares(queries, of_links.values, floors))
        if len(sampled) == self._n_sampled:
            self._slack = slack_of(np.concatenate(ratios), ratios_of_members)
            self._shares = shares_of(np.concatenate(shares, axis=1), encoder.width)
        return _Pairs(*(np.concatenate(parts) for parts in zip(*pairs, strict=True)))

    def _reach(
        self, positions: slice | NDArray[np.integer[Any]], least: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """How far from its centroid, squared, a point near each background point is expected.

        That is as far as the k-th neighbour is from it, and it from the centroid.
        """
        search = self._background
        squares = search.lists.space.squared_distances(least.astype(np.float64))
        reach: NDArray[np.float64] = np.maximum(squares, 0) + search.squared_radii[positions]
        return reach

    def _links(self, points: Points, slack: float | None) -> Iterator[LinksToPoints]:
        """Background points that have one of these points nearer than their k-th neighbour.

        Args:
            points: Labelled points, all or some.
            slack: How far from a centroid points may be, as for BoundedSearch; None: every point is
                compared with every background point.
        """
        lists = self._background.lists
        n_background = len(lists.division.numbers)
        with Progress(n_background, "links to labelled points") as bar:
            for first, last in row_ranges(n_background, QUERY_ROWS):
                numbers = lists.division.numbers[first:last]
                least = self._least[numbers]
                if slack is None:
                    search = self._among_all(points)
                else:
                    search = self._in_reach(points, first, least, slack)
                codes = lists.codes.part(slice(first, last))
                queries_of = partial(_queries_at, lists, numbers)
                found, nearest = self._nearest(points, codes, least, search, queries_of)
                nearer = np.flatnonzero(nearest.similarities[:, 0] > least[found])
                found = found[nearer]
                yield LinksToPoints(
                    numbers[found].astype(np.int64),
                    first + found,
                    least[found],
                    KnnGraph(nearest.indices[nearer], nearest.similarities[nearer]),
                )
                self._workspace.relieve(lists.vectors)
                bar.update(last - first)

    def _in_reach(
        self, points: Points, first: int, least: NDArray[np.float32], slack: float
    ) -> _Search:
        """Search for the points near the lists in which background points stand.

        Args:
            points: Labelled points.
            first: Position of the first background point.
            least: float32 (b,), the similarities of their k-th neighbours.
            slack: How far from a centroid points may be, as for BoundedSearch.
        """
        lists = self._background.lists
        offsets = lists.division.offsets
        reach = self._reach(slice(first, first + len(least)), least)
        bounds = as_scores(lists.encoder.scores_at(slack * reach))
        begin, end = np.searchsorted(offsets, [first, first + len(least)], side="right")
        begin = max(0, begin - 1)
        centroids = lists.centroids.codes.part(slice(begin, end))

        def search(
            rows: NDArray[np.intp],
            codes: native.Codes,
            floors: NDArray[np.int32],
            width: int,
            shares: tuple[float, float],
        ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
            inside = np.searchsorted(first + rows, offsets[begin : end + 1])
            return native.search_points_in_reach(
                points.codes, centroids, inside, codes, bounds[rows], floors, width, shares
            )

        return search

    def _among_all(self, points: Points) -> _Search:
        """Search that compares every query with every point."""
        code_width = points.codes.values.shape[1]

        def search(
            rows: NDArray[np.intp],
            codes: native.Codes,
            floors: NDArray[np.int32],
            width: int,
            shares: tuple[float, float],
        ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
            # Lists that reach everywhere; several, as each is the work of one thread.
            inside = np.append(np.arange(0, len(rows), _LIST_ROWS), len(rows))
            n_lists = len(inside) - 1
            anywhere = native.Codes(
                np.zeros((n_lists, code_width), np.int8), np.zeros(n_lists, np.int32)
            )
            everywhere = np.full_like(floors, np.iinfo(np.int32).min)
            return native.search_points_in_reach(
                points.codes, anywhere, inside, codes, everywhere, floors, width, shares
            )

        return search

    def _nearest(
        self,
        points: Points,
        codes: native.Codes,
        least: NDArray[np.float32],
        search: _Search,
        queries_of: Callable[[NDArray[np.intp]], NDArray[np.float32]],
    ) -> tuple[NDArray[np.intp], KnnGraph]:
        """The most similar points of those queries that may have some that are nearer.

        Args:
            points: Labelled points.
            codes: Codes of the queries.
            least: float32 (q,), the similarities of their k-th neighbours.
            search: Finds the points with the best scores.
            queries_of: The vectors of some queries, float32 (m, d).
        """
        encoder, k = self._background.lists.encoder, self._k
        floors = encoder.least_scores(least, codes.biases)
        n_points, n_background = len(points.vectors), len(self._least)
        usual = n_candidates(k)
        width = min(usual, max(_MIN_CANDIDATES, 4 * k * n_points // n_background))
        everything = np.arange(len(least))
        found, scores = search(everything, codes, floors, width, self._shares)
        hit = np.flatnonzero(found[:, 0] >= 0)
        queries = queries_of(hit)
        found, scores = found[hit], scores[hit]
        nearest = KnnGraph(
            *native.rank_candidates(points.vectors, points.inverse_lengths, queries, found, k)
        )
        unsure = np.arange(len(hit))
        # Behind the last candidate there may be others that are as near.
        while width < min(n_points, native.MAX_NEIGHBORS):
            biases = codes.biases[hit[unsure]]
            kth = encoder.least_scores(nearest.similarities[unsure, k - 1], biases)
            unsure = unsure[(found[:, -1] >= 0) & (scores[:, -1] >= kth)]
            if not len(unsure):
                break
            width = min(max(_WIDENING * width, usual), native.MAX_NEIGHBORS)
            rows = hit[unsure]
            found, scores = search(rows, codes.part(rows), floors[rows], width, self._shares)
            nearest.indices[unsure], nearest.similarities[unsure] = native.rank_candidates(
                points.vectors, points.inverse_lengths, queries[unsure], found, k
            )
        return hit, nearest


def _queries_at(
    lists: ListSearch, numbers: NDArray[np.int32], rows: NDArray[np.intp]
) -> NDArray[np.float32]:
    return lists.queries(numbers[rows])


class _Search(Protocol):
    """Finds points with the best scores."""

    def __call__(
        self,
        rows: NDArray[np.intp],
        codes: native.Codes,
        floors: NDArray[np.int32],
        width: int,
        shares: tuple[float, float],
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Numbers of points and their scores, int32 (q, width) each.

        Args:
            rows: int (q,), which of all queries.
            codes: Codes of these.
            floors: int32 (q,), the least scores that count.
            width: How many points to find for each.
            shares: As for :func:`~lowshot_kedro.native.search_lists_in_reach`.
        """
        ...


def _share(n_found: int, n_wanted: int, n_points: int) -> dict[str, Any]:
    return {
        "share": n_found / n_wanted if n_wanted else 1.0,
        "n_links": n_wanted,
        "n_sampled": n_points,
    }
