"""Where the label of an image comes from: how far away it is, and the most similar labelled one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.graph import build_knn_graph
from lowshot_kedro.labeling.nodes import NodeVectors
from lowshot_kedro.progress import Progress

# Neighbours of labelled images in the graph that is searched where they are many.
_NEIGHBORS = 10


def nearest_labeled(vectors: NodeVectors, nodes: NDArray[np.int32]) -> NDArray[np.int32]:
    """The most similar labelled image of every image, other than itself.

    Up to 20 thousand labelled images are all compared; more are searched as
    :func:`~lowshot_kedro.graph.build_knn_graph` does, which finds 99 in 100. Of equally similar
    ones it is the first.

    Args:
        vectors: Those of N images.
        nodes: int32 (L,), labelled images, increasing.

    Returns:
        int32 (N,), -1 where there is no other. In memory: the vectors of labelled images, and what
        a search needs for a block of others.
    """
    found = np.full(len(vectors), -1, np.int32)
    if len(nodes) == 0:
        return found
    labeled = np.ascontiguousarray(vectors.take(nodes))
    _, node_search = build_knn_graph(labeled, min(_NEIGHBORS, len(nodes)), name="labelled vectors")
    with Progress(len(vectors), "most similar labelled images", unit="image") as bar:
        for first, last in vectors.blocks():
            nearest = node_search.search(vectors.read(first, last), 2, "vectors").indices
            candidates = np.where(nearest < 0, -1, nodes[nearest])
            own = candidates[:, 0] == np.arange(first, last)
            found[first:last] = np.where(own, candidates[:, 1], candidates[:, 0])
            bar.update(last - first)
    return found
