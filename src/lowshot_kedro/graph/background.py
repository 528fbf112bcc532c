"""The graph over the background images alone, computed once and used by every run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from lowshot_kedro import native
from lowshot_kedro.blocks import Blocks, InvertedFile, KnnGraph, Resumable, RowBlocks
from lowshot_kedro.deprecated import takes_old_keywords
from lowshot_kedro.errors import InputError
from lowshot_kedro.graph.copies import find_copies
from lowshot_kedro.graph.descent import divided_graph
from lowshot_kedro.graph.index import build_index, on_gpus, require_inner_products, search
from lowshot_kedro.graph.list_search import ListSearch, division_of, is_divided
from lowshot_kedro.graph.neighbor_descent import pynndescent_graph
from lowshot_kedro.graph.spaces import COSINE
from lowshot_kedro.graph.vectors import BLOCK_ROWS, describe_vectors, normalized_blocks
from lowshot_kedro.graph.workspace import MemoryBudget, Workspace, temporary_folder
from lowshot_kedro.memory import format_bytes
from lowshot_kedro.progress import Progress, logged_step

logger = logging.getLogger(__name__)


class UnlabeledNodes(NamedTuple):
    """The unlabelled nodes of a graph.

    Attributes:
        vectors: float32 (n, d), not normalised.
        search_index: A faiss index over the normalised vectors.
        neighbors: The graph among them, (n, K): the K most similar nodes of each node.
    """

    vectors: NDArray[np.float32]
    search_index: faiss.Index
    neighbors: KnnGraph


@takes_old_keywords
def unlabeled_nodes(
    vectors: NDArray[np.float32],
    k: int,
    method: str,
    name: str,
    target_recall: float = 0.99,
    memory_budget_bytes: int | None = None,
) -> UnlabeledNodes:
    """Index vectors and build the graph among them, in memory.

    Args:
        vectors: float32 (n, d), not normalised.
        k: Neighbours of each.
        method: As for :func:`background_graph`.
        name: What messages call the vectors.
        target_recall: As for :func:`background_graph`.
        memory_budget_bytes: As for :func:`background_graph`.

    Returns:
        The vectors with their index and graph. In memory: the vectors twice and 8·n·k bytes.

    Raises:
        ValueError: For NaN, or too few vectors for the method.
    """
    with temporary_folder() as folder:
        index = index_in_memory(vectors, method, target_recall, memory_budget_bytes, name)
        graph = background_graph(
            index, vectors, k, method, target_recall, memory_budget_bytes, name
        )
        blocks = graph.begin(folder).starting_at(0)
        return UnlabeledNodes(vectors, index, KnnGraph.joined(blocks, k))


@takes_old_keywords
def index_in_memory(
    vectors: NDArray[np.float32],
    method: str = "auto",
    target_recall: float = 0.99,
    memory_budget_bytes: int | None = None,
    name: str = "background_vectors",
) -> Any:
    """A search index that holds the normalised vectors, as a rule a copy of them.

    Args:
        vectors: float32 (n, d), not normalised.
        method: As for :func:`~lowshot_kedro.graph.index.build_index`.
        target_recall: As for :func:`~lowshot_kedro.graph.index.build_index`.
        memory_budget_bytes: As for :func:`~lowshot_kedro.graph.index.build_index`.
        name: What messages call the vectors.

    Returns:
        A faiss.Index of the kind that `build_index` makes.
    """
    with temporary_folder() as folder:
        built = build_index(vectors, method, target_recall, memory_budget_bytes, name)
        content = built.begin(folder)
    if isinstance(content, Blocks):
        flat: faiss.Index = faiss.IndexFlatIP(content.n_columns)
        for block in content:
            flat.add(block)
        return flat
    if isinstance(content, InvertedFile):
        n_lists, dimension = content.centroids.shape
        quantizer: Any = faiss.IndexFlatIP(dimension)
        quantizer.add(content.centroids)
        index: Any = faiss.IndexIVFFlat(quantizer, dimension, n_lists, faiss.METRIC_INNER_PRODUCT)
        index.nprobe = content.n_probe
        index.is_trained = True
        for lists in content.make():
            for number, rows in lists.parts():
                index.invlists.add_entries(
                    number,
                    rows.stop - rows.start,
                    faiss.swig_ptr(lists.numbers[rows]),
                    faiss.swig_ptr(lists.vectors[rows].view(np.uint8)),
                )
        index.ntotal = int(content.sizes.sum())
        # Python would otherwise free the quantizer, which the index does not own.
        index.own_fields = True
        quantizer.this.disown()
        return index
    return content


@takes_old_keywords
def background_graph(
    index: faiss.Index,
    vectors: NDArray[np.float32],
    stored_k: int,
    method: str = "auto",
    target_recall: float = 0.99,
    memory_budget_bytes: int | None = None,
    name: str = "background_vectors",
) -> Resumable[RowBlocks[KnnGraph]]:
    """The stored_k most similar vectors of every vector, itself included, found while it is saved.

    Args:
        index: A search index over the same vectors.
        vectors: float32 (n, d), a memmap or array, not normalised.
        stored_k: Neighbours of each.
        method: `exact` compares every pair. `ivf` looks through the nearest lists of an inverted
            file, `descent` through a few and then at neighbours of neighbours, `pynndescent` calls
            that library. A description for faiss.index_factory searches with that index. `auto`
            is exact for few vectors and descent for more.
        target_recall: For ivf and descent: the part of the neighbours to be found.
        memory_budget_bytes: Bytes that the process may take; None: four fifths of what is free.
        name: What messages call the vectors.

    Returns:
        Blocks in row order, of which one is in memory; besides, for exact, the index; for ivf and
        descent see :func:`~lowshot_kedro.graph.descent.divided_graph`. Equal similarities: the
        smaller number first.

    Raises:
        ValueError: If index and vectors do not belong together, or the index does not compare by
            inner products; when consumed, for NaN.
    """
    n_vectors, dimension = vectors.shape
    if (index.ntotal, index.d) != (n_vectors, dimension):
        raise InputError(
            f"background_index: holds {index.ntotal} vectors of dimension {index.d}, but "
            f"{name} has {n_vectors} of dimension {dimension}"
        )
    require_inner_products(index)
    method = _method_with(index, method)

    def begin(folder: Path) -> RowBlocks[KnnGraph]:
        budget = MemoryBudget(memory_budget_bytes)
        logger.info(
            "graph: %d neighbours of %d vectors of dimension %d by %s (%s), kernels %s, %s of "
            "memory left",
            stored_k,
            n_vectors,
            dimension,
            method,
            type(index).__name__,
            native.kernels_in_use(),
            format_bytes(budget.left),
        )
        if method == "pynndescent":
            return pynndescent_graph(vectors, stored_k, budget, folder, name)
        if method not in ("ivf", "descent") or not is_divided(index):
            return _searched_graph(index, vectors, stored_k, name)
        workspace = Workspace(folder, budget)
        division = division_of(index)
        # Rows of the graph that are full of equal vectors, as images that are missing make them.
        copies = find_copies(vectors, stored_k, stored_k, workspace, name, COSINE)
        if copies is not None:
            division = division.without(copies)

        def make_search() -> ListSearch:
            with logged_step("graph: encoding"):
                return ListSearch.of(vectors, division, workspace, name)

        return divided_graph(
            division, make_search, stored_k, target_recall, method == "descent", workspace
        )

    provenance: dict[str, Any] = {
        "kind": "graph",
        "method": method,
        "stored_k": stored_k,
        "vectors": describe_vectors(vectors),
        "index": describe_index(index),
    }
    if method in ("ivf", "descent"):
        provenance["target_recall"] = target_recall
    return Resumable(provenance, begin)


def describe_index(index: faiss.Index) -> dict[str, Any]:
    """Type and settings of an index, for its provenance: what other such indexes differ in."""
    facts: dict[str, Any] = {"type": type(index).__name__}
    if is_divided(index):
        facts |= {"n_lists": index.nlist, "n_probe": index.nprobe}
    return facts


def _method_with(index: faiss.Index, method: str) -> str:
    """The method to use with an index that is there already.

    Raises:
        ValueError: If the index does not serve for it.
    """
    if method == "auto":
        # Whoever has put an index there wants it used.
        if is_divided(index):
            return "descent"
        return "exact" if isinstance(index, faiss.IndexFlat) else type(index).__name__
    needed = {"exact": faiss.IndexFlat, "ivf": faiss.IndexIVF, "descent": faiss.IndexIVF}
    if method in needed and not isinstance(index, needed[method]):
        kind = "a flat index" if method == "exact" else "an inverted file"
        raise InputError(
            f"which needs {kind}, but background_index is a {type(index).__name__}; remove its "
            "file to have it built anew, or use auto",
            parameter="method",
            found=method,
        )
    return method


def _searched_graph(
    index: faiss.Index, vectors: NDArray[np.float32], stored_k: int, name: str
) -> RowBlocks[KnnGraph]:
    """The graph that searching the index for every vector finds, block by block."""
    n_vectors = len(vectors)

    def blocks(first_row: int) -> Iterator[KnnGraph]:
        searched = on_gpus(index)
        with Progress(n_vectors, "graph", first_row) as bar:
            for _, queries in normalized_blocks(vectors, name, first_row):
                yield in_order(search(searched, queries, stored_k))
                bar.update(len(queries))

    return RowBlocks(n_vectors, stored_k, BLOCK_ROWS, blocks)


def in_order(graph: KnnGraph) -> KnnGraph:
    """A graph with the neighbours of a row that are equally similar in order of their numbers."""
    order = np.lexsort((graph.indices, -graph.similarities), axis=1)
    return KnnGraph(
        np.take_along_axis(graph.indices, order, axis=1),
        np.take_along_axis(graph.similarities, order, axis=1),
    )
