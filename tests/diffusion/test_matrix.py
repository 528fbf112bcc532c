import numpy as np
import pytest
from hypothesis import given, settings
from scipy import sparse

from lowshot_kedro.diffusion import propagation_matrix

from .strategies import problems
from .truth import dense_matrix


def dense(matrix):
    n = matrix.n_nodes
    return sparse.csr_array((matrix.values, matrix.indices, matrix.indptr), shape=(n, n)).toarray()


def test_a_matrix_worked_out_by_hand():
    # Node 0 lists itself and 1; 1 lists 0; 2 lists 0; 3 nobody, and nobody lists 3.
    neighbors = np.array([[0, 1], [0, -1], [0, -1], [-1, -1]], dtype=np.int32)
    matrix = propagation_matrix(neighbors)
    expected = [[2 / 5, 2 / 5, 1 / 5, 0], [1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(dense(matrix), expected, rtol=1e-6)
    assert matrix.n_nodes == 4
    assert matrix.n_bytes == 5 * 8 + 5 * 4 + 5 * 4


@settings(deadline=None, max_examples=60)
@given(problems())
def test_the_matrix_is_the_normalised_sum_of_both_directions(problem):
    neighbors = problem[0]
    matrix = propagation_matrix(neighbors)
    np.testing.assert_allclose(dense(matrix), dense_matrix(neighbors), rtol=1e-6)
    for start, stop in zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True):
        assert (np.diff(matrix.indices[start:stop]) > 0).all()
    assert (matrix.indptr.dtype, matrix.indices.dtype) == (np.int64, np.int32)
    assert matrix.values.dtype == np.float32


def test_an_unknown_edge_weight_is_refused():
    with pytest.raises(ValueError, match=r"edge_weight: got 'cosine', expected .*constant"):
        propagation_matrix(np.zeros((1, 1), dtype=np.int32), "cosine")


@pytest.mark.parametrize("bad", [3, -2])
def test_a_neighbour_out_of_range_is_refused(bad):
    neighbors = np.array([[0, 1], [2, bad], [0, 1]], dtype=np.int32)
    with pytest.raises(ValueError, match=rf"row 1, column 1 holds {bad}, expected -1 or 0\.\.2"):
        propagation_matrix(neighbors)
