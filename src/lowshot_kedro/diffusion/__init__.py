"""Label propagation over the graph.

`edge_weights` and `matrix` make W, `variants` what may happen between steps, `propagation` runs the
steps on one of the `backends`.
"""

from lowshot_kedro.diffusion.backends import BACKENDS, PRECISIONS, Backend, create_backend
from lowshot_kedro.diffusion.edge_weights import EDGE_WEIGHTS
from lowshot_kedro.diffusion.matrix import (
    NUMBERINGS,
    PropagationMatrix,
    numbering_for,
    propagation_matrix,
    sinkhorn,
)
from lowshot_kedro.diffusion.memory import MemoryPlan, plan_memory
from lowshot_kedro.diffusion.propagation import labeled_rows, propagate
from lowshot_kedro.diffusion.variants import (
    CLASS_PRIORS,
    Adjustment,
    LabeledRows,
    Power,
    RestoreLabeled,
    adjustments,
    class_priors,
)

__all__ = [
    "BACKENDS",
    "CLASS_PRIORS",
    "EDGE_WEIGHTS",
    "NUMBERINGS",
    "PRECISIONS",
    "Adjustment",
    "Backend",
    "LabeledRows",
    "MemoryPlan",
    "Power",
    "PropagationMatrix",
    "RestoreLabeled",
    "adjustments",
    "class_priors",
    "create_backend",
    "labeled_rows",
    "numbering_for",
    "plan_memory",
    "propagate",
    "propagation_matrix",
    "sinkhorn",
]
