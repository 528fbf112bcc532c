"""The graph over vectors in memory, and the search for the nodes nearest to other vectors."""

from __future__ import annotations

import logging
import math
from typing import Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from lowshot_kedro import native
from lowshot_kedro.blocks import KnnGraph, row_ranges
from lowshot_kedro.deprecated import takes_old_keywords
from lowshot_kedro.errors import InputError
from lowshot_kedro.graph.bounded_search import BoundedSearch
from lowshot_kedro.graph.copies import Copies, find_copies
from lowshot_kedro.graph.descent import Tuning, divided_graph, tune
from lowshot_kedro.graph.exact_lists import exact_list_graph
from lowshot_kedro.graph.exact_search import ExactNodes
from lowshot_kedro.graph.index import divide, factory_index, search
from lowshot_kedro.graph.list_search import ListSearch, n_candidates
from lowshot_kedro.graph.methods import (
    EXACT_BELOW,
    choose_method,
    is_factory_string,
    require_method,
)
from lowshot_kedro.graph.neighbor_descent import pynndescent_graph
from lowshot_kedro.graph.spaces import Space, space_of
from lowshot_kedro.graph.vectors import BLOCK_ROWS, inverse_lengths
from lowshot_kedro.graph.workspace import MemoryBudget, Workspace, temporary_folder
from lowshot_kedro.memory import format_bytes
from lowshot_kedro.progress import Progress, logged_step

logger = logging.getLogger(__name__)

_FEW_NODES = 4096


class _Finder(Protocol):
    """A search structure over the nodes."""

    def search(self, queries: NDArray[np.float32], k: int) -> KnnGraph:
        """The k most similar nodes of each query of the space; k is at most their number."""
        ...


class NodeSearch:
    """Finds the nodes nearest to vectors; what :func:`build_knn_graph` returns beside the graph.

    It holds the nodes' vectors as they are, not a copy, and can be pickled together with them.

    Args:
        space: Space in which vectors are compared.
        shape: Number of nodes, and columns.
        finder: Search structure over the nodes.
    """

    def __init__(self, space: Space, shape: tuple[int, int], finder: _Finder) -> None:
        self._space = space
        self._shape = shape
        self._finder = finder

    def search(self, queries: NDArray[np.float32], k: int, name: str = "X") -> KnnGraph:
        """The k most similar nodes of each vector, the same whatever else is searched for.

        Args:
            queries: float32 (m, d), of any length.
            k: How many nodes to find for each query.
            name: What messages call the queries.

        Returns:
            indices (m, k) and similarities (m, k), most similar first, of equal similarities the
            smaller number first; -1 and -inf where there are fewer than k. In memory besides: a
            block of queries, and what the method needs for one.

        Raises:
            ValueError: For k < 1 or k > 8192, another d, NaN or infinity.
        """
        n_nodes, dimension = self._shape
        _require_k(k)
        if queries.ndim != 2 or queries.shape[1] != dimension:
            raise InputError(f"{name}: got shape {queries.shape}, expected {dimension} columns")
        blocks = (
            _widened(self._finder.search(block, min(k, n_nodes)), k)
            for _, block in self._space.query_blocks(queries, name)
        )
        return KnnGraph.joined(blocks, k)


@takes_old_keywords
def build_knn_graph(
    vectors: NDArray[np.float32],
    k: int,
    *,
    metric: str = "cosine",
    method: str = "auto",
    target_recall: float = 0.99,
    memory_budget_bytes: int | None = None,
    name: str = "X",
    one_of_equal: bool = False,
) -> tuple[KnnGraph, NodeSearch]:
    """The k most similar vectors of every vector, itself included, and the search for others.

    Args:
        vectors: float32 (n, d), C-contiguous, a memmap or array, not normalised.
        k: Neighbours of each.
        metric: `cosine`: similarities are inner products of vectors scaled to length 1;
            `euclidean`: minus squared distances.
        method: As for :func:`~lowshot_kedro.graph.background.background_graph`. New vectors are
            searched for in the same way; after pynndescent, in lists.
        target_recall: For ivf and descent: the part of the neighbours to be found, estimated on
            256 rows.
        memory_budget_bytes: Bytes that the process may take; None: four fifths of what is free.
        name: What messages call the vectors.
        one_of_equal: Whether of more than k / 4 equal rows only the first is linked to other
            rows, and the rest to it, so that they are not linked to each other alone. If there are
            D different rows, these are linked to about log D others at most: a graph of nearest
            neighbours is connected then (F. Xue, P. R. Kumar, "The number of neighbors needed for
            connectivity of wireless networks", Wireless Networks 10, 2004), and few different rows
            are not all linked with each other.

    Returns:
        The graph, (n, k), of equal similarities the smaller number first, -1 and -inf where there
        are fewer than k; and the search. In memory: 8·n·k bytes; for ivf and descent w + 16 bytes
        for each vector, w being d rounded up to a multiple of 64, and while the graph is built what
        :func:`~lowshot_kedro.graph.descent.divided_graph` says; for a description for faiss what
        that index holds; where more than k rows are equal, a copy of the others and of k of them.

    Raises:
        ValueError: For what is no such matrix, NaN, infinity, or, if distances count, numbers so
            large that they are no numbers of single precision; an unknown metric or method; k < 1
            or k > 8192; too small a budget.
    """
    _require_vectors(vectors, name)
    _require_k(k)
    n_nodes, dimension = vectors.shape
    require_method(method, dimension)
    space = space_of(metric, vectors, name)
    budget = MemoryBudget(memory_budget_bytes)
    with temporary_folder() as folder:
        workspace = Workspace(folder, budget)
        max_copies, n_kept = (max(1, k // 4), 1) if one_of_equal else (k, k)
        copies = find_copies(vectors, max_copies, n_kept, workspace, name, space)
        if copies is None:
            neighbors, finder = _graph_and_finder(
                vectors, k, method, target_recall, workspace, name, space
            )
        else:
            kept = copies.kept
            distinct = workspace.allocate("distinct", (len(kept), dimension), np.float32)
            for first, last in row_ranges(len(kept), BLOCK_ROWS):
                distinct[first:last] = vectors[kept[first:last]]
                workspace.relieve(vectors)
            of_kept, of_distinct = _graph_and_finder(
                distinct, k, method, target_recall, workspace, name, space
            )
            if one_of_equal:
                # With more links than that everything is linked with everything.
                n_links = 1 + math.ceil(math.log2(max(len(kept), 2)))
                of_kept.indices[:, n_links:] = -1
                of_kept.similarities[:, n_links:] = -np.inf
            neighbors = copies.complete(of_kept, through_first=one_of_equal)
            finder = _AmongKept(of_distinct, copies, n_kept == 1)
    return neighbors, NodeSearch(space, (n_nodes, dimension), finder)


def _graph_and_finder(
    vectors: NDArray[np.float32],
    k: int,
    method: str,
    target_recall: float,
    workspace: Workspace,
    name: str,
    space: Space,
) -> tuple[KnnGraph, _Finder]:
    n_vectors = len(vectors)
    # Pairs are compared on the CPU.
    method = choose_method(method, n_vectors, EXACT_BELOW)
    logger.info(
        "graph: %d neighbours of %d vectors of dimension %d by %s, kernels %s, %s of memory left",
        k,
        n_vectors,
        vectors.shape[1],
        method,
        native.kernels_in_use(),
        format_bytes(workspace.budget.left),
    )
    if method in ("ivf", "descent"):
        lists = _divided_search(vectors, target_recall, workspace, name, space)
        tuning = tune(lists, k, target_recall)
        if tuning.recall < target_recall:
            logger.info(
                "graph: by 8-bit codes %.4f of the neighbours would be found: vectors are "
                "compared as they are",
                tuning.recall,
            )
            centroids = lists.division.centroids
            neighbors = exact_list_graph(vectors, centroids, space, k, target_recall, name)
            return neighbors, ExactNodes(vectors, space, name)
        graph = divided_graph(
            lists.division,
            lambda: lists,
            k,
            target_recall,
            method == "descent",
            workspace,
            tuning,
        )
        return KnnGraph.joined(graph.starting_at(0), k), _InLists(lists, tuning)
    if method == "pynndescent":
        graph = pynndescent_graph(vectors, k, workspace.budget, workspace.folder, name, space)
        neighbors = KnnGraph.joined(graph.starting_at(0), k)
        if n_vectors < EXACT_BELOW:
            return neighbors, ExactNodes(vectors, space, name)
        lists = _divided_search(vectors, target_recall, workspace, name, space)
        return neighbors, _InLists(lists, tune(lists, k, target_recall))
    finder: _Finder
    if is_factory_string(method):
        index = factory_index(vectors, method, workspace.budget, name, space)
        finder = _InIndex(vectors, space, index, name)
    else:
        finder = ExactNodes(vectors, space, name)
    return _searched_graph(vectors, k, finder, space, name), finder


def _require_vectors(vectors: NDArray[np.float32], name: str) -> None:
    if vectors.ndim != 2 or vectors.dtype != np.float32 or not vectors.flags.c_contiguous:
        raise InputError(
            f"{name}: got {vectors.dtype} {vectors.shape}, expected a C-contiguous float32 matrix"
        )
    n_rows, n_columns = vectors.shape
    if not 1 <= n_rows <= np.iinfo(np.int32).max or n_columns < 1:
        raise InputError(
            f"{name}: got {n_rows} rows and {n_columns} columns, expected at least one of each, "
            f"and at most {np.iinfo(np.int32).max} rows"
        )


def _require_k(k: int) -> None:
    if not 1 <= k <= native.MAX_NEIGHBORS:
        expected = f"1..{native.MAX_NEIGHBORS} neighbours"
        raise InputError(parameter="k", found=k, expected=expected)


def _widened(graph: KnnGraph, k: int) -> KnnGraph:
    """A graph with k columns: -1 and -inf in those that it did not have."""
    missing = ((0, 0), (0, k - graph.indices.shape[1]))
    return KnnGraph(
        np.pad(graph.indices, missing, constant_values=-1),
        np.pad(graph.similarities, missing, constant_values=-np.inf),
    )


def _divided_search(
    vectors: NDArray[np.float32],
    target_recall: float,
    workspace: Workspace,
    name: str,
    space: Space,
) -> ListSearch:
    division = divide(vectors, target_recall, workspace, name, space)
    with logged_step("graph: encoding"):
        return ListSearch.of(vectors, division, workspace, name, space)


def _searched_graph(
    vectors: NDArray[np.float32], k: int, finder: _Finder, space: Space, name: str
) -> KnnGraph:
    """The graph that searching for every vector finds."""
    n_nodes = len(vectors)
    blocks = []
    with Progress(n_nodes, "graph") as bar:
        for _, block in space.query_blocks(vectors, name):
            blocks.append(_widened(finder.search(block, min(k, n_nodes)), k))
            bar.update(len(block))
    return KnnGraph.joined(blocks, k)


class _InLists:
    """Finds nodes in the lists that can hold neighbours.

    Args:
        lists: Search over the nodes in their lists.
        tuning: What a sample of the nodes says about these lists.
    """

    def __init__(self, lists: ListSearch, tuning: Tuning) -> None:
        self._search = BoundedSearch(lists)
        # Of few nodes all are compared.
        if len(lists.vectors) > _FEW_NODES:
            self._search.fit(tuning.queries, tuning.neighbors)
        self._candidates = tuning.pool_width / tuning.neighbors.indices.shape[1]

    def search(self, queries: NDArray[np.float32], k: int) -> KnnGraph:
        """The k most similar nodes of each query, found in the lists that can hold them."""
        return self._search.nearest(queries, k, math.ceil(self._candidates * k))


class _AmongKept:
    """Finds nodes where some stand for others that are equal to them.

    Args:
        finder: Search structure over the nodes that stand for others.
        copies: The nodes that they stand for.
        is_one_kept: Whether one of equal nodes is kept; else as many are kept as are ever
            searched for.
    """

    def __init__(self, finder: _Finder, copies: Copies, is_one_kept: bool) -> None:
        self._finder = finder
        self._copies = copies
        self._is_one_kept = is_one_kept

    def search(self, queries: NDArray[np.float32], k: int) -> KnnGraph:
        """The k most similar nodes of each query, equal ones after the one that stands for them."""
        kept = self._copies.kept
        found = _widened(self._finder.search(queries, min(k, len(kept))), k)
        if self._is_one_kept:
            return self._copies.expand(found)
        indices = np.where(found.indices < 0, np.int32(-1), kept[found.indices])
        return KnnGraph(indices, found.similarities)


class _InIndex:
    """Finds nodes in an index of faiss, and ranks what it finds by the vectors."""

    def __init__(
        self, vectors: NDArray[np.float32], space: Space, index: faiss.Index, name: str
    ) -> None:
        self._vectors = vectors
        self._space = space
        self._index = index
        self._inverse_lengths = None if space.is_euclidean else inverse_lengths(vectors, name)

    def search(self, queries: NDArray[np.float32], k: int) -> KnnGraph:
        """The k most similar nodes of each query, of those that the index finds."""
        points = self._space.points_of_queries(queries)
        found = search(self._index, points, min(n_candidates(k), len(self._vectors)))
        return KnnGraph(
            *native.rank_candidates(self._vectors, self._inverse_lengths, queries, found.indices, k)
        )
