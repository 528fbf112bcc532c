"""Centroids that divide vectors into lists, and the search for the nearest of them."""

from __future__ import annotations

import math
from contextlib import closing

import faiss
import numpy as np
from numpy.typing import NDArray

from lowshot_kedro import native
from lowshot_kedro.blocks import row_ranges
from lowshot_kedro.graph.codes import VectorEncoder, search_all, usual_prefix_share
from lowshot_kedro.graph.spaces import COSINE, Space
from lowshot_kedro.interruption import require_no_stop
from lowshot_kedro.threads import map_in_threads, map_rows, run_in_one_thread

_ITERATIONS = 10
_SEED = 1234
_TRAINING_VECTORS_PER_GROUP = 256
# Below this number of centroids all are compared; above, those of the nearest groups.
_FLAT_UP_TO = 1024
_MIN_GROUPS = 16
# Groups that are searched first for one centroid: what they hold, most others are farther than.
_FIRST_GROUPS = 2
_LISTS_PER_PROBE = 4
# Centroids around each one, among which are those nearest to vectors of its list, up to an eighth.
_AROUND = 384
_LISTS_AROUND_PER_PROBE = 8
_MAX_PROBES = 4096
_BLOCK_ROWS = 65536
# Multiplications of an iteration of k-means beside others, which cannot be stopped: about a second.
# Groups are about equally large, unless most vectors are near to each other and some far away.
_MAX_MULTIPLICATIONS = 2**33


def _kmeans(
    vectors: NDArray[np.float32], n_centroids: int, space: Space = COSINE
) -> NDArray[np.float32]:
    """k-means with faiss, which may start no threads: the same for any number of them.

    Where the cosine counts it is spherical: centroids have length 1. Iterations are made one by
    one, so that the work can be stopped in any thread.
    """
    clustering = faiss.Clustering(vectors.shape[1], int(n_centroids))
    clustering.niter = 1
    clustering.seed = _SEED
    clustering.spherical = not space.is_euclidean
    clustering.min_points_per_centroid = 1
    clustering.max_points_per_centroid = max(1, len(vectors))
    vectors = np.ascontiguousarray(vectors)
    for _ in range(_ITERATIONS):
        require_no_stop()
        clustering.train(vectors, space.flat_index(vectors.shape[1]))
    return faiss.vector_to_array(clustering.centroids).reshape(n_centroids, -1)


def train_centroids(
    sample: NDArray[np.float32],
    n_centroids: int,
    space: Space = COSINE,
    max_multiplications: int = _MAX_MULTIPLICATIONS,
) -> NDArray[np.float32]:
    """Centroids of points, by k-means in two levels.

    The vectors are divided into about √n groups, and each group into a share of the centroids that
    is its share of the vectors. That takes 2·√n instead of n comparisons for each vector.

    Args:
        sample: float32 (m, d).
        n_centroids: At most m.
        space: Space in which the points are compared.
        max_multiplications: Multiplications of an iteration in a group that is trained beside
            others, at most.

    Returns:
        float32 (n_centroids, d); centroids of one group stand together.
    """
    if len(sample) == 0:
        return np.zeros((n_centroids, sample.shape[1]), np.float32)
    n_groups = math.isqrt(n_centroids)
    if n_groups < 2 or len(sample) < 2 * n_centroids:
        return run_in_one_thread(_kmeans, sample, n_centroids, space)
    step = max(1, len(sample) // (_TRAINING_VECTORS_PER_GROUP * n_groups))
    groups = run_in_one_thread(_kmeans, sample[::step], n_groups, space)
    nearest = _nearest_group(sample, groups, space)
    members = [np.flatnonzero(nearest == group) for group in range(n_groups)]
    members = [group for group in members if len(group)]
    shares = _apportion(np.array([len(group) for group in members]), n_centroids)

    def train(group: int) -> NDArray[np.float32]:
        return _kmeans(sample[members[group]], int(shares[group]), space)

    # From the largest group down, so that no thread is left with a large one at the end.
    order = np.argsort([-len(group) for group in members], kind="stable").tolist()
    multiplications = shares * [len(group) * sample.shape[1] for group in members]
    large = [group for group in order if multiplications[group] > max_multiplications]
    others = [group for group in order if multiplications[group] <= max_multiplications]
    trained = {group: run_in_one_thread(train, group) for group in large}
    with closing(map_in_threads(train, others)) as results:
        trained.update(zip(others, results, strict=True))
    return np.concatenate([trained[group] for group in range(len(members))])


def _nearest_group(
    sample: NDArray[np.float32], groups: NDArray[np.float32], space: Space
) -> NDArray[np.int32]:
    if space.is_euclidean:
        # Codes of one step for all might not tell the groups apart.
        found = map_rows(
            lambda part: faiss.knn(part, groups, 1, metric=space.faiss_metric)[1], sample
        )
        return np.concatenate(found)[:, 0].astype(np.int32)
    encoder = VectorEncoder(groups, space)
    search = CentroidSearch(groups, encoder)
    nearest = np.empty(len(sample), np.int32)
    for first, last in row_ranges(len(sample), _BLOCK_ROWS):
        codes = encoder.encode_points(sample[first:last])
        nearest[first:last] = search.assign(codes)
    return nearest


def _apportion(sizes: NDArray[np.int64], seats: int) -> NDArray[np.int64]:
    """Seats in proportion to sizes: for each at least one, and at most its size."""
    wanted = sizes * (seats / sizes.sum())
    shares: NDArray[np.int64] = np.clip(np.floor(wanted).astype(np.int64), 1, sizes)
    while shares.sum() != seats:
        if shares.sum() < seats:
            shares[np.argmax(np.where(shares < sizes, wanted - shares, -np.inf))] += 1
        else:
            shares[np.argmin(np.where(shares > 1, wanted - shares, np.inf))] -= 1
    return shares


class CentroidSearch:
    """Finds the centroids nearest to vectors, by their codes.

    Many centroids are put into groups, and only those of the nearest groups are compared.

    Args:
        centroids: float32 (L, d), points.
        encoder: Encoder of the vectors that will be searched for.
        flat_up_to: So many centroids are all compared, without groups.

    Attributes:
        codes: Codes of the centroids.
    """

    def __init__(
        self,
        centroids: NDArray[np.float32],
        encoder: VectorEncoder,
        flat_up_to: int = _FLAT_UP_TO,
    ) -> None:
        self.codes = encoder.encode_points(centroids)
        self._around: native.Lists | None = None
        n_centroids = len(centroids)
        self._n_groups = 1 if n_centroids <= flat_up_to else math.isqrt(n_centroids)
        if self._n_groups == 1:
            return
        groups = run_in_one_thread(_kmeans, centroids, self._n_groups, encoder.space)
        group_codes = encoder.encode_points(groups)
        nearest, _ = search_all(group_codes, self.codes.values, 1)
        # Without empty groups, so that every query finds a centroid in the nearest one.
        filled, group_of = np.unique(nearest[:, 0], return_inverse=True)
        self._n_groups = len(filled)
        self._group_codes = group_codes.part(filled)
        self._lists = lists_of(group_of.astype(np.int32), self._n_groups)

    def nearest(self, queries: NDArray[np.int8], count: int) -> NDArray[np.int32]:
        """The nearest centroids of each query.

        Args:
            queries: int8 (q, w), codes.
            count: How many centroids to find for each query.

        Returns:
            int32 (q, count), nearest first, -1 where there are fewer.
        """
        if self._n_groups == 1:
            return search_all(self.codes, queries, count)[0]
        groups = self._nearest_groups(queries, count)
        return native.search_lists(self.codes, self._lists, queries, groups, count)[0]

    def assign(self, queries: native.Codes) -> NDArray[np.int32]:
        """The nearest centroid of each query, in less time than :meth:`nearest` takes.

        Args:
            queries: Codes of the queries, as encoding makes them.

        Returns:
            int32 (q,).
        """
        if self._n_groups == 1:
            return search_all(self.codes, queries.values, 1)[0][:, 0]
        groups = self._nearest_groups(queries.values, 1)
        nearest, scores = self._best_of_groups(queries.values, groups[:, :_FIRST_GROUPS])
        # Of most centroids of the other groups, first columns tell that they are farther.
        prefix = native.Prefix(queries.biases, usual_prefix_share(queries.values.shape[1]))
        others, of_others = self._best_of_groups(
            queries.values, groups[:, _FIRST_GROUPS:], scores, prefix
        )
        is_nearer = (of_others > scores) | ((of_others == scores) & (others < nearest))
        return np.where(is_nearer & (others >= 0), others, nearest)

    def _nearest_groups(self, queries: NDArray[np.int8], count: int) -> NDArray[np.int32]:
        """The groups in which so many centroids are searched for, nearest first."""
        n_centroids = len(self.codes.values)
        n_groups = min(
            self._n_groups,
            max(_MIN_GROUPS, math.ceil(_LISTS_PER_PROBE * count * self._n_groups / n_centroids)),
        )
        return search_all(self._group_codes, queries, n_groups)[0]

    def _best_of_groups(
        self,
        queries: NDArray[np.int8],
        groups: NDArray[np.int32],
        floors: NDArray[np.int32] | None = None,
        prefix: native.Prefix | None = None,
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """The best centroid of some groups for each query, and its score."""
        found, scores = native.search_lists(
            self.codes, self._lists, queries, np.ascontiguousarray(groups), 1, floors, prefix
        )
        return found[:, 0], scores[:, 0]

    def nearest_around(
        self, queries: NDArray[np.int8], lists: NDArray[np.int32], count: int
    ) -> NDArray[np.int32]:
        """The nearest centroids of vectors whose lists are known.

        Those that are nearest to a vector are near to the centroid of its list, so that only these
        are compared, all vectors of a list at once.

        Args:
            queries: int8 (q, w), codes.
            lists: int32 (q,), the list of each query.
            count: How many centroids to find for each query.

        Returns:
            int32 (q, count), nearest first, -1 where there are fewer.
        """
        n_around = min(len(self.codes.values), _AROUND)
        if count * _LISTS_AROUND_PER_PROBE > n_around:
            return self.nearest(queries, count)
        if self._around is None:
            around, _ = search_all(self.codes, self.codes.values, n_around)
            offsets = np.arange(len(around) + 1, dtype=np.int64) * n_around
            self._around = native.Lists(offsets, around.ravel())
        return native.search_lists(self.codes, self._around, queries, lists[:, None], count)[0]


def probes_needed(
    search: CentroidSearch,
    queries: NDArray[np.int8],
    lists: NDArray[np.int32],
    n_lists: int,
    wanted: float,
) -> int:
    """The least number of lists to look through for a part of the neighbours of some queries.

    Args:
        search: For the centroids of the lists.
        queries: int8 (q, w), codes.
        lists: int32 (q, k), the list in which each neighbour of a query is; -1 for none.
        n_lists: How many lists there are.
        wanted: The part, 0..1.
    """
    order = search.nearest(queries, min(n_lists, _MAX_PROBES))
    return probes_among(order, lists, n_lists, wanted)


def missed_after_probes(
    search: CentroidSearch, queries: NDArray[np.int8], lists: NDArray[np.int32], n_lists: int
) -> NDArray[np.float64]:
    """What part of the neighbours of some queries is in none of the first lists.

    Args:
        search: As for :func:`probes_needed`.
        queries: As for :func:`probes_needed`.
        lists: As for :func:`probes_needed`.
        n_lists: As for :func:`probes_needed`.

    Returns:
        float64 (p,), for 1, 2, 3 … lists, all of them or 4096.
    """
    order = search.nearest(queries, min(n_lists, _MAX_PROBES))
    needed = _places(order, lists, n_lists)
    found = np.searchsorted(needed, np.arange(1, order.shape[1] + 1), side="right")
    return 1 - found / len(needed) if len(needed) else np.zeros(order.shape[1])


def probes_among(
    order: NDArray[np.int32], lists: NDArray[np.int32], n_lists: int, wanted: float
) -> int:
    """The least number of lists to look through, if that is done in a given order.

    Args:
        order: int32 (q, p), lists, -1 for none.
        lists: As for :func:`probes_needed`.
        n_lists: As for :func:`probes_needed`.
        wanted: As for :func:`probes_needed`.
    """
    needed = _places(order, lists, n_lists)
    if len(needed) == 0:
        return 1
    return int(needed[min(len(needed) - 1, math.ceil(wanted * len(needed)))])


def _places(order: NDArray[np.int32], lists: NDArray[np.int32], n_lists: int) -> NDArray[np.int32]:
    """How many lists have to be looked through for each neighbour, in ascending order."""
    place = np.full((len(order), n_lists), n_lists, np.int32)
    rows, places = np.nonzero(order >= 0)
    place[rows, order[rows, places]] = places + 1
    there = lists >= 0
    rows = np.broadcast_to(np.arange(len(order))[:, None], lists.shape)
    return np.sort(place[rows[there], lists[there]])


def lists_of(assigned: NDArray[np.int32], n_lists: int) -> native.Lists:
    """Lists of the vectors 0..n-1 from the list of each.

    Args:
        assigned: int32 (n,), the list of each vector.
        n_lists: How many lists there are.
    """
    offsets = np.zeros(n_lists + 1, np.int64)
    np.cumsum(np.bincount(assigned, minlength=n_lists), out=offsets[1:])
    # Short numbers are sorted many times as fast.
    short = assigned.astype(np.min_scalar_type(max(n_lists - 1, 0)))
    return native.Lists(offsets, np.argsort(short, kind="stable").astype(np.int32))
