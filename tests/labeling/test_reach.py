import numpy as np
import pytest

from lowshot_kedro.graph import normalize
from lowshot_kedro.labeling import reach
from lowshot_kedro.labeling.nodes import NodeVectors
from lowshot_kedro.labeling.reach import nearest_labeled


def vectors(n_first, n_others, seed=0):
    rng = np.random.default_rng(seed)
    first = normalize(rng.standard_normal((n_first, 8)).astype(np.float32), 0, "vectors")
    return NodeVectors(first, 3 * rng.standard_normal((n_others, 8)).astype(np.float32))


@pytest.mark.parametrize("n_labeled", [2, 5, 60])
def test_it_is_the_most_similar_labelled_image_but_itself(n_labeled):
    nodes = vectors(30, 90)
    labeled = np.sort(np.random.default_rng(1).choice(120, n_labeled, replace=False))
    unit = nodes.read(0, 120).astype(np.float64)
    similarities = unit @ unit[labeled].T
    similarities[labeled, np.arange(n_labeled)] = -2
    expected = labeled[similarities.argmax(axis=1)]
    found = nearest_labeled(nodes, labeled.astype(np.int32))
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, expected)


def test_of_equal_images_it_is_the_first_other_one():
    nodes = NodeVectors(np.tile(np.float32([[1, 0]]), (5, 1)), np.float32([[2, 0], [0, 1]]))
    found = nearest_labeled(nodes, np.array([1, 3, 4, 6], np.int32))
    assert found.tolist() == [1, 3, 1, 1, 1, 1, 1]


def test_where_there_is_no_other_there_is_none():
    assert nearest_labeled(vectors(3, 2), np.array([1], np.int32)).tolist() == [1, -1, 1, 1, 1]
    assert nearest_labeled(vectors(3, 2), np.empty(0, np.int32)).tolist() == [-1] * 5


def test_blocks_change_nothing(monkeypatch):
    nodes, labeled = vectors(30, 90), np.arange(0, 120, 7).astype(np.int32)
    expected = nearest_labeled(nodes, labeled)
    monkeypatch.setattr(NodeVectors, "blocks", lambda self: [(0, 50), (50, 120)])
    np.testing.assert_array_equal(reach.nearest_labeled(nodes, labeled), expected)
