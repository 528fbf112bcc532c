"""The k-nearest-neighbour graph: index, background graph, completion with labelled and test points.

Similarity is the inner product of L2-normalised vectors throughout.
"""

from lowshot_kedro.graph.background import background_graph
from lowshot_kedro.graph.completion import CompletedGraph, complete_graph, require_sizes
from lowshot_kedro.graph.index import METHODS, build_index, normalize, search

__all__ = [
    "METHODS",
    "CompletedGraph",
    "background_graph",
    "build_index",
    "complete_graph",
    "normalize",
    "require_sizes",
    "search",
]
