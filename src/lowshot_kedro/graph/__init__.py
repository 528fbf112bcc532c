"""The k-nearest-neighbour graph: index, background graph, completion with labelled and test points.

Similarity is the inner product of L2-normalised vectors throughout.
"""

from lowshot_kedro.graph.background import UnlabeledNodes, background_graph, unlabeled_nodes
from lowshot_kedro.graph.completion import CompletedGraph, complete_graph, require_sizes
from lowshot_kedro.graph.index import METHODS, build_index, normalize, search

__all__ = [
    "METHODS",
    "CompletedGraph",
    "UnlabeledNodes",
    "background_graph",
    "build_index",
    "complete_graph",
    "normalize",
    "require_sizes",
    "search",
    "unlabeled_nodes",
]
