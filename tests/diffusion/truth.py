"""The published procedure with dense matrices in double precision, loop by loop."""

import numpy as np


def dense_matrix(neighbors):
    """Row-normalised A + Aᵀ, A[i, j] = 1 if j is in list i."""
    n = len(neighbors)
    adjacency = np.zeros((n, n))
    for node, listed in enumerate(neighbors.tolist()):
        for other in listed:
            if other >= 0:
                adjacency[node, other] = 1
    matrix = adjacency + adjacency.T
    for row in matrix:
        if row.sum() > 0:
            row /= row.sum()
    return matrix


def scale_columns(scores):
    for column in scores.T:
        if column.sum() != 0:
            column /= column.sum()
    return scores


def dense_scores(matrix, labeled_classes, test_neighbors, n_classes, n_iterations):
    """(n_iterations + 1, T, C)."""
    scores = np.zeros((len(matrix), n_classes))
    for node, label in enumerate(labeled_classes.tolist()):
        scores[node, label] = 1
    scale_columns(scores)
    per_iteration = []
    for iteration in range(n_iterations + 1):
        if iteration:
            scores = scale_columns(matrix @ scores)
        of_tests = np.zeros((len(test_neighbors), n_classes))
        for point, listed in enumerate(test_neighbors.tolist()):
            for node in listed:
                if node >= 0:
                    of_tests[point] += scores[node]
        per_iteration.append(of_tests)
    return np.array(per_iteration)


def relative_difference(found, expected):
    """Largest relative L1 distance of the scores of any iteration."""
    return max(
        np.abs(a - b).sum() / max(np.abs(b).sum(), 1e-30)
        for a, b in zip(found.astype(np.float64), expected, strict=True)
    )
