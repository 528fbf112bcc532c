"""Back ends, and one problem large enough for blocks, sparse and dense scores, and rounding."""

from functools import cache

import numpy as np
import pytest

from lowshot_kedro import native
from lowshot_kedro.diffusion import (
    PropagationOptions,
    adjustments,
    propagate,
    propagation_matrix,
)

from .strategies import problem_of
from .truth import dense_matrix, dense_scores

needs_mkl = pytest.mark.skipif(not native.mkl_available(), reason="MKL is not installed")
BACKENDS = ["native", "torch", pytest.param("mkl", marks=needs_mkl), "scipy"]

N_ITERATIONS = 4
LIST = [0.5, 1, 2, 0, 3, 1, 1]
MATRICES = {
    "constant": {},
    "gaussian": {"edge_weight": "gaussian", "sigma": 0.8},
    "locally_scaled": {"edge_weight": "locally_scaled", "local_neighbor": 3},
    "reciprocal": {"reciprocal": True},
    "sinkhorn": {"sinkhorn_rounds": 3},
    "reciprocal_gaussian_sinkhorn": {
        "edge_weight": "gaussian",
        "reciprocal": True,
        "sinkhorn_rounds": 2,
    },
}
STEPS = {
    "plain": {},
    "power": {"power": 1.5},
    "restore": {"clamping": True},
    "labeled_prior": {"class_prior": "labeled"},
    "listed_prior": {"class_prior": LIST},
    "all": {"power": 2.0, "clamping": True, "class_prior": LIST},
}


def ints(*values):
    return np.array(values, dtype=np.int32)


def two_nodes():
    return propagation_matrix(ints([0, 1], [1, 0]))


def run(
    matrix,
    labels,
    links,
    n_classes,
    n_iterations,
    class_slice="auto",
    backend="auto",
    *,
    every_step=True,
    labeled_nodes=None,
    power=1,
    clamping=False,
    **options,
):
    """`propagate`, with options in the words of the parameters."""
    told = PropagationOptions(
        class_slice, backend, adjustments=adjustments(power, clamping), **options
    )
    return propagate(
        matrix, labels, links, n_classes, n_iterations, told,
        every_step=every_step, labeled_nodes=labeled_nodes,
    )  # fmt: skip


@cache
def larger_problem():
    """400 nodes, 60 of them labelled with 6 of 7 classes."""
    return problem_of(np.random.default_rng(0), 400, 8, 7, 60, 50, missing=0.05)


@cache
def larger_matrix(name, node_ordering="given"):
    problem = larger_problem()
    return propagation_matrix(
        problem.neighbors,
        similarities=problem.similarities,
        node_ordering=node_ordering,
        **MATRICES[name],
    )


@cache
def larger_truth(matrix, steps):
    problem = larger_problem()
    return dense_scores(
        dense_matrix(problem.neighbors, problem.similarities, **MATRICES[matrix]),
        *problem.task,
        N_ITERATIONS,
        **STEPS[steps],
    )
