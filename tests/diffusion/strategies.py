"""Random graphs, labels, links of test points, and variants of the procedure."""

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st


def neighbor_lists(rng, rows, n_nodes, k, missing):
    """Some neighbours twice, some missing, a third of the rows empty if any is missing."""
    lists = rng.integers(0, n_nodes, (rows, k), dtype=np.int32)
    lists[rng.random((rows, k)) < missing] = -1
    lists[rng.random(rows) < min(missing, 1 / 3)] = -1
    return lists


def missing_last(lists):
    """The same neighbours in the same order, those missing at the end."""
    order = np.argsort(lists < 0, axis=1, kind="stable")
    return np.take_along_axis(lists, order, axis=1)


def similarities_of(rng, neighbors):
    """Decreasing within a row, -inf beside -1. Those of i→j, j→i and of repeated entries differ.

    Far enough from 1 that no weight of a link is too small for single precision.
    """
    similarities = -np.sort(-rng.uniform(0.2, 0.9, neighbors.shape).astype(np.float32), axis=1)
    return np.where(neighbors >= 0, similarities, np.float32(-np.inf))


class Problem(NamedTuple):
    neighbors: np.ndarray
    similarities: np.ndarray
    labeled_classes: np.ndarray
    test_neighbors: np.ndarray
    n_classes: int

    @property
    def task(self):
        """What comes after the matrix."""
        return self.labeled_classes, self.test_neighbors, self.n_classes


def problem_of(rng, n_nodes, k, n_classes, n_labeled, n_test, missing=0.0, test_k=5):
    """Whose class in the middle has no labelled image."""
    neighbors = missing_last(neighbor_lists(rng, n_nodes, n_nodes, k, missing))
    present = np.delete(np.arange(n_classes), n_classes // 2)
    labeled_classes = rng.choice(present, n_labeled).astype(np.int32)
    test_neighbors = neighbor_lists(rng, n_test, n_nodes, test_k, missing / 2)
    similarities = similarities_of(rng, neighbors)
    return Problem(neighbors, similarities, labeled_classes, test_neighbors, n_classes)


@st.composite
def problems(draw, max_nodes=25, max_classes=5):
    """Graphs with a similarity for every link, labels, and links of test points.

    With missing and repeated neighbours, nodes that list themselves, nodes without any neighbour,
    classes without labels, and test points without links; down to one node, one neighbour, one
    class, no label and no test point.
    """
    n_nodes = draw(st.integers(1, max_nodes))
    n_classes = draw(st.integers(1, max_classes))
    n_labeled = draw(st.integers(0, n_nodes))
    missing = draw(st.sampled_from([0.0, 0.4, 0.9, 1.0]))
    k, test_k = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    neighbors = missing_last(neighbor_lists(rng, n_nodes, n_nodes, k, missing))
    test_neighbors = neighbor_lists(rng, draw(st.integers(0, 6)), n_nodes, test_k, missing / 2)
    labeled_classes = rng.integers(0, n_classes, n_labeled).astype(np.int32)
    similarities = similarities_of(rng, neighbors)
    return Problem(neighbors, similarities, labeled_classes, test_neighbors, n_classes)


# Arguments of propagation_matrix, and of the dense one.
matrix_variants = st.fixed_dictionaries(
    {
        "edge_weight": st.sampled_from(["constant", "gaussian", "locally_scaled"]),
        "sigma": st.sampled_from([0.5, 1.0]),
        "local_neighbor": st.integers(1, 7),
        "reciprocal": st.booleans(),
        "sinkhorn_rounds": st.integers(0, 3),
    }
)


@st.composite
def step_variants(draw, problem, powers=(1.0, 0.5, 1.3, 2.0)):
    """Arguments of propagate, and of the dense scores."""
    priors = ["uniform", "list"] + (["labeled"] if len(problem.labeled_classes) else [])
    prior = draw(st.sampled_from(priors))
    if prior == "list":
        numbers = st.lists(
            st.integers(0, 5), min_size=problem.n_classes, max_size=problem.n_classes
        )
        prior = draw(numbers.filter(any))
    return {
        "power": draw(st.sampled_from(powers)),
        "clamping": draw(st.booleans()),
        "class_prior": prior,
    }
