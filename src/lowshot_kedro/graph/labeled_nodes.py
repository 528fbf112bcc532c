"""The graph of one run: labelled nodes inserted into the stored graph, and links of test points.

The background graph stays as it is. Labelled and test points are searched among background and
labelled points. The other way round, a background point gets a new neighbour only if a labelled
point is more similar to it than its k-th neighbour so far, which few are; that similarity is
stored, so few have to be looked at more closely.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from lowshot_kedro import native
from lowshot_kedro.blocks import KnnGraph, require_finite, require_nodes, row_ranges
from lowshot_kedro.deprecated import takes_old_keywords
from lowshot_kedro.errors import InputError
from lowshot_kedro.graph.background import UnlabeledNodes
from lowshot_kedro.graph.index import (
    divide,
    flat_index,
    on_gpus,
    require_inner_products,
    search,
    search_in_blocks,
)
from lowshot_kedro.graph.insertion import WANTED_SHARE, LinksInLists
from lowshot_kedro.graph.list_search import QUERY_ROWS, division_of, is_divided
from lowshot_kedro.graph.methods import EXACT_BELOW
from lowshot_kedro.graph.vectors import normalized_blocks, release
from lowshot_kedro.graph.workspace import MemoryBudget, Workspace, temporary_folder
from lowshot_kedro.progress import Progress, logged_step

logger = logging.getLogger(__name__)

# The recall of the division into lists if the index has none; it matters for speed alone.
_TARGET_RECALL = 0.99


class ExtendedGraph(NamedTuple):
    """The graph over labelled (first) and background nodes, and the links of the test points.

    Attributes:
        neighbors: int32 (N, k), N = labelled + background, most similar first, -1 where a node
            has fewer than k.
        similarities: float32 (N, k), inner products in the same order, or None if not kept.
        test_neighbors: The k most similar nodes of each test point. Test points are not nodes.
        quality: For JSON: what part of the links that there should be has been found, from the
            background to labelled points (`links_to_labeled`), out of labelled points
            (`links_of_labeled`) and out of test points (`links_of_test`): each with its `share`,
            and `n_links` links of `n_sampled` points that it was counted on; or None and None where
            every pair was compared.
    """

    neighbors: NDArray[np.int32]
    similarities: NDArray[np.float32] | None
    test_neighbors: KnnGraph
    quality: dict[str, Any]


def require_sizes(n_first: int, unlabeled: UnlabeledNodes, k: int) -> None:
    """Refuse, before anything is computed, what :func:`insert_labeled_nodes` cannot work with.

    Args:
        n_first: Number of nodes that come before the unlabelled ones, as a rule labelled images.
        unlabeled: As for :func:`insert_labeled_nodes`.
        k: Neighbours of each node.

    Raises:
        ValueError: If k is larger than the number of nodes or of stored columns, or the three do
            not have as many rows.
    """
    n_background, n_indexed = len(unlabeled.vectors), unlabeled.search_index.ntotal
    n_nodes = n_first + n_background
    n_stored, stored_k = unlabeled.neighbors.indices.shape
    if k > n_nodes:
        raise InputError(
            f"but the graph has only {n_nodes} nodes ({n_first} labelled and {n_background} "
            "background images)",
            parameter="k",
            found=k,
        )
    if n_background and stored_k < k:
        raise InputError(f"background_graph: has {stored_k} columns, expected at least k = {k}")
    if not n_background == n_stored == n_indexed:
        raise InputError(
            f"background_vectors has {n_background} rows, background_graph {n_stored} and "
            f"background_index {n_indexed}; expected as many"
        )


class _Neighborhoods(Protocol):
    """How points of one run find each other."""

    def of_points(self) -> tuple[KnnGraph, KnnGraph]:
        """The most similar background and labelled points of labelled and then of test points.

        Merged, they hold the k most similar points of each.
        """
        ...

    def labeled_of_background(self) -> tuple[NDArray[np.int64], KnnGraph]:
        """Background points that get labelled neighbours, and the most similar of these."""
        ...

    def quality(
        self, neighbors: NDArray[np.int32], labeled: KnnGraph, test: KnnGraph
    ) -> dict[str, Any]:
        """What part of the links that there should be has been found."""
        ...


@takes_old_keywords
def insert_labeled_nodes(
    labeled_vectors: NDArray[np.float32],
    test_vectors: NDArray[np.float32],
    unlabeled: UnlabeledNodes,
    k: int,
    keep_similarities: bool = False,
    memory_budget_bytes: int | None = None,
) -> ExtendedGraph:
    """Merge the stored background graph with searches among the labelled points.

    Each node keeps its k most similar nodes among all N, itself included. Of two equally similar
    neighbours a background node comes before a labelled one, as in the published experiment.

    Nearly all links that there should be are found, whatever recall the background graph has: see
    :mod:`~lowshot_kedro.graph.insertion`. Searches look through the lists of the background's
    inverted file; where the index is another one, every pair is compared if it is flat or there are
    few, else the background is divided into lists first.

    Args:
        labeled_vectors: float32 (L, d), normalised.
        test_vectors: float32 (T, d), normalised.
        unlabeled: The background: n vectors, a memmap or array, their index, and the graph among
            them, (n, K) with K ≥ k, of which the first k columns are used.
        k: Neighbours of each node.
        keep_similarities: Whether the similarities of nodes are wanted, which edge weights other
            than constant need.
        memory_budget_bytes: Bytes that the process may take; None: four fifths of what is free.

    Returns:
        Node numbers 0..L-1 are the labelled points, L..L+n-1 the background. In memory: 4·N·k
        bytes, twice that with similarities, 8·T·k for the links of the test points, the labelled
        vectors twice, the test vectors, one block of background, and for an inverted file d + 28
        bytes for each background vector, on disk where the budget has no room.

    Raises:
        ValueError: If k is larger than the number of nodes, the arguments do not belong together,
            the stored graph names a node that there is not, or for NaN and infinity.
    """
    n_labeled, dimension = labeled_vectors.shape
    background_neighbors = unlabeled.neighbors
    n_background = len(unlabeled.vectors)
    n_nodes = n_labeled + n_background
    require_sizes(n_labeled, unlabeled, k)
    require_inner_products(unlabeled.search_index)
    for name, width in (
        ("background_vectors", unlabeled.vectors.shape[1]),
        ("background_index", unlabeled.search_index.d),
        ("test vectors", test_vectors.shape[1]),
    ):
        if width != dimension:
            raise InputError(
                f"{name}: dimension {width}, but the labelled vectors have {dimension}"
            )
    for name, given in (("labelled vectors", labeled_vectors), ("test vectors", test_vectors)):
        require_finite(given, np.arange(len(given)), name)
    neighbors = np.empty((n_nodes, k), dtype=np.int32)
    similarities = np.empty((n_nodes, k), dtype=np.float32) if keep_similarities else None

    def keep(rows: KnnGraph, places: slice | NDArray[np.int64]) -> None:
        neighbors[places] = rows.indices
        if similarities is not None:
            similarities[places] = rows.similarities

    def copy_stored(first: int, last: int) -> None:
        stored = background_neighbors.part(first, last, k)
        rows = slice(n_labeled + first, n_labeled + last)
        try:
            native.shift_neighbors(*stored, n_background, n_labeled, neighbors[rows])
        except ValueError:
            # Says which rows of the whole graph are at fault.
            require_nodes(stored.indices, n_background, "background_graph", first)
            shown = np.where(stored.indices >= 0, stored.similarities, 0)
            require_finite(shown, np.arange(first, last), "similarities of background_graph")
            raise
        if similarities is not None:
            similarities[rows] = stored.similarities

    def merge(background: KnnGraph, labeled: KnnGraph) -> KnnGraph:
        return KnnGraph(*native.merge_neighbors(*background, *labeled, k, first_offset=n_labeled))

    with temporary_folder() as folder:
        workspace = Workspace(folder, MemoryBudget(memory_budget_bytes))
        neighborhoods = _neighborhoods(labeled_vectors, test_vectors, unlabeled, k, workspace)
        with logged_step("insertion: labelled and test points"):
            of_points = merge(*neighborhoods.of_points())
            of_labeled = of_points.part(0, n_labeled, k)
            test_neighbors = of_points.part(n_labeled, n_labeled + len(test_vectors), k)
            keep(of_labeled, slice(0, n_labeled))
        with logged_step("insertion: background points"):
            for first, last in row_ranges(n_background, QUERY_ROWS):
                copy_stored(first, last)
                release(background_neighbors.indices)
                release(background_neighbors.similarities)
            rows, labeled = neighborhoods.labeled_of_background()
            for first, last in row_ranges(len(rows), QUERY_ROWS):
                part = rows[first:last]
                stored = KnnGraph(
                    np.ascontiguousarray(background_neighbors.indices[part, :k]),
                    np.ascontiguousarray(background_neighbors.similarities[part, :k]),
                )
                keep(merge(stored, labeled.part(first, last, k)), n_labeled + part)
        quality = neighborhoods.quality(neighbors, of_labeled, test_neighbors)
    logger.info(
        "insertion: %d labelled points are now neighbours of %d of %d background points",
        n_labeled,
        len(rows),
        n_background,
    )
    _log_quality(quality)
    return ExtendedGraph(neighbors, similarities, test_neighbors, quality)


def _log_quality(quality: Mapping[str, Any]) -> None:
    for what, name in (
        ("background points to labelled ones", "links_to_labeled"),
        ("labelled points", "links_of_labeled"),
        ("test points", "links_of_test"),
    ):
        found = quality[name]
        if found["n_links"] is not None:
            logger.log(
                logging.WARNING if found["share"] < WANTED_SHARE else logging.INFO,
                "insertion: %.4f of %d links from %s are found (%d points compared with all)",
                found["share"],
                found["n_links"],
                what,
                found["n_sampled"],
            )


def _neighborhoods(
    labeled_vectors: NDArray[np.float32],
    test_vectors: NDArray[np.float32],
    unlabeled: UnlabeledNodes,
    k: int,
    workspace: Workspace,
) -> _Neighborhoods:
    n_background = len(unlabeled.vectors)
    is_flat = isinstance(unlabeled.search_index, faiss.IndexFlat)
    if is_flat or not n_background or not len(labeled_vectors):
        return _ComparedWithAll(labeled_vectors, test_vectors, unlabeled, k)
    if is_divided(unlabeled.search_index):
        division = division_of(unlabeled.search_index)
    elif n_background < EXACT_BELOW:
        vectors = np.concatenate(
            [block for _, block in normalized_blocks(unlabeled.vectors, "background_vectors")]
        )
        compared = unlabeled._replace(search_index=flat_index(vectors))
        return _ComparedWithAll(labeled_vectors, test_vectors, compared, k)
    else:
        division = divide(unlabeled.vectors, _TARGET_RECALL, workspace, "background_vectors")
    return LinksInLists(labeled_vectors, test_vectors, unlabeled, division, k, workspace)


class _ComparedWithAll:
    """Links found by comparing every pair of points.

    Args:
        labeled_vectors: float32 (L, d), normalised.
        test_vectors: float32 (T, d), normalised.
        unlabeled: The background, with a flat index.
        k: Neighbours of each.
    """

    def __init__(
        self,
        labeled_vectors: NDArray[np.float32],
        test_vectors: NDArray[np.float32],
        unlabeled: UnlabeledNodes,
        k: int,
    ) -> None:
        self._points = (labeled_vectors, test_vectors)
        self._labeled_index = on_gpus(flat_index(labeled_vectors))
        self._background_vectors = unlabeled.vectors
        self._background_index = on_gpus(unlabeled.search_index)
        self._stored, self._k = unlabeled.neighbors, k

    def of_points(self) -> tuple[KnnGraph, KnnGraph]:
        """The most similar background and labelled points of labelled and then of test points."""
        of_background, of_labeled = (
            KnnGraph.joined(
                (search_in_blocks(index, points, self._k) for points in self._points), self._k
            )
            for index in (self._background_index, self._labeled_index)
        )
        return of_background, of_labeled

    def labeled_of_background(self) -> tuple[NDArray[np.int64], KnnGraph]:
        """Background points that get labelled neighbours, and the most similar of these."""
        vectors = self._background_vectors
        rows = [np.empty(0, np.int64)]
        found = []
        with Progress(len(vectors), "links to labelled points") as bar:
            for first, block in normalized_blocks(vectors, "background_vectors"):
                of_block = search(self._labeled_index, block, self._k)
                least = self._stored.similarities[first : first + len(block), self._k - 1]
                closer = np.flatnonzero(of_block.similarities[:, 0] > least)
                rows.append(first + closer)
                found.append(KnnGraph(of_block.indices[closer], of_block.similarities[closer]))
                bar.update(len(block))
        return np.concatenate(rows), KnnGraph.joined(found, self._k)

    def quality(
        self, neighbors: NDArray[np.int32], labeled: KnnGraph, test: KnnGraph
    ) -> dict[str, Any]:
        """For each kind of link a share of 1, since every pair has been compared."""
        everything = {"share": 1.0, "n_links": None, "n_sampled": None}
        names = ("links_to_labeled", "links_of_labeled", "links_of_test")
        return {"k": self._k, **{name: dict(everything) for name in names}}
