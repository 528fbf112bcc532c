"""Which clusters are worth looking at, and which of their images: numbers, no images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.blocks import row_ranges
from lowshot_kedro.parameters import require_integer

_BLOCK_ROWS = 2**20
# Images in memory before those are left out that are not needed.
_MAX_GATHERED = 2**21
# Two images of a cluster are taken for the same one if their distances differ by less than this
# part of the mean distance: the same features, computed in other batches, differ in the last bits.
_SAME = 1e-6
# Where all images of a cluster are equally far from its centroid, and not nearer than this part of
# the mean distance, they are different ones: repeats would lie on it.
_FAR = 0.1
# Whether a cluster consists of repeats is seen by so many of its images.
_LOOKED_AT = 512
_MAX_REPEATS = 0.5


class ClusteredImages(Protocol):
    """The clusters of N images; -1 for an image that has none."""

    @property
    def super_labels(self) -> NDArray[np.int32]:
        """int32 (N,), the super-cluster of each image."""
        ...

    @property
    def sub_labels(self) -> NDArray[np.int32]:
        """int32 (N,), its cluster in that super-cluster."""
        ...

    @property
    def distances(self) -> NDArray[np.float32]:
        """float32 (N,), how far it is from the centroid."""
        ...


@dataclass(frozen=True)
class ShownCluster:
    """A cluster, and the images that stand for it.

    Attributes:
        super_cluster: Its super-cluster.
        cluster: Its number in that super-cluster.
        size: How many images it has.
        mean_distance: The mean of their distances from the centroid.
        repeats: About which part of them, 0..1, repeats another one of them.
        numbers: int64 (n,), images of different distances, the nearest to the centroid first.
    """

    super_cluster: int
    cluster: int
    size: int
    mean_distance: float
    repeats: float
    numbers: NDArray[np.int64]


@dataclass(frozen=True)
class ChosenClusters:
    """Clusters that are worth looking at.

    Attributes:
        largest: Those with the most images, the largest first.
        tightest: Those whose images are nearest to their centroid, the tightest first.
        n_images: Images of all clusters.
        n_clusters: Clusters that have any image.
        n_super_clusters: Super-clusters that have any image.
    """

    largest: tuple[ShownCluster, ...]
    tightest: tuple[ShownCluster, ...]
    n_images: int
    n_clusters: int
    n_super_clusters: int


class _Gathered(NamedTuple):
    """Images of some clusters: place of the cluster among these, distance, number."""

    places: NDArray[np.int64]
    distances: NDArray[np.float64]
    numbers: NDArray[np.int64]

    def rows(self, chosen: NDArray[np.int64] | NDArray[np.bool_]) -> _Gathered:
        return _Gathered(self.places[chosen], self.distances[chosen], self.numbers[chosen])


def choose_clusters(clustering: ClusteredImages, n_clusters: int, n_images: int) -> ChosenClusters:
    """The largest clusters and the tightest ones, with the images nearest to their centroids.

    Of the smallest clusters nearly all are tight: a cluster of one image is its own centroid. So
    the tightest are those of the smallest mean distance among clusters that have `n_images` images
    (or as many as the median cluster), and at least half as many as the median cluster. Collections
    from the web hold the same image many times, which is as tight as can be and says nothing:
    clusters of which more than half are repeats do not count as tight. Among the largest they are
    shown. No image is shown twice.

    Labels and distances are read in blocks, some four times; in memory are a block, a few numbers
    for each cluster, and two million images of those that are looked at.

    Args:
        clustering: The clusters of N images; arrays may be memmaps.
        n_clusters: How many of the largest, and how many of the tightest.
        n_images: How many images of each.

    Raises:
        InputError: If a number is below 1.
    """
    require_integer("n_clusters", n_clusters, 1)
    require_integer("n_images", n_images, 1)
    clusters = _Clusters(clustering)
    sizes = clusters.sizes
    by_size = np.argsort(-sizes, kind="stable")[:n_clusters]
    largest = by_size[sizes[by_size] > 0]
    tightest = _tightest(clusters, n_clusters, n_images)
    keys = np.unique(np.concatenate([largest, tightest]))
    repeats = clusters.repeats(keys)
    nearest = clusters.gathered(keys, lambda found: clusters.nearest(keys, found, n_images))

    def shown(key: int) -> ShownCluster:
        place = int(np.searchsorted(keys, key))
        super_cluster, cluster = divmod(key, clusters.n_sub)
        return ShownCluster(
            super_cluster,
            cluster,
            int(sizes[key]),
            float(clusters.means[key]),
            float(repeats[place]),
            nearest.numbers[nearest.places == place],
        )

    has_any = sizes.reshape(-1, clusters.n_sub) > 0
    return ChosenClusters(
        tuple(map(shown, largest.tolist())),
        tuple(map(shown, tightest.tolist())),
        int(sizes.sum()),
        int(has_any.sum()),
        int(has_any.any(1).sum()),
    )


class _Clusters:
    """Sizes and mean distances of all clusters: number s · n_sub + c is cluster c of s.

    Args:
        clustering: The clusters of N images.
    """

    def __init__(self, clustering: ClusteredImages) -> None:
        self._clustering = clustering
        self._n_images = len(clustering.super_labels)
        n_super = self.n_sub = 1
        for first, last in row_ranges(self._n_images, _BLOCK_ROWS):
            n_super = max(n_super, 1 + int(clustering.super_labels[first:last].max()))
            self.n_sub = max(self.n_sub, 1 + int(clustering.sub_labels[first:last].max()))
        n_keys = n_super * self.n_sub
        self.sizes = np.zeros(n_keys, np.int64)
        sums = np.zeros(n_keys)
        for keys, distances, _ in self._blocks():
            self.sizes += np.bincount(keys, minlength=n_keys)
            sums += np.bincount(keys, distances, n_keys)
        self.means = sums / np.maximum(self.sizes, 1)
        self._mean = float(sums.sum()) / max(1, int(self.sizes.sum()))

    def _blocks(self) -> Iterator[_Gathered]:
        """All images that have a cluster: its number, the distance, and theirs."""
        of = self._clustering
        for first, last in row_ranges(self._n_images, _BLOCK_ROWS):
            of_super = np.asarray(of.super_labels[first:last], np.int64)
            of_sub = np.asarray(of.sub_labels[first:last], np.int64)
            block = _Gathered(
                of_super * self.n_sub + of_sub,
                np.asarray(of.distances[first:last], np.float64),
                np.arange(first, last),
            )
            yield block.rows((of_super >= 0) & (of_sub >= 0))

    def gathered(
        self, keys: NDArray[np.int64], needed: Callable[[_Gathered], _Gathered]
    ) -> _Gathered:
        """Images of some clusters, of which those that are needed stay in memory.

        Args:
            keys: Numbers of the clusters, increasing.
            needed: What has to be kept of the images found so far, by cluster.
        """
        place_of = np.full(len(self.sizes), -1)
        place_of[keys] = np.arange(len(keys))
        kept: list[_Gathered] = []
        for found in self._blocks():
            places = place_of[found.places]
            kept.append(found._replace(places=places).rows(places >= 0))
            if sum(len(part.numbers) for part in kept) > _MAX_GATHERED:
                kept = [needed(_joined(kept))]
        return needed(_joined(kept))

    def repeats(self, keys: NDArray[np.int64]) -> NDArray[np.float64]:
        """Which part of some clusters, 0..1, repeats another image, by the first of each."""
        found = self.gathered(keys, lambda found: _first(found, _LOOKED_AT))
        n_found = np.bincount(found.places, minlength=len(keys))
        distinct = self._distinct(keys, found)
        n_distinct = np.bincount(distinct.places, minlength=len(keys))
        repeats: NDArray[np.float64] = 1 - n_distinct / np.maximum(n_found, 1)
        return repeats

    def nearest(self, keys: NDArray[np.int64], found: _Gathered, n: int) -> _Gathered:
        """The n images of each of some clusters that are nearest to its centroid and different."""
        found = self._distinct(keys, found)
        return found.rows(_ranks(found.places) < n)

    def _distinct(self, keys: NDArray[np.int64], found: _Gathered) -> _Gathered:
        """The first of those in each of some clusters whose distances are the same, nearest first.

        Two images are equally far from their mean, whatever they are, and so are the images of a
        collection that has fewer of them than features have dimensions. So where all of a cluster
        are equally far, their distance tells whether they are repeats. Which images stay does not
        depend on how many are looked at together.
        """
        found = found.rows(np.lexsort((found.numbers, found.distances, found.places)))
        # Above 0, also where all images are in the same place.
        same = max(_SAME * self._mean, float(np.finfo(np.float32).tiny))
        units = np.floor(found.distances / same)
        is_new = np.ones(len(units), np.bool_)
        is_new[1:] = (np.diff(found.places) != 0) | (np.diff(units) != 0)
        is_even = np.bincount(found.places[is_new], minlength=len(keys)) == 1
        is_even &= self.sizes[keys] <= _LOOKED_AT
        return found.rows(is_new | (is_even[found.places] & (found.distances > _FAR * self._mean)))


def _tightest(clusters: _Clusters, n_clusters: int, n_images: int) -> NDArray[np.int64]:
    sizes = clusters.sizes
    median = float(np.median(sizes[sizes > 0])) if sizes.any() else 0.0
    enough = np.flatnonzero(sizes >= max(2, min(n_images, median), median / 2))
    candidates = enough[np.argsort(clusters.means[enough], kind="stable")]
    chosen: list[int] = []
    first, n_looked_at = 0, 2 * n_clusters
    # Where many are repeats, more are looked at each time: each look reads all labels.
    while first < len(candidates) and len(chosen) < n_clusters:
        keys = np.sort(candidates[first : first + n_looked_at])
        is_repeats = dict(zip(keys, clusters.repeats(keys) > _MAX_REPEATS, strict=True))
        chosen += [key for key in candidates[first : first + n_looked_at] if not is_repeats[key]]
        first, n_looked_at = first + n_looked_at, 4 * n_looked_at
    return np.array(chosen[:n_clusters], np.int64)


def _joined(parts: list[_Gathered]) -> _Gathered:
    if not parts:
        return _Gathered(np.empty(0, np.int64), np.empty(0), np.empty(0, np.int64))
    return _Gathered(*map(np.concatenate, zip(*parts, strict=True)))


def _first(found: _Gathered, n: int) -> _Gathered:
    """The first n of each cluster."""
    found = found.rows(np.lexsort((found.numbers, found.places)))
    return found.rows(_ranks(found.places) < n)


def _ranks(places: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many of the same cluster come before, of images in the order of their clusters."""
    n_images = len(places)
    begins = np.ones(n_images, np.bool_)
    begins[1:] = np.diff(places) != 0
    firsts = np.flatnonzero(begins)
    return np.arange(n_images) - np.repeat(firsts, np.diff(firsts, append=n_images))
