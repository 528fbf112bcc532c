"""Label diffusion: semi-supervised, transductive label propagation over a k-NN graph.

In low-shot (few-shot, n-shot) classification a class has few labelled images, its support; the test
images are the queries. Labelled and unlabelled images are the nodes of a graph, the labels of each
class spread from node to node, and a test image gets the scores of the nodes nearest to it: M.
Douze, A. Szlam, B. Hariharan and H. Jégou, "Low-shot learning with large-scale diffusion", CVPR
2018.

`edge_weights` and `matrix` make W, `variants` what may happen between steps, `propagation` runs the
steps on one of the `backends` with `options` of one kind, and `validation` says how many; `choice`
says how many neighbours, too, for classes with few and with many labels.
"""

from typing import TYPE_CHECKING

from lowshot_kedro.deprecated import old_names
from lowshot_kedro.diffusion.backends import BACKENDS, PRECISIONS, Backend, create_backend
from lowshot_kedro.diffusion.choice import ChosenDiffusion, choose_diffusion
from lowshot_kedro.diffusion.edge_weights import EDGE_WEIGHTS
from lowshot_kedro.diffusion.matrix import (
    NODE_ORDERINGS,
    PropagationMatrix,
    choose_node_ordering,
    matrix_of_weights,
    propagation_matrix,
    require_weights,
    sinkhorn,
)
from lowshot_kedro.diffusion.memory import MemoryPlan, plan_memory
from lowshot_kedro.diffusion.options import PropagationOptions
from lowshot_kedro.diffusion.propagation import (
    labeled_rows,
    propagate,
    scores_per_step,
    scores_when_reached,
)
from lowshot_kedro.diffusion.reach import links_from
from lowshot_kedro.diffusion.validation import (
    MAX_COLUMNS,
    MAX_STEPS,
    ChosenSteps,
    choose_steps,
    expected_steps,
    folds,
    held_out_scores,
)
from lowshot_kedro.diffusion.variants import (
    CLASS_PRIORS,
    Adjustment,
    Clamping,
    LabeledRows,
    Power,
    adjustments,
    class_priors,
)

__all__ = [
    "BACKENDS",
    "CLASS_PRIORS",
    "EDGE_WEIGHTS",
    "MAX_COLUMNS",
    "MAX_STEPS",
    "NODE_ORDERINGS",
    "PRECISIONS",
    "Adjustment",
    "Backend",
    "ChosenDiffusion",
    "ChosenSteps",
    "Clamping",
    "LabeledRows",
    "MemoryPlan",
    "Power",
    "PropagationMatrix",
    "PropagationOptions",
    "adjustments",
    "choose_diffusion",
    "choose_node_ordering",
    "choose_steps",
    "class_priors",
    "create_backend",
    "expected_steps",
    "folds",
    "held_out_scores",
    "labeled_rows",
    "links_from",
    "matrix_of_weights",
    "plan_memory",
    "propagate",
    "propagation_matrix",
    "require_weights",
    "scores_per_step",
    "scores_when_reached",
    "sinkhorn",
]

if not TYPE_CHECKING:
    __getattr__ = old_names(__name__)
