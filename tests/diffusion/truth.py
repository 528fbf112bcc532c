"""The procedure and its variants with dense matrices in double precision, loop by loop.

Written down from the formulas; nothing here calls the code under test.
"""

import math

import numpy as np

# --- W ---


def dense_links(neighbors, similarities=None, edge_weight="constant", sigma=0.5, local_neighbor=7):
    """A: A[i, j] is the weight of the first entry of list i that is j, or 0."""
    n = len(neighbors)
    links = np.zeros((n, n))
    scales = [
        local_scale(listed, similarities[node], local_neighbor)
        if edge_weight == "locally_scaled"
        else sigma
        for node, listed in enumerate(neighbors.tolist())
    ]
    for node, listed in enumerate(neighbors.tolist()):
        for position in reversed(range(len(listed))):
            other = listed[position]
            if other < 0:
                continue
            if edge_weight == "constant":
                links[node, other] = 1
                continue
            squared = squared_distance(similarities[node, position])
            product = sigma**2 if edge_weight == "gaussian" else scales[node] * scales[other]
            if squared == 0:
                links[node, other] = 1
            else:
                links[node, other] = math.exp(-squared / product) if product > 0 else 0
    return links


def squared_distance(similarity):
    """Of two vectors of length 1 with this inner product."""
    return max(2 - 2 * float(similarity), 0)


def local_scale(listed, similarities, rank):
    """Distance to neighbour number `rank`, or to the last."""
    present = [s for node, s in zip(listed, similarities, strict=True) if node >= 0]
    return math.sqrt(squared_distance(present[:rank][-1])) if present else 0.0


def dense_matrix(
    neighbors,
    similarities=None,
    edge_weight="constant",
    sigma=0.5,
    local_neighbor=7,
    reciprocal=False,
    sinkhorn_rounds=0,
):
    """Row-normalised A + Aᵀ; columns and rows normalised in turns afterwards."""
    links = dense_links(neighbors, similarities, edge_weight, sigma, local_neighbor)
    matrix = links + links.T
    if reciprocal:
        matrix[links * links.T == 0] = 0
    scale_columns(matrix.T)
    for _ in range(sinkhorn_rounds):
        scale_columns(matrix)
        scale_columns(matrix.T)
    return matrix


# --- steps ---


def scale_columns(scores):
    for column in scores.T:
        if column.sum() != 0:
            column /= column.sum()
    return scores


def dense_start(labeled_classes, n_nodes, n_classes):
    scores = np.zeros((n_nodes, n_classes))
    for node, label in enumerate(labeled_classes.tolist()):
        scores[node, label] = 1
    return scale_columns(scores)


def dense_priors(class_prior, labeled_classes, n_classes):
    if class_prior == "uniform":
        return np.ones(n_classes)
    if class_prior == "labeled":
        class_prior = [(labeled_classes == label).sum() for label in range(n_classes)]
    return np.array(class_prior) * n_classes / sum(class_prior)


def dense_scores(
    matrix,
    labeled_classes,
    test_neighbors,
    n_classes,
    n_iterations,
    power=1,
    clamping=False,
    class_prior="uniform",
):
    """(n_iterations + 1, T, C)."""
    start = dense_start(labeled_classes, len(matrix), n_classes)
    priors = dense_priors(class_prior, labeled_classes, n_classes)
    scores = start.copy()
    per_iteration = []
    for iteration in range(n_iterations + 1):
        if iteration:
            scores = scale_columns(matrix @ scores)
            if power != 1:
                scores = scale_columns(scores**power)
            if clamping:
                for node in range(len(labeled_classes)):
                    scores[node] = start[node]
                scale_columns(scores)
        of_tests = np.zeros((len(test_neighbors), n_classes))
        for point, listed in enumerate(test_neighbors.tolist()):
            for node in listed:
                if node >= 0:
                    of_tests[point] += scores[node] * priors
        per_iteration.append(of_tests)
    return np.array(per_iteration)


def relative_difference(found, expected):
    """Largest relative L1 distance of the scores of any iteration."""
    assert found.shape == expected.shape
    return max(
        np.abs(a - b).sum() / max(np.abs(b).sum(), 1e-30)
        for a, b in zip(found.astype(np.float64), expected, strict=True)
    )
