"""Which cluster each image is in, as a table that a person can use by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from lowshot_kedro.blocks import TableBlocks, row_ranges
from lowshot_kedro.deepercluster.panel import ClusteredImages
from lowshot_kedro.images import ImageSource, file_namer

COLUMNS = ("image", "file", "super_cluster", "cluster", "distance")

_BLOCK_ROWS = 2**16


def assignment_table(images: ImageSource, clustering: ClusteredImages) -> TableBlocks:
    """A row for each image: its number and file, its super-cluster, its cluster, and the distance.

    Args:
        images: N images, whose files have a name or not: the text is empty then.
        clustering: Their clusters; -1 is in the place of one that an image has not.

    Returns:
        Blocks of the columns image (int64), file (text), super_cluster, cluster (int32; the number
        in the super-cluster) and distance (float32, from the centroid of the cluster).

    Raises:
        ValueError: If there are as many images as there are not labels.
    """
    n_images = len(clustering.super_labels)
    if len(images) != n_images:
        raise ValueError(f"{len(images)} images, but labels of {n_images}")
    name_of = file_namer(images)

    def make() -> Iterator[Mapping[str, Any]]:
        for first, last in row_ranges(n_images, _BLOCK_ROWS):
            numbers = range(first, last)
            yield {
                "image": np.arange(first, last),
                "file": [""] * (last - first) if name_of is None else list(map(name_of, numbers)),
                "super_cluster": clustering.super_labels[first:last],
                "cluster": clustering.sub_labels[first:last],
                "distance": clustering.distances[first:last],
            }

    return TableBlocks(n_images, COLUMNS, make)
