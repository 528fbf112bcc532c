"""The graph of one run: the stored background graph completed with labelled and test points.

The background graph stays as it is. Labelled and test points are searched among background and
labelled points. The other way round, a background point gets a new neighbour only if a labelled
point is more similar to it than its k-th neighbour so far, which few are; that similarity is
stored, so few have to be looked at more closely.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import NamedTuple, Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from lowshot_kedro import native
from lowshot_kedro.errors import InputError
from lowshot_kedro.graph.centroids import lists_of
from lowshot_kedro.graph.index import on_gpus, search
from lowshot_kedro.graph.list_search import (
    QUERY_ROWS,
    Division,
    ListSearch,
    division_of,
    is_divided,
    n_candidates,
)
from lowshot_kedro.graph.vectors import BLOCK_ROWS, normalized_blocks, release
from lowshot_kedro.graph.workspace import MemoryBudget, Workspace
from lowshot_kedro.matrices import KnnGraph, require_nodes, row_ranges
from lowshot_kedro.resources import Progress, logged_step

logger = logging.getLogger(__name__)

# Comparisons up to which labelled points are compared with every query, list search or not.
_COMPARE_ALL_UP_TO = 1_000_000_000
# A background point has a labelled neighbour in more lists than the labelled point has background
# neighbours in: points at the border of a cluster have far neighbours.
_REACH = 2


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


class _Neighborhoods(Protocol):
    """How points of one run find each other."""

    def of_points(self, points: NDArray[np.float32], k: int) -> tuple[KnnGraph, KnnGraph]:
        """The k most similar background and labelled points of each point of length 1."""
        ...

    def labeled_of_background(self, stored: KnnGraph, k: int) -> tuple[NDArray[np.int64], KnnGraph]:
        """Background points that get labelled neighbours, and the most similar of these."""
        ...


def complete_graph(
    labeled_vectors: NDArray[np.float32],
    test_vectors: NDArray[np.float32],
    background_vectors: NDArray[np.float32],
    background_index: faiss.Index,
    background_neighbors: KnnGraph,
    k: int,
    keep_similarities: bool = False,
    memory_budget: int | None = None,
) -> CompletedGraph:
    """Merge the stored background graph with searches among the labelled points.

    Each node keeps its k most similar nodes among all N, itself included. Of two equally similar
    neighbours a background node comes before a labelled one, as in the published experiment.

    With an inverted file of the background, searches look through the lists that the index says,
    and twice as many from labelled points to background points that may get them as neighbours.
    With any other index the labelled points are compared with every background point.

    Args:
        labeled_vectors: float32 (L, d), normalised.
        test_vectors: float32 (T, d), normalised.
        background_vectors: float32 (n, d), a memmap or array, not normalised.
        background_index: Index of the normalised background vectors.
        background_neighbors: Graph among them, (n, K) with K ≥ k; the first k columns are used.
        k: Neighbours of each node.
        keep_similarities: Whether the similarities of nodes are wanted, which edge weights other
            than constant need.
        memory_budget: Bytes that the process may take; None: four fifths of what is free.

    Returns:
        Node numbers 0..L-1 are the labelled points, L..L+n-1 the background. In memory: 4·N·k
        bytes, twice that with similarities, 8·T·k for the links of the test points, the labelled
        vectors twice, the test vectors, one block of background, and for an inverted file d + 16
        bytes for each background vector, on disk where the budget has no room.

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
    neighbors = np.empty((n_nodes, k), dtype=np.int32)
    similarities = np.empty((n_nodes, k), dtype=np.float32) if keep_similarities else None

    def keep(rows: KnnGraph, places: slice | NDArray[np.int64]) -> None:
        neighbors[places] = rows.indices
        if similarities is not None:
            similarities[places] = rows.similarities

    def merge(background: KnnGraph, labeled: KnnGraph) -> KnnGraph:
        return KnnGraph(*native.merge_neighbors(*background, *labeled, k, first_offset=n_labeled))

    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder), MemoryBudget(memory_budget))
        neighborhoods: _Neighborhoods
        if is_divided(background_index) and n_background and n_labeled:
            with logged_step("completion: encoding the background"):
                neighborhoods = _InLists(
                    labeled_vectors, background_vectors, background_index, workspace
                )
        else:
            neighborhoods = _ComparedWithAll(labeled_vectors, background_vectors, background_index)
        with logged_step("completion: labelled points"):
            keep(merge(*neighborhoods.of_points(labeled_vectors, k)), slice(0, n_labeled))
        with logged_step("completion: background points"):
            for first, last in row_ranges(n_background, QUERY_ROWS):
                stored = background_neighbors.part(first, last, k)
                require_nodes(stored.indices, n_background, "background_graph", first)
                indices = np.where(stored.indices < 0, np.int32(-1), stored.indices + n_labeled)
                keep(
                    KnnGraph(indices, stored.similarities),
                    slice(n_labeled + first, n_labeled + last),
                )
                release(background_neighbors.indices)
                release(background_neighbors.similarities)
            rows, labeled = neighborhoods.labeled_of_background(background_neighbors, k)
            for first, last in row_ranges(len(rows), QUERY_ROWS):
                part = rows[first:last]
                stored = KnnGraph(
                    np.ascontiguousarray(background_neighbors.indices[part, :k]),
                    np.ascontiguousarray(background_neighbors.similarities[part, :k]),
                )
                keep(merge(stored, labeled.part(first, last, k)), n_labeled + part)
        with logged_step("completion: test points"):
            test_neighbors = merge(*neighborhoods.of_points(test_vectors, k))
    logger.info(
        "completion: %d labelled points are now neighbours of %d of %d background points",
        n_labeled,
        len(rows),
        n_background,
    )
    return CompletedGraph(neighbors, similarities, test_neighbors)


def _flat_index(vectors: NDArray[np.float32]) -> faiss.Index:
    index: faiss.Index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return on_gpus(index)


def _search_in_blocks(index: faiss.Index, points: NDArray[np.float32], k: int) -> KnnGraph:
    blocks = (
        search(index, points[first:last], k) for first, last in row_ranges(len(points), BLOCK_ROWS)
    )
    return KnnGraph.joined(blocks, k)


class _ComparedWithAll:
    """Every pair is compared, or searched by whatever index the background has."""

    def __init__(
        self,
        labeled_vectors: NDArray[np.float32],
        background_vectors: NDArray[np.float32],
        background_index: faiss.Index,
    ) -> None:
        self._labeled_index = _flat_index(labeled_vectors)
        self._background_vectors = background_vectors
        self._background_index = on_gpus(background_index)

    def of_points(self, points: NDArray[np.float32], k: int) -> tuple[KnnGraph, KnnGraph]:
        """See above."""
        return (
            _search_in_blocks(self._background_index, points, k),
            _search_in_blocks(self._labeled_index, points, k),
        )

    def labeled_of_background(self, stored: KnnGraph, k: int) -> tuple[NDArray[np.int64], KnnGraph]:
        """See above."""
        vectors = self._background_vectors
        rows = [np.empty(0, np.int64)]
        found = []
        with Progress(len(vectors), "complete graph") as bar:
            for first, block in normalized_blocks(vectors, "background_vectors"):
                of_block = search(self._labeled_index, block, k)
                least = stored.similarities[first : first + len(block), k - 1]
                closer = np.flatnonzero(of_block.similarities[:, 0] > least)
                rows.append(first + closer)
                found.append(KnnGraph(of_block.indices[closer], of_block.similarities[closer]))
                bar.update(len(block))
        return np.concatenate(rows), KnnGraph.joined(found, k)


class _InLists:
    """Searches look through the lists of the background's inverted file."""

    def __init__(
        self,
        labeled_vectors: NDArray[np.float32],
        background_vectors: NDArray[np.float32],
        background_index: faiss.IndexIVF,
        workspace: Workspace,
    ) -> None:
        self._workspace = workspace
        self._labeled_vectors = labeled_vectors
        division = division_of(background_index)
        self._background = ListSearch.of(
            background_vectors, division, workspace, "background_vectors"
        )
        encoder = self._background.encoder
        self._labeled_codes, inverse_lengths = encoder.encode(labeled_vectors)
        n_lists = len(division.centroids)
        nearest = self._background.probes(self._labeled_codes.values, 1)[:, 0]
        lists = lists_of(nearest, n_lists)
        assert lists.members is not None
        by_list = lists.members
        self._labeled = ListSearch(
            labeled_vectors,
            Division(division.centroids, lists.offsets, by_list, division.n_probe),
            encoder,
            native.Codes(
                np.ascontiguousarray(self._labeled_codes.values[by_list]),
                np.ascontiguousarray(self._labeled_codes.biases[by_list]),
            ),
            inverse_lengths,
        )
        self._inverse_lengths = inverse_lengths

    def of_points(self, points: NDArray[np.float32], k: int) -> tuple[KnnGraph, KnnGraph]:
        """See above."""
        background = self._background.search(points, k, at_least=k)
        if len(points) * len(self._labeled_vectors) > _COMPARE_ALL_UP_TO:
            return background, self._labeled.search(points, k)
        return background, _search_in_blocks(_flat_index(self._labeled_vectors), points, k)

    def labeled_of_background(self, stored: KnnGraph, k: int) -> tuple[NDArray[np.int64], KnnGraph]:
        """See above.

        A labelled point is put into the lists nearest to it, and a background point looks through
        its own list only.
        """
        background, division = self._background, self._background.division
        n_lists = len(division.centroids)
        reached = background.probes(self._labeled_codes.values, _REACH * division.n_probe)
        points, places = np.nonzero(reached >= 0)
        lists = lists_of(reached[points, places], n_lists)
        assert lists.members is not None
        members = native.Lists(lists.offsets, points.astype(np.int32)[lists.members])
        rows = [np.empty(0, np.int64)]
        found = []
        n_background = len(background.vectors)
        with Progress(n_background, "complete graph") as bar:
            for first, last in row_ranges(n_background, QUERY_ROWS):
                numbers = division.numbers[first:last]
                least = np.ascontiguousarray(stored.similarities[numbers, k - 1])
                candidates, _ = native.search_lists(
                    self._labeled_codes,
                    members,
                    background.codes.values[first:last],
                    division.lists(first, last)[:, None],
                    n_candidates(k),
                    background.encoder.least_scores(least, background.codes.biases[first:last]),
                )
                hit = np.flatnonzero(candidates[:, 0] >= 0)
                of_hit = numbers[hit]
                ranked = KnnGraph(
                    *native.rank_candidates(
                        self._labeled_vectors,
                        self._inverse_lengths,
                        background.queries(of_hit),
                        candidates[hit],
                        k,
                    )
                )
                closer = np.flatnonzero(ranked.similarities[:, 0] > least[hit])
                rows.append(of_hit[closer].astype(np.int64))
                found.append(KnnGraph(ranked.indices[closer], ranked.similarities[closer]))
                self._workspace.relieve(background.vectors, stored.similarities)
                bar.update(last - first)
        return np.concatenate(rows), KnnGraph.joined(found, k)
