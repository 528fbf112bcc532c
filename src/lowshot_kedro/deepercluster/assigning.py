"""Clusters of images that have not been clustered: those with the nearest centroids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lowshot_kedro.blocks import row_ranges
from lowshot_kedro.deepercluster.assigners import UNKNOWN
from lowshot_kedro.deepercluster.native_assigner import NativeAssigner
from lowshot_kedro.deepercluster.rows import as_matrix
from lowshot_kedro.deepercluster.whitening import Whitening
from lowshot_kedro.errors import InputError

_BLOCK_ROWS = 2**14
_NAMES = ("mean", "projection", "super_centroids", "centroids", "super_clusters")


class AssignedClusters(NamedTuple):
    """The clusters of n images.

    Attributes:
        super_labels: int32 (n,), their super-clusters.
        sub_labels: int32 (n,), their clusters in these.
        distances: float32 (n,), how far they are from the centroids.
    """

    super_labels: NDArray[np.int32]
    sub_labels: NDArray[np.int32]
    distances: NDArray[np.float32]


def assign_clusters(
    features: ArrayLike, centroids: Mapping[str, NDArray[np.generic]]
) -> AssignedClusters:
    """Assign images to clusters by their features, as the images were that the clusters are of.

    Args:
        features: (n, F), in memory or a memmap; of the network whose clusters these are.
        centroids: What :meth:`~lowshot_kedro.deepercluster.assignments.Clustering.centroid_arrays`
            returns, and the dataset `cluster_centroids` of a catalog holds.

    Returns:
        Their super-clusters, their clusters in these, and how far they are from the centroids. In
        memory besides: 16384 rows.

    Raises:
        InputError: If an array is missing, for another number of columns, NaN or infinity.
    """
    missing = [name for name in _NAMES if name not in centroids]
    if missing:
        raise InputError(f"centroids: found no array {missing[0]}; expected {', '.join(_NAMES)}")
    mean, projection = (np.asarray(centroids[name], np.float64) for name in _NAMES[:2])
    whitening = Whitening(mean, projection, np.zeros(len(projection)))
    supers = np.asarray(centroids["super_centroids"], np.float32)
    # Those of a super-cluster stand together, the super-clusters in their order.
    bounds = np.searchsorted(np.asarray(centroids["super_clusters"]), range(len(supers) + 1))
    matrix = as_matrix(features)
    found = AssignedClusters(
        np.empty(len(matrix), np.int32),
        np.empty(len(matrix), np.int32),
        np.empty(len(matrix), np.float32),
    )
    for first, last in row_ranges(len(matrix), _BLOCK_ROWS):
        rows = whitening.apply(matrix[first:last])
        of_super, _ = _nearest(rows, supers)
        found.super_labels[first:last] = of_super
        for number in np.unique(of_super).tolist():
            own = np.flatnonzero(of_super == number)
            candidates = centroids["centroids"][bounds[number] : bounds[number + 1]]
            labels, squares = _nearest(rows[own], np.ascontiguousarray(candidates, np.float32))
            found.sub_labels[first + own] = labels
            found.distances[first + own] = np.sqrt(squares)
    return found


def _nearest(
    rows: NDArray[np.float32], centroids: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """The nearest centroid of each row, and its squared distance."""
    labels, distances = np.full(len(rows), UNKNOWN, np.int32), np.empty(len(rows))
    # Rows have length 1.
    assigner = NativeAssigner(1.0)
    assigner.begin(centroids, None)
    assigner.assign(rows, labels, distances)
    assigner.finish()
    return labels, distances
