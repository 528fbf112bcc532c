"""What LabelDiffusion computes, with dense matrices in double precision.

Written down from the formulas; nothing here calls the code under test.
"""

import numpy as np

from tests.diffusion.truth import dense_links, scale_columns


def similarities(queries, rows, metric="euclidean"):
    """(m, n): larger is nearer."""
    queries, rows = np.asarray(queries, float), np.asarray(rows, float)
    if metric == "euclidean":
        return -((queries[:, None] - rows[None]) ** 2).sum(axis=2)
    lengths = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(rows, axis=1)
    return queries @ rows.T / lengths


def nearest(queries, rows, k, metric="euclidean"):
    """(m, k) row numbers, the nearest first."""
    return np.argsort(-similarities(queries, rows, metric), axis=1, kind="stable")[:, :k]


def is_clear(queries, rows, k, metric="euclidean", gap=1e-6):
    """Whether single precision can tell which are the k nearest of every query, and the first."""
    ranked = -np.sort(-similarities(queries, rows, metric), axis=1)
    gaps = -np.diff(ranked, axis=1)[:, [place for place in (0, k - 1) if place < len(rows) - 1]]
    return bool((gaps > gap * np.abs(ranked).max()).all())


def links_of(lists, n_nodes):
    """(m, n_nodes): 1 where a row lists a node."""
    links = np.zeros((len(lists), n_nodes))
    for row, listed in enumerate(np.asarray(lists).tolist()):
        links[row, [node for node in listed if node >= 0]] = 1
    return links


def spread(weights, y, n_iterations, class_prior="labeled"):
    """(N, C): L after the last step, times the prior. `y` is -1 for unlabelled rows."""
    y = np.asarray(y)
    classes = np.unique(y[y != -1])
    matrix = weights + weights.T
    scale_columns(matrix.T)
    labels = (y[:, None] == classes).astype(float)
    priors = {"labeled": labels.sum(axis=0), "uniform": np.ones(len(classes))}
    prior = priors[class_prior] if isinstance(class_prior, str) else np.array(class_prior)
    scores = scale_columns(labels.copy())
    for _ in range(n_iterations):
        scores = scale_columns(matrix @ scores)
    return scores * prior


def as_shares(scores):
    """Rows scaled to sum 1; rows of zeros stay."""
    return scale_columns(np.array(scores, float).T).T


def distributions(scores, y):
    """Labelled rows are what they were labelled, the others what arrived."""
    y = np.asarray(y)
    shares = as_shares(scores)
    labeled = y != -1
    shares[labeled] = y[labeled][:, None] == np.unique(y[labeled])
    return shares


def classes_of(shares, classes):
    """The class with the largest share, the first of equal ones; -1 for a row of zeros."""
    found = np.asarray(classes)[shares.argmax(axis=1)]
    return np.where(shares.any(axis=1), found, -1)


def knn_links(rows, k, metric="euclidean"):
    """A of the graph in which every row lists the k nearest rows, itself included."""
    return dense_links(nearest(rows, rows, k, metric))
