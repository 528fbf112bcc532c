"""Nodes of the background graph."""

from __future__ import annotations

import faiss
import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.graph import background_graph, build_index
from lowshot_kedro.matrices import Blocks, KnnGraph
from lowshot_kedro.parameters import GraphParameters


def build_background_index(
    background_vectors: NDArray[np.float32], graph: GraphParameters
) -> faiss.Index:
    """A search index over the background."""
    return build_index(background_vectors, graph.method)


def build_background_graph(
    background_index: faiss.Index, background_vectors: NDArray[np.float32], graph: GraphParameters
) -> Blocks[KnnGraph]:
    """The neighbours of every background image, computed while they are saved."""
    return background_graph(background_index, background_vectors, graph.stored_k)
