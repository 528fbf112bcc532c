"""The whole experiment, from vectors to scores, against the published procedure."""

import numpy as np
import pytest

from lowshot_kedro.diffusion import PropagationOptions, propagate, propagation_matrix
from lowshot_kedro.graph import insert_labeled_nodes, normalize, unlabeled_nodes
from lowshot_kedro.metrics import top_k_hits

from .cases import BACKENDS
from .truth import dense_matrix, dense_scores, relative_difference

DIMENSION, K, N_CLASSES, N_ITERATIONS = 12, 6, 5, 3


def clustered_vectors(rng, classes, centers):
    return (centers[classes] + rng.standard_normal((len(classes), DIMENSION))).astype(np.float32)


def unit(vectors):
    vectors = vectors.astype(np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def published_scores(labeled, labeled_classes, background, test):
    """Labelled first, k-NN among all, symmetrised, normalised, three steps, sum over k-NN."""
    nodes = unit(np.concatenate([labeled, background]))
    nearest = np.argsort(-(nodes @ nodes.T), axis=1)[:, :K]
    links = np.argsort(-(unit(test) @ nodes.T), axis=1)[:, :K]
    return dense_scores(dense_matrix(nearest), labeled_classes, links, N_CLASSES, N_ITERATIONS)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("seed", "n_background"), [(0, 150), (1, 40), (2, 0)])
def test_scores_are_those_of_the_published_procedure(seed, n_background, backend):
    rng = np.random.default_rng(seed)
    centers = 2 * rng.standard_normal((N_CLASSES, DIMENSION))
    # Two base classes with many labelled images come first, then three novel ones with two each.
    labeled_classes = np.repeat(np.arange(N_CLASSES), [15, 12, 2, 2, 2]).astype(np.int32)
    test_classes = np.repeat(np.arange(N_CLASSES), 10).astype(np.int32)
    labeled = clustered_vectors(rng, labeled_classes, centers)
    test = clustered_vectors(rng, test_classes, centers)
    background = clustered_vectors(rng, rng.integers(0, N_CLASSES, n_background), centers)

    graph = insert_labeled_nodes(
        normalize(labeled, 0, "labelled"), normalize(test, 0, "test"),
        unlabeled_nodes(background, 8, "auto", "background"), k=K,
    )  # fmt: skip
    found = propagate(
        propagation_matrix(graph.neighbors), labeled_classes, graph.test_neighbors.indices,
        N_CLASSES, N_ITERATIONS, PropagationOptions(class_slice=2, backend=backend),
    )  # fmt: skip

    expected = published_scores(labeled, labeled_classes, background, test)
    assert relative_difference(found, expected) < 1e-6
    accuracy = top_k_hits(found[-1], test_classes, 1).mean()
    assert accuracy == (expected[-1].argmax(axis=1) == test_classes).mean()
    assert accuracy > 1 / N_CLASSES
