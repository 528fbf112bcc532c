"""Graphs to measure on: nearest neighbours of clustered points that come in random order."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.blocks import require_nodes

DIMENSIONS = 16
SPREAD = 0.35
POINTS_PER_CLUSTER = 500
CLUSTERS_SEARCHED = 4


class Graph(NamedTuple):
    """A neighbour list, and what the points are.

    Attributes:
        neighbors: int32 (n, k), most similar first, -1 for none.
        clusters: int (n,), the cluster that each point was drawn from; None: unknown.
        description: Where the graph comes from.
    """

    neighbors: NDArray[np.int32]
    clusters: NDArray[np.int64] | None
    description: str


def clustered_graph(n_nodes: int, n_neighbors: int, seed: int, n_clusters: int = 0) -> Graph:
    """Nearest neighbours of points of a Gaussian mixture, in random order.

    Every point is its own first neighbour. faiss looks for the others in the 4 cells nearest to the
    point, the cells being those of the true cluster centres.

    Args:
        n_nodes: n.
        n_neighbors: k.
        seed: Of the points.
        n_clusters: 0: one for every 500 points.

    Returns:
        The same graph for the same arguments.
    """
    n_clusters = n_clusters or max(n_nodes // POINTS_PER_CLUSTER, 1)
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(n_clusters, DIMENSIONS)).astype(np.float32)
    clusters = rng.integers(0, n_clusters, n_nodes)
    points = rng.standard_normal((n_nodes, DIMENSIONS), np.float32)
    points *= SPREAD
    points += centers[clusters]
    quantizer = faiss.IndexFlatL2(DIMENSIONS)
    quantizer.add(centers)
    index = faiss.IndexIVFFlat(quantizer, DIMENSIONS, n_clusters)
    index.is_trained = True
    index.add(points)
    index.nprobe = CLUSTERS_SEARCHED
    neighbors = index.search(points, n_neighbors)[1].astype(np.int32)
    return Graph(neighbors, clusters, f"points of {n_clusters} clusters in random order")


def graph_of_file(path: Path) -> Graph:
    """A person's own neighbour list.

    Args:
        path: An npy file of int32 (n, k), -1 for none, no neighbour twice in a row.

    Raises:
        ValueError: For another type or shape, or a neighbour out of range.
    """
    neighbors = np.load(path)
    if neighbors.dtype != np.int32 or neighbors.ndim != 2:
        raise ValueError(
            f"{path}: expected an int32 matrix, got {neighbors.dtype} {neighbors.shape}"
        )
    require_nodes(neighbors, len(neighbors), str(path))
    return Graph(np.ascontiguousarray(neighbors), None, f"file {path.name}")
