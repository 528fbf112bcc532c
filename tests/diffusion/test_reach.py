import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import shortest_path

from lowshot_kedro.diffusion import links_from, propagation_matrix, reach

from .truth import dense_links


@pytest.mark.parametrize("ordering", ["given", "clustered"])
@settings(deadline=None, max_examples=40)
@given(st.integers(1, 40), st.integers(1, 3), st.integers(0, 2**31 - 1))
def test_links_are_those_of_shortest_paths(ordering, n_nodes, k, seed):
    rng = np.random.default_rng(seed)
    neighbors = rng.integers(-1, n_nodes, (n_nodes, k)).astype(np.int32)
    starts = rng.choice(n_nodes, rng.integers(0, min(n_nodes, 4) + 1), replace=False)
    matrix = propagation_matrix(neighbors, node_ordering=ordering)
    links = dense_links(neighbors)
    paths = shortest_path(links + links.T, unweighted=True)[starts]
    nearest = paths.min(axis=0, initial=np.inf)
    expected = np.where(np.isinf(nearest), -1, nearest)
    found = links_from(matrix, starts.astype(np.int32))
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, expected)


def test_links_are_followed_block_by_block(monkeypatch):
    neighbors = np.random.default_rng(1).integers(0, 300, (300, 3)).astype(np.int32)
    matrix, starts = propagation_matrix(neighbors), np.array([7, 3], np.int32)
    expected = links_from(matrix, starts)
    assert expected.max() > 2
    monkeypatch.setattr(reach, "_BLOCK_NODES", 7)
    np.testing.assert_array_equal(links_from(matrix, starts), expected)
