"""The k-nearest-neighbour graph: index, background graph, completion with labelled and test points.

Similarity is the inner product of L2-normalised vectors, or in `node_graph` also minus the squared
distance.
"""

from lowshot_kedro.graph.background import (
    UnlabeledNodes,
    background_graph,
    describe_index,
    index_in_memory,
    unlabeled_nodes,
)
from lowshot_kedro.graph.completion import CompletedGraph, complete_graph, require_sizes
from lowshot_kedro.graph.index import build_index, search
from lowshot_kedro.graph.methods import METHODS, require_method
from lowshot_kedro.graph.nodes import NodeSearch, node_graph
from lowshot_kedro.graph.quality import measure_quality
from lowshot_kedro.graph.spaces import METRICS
from lowshot_kedro.graph.vectors import describe_vectors, normalize

__all__ = [
    "METHODS",
    "METRICS",
    "CompletedGraph",
    "NodeSearch",
    "UnlabeledNodes",
    "background_graph",
    "build_index",
    "complete_graph",
    "describe_index",
    "describe_vectors",
    "index_in_memory",
    "measure_quality",
    "node_graph",
    "normalize",
    "require_method",
    "require_sizes",
    "search",
    "unlabeled_nodes",
]
