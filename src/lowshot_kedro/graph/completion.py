"""The graph of one run: the stored background graph completed with labelled and test points."""

from __future__ import annotations

from typing import NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lowshot_kedro import native
from lowshot_kedro.errors import InputError
from lowshot_kedro.graph.index import BLOCK_ROWS, normalize, on_gpus, search
from lowshot_kedro.matrices import KnnGraph, require_nodes, row_ranges


class CompletedGraph(NamedTuple):
    """The graph over labelled (first) and background nodes, and the links of the test points.

    Attributes:
        neighbors: int32 (N, k), N = labelled + background, most similar first, -1 where a node
            has fewer than k.
        similarities: float32 (N, k), inner products in the same order, or None if not kept.
        test_neighbors: The k most similar nodes of each test point. Test points are not nodes.
    """

    neighbors: NDArray[np.int32]
    similarities: NDArray[np.float32] | None
    test_neighbors: KnnGraph


def require_sizes(
    n_labeled: int,
    background_vectors: NDArray[np.float32],
    background_index: faiss.Index,
    background_neighbors: KnnGraph,
    k: int,
) -> None:
    """Refuse, before anything is computed, what :func:`complete_graph` cannot work with.

    Args:
        n_labeled: Number of labelled images.
        background_vectors: As for :func:`complete_graph`, like the following.
        background_index: Index.
        background_neighbors: Graph.
        k: Neighbours of each node.

    Raises:
        ValueError: If k is larger than the number of nodes or of stored columns, or the three do
            not have as many rows.
    """
    n_background = len(background_vectors)
    n_nodes = n_labeled + n_background
    n_stored, stored_k = background_neighbors.indices.shape
    if k > n_nodes:
        raise InputError(
            f"graph.k: got {k}, but the graph has only {n_nodes} nodes ({n_labeled} labelled and "
            f"{n_background} background images)"
        )
    if n_background and stored_k < k:
        raise InputError(f"background_graph: has {stored_k} columns, expected at least k = {k}")
    if not n_background == n_stored == background_index.ntotal:
        raise InputError(
            f"background_vectors has {n_background} rows, background_graph {n_stored} and "
            f"background_index {background_index.ntotal}; expected as many"
        )


def complete_graph(
    labeled_vectors: NDArray[np.float32],
    test_vectors: NDArray[np.float32],
    background_vectors: NDArray[np.float32],
    background_index: faiss.Index,
    background_neighbors: KnnGraph,
    k: int,
    keep_similarities: bool = False,
) -> CompletedGraph:
    """Merge the stored background graph with exact searches among the labelled points.

    Each node keeps its k most similar nodes among all N, itself included. Of two equally similar
    neighbours a background node comes before a labelled one, as in the published experiment.

    Args:
        labeled_vectors: float32 (L, d), normalised.
        test_vectors: float32 (T, d), normalised.
        background_vectors: float32 (n, d), a memmap or array, not normalised.
        background_index: Index of the normalised background vectors.
        background_neighbors: Graph among them, (n, K) with K ≥ k; the first k columns are used.
        k: Neighbours of each node.
        keep_similarities: Whether the similarities of nodes are wanted, which edge weights other
            than constant need.

    Returns:
        Node numbers 0..L-1 are the labelled points, L..L+n-1 the background. In memory: 4·N·k
        bytes, twice that with similarities, 8·T·k for the links of the test points, the index, the
        labelled vectors twice, the test vectors, and one block of background.

    Raises:
        ValueError: If k is larger than the number of nodes, the arguments do not belong together,
            or the stored graph names a node that there is not.
    """
    n_labeled, dimension = labeled_vectors.shape
    n_background = len(background_vectors)
    n_nodes = n_labeled + n_background
    require_sizes(n_labeled, background_vectors, background_index, background_neighbors, k)
    for name, width in (
        ("background_vectors", background_vectors.shape[1]),
        ("background_index", background_index.d),
        ("test vectors", test_vectors.shape[1]),
    ):
        if width != dimension:
            raise InputError(
                f"{name}: dimension {width}, but the labelled vectors have {dimension}"
            )

    labeled_index: faiss.Index = faiss.IndexFlatIP(dimension)
    labeled_index.add(labeled_vectors)
    labeled_index = on_gpus(labeled_index)
    background_index = on_gpus(background_index)

    def among_both(queries: NDArray[np.float32]) -> KnnGraph:
        background = search(background_index, queries, k)
        return merge(background, search(labeled_index, queries, k))

    def merge(background: KnnGraph, labeled: KnnGraph) -> KnnGraph:
        return KnnGraph(*native.merge_neighbors(*background, *labeled, k, first_offset=n_labeled))

    neighbors = np.empty((n_nodes, k), dtype=np.int32)
    similarities = np.empty((n_nodes, k), dtype=np.float32) if keep_similarities else None

    def keep(rows: KnnGraph, first: int, last: int) -> None:
        neighbors[first:last] = rows.indices
        if similarities is not None:
            similarities[first:last] = rows.similarities

    with tqdm(total=n_nodes, unit="node", desc="complete graph", disable=None) as bar:
        for first, last in row_ranges(n_labeled, BLOCK_ROWS):
            keep(among_both(labeled_vectors[first:last]), first, last)
            bar.update(last - first)
        for first, last in row_ranges(n_background, BLOCK_ROWS):
            queries = normalize(background_vectors[first:last], first, "background_vectors")
            stored = background_neighbors.part(first, last, k)
            require_nodes(stored.indices, n_background, "background_graph", first)
            merged = merge(stored, search(labeled_index, queries, k))
            keep(merged, n_labeled + first, n_labeled + last)
            bar.update(last - first)
    test_neighbors = KnnGraph.joined(
        (
            among_both(test_vectors[first:last])
            for first, last in row_ranges(len(test_vectors), BLOCK_ROWS)
        ),
        k,
    )
    return CompletedGraph(neighbors, similarities, test_neighbors)
