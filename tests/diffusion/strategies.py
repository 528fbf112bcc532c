"""Random graphs, labels and links of test points."""

import numpy as np
from hypothesis import strategies as st


def neighbor_lists(rng, rows, n_nodes, k, missing):
    """Some neighbours twice, some missing, a third of the rows empty if any is missing."""
    lists = rng.integers(0, n_nodes, (rows, k), dtype=np.int32)
    lists[rng.random((rows, k)) < missing] = -1
    lists[rng.random(rows) < min(missing, 1 / 3)] = -1
    return lists


@st.composite
def problems(draw, max_nodes=25, max_classes=5):
    """Neighbours, labelled classes, test neighbours and the number of classes.

    With missing neighbours, nodes without any, classes without labels, and test points without
    links.
    """
    n_nodes = draw(st.integers(1, max_nodes))
    n_classes = draw(st.integers(1, max_classes))
    n_labeled = draw(st.integers(0, n_nodes))
    missing = draw(st.sampled_from([0.0, 0.4, 0.9, 1.0]))
    k, test_k = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    neighbors = neighbor_lists(rng, n_nodes, n_nodes, k, missing)
    test_neighbors = neighbor_lists(rng, draw(st.integers(0, 6)), n_nodes, test_k, missing / 2)
    labeled_classes = rng.integers(0, n_classes, n_labeled).astype(np.int32)
    return neighbors, labeled_classes, test_neighbors, n_classes
