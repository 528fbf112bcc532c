"""The graph over the background images alone, computed once and used by every run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lowshot_kedro.errors import InputError
from lowshot_kedro.graph.index import BLOCK_ROWS, build_index, normalize, on_gpus, search
from lowshot_kedro.matrices import Blocks, KnnGraph, row_ranges


class UnlabeledNodes(NamedTuple):
    """The unlabelled nodes of a graph.

    Attributes:
        vectors: float32 (n, d), not normalised.
        search_index: Over the normalised vectors.
        neighbors: The graph among them, (n, K).
    """

    vectors: NDArray[np.float32]
    search_index: faiss.Index
    neighbors: KnnGraph


def unlabeled_nodes(vectors: NDArray[np.float32], k: int, method: str, name: str) -> UnlabeledNodes:
    """Index vectors and build the graph among them, in memory.

    Args:
        vectors: float32 (n, d), not normalised.
        k: Neighbours of each.
        method: As for :func:`~lowshot_kedro.graph.index.build_index`.
        name: What messages call the vectors.

    Returns:
        In memory: the vectors twice and 8·n·k bytes.

    Raises:
        ValueError: For NaN, or too few vectors for the method.
    """
    index = build_index(vectors, method, name)
    return UnlabeledNodes(vectors, index, KnnGraph.joined(background_graph(index, vectors, k), k))


def background_graph(
    index: faiss.Index, vectors: NDArray[np.float32], stored_k: int
) -> Blocks[KnnGraph]:
    """The stored_k most similar background vectors of every background vector, itself included.

    Args:
        index: Of the same vectors.
        vectors: float32 (n, d), a memmap or array, not normalised.
        stored_k: Neighbours of each.

    Returns:
        Blocks of the graph in row order. In memory: the index and one block.

    Raises:
        ValueError: If index and vectors do not belong together; when consumed, for NaN.
    """
    n_vectors, dimension = vectors.shape
    if (index.ntotal, index.d) != (n_vectors, dimension):
        raise InputError(
            f"background_index: holds {index.ntotal} vectors of dimension {index.d}, but "
            f"background_vectors has {n_vectors} of dimension {dimension}"
        )

    def blocks() -> Iterator[KnnGraph]:
        searched = on_gpus(index)
        with tqdm(total=n_vectors, unit="node", desc="background graph", disable=None) as bar:
            for first, last in row_ranges(n_vectors, BLOCK_ROWS):
                queries = normalize(vectors[first:last], first, "background_vectors")
                yield search(searched, queries, stored_k)
                bar.update(last - first)

    return Blocks(n_rows=n_vectors, n_columns=stored_k, make=blocks)
