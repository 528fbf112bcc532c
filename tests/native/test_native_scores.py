import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from lowshot_kedro import native

from .strategies import neighbor_lists, random_neighbors, scores_for

PRODUCTS = [
    "own",
    pytest.param(
        "mkl", marks=pytest.mark.skipif(not native.mkl_available(), reason="MKL is not installed")
    ),
]


def column_normalized(scores):
    sums = scores.sum(0)
    return scores / np.where(sums == 0, 1, sums)


def relative_l1(found, expected):
    return np.abs(found - expected).sum() / max(np.abs(expected).sum(), 1e-300)


def transition_matrix(neighbors):
    indptr, indices, values = native.symmetrize(neighbors)
    native.normalize_rows(indptr, values)
    return indptr, indices, values


def check_step(graph, scores, product):
    indptr, indices, values = graph
    matrix = scipy.sparse.csr_matrix(
        (values.astype(float), indices, indptr), shape=(len(scores), len(scores))
    )
    expected = column_normalized(matrix @ scores.astype(float))
    out = np.full_like(scores, np.nan)
    native.diffusion_step(*graph, scores, out, product=product)
    assert relative_l1(out, expected) < 1e-6
    np.testing.assert_array_equal(out == 0, expected == 0)


@pytest.mark.parametrize("product", PRODUCTS)
@given(data=st.data(), neighbors=neighbor_lists())
def test_diffusion_step_is_scipy_s(product, data, neighbors):
    check_step(transition_matrix(neighbors), data.draw(scores_for(len(neighbors))), product)


@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("columns", [1, 2, 3, 5, 8, 13, 31, 33, 64, 65, 130])
def test_diffusion_step_with_many_blocks_of_rows(product, columns):
    rows = 5000
    scores = np.random.default_rng(1).random((rows, columns), dtype=np.float32)
    check_step(transition_matrix(random_neighbors(rows, 6)), scores, product)


@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (4, 0)])
def test_diffusion_step_of_nothing(product, shape):
    graph = native.symmetrize(np.zeros((shape[0], 1), np.int32)[:, :0])
    native.diffusion_step(
        *graph, np.empty(shape, np.float32), np.empty(shape, np.float32), product=product
    )


def test_diffusion_step_chooses_mkl_where_it_exists():
    graph = transition_matrix(random_neighbors(500, 6))
    scores = np.random.default_rng(1).random((500, 20), dtype=np.float32)
    automatic, chosen = np.empty_like(scores), np.empty_like(scores)
    native.diffusion_step(*graph, scores, automatic)
    native.diffusion_step(
        *graph, scores, chosen, product="mkl" if native.mkl_available() else "own"
    )
    np.testing.assert_array_equal(automatic, chosen)


@given(st.data(), st.integers(1, 1000), st.booleans())
def test_normalize_columns(data, rows, signed):
    scores = data.draw(scores_for(rows))
    if signed:
        scores -= np.float32(0.25)
    expected = column_normalized(scores.astype(float))
    native.normalize_columns(scores)
    np.testing.assert_allclose(scores, expected, rtol=1e-6)


def test_normalize_columns_of_extreme_sizes():
    smallest, largest = np.finfo(np.float32).smallest_subnormal, np.finfo(np.float32).max
    scores = np.array([[smallest, largest, 1, 0], [0, largest, -1, 0]], np.float32)
    native.normalize_columns(scores)
    np.testing.assert_array_equal(scores, [[1, 0.5, 1, 0], [0, 0.5, -1, 0]])


@given(data=st.data(), neighbors=neighbor_lists())
def test_sum_neighbors(data, neighbors):
    scores = data.draw(scores_for(len(neighbors) + data.draw(st.integers(0, 5))))
    expected = (scores.astype(float)[neighbors] * (neighbors >= 0)[:, :, None]).sum(1)
    found = native.sum_neighbors(neighbors, scores)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_sum_neighbors_counts_every_occurrence():
    scores = np.array([[1, 2], [10, 20]], np.float32)
    neighbors = np.array([[1, 1, -1], [-1, -1, -1], [0, 1, -1]], np.int32)
    assert native.sum_neighbors(neighbors, scores).tolist() == [[20, 40], [0, 0], [11, 22]]


def test_sum_neighbors_without_nodes():
    missing = np.full((2, 3), -1, np.int32)
    assert native.sum_neighbors(missing, np.empty((0, 2), np.float32)).tolist() == [[0, 0]] * 2
