"""The k-nearest-neighbour (k-NN) graph of embeddings: index, background graph, labelled nodes.

It links labelled and unlabelled images alike: the graph that semi-supervised, transductive methods
spread labels over. `build_index` and `background_graph` run once over the unlabelled images,
`insert_labeled_nodes` adds the labelled ones of an experiment, and `build_knn_graph` builds a graph
over vectors in memory. Indexes are those of faiss: J. Johnson, M. Douze and H. Jégou,
"Billion-scale similarity search with GPUs", IEEE Transactions on Big Data, 2019.

Similarity is the inner product of L2-normalised vectors, or in `build_knn_graph` also minus the
squared distance.
"""

from typing import TYPE_CHECKING

from lowshot_kedro.deprecated import old_names
from lowshot_kedro.graph.background import (
    UnlabeledNodes,
    background_graph,
    describe_index,
    index_in_memory,
    unlabeled_nodes,
)
from lowshot_kedro.graph.index import build_index, search
from lowshot_kedro.graph.knn_graph import NodeSearch, build_knn_graph
from lowshot_kedro.graph.labeled_nodes import ExtendedGraph, insert_labeled_nodes, require_sizes
from lowshot_kedro.graph.methods import METHODS, require_method
from lowshot_kedro.graph.quality import measure_quality
from lowshot_kedro.graph.spaces import METRICS
from lowshot_kedro.graph.vectors import describe_vectors, normalize

__all__ = [
    "METHODS",
    "METRICS",
    "ExtendedGraph",
    "NodeSearch",
    "UnlabeledNodes",
    "background_graph",
    "build_index",
    "build_knn_graph",
    "describe_index",
    "describe_vectors",
    "index_in_memory",
    "insert_labeled_nodes",
    "measure_quality",
    "normalize",
    "require_method",
    "require_sizes",
    "search",
    "unlabeled_nodes",
]

if not TYPE_CHECKING:
    __getattr__ = old_names(__name__)
