"""Label propagation over the graph."""

from lowshot_kedro.diffusion.backends import BACKENDS, Backend, create_backend
from lowshot_kedro.diffusion.matrix import EDGE_WEIGHTS, PropagationMatrix, propagation_matrix
from lowshot_kedro.diffusion.propagation import PRECISIONS, initial_scores, propagate

__all__ = [
    "BACKENDS",
    "EDGE_WEIGHTS",
    "PRECISIONS",
    "Backend",
    "PropagationMatrix",
    "create_backend",
    "initial_scores",
    "propagate",
    "propagation_matrix",
]
