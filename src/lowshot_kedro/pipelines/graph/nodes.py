"""Nodes of the background graph."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from lowshot_kedro import graph as graph_domain
from lowshot_kedro.blocks import KnnGraph, Resumable
from lowshot_kedro.graph.parameters import GraphParameters


def build_background_index(
    background_vectors: NDArray[np.float32], graph: GraphParameters
) -> Resumable[Any]:
    """A search index over the background, built while it is saved."""
    return graph_domain.build_index(
        background_vectors, graph.method, graph.target_recall, graph.memory_budget_bytes
    )


def build_background_graph(
    background_index: faiss.Index, background_vectors: NDArray[np.float32], graph: GraphParameters
) -> Resumable[Any]:
    """The neighbours of every background image, computed while they are saved."""
    return graph_domain.background_graph(
        background_index,
        background_vectors,
        graph.stored_k,
        graph.method,
        graph.target_recall,
        graph.memory_budget_bytes,
    )


def measure_background_graph(
    background_graph: KnnGraph, background_vectors: NDArray[np.float32], graph: GraphParameters
) -> dict[str, Any]:
    """The recall of the graph, against exact search for a sample of its rows."""
    quality = graph_domain.measure_quality(
        background_graph, background_vectors, graph.max_k, graph.recall_sample
    )
    return {**quality, "parameters": asdict(graph)}
