"""Links between the background and the points that join it, found in the background's lists.

A background point gets a labelled neighbour if that is more similar to it than its k-th neighbour
so far. The stored graph says how similar that one is, which bounds how far from a list's centroid a
labelled point can be that matters to the list's points; the rule is that of
:mod:`lowshot_kedro.graph.bounded_search`. What codes leave is compared by the vectors themselves.

A sample of the points is compared with everything: one half of it sets how much slack the rule has,
the other half tells what part of the links has been found.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro import native
from lowshot_kedro.blocks import KnnGraph, row_ranges
from lowshot_kedro.graph.background import UnlabeledNodes
from lowshot_kedro.graph.bounded_search import (
    BoundedSearch,
    prefix_share_of,
    prefix_shares,
    slack_of,
)
from lowshot_kedro.graph.centroids import lists_of
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
# The part of the links that is promised to be found.
WANTED_SHARE = 0.999
# Comparisons up to which labelled points are compared with every query, list search or not.
_COMPARE_ALL_UP_TO = 10_000_000
# How many lists times labelled points are looked at together.
_MAX_PAIRS = 2**24
_MIN_CANDIDATES = 8
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
        by_list = lists_of(lists.probes(codes.values, 1)[:, 0], len(division.centroids))
        assert by_list.members is not None
        self._among_labeled = BoundedSearch(
            ListSearch(
                labeled_vectors,
                Division(division.centroids, by_list.offsets, by_list.members, division.n_probe),
                lists.encoder,
                self._labeled.part(by_list.members).codes,
                inverse_lengths,
            )
        )
        self._slack: float | None = None
        self._prefix_share = 1.0
        with logged_step("insertion: comparing a sample with everything"):
            self._sampled, self._wanted = self._sample_points(test_vectors)
            self._pairs = self._sample_pairs()

    def of_points(self, points: NDArray[np.float32]) -> tuple[KnnGraph, KnnGraph]:
        """The k most similar background and labelled points of each point of length 1."""
        return self._background.nearest(points, self._k), self._labeled_of(points)

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

    def _labeled_of(self, points: NDArray[np.float32]) -> KnnGraph:
        labeled = self._labeled.vectors
        if len(points) * len(labeled) > _COMPARE_ALL_UP_TO:
            return self._among_labeled.nearest(points, self._k)
        return compare_with_all(labeled, points, self._k)

    def _sample_points(
        self, test_vectors: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Set the slack of searches for points by a sample of them.

        Returns:
            int64 (s,), which of them tell how good the search is, labelled points first; and
            float32 (s, k), the similarities of their neighbours.
        """
        labeled = self._labeled.vectors
        n_labeled = len(labeled)
        sampled = sample_rows(n_labeled + len(test_vectors), self._n_sampled)
        of_test = sampled[sampled >= n_labeled] - n_labeled
        vectors = np.concatenate([labeled[sampled[sampled < n_labeled]], test_vectors[of_test]])
        both = (
            (self._background, self._background.nearest(vectors, self._k)),
            (self._among_labeled, compare_with_all(labeled, vectors, self._k)),
        )
        if len(sampled) == self._n_sampled:
            for search, found in both:
                search.fit(vectors[::2], KnnGraph(found.indices[::2], found.similarities[::2]))
        similarities = np.concatenate([found.similarities for _, found in both], axis=1)
        wanted = -np.sort(-similarities, axis=1)[:, : self._k]
        return sampled[1::2], wanted[1::2]

    def _sample_pairs(self) -> _Pairs:
        """Set the slack of links to labelled points by a sample of these.

        Returns:
            Links to other labelled points, which tell how good the search is.
        """
        n_labeled = len(self._labeled.vectors)
        sampled = sample_rows(n_labeled, self._n_sampled)
        points = self._labeled.part(sampled)
        background, encoder = self._background, self._background.lists.encoder
        ratios, shares = [np.zeros(0)], [np.zeros(0)]
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
            lists = background.lists.division.lists_of(links.positions[links_of[fitted]])
            of_links = points.codes.part(of_sample[fitted])
            distances = background.distances_to_centroids(of_links, lists)
            reach = self._reach(links.positions, links.least)[links_of[fitted]]
            ratios.append(distances / np.maximum(reach, _TINY))
            queries = background.lists.codes.part(links.positions[links_of[fitted]])
            least = encoder.least_scores(links.least[links_of[fitted]], queries.biases)
            shares.append(prefix_shares(queries, of_links.values, least))
        if len(sampled) == self._n_sampled:
            self._slack = slack_of(np.concatenate(ratios))
            self._prefix_share = prefix_share_of(np.concatenate(shares), encoder.width)
        return _Pairs(*(np.concatenate(parts) for parts in zip(*pairs, strict=True)))

    def _reach(
        self, positions: NDArray[np.integer[Any]], least: NDArray[np.float32]
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
        n_background, n_points = len(lists.division.numbers), len(points.vectors)
        block_rows = QUERY_ROWS
        if slack is not None:
            rows_of_list = 1 + n_background // len(lists.division.centroids)
            block_rows = min(QUERY_ROWS, max(1024, _MAX_PAIRS // n_points * rows_of_list))
        with Progress(n_background, "links to labelled points") as bar:
            for first, last in row_ranges(n_background, block_rows):
                numbers = lists.division.numbers[first:last]
                least = self._least[numbers]
                if slack is None:
                    members = native.Lists(np.array([0, n_points], np.int64))
                    probes = np.zeros((last - first, 1), np.int32)
                    limits = np.full_like(probes, n_points)
                else:
                    members, probes, limits = self._near_lists(points, first, last, least, slack)
                found, nearest = self._nearest(points, members, probes, limits, first, least)
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

    def _near_lists(
        self, points: Points, first: int, last: int, least: NDArray[np.float32], slack: float
    ) -> tuple[native.Lists, NDArray[np.int32], NDArray[np.int32]]:
        """The points that may have links to background points, nearest to their centroids first.

        Args:
            points: Labelled points.
            first: Position of the first background point.
            last: One after that of the last.
            least: float32 (last - first,), the similarities of their k-th neighbours.
            slack: How far from a centroid points may be, as for BoundedSearch.

        Returns:
            The points near each list of the background; int32 (last - first, 1), the list of each
            background point; and int32 (last - first, 1), how many of its first points are within
            reach.
        """
        search = self._background
        encoder, centroids = search.lists.encoder, search.lists.centroids.codes
        of_rows = search.lists.division.lists(first, last)
        reach = self._reach(np.arange(first, last), least)
        bounds = as_scores(encoder.scores_at(slack * reach))
        is_first = np.diff(of_rows, prepend=-1) > 0
        lists = of_rows[is_first]
        codes = centroids.part(lists)
        scores = native.score_all(points.codes, codes.values)
        # Those of the points as queries, with whose biases they are compared.
        scores += codes.biases[:, None]
        begins = np.append(np.flatnonzero(is_first), last - first)
        order, within = native.order_within_reach(scores, begins, bounds)
        return (
            native.Lists(len(points.vectors) * np.arange(len(lists) + 1), order.ravel()),
            (np.cumsum(is_first, dtype=np.int32) - 1)[:, None],
            within[:, None],
        )

    def _nearest(
        self,
        points: Points,
        members: native.Lists,
        probes: NDArray[np.int32],
        limits: NDArray[np.int32],
        first: int,
        least: NDArray[np.float32],
    ) -> tuple[NDArray[np.int64], KnnGraph]:
        """The most similar points of those background points that may have some that are nearer.

        Args:
            points: Labelled points.
            members: Numbers of points.
            probes: int32 (b, 1), which of these lists each background point looks through.
            limits: int32 (b, 1), how many of its first points.
            first: Position of the first background point.
            least: float32 (b,), the similarities of their k-th neighbours.
        """
        lists, k = self._background.lists, self._k
        rows = slice(first, first + len(probes))
        codes = lists.codes.part(rows)
        floors = lists.encoder.least_scores(least, codes.biases)
        n_points, n_background = len(points.vectors), len(lists.division.numbers)
        usual = n_candidates(k)
        width = min(usual, max(_MIN_CANDIDATES, 4 * k * n_points // n_background))
        found, scores = native.search_lists(
            points.codes,
            members,
            codes.values,
            probes,
            width,
            floors,
            native.Prefix(codes.biases, self._prefix_share),
            limits,
        )
        hit = np.flatnonzero(found[:, 0] >= 0)
        queries = lists.queries(lists.division.numbers[first + hit])
        nearest = KnnGraph(
            *native.rank_candidates(points.vectors, points.inverse_lengths, queries, found[hit], k)
        )
        found, scores = found[hit], scores[hit]
        unsure = np.arange(len(hit))
        # Behind the last candidate there may be others that are as near.
        while width < min(n_points, native.MAX_NEIGHBORS):
            biases = codes.biases[hit[unsure]]
            kth = lists.encoder.least_scores(nearest.similarities[unsure, k - 1], biases)
            unsure = unsure[(found[:, -1] >= 0) & (scores[:, -1] >= kth)]
            if not len(unsure):
                break
            width = min(max(_WIDENING * width, usual), native.MAX_NEIGHBORS)
            of_unsure = hit[unsure]
            found, scores = native.search_lists(
                points.codes,
                members,
                np.ascontiguousarray(codes.values[of_unsure]),
                np.ascontiguousarray(probes[of_unsure]),
                width,
                floors[of_unsure],
                native.Prefix(codes.biases[of_unsure], self._prefix_share),
                np.ascontiguousarray(limits[of_unsure]),
            )
            nearest.indices[unsure], nearest.similarities[unsure] = native.rank_candidates(
                points.vectors, points.inverse_lengths, queries[unsure], found, k
            )
        return hit, nearest


def _share(n_found: int, n_wanted: int, n_points: int) -> dict[str, Any]:
    return {
        "share": n_found / n_wanted if n_wanted else 1.0,
        "n_links": n_wanted,
        "n_sampled": n_points,
    }
