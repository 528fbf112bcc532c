"""Given labels that are probably wrong."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from lowshot_kedro.blocks import row_ranges, spread_rows
from lowshot_kedro.labeling.attention import SuspiciousLabels
from lowshot_kedro.labeling.given_labels import GivenLabels
from lowshot_kedro.labeling.labels import Labeling
from lowshot_kedro.labeling.nodes import LabelingGraph, NodeVectors
from lowshot_kedro.progress import logged_step

RULE = (
    "Labels for which another class is at least three times as probable when they are held out, by "
    "the labelling and by a least-squares classifier together (confident learning, Northcutt, "
    "Jiang and Chuang, JAIR 2021, ranks by such probabilities), and labels of exact copies that "
    "contradict each other."
)

# Times that another class is as probable as the one given.
_MIN_RATIO = 3.0
# Of a contradiction between copies, of which either may be the wrong one.
_OF_COPIES = 0.5
# A cosine of copies, but for rounding.
_COPY = 1 - 1e-5
# Beside vectors of length 1.
_RIDGE = 1.0
# Beside it, so that the constant is not drawn to 0, but there is a solution.
_CONSTANT_RIDGE = 1e-3
# Labels that the temperature is fitted to.
_MAX_FITTED = 20_000
_BLOCK_ROWS = 4096


def suspicious_labels(graph: LabelingGraph, labeling: Labeling) -> SuspiciousLabels:
    """Labelled images that others contradict, most suspicious first.

    Two kinds of evidence see different errors: probabilities of held-out labels, as a rule those of
    the diffusion, look at the images nearby, and a linear classifier at all. The second is fitted
    by least squares to vectors of length 1, classes weighing alike, and predicts every label
    without that label, and without those of its group, in closed form. With the mean p of both,
    g the given and s the most probable other class, suspicion is √p(s) / (√p(s) + p(g)): p(g) alone
    ranks errors at random best, and p(s) / p(g) errors between similar classes.

    A label that could not be held out, such as the only one of its class, is suspicious where an
    exact copy of the image has another label, and nowhere else: all its neighbours are of other
    classes, whether it is right or wrong.

    A label that somebody has checked speaks for others and is not listed itself.

    Args:
        graph: The graph over all images.
        labeling: Given labels, and what was predicted for those that were held out.

    Returns:
        Unchecked labels for which p(s) ≥ 3 p(g), and contradictions between copies. In memory
        besides: three times the probabilities of held-out labels.
    """
    given = labeling.given
    with logged_step(f"suspicious labels among {len(given.nodes)}"):
        found = _joined(
            _improbable_labels(graph.vectors, labeling), _contradicted_copies(graph, given)
        )
    if given.checked is not None:
        is_open = ~given.checked[found.nodes]
        found = _Found(*(values[is_open] for values in found))
    # The first of equal nodes is the one of the probabilities, if that is suspicious enough.
    order = np.lexsort((found.nodes, -found.suspicion))
    order = order[np.sort(np.unique(found.nodes[order], return_index=True)[1])]
    return SuspiciousLabels(
        found.nodes[order].astype(np.int32),
        found.suspicion[order].astype(np.float32),
        found.suggested[order].astype(np.int32),
        RULE,
    )


class _Found(NamedTuple):
    """Suspicious labels in any order."""

    nodes: NDArray[np.integer]
    suspicion: NDArray[np.floating]
    suggested: NDArray[np.integer]


def _joined(one: _Found, other: _Found) -> _Found:
    return _Found(*(np.concatenate(parts) for parts in zip(one, other, strict=True)))


def _improbable_labels(vectors: NodeVectors, labeling: Labeling) -> _Found:
    """Held-out labels that are less probable than others."""
    nodes = labeling.held_out.nodes
    classes = labeling.given.labels[nodes]
    probabilities = labeling.held_out.probabilities
    if len(nodes) == 0:
        return _Found(nodes, np.empty(0, np.float32), nodes)
    groups = None if labeling.given.groups is None else labeling.given.groups[nodes]
    of_vectors = _least_squares(vectors, nodes, classes, groups, probabilities.shape[1])
    is_reached = probabilities.any(axis=1)
    of_vectors[is_reached] = (of_vectors[is_reached] + probabilities[is_reached]) / 2
    rows = np.arange(len(nodes))
    of_given = of_vectors[rows, classes]
    of_vectors[rows, classes] = -1
    suggested = of_vectors.argmax(axis=1)
    of_suggested = of_vectors[rows, suggested]
    found = np.flatnonzero(of_suggested >= _MIN_RATIO * of_given)
    roots = np.sqrt(of_suggested)
    suspicion = roots / np.maximum(roots + of_given, np.finfo(np.float32).tiny)
    return _Found(nodes[found], suspicion[found], suggested[found])


def _contradicted_copies(graph: LabelingGraph, given: GivenLabels) -> _Found:
    """Labelled images linked to a copy with another label."""
    nodes = given.nodes
    found = [_Found(nodes[:0], np.empty(0, np.float32), nodes[:0])]
    for first, last in row_ranges(len(nodes), _BLOCK_ROWS):
        of = nodes[first:last]
        neighbors = graph.neighbors[of]
        labels = np.where(neighbors >= 0, given.labels[neighbors], -1)
        is_other = (labels >= 0) & (labels != given.labels[of][:, None])
        is_other &= graph.similarities[of] >= _COPY
        rows = np.flatnonzero(is_other.any(axis=1))
        suggested = labels[rows, is_other[rows].argmax(axis=1)]
        found.append(_Found(of[rows], np.full(len(rows), _OF_COPIES, np.float32), suggested))
    return _Found(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def _least_squares(
    vectors: NodeVectors,
    nodes: NDArray[np.int32],
    classes: NDArray[np.int32],
    groups: NDArray[np.int32] | None,
    n_classes: int,
) -> NDArray[np.float32]:
    """Probabilities of each label, found without it and without those of its group.

    Ridge regression onto the classes; what it predicts for rows that are left out follows from the
    fit to all (for one row: R. Cook and S. Weisberg, "Residuals and Influence in Regression",
    1982). The softmax of the predictions has the temperature that suits the labels best.

    Args:
        vectors: Those of all nodes.
        nodes: int32 (H,), labelled nodes.
        classes: int32 (H,), their classes.
        groups: int32 (H,), -1 for a node that is a group of its own; None: all are.
        n_classes: C.

    Returns:
        float32 (H, C), rows sum to 1.
    """
    counts = np.bincount(classes, minlength=n_classes)
    weights = len(nodes) / np.count_nonzero(counts) / counts[classes]
    n_columns = vectors.dimension + 1
    gram = np.diag([*[_RIDGE] * vectors.dimension, _CONSTANT_RIDGE])
    sums = np.zeros((n_classes, n_columns))
    for first, last in row_ranges(len(nodes), _BLOCK_ROWS):
        rows = _with_constant(vectors.take(nodes[first:last]))
        weighted = rows * weights[first:last, None]
        gram += rows.T @ weighted
        np.add.at(sums, classes[first:last], weighted)
    inverse = np.linalg.inv(gram)
    coefficients = inverse @ sums.T
    predicted = np.empty((len(nodes), n_classes), np.float32)
    for first, last in row_ranges(len(nodes), _BLOCK_ROWS):
        rows = _with_constant(vectors.take(nodes[first:last]))
        block = rows @ coefficients
        own = np.arange(len(rows)), classes[first:last]
        leverage = weights[first:last] * ((rows @ inverse) * rows).sum(axis=1)
        block[own] -= leverage
        predicted[first:last] = block / (1 - leverage)[:, None]
    for members in _groups_of_several(groups):
        rows = _with_constant(vectors.take(nodes[members]))
        truth = np.zeros((len(members), n_classes))
        truth[np.arange(len(members)), classes[members]] = 1
        hat = (rows @ inverse) @ (rows * weights[members, None]).T
        residuals = np.linalg.solve(np.eye(len(members)) - hat, truth - rows @ coefficients)
        predicted[members] = truth - residuals
    scale = _fitted_scale(predicted, classes)
    for first, last in row_ranges(len(nodes), _BLOCK_ROWS):
        predicted[first:last] = softmax(predicted[first:last] * scale, axis=1)
    return predicted


def _with_constant(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.column_stack([vectors.astype(np.float64), np.ones(len(vectors))])


def _groups_of_several(groups: NDArray[np.int32] | None) -> list[NDArray[np.int64]]:
    """The rows of every group that has more than one."""
    if groups is None:
        return []
    order = np.argsort(groups, kind="stable")
    order = order[groups[order] >= 0]
    parts = np.split(order, 1 + np.flatnonzero(np.diff(groups[order])))
    return [part for part in parts if len(part) > 1]


def _fitted_scale(predicted: NDArray[np.float32], classes: NDArray[np.int32]) -> float:
    """The factor with which the softmax makes the labels most likely."""
    rows = spread_rows(len(classes), _MAX_FITTED)
    some, of_some = predicted[rows].astype(np.float64), classes[rows]

    def loss(logarithm: float) -> float:
        logarithms = log_softmax(some * np.exp(logarithm), axis=1)
        return -float(logarithms[np.arange(len(rows)), of_some].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-2, 6), method="bounded").x))
