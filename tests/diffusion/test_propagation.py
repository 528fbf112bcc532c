import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lowshot_kedro import native
from lowshot_kedro.diffusion import create_backend, initial_scores, propagate, propagation_matrix

from .strategies import neighbor_lists, problems
from .truth import dense_matrix, dense_scores, relative_difference

needs_mkl = pytest.mark.skipif(not native.mkl_available(), reason="MKL is not installed")
BACKENDS = ["native", pytest.param("mkl", marks=needs_mkl), "scipy"]


def ints(*values):
    return np.array(values, dtype=np.int32)


@pytest.fixture(scope="module")
def problem():
    """400 nodes, 60 of them labelled with 7 classes of which class 4 has no image."""
    rng = np.random.default_rng(0)
    neighbors = neighbor_lists(rng, 400, 400, 8, 0.05)
    labeled_classes = rng.choice([0, 1, 2, 3, 5, 6], 60).astype(np.int32)
    return neighbors, labeled_classes, neighbor_lists(rng, 50, 400, 8, 0.0), 7


# --- start ---


def test_the_start_worked_out_by_hand():
    found = initial_scores(ints(1, 0, 1, 3), 0, 4, 6)
    expected = np.zeros((6, 4))
    expected[[0, 2], 1] = 1 / 2
    expected[1, 0] = expected[3, 3] = 1
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.float32


@settings(deadline=None, max_examples=60)
@given(problems(), st.data())
def test_columns_of_the_start_sum_to_one_and_slices_are_columns(problem, data):
    neighbors, labeled_classes, _, n_classes = problem
    whole = initial_scores(labeled_classes, 0, n_classes, len(neighbors))
    present = np.isin(np.arange(n_classes), labeled_classes)
    np.testing.assert_allclose(whole.sum(axis=0), present, rtol=1e-6)
    assert not whole[len(labeled_classes) :].any()
    assert (whole[np.arange(len(labeled_classes)), labeled_classes] > 0).all()
    first = data.draw(st.integers(0, n_classes))
    last = data.draw(st.integers(first, n_classes))
    part = initial_scores(labeled_classes, first, last, len(neighbors))
    np.testing.assert_array_equal(part, whole[:, first:last])


# --- whole propagation ---


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_propagation_worked_out_by_hand(backend):
    # A path 0 – 1 – 2 whose middle lists both ends; node 0 is of class 0, node 1 of class 1.
    matrix = propagation_matrix(np.array([[-1, -1], [0, 2], [-1, -1]], dtype=np.int32))
    found = propagate(matrix, ints(0, 1), np.array([[0, 2], [1, -1]]).astype(np.int32), 2, 2,
                      backend=backend)  # fmt: skip
    # Class 0: (1, 0, 0) → (0, 1, 0) → (½, 0, ½). Class 1: (0, 1, 0) → (½, 0, ½) → (0, 1, 0).
    expected = [[[1, 0], [0, 1]], [[0, 1], [1, 0]], [[1, 0], [0, 1]]]
    np.testing.assert_allclose(found, expected, atol=1e-7)
    assert found.dtype == np.float32


@pytest.mark.parametrize("backend", BACKENDS)
@settings(deadline=None, max_examples=60)
@given(problem=problems(), n_iterations=st.integers(0, 4), class_slice=st.integers(0, 6))
def test_scores_are_those_of_dense_double_precision(backend, problem, n_iterations, class_slice):
    neighbors, labeled_classes, test_neighbors, n_classes = problem
    found = propagate(
        propagation_matrix(neighbors), labeled_classes, test_neighbors, n_classes, n_iterations,
        class_slice, backend,
    )  # fmt: skip
    expected = dense_scores(
        dense_matrix(neighbors), labeled_classes, test_neighbors, n_classes, n_iterations
    )
    assert found.shape == (n_iterations + 1, len(test_neighbors), n_classes)
    assert relative_difference(found, expected) < 1e-6
    missing = ~np.isin(np.arange(n_classes), labeled_classes)
    assert not found[:, :, missing].any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_many_steps_over_a_larger_graph(problem, backend):
    neighbors, labeled_classes, test_neighbors, n_classes = problem
    matrix = propagation_matrix(neighbors)
    found = propagate(matrix, labeled_classes, test_neighbors, n_classes, 20, backend=backend)
    expected = dense_scores(dense_matrix(neighbors), labeled_classes, test_neighbors, n_classes, 20)
    assert relative_difference(found, expected) < 1e-6
    assert not found[:, :, 4].any()
    assert found[0].sum() > 0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("class_slice", [1, 2, 3, 7, 100])
def test_slices_of_classes_change_nothing(problem, backend, class_slice):
    neighbors, labeled_classes, test_neighbors, n_classes = problem
    matrix = propagation_matrix(neighbors)
    whole, sliced = (
        propagate(matrix, labeled_classes, test_neighbors, n_classes, 3, size, backend)
        for size in (0, class_slice)
    )
    np.testing.assert_array_equal(whole, sliced)


@pytest.mark.parametrize("backend", BACKENDS)
def test_step_zero_counts_labelled_neighbours(backend):
    matrix = propagation_matrix(np.array([[1], [0], [0], [0]], dtype=np.int32))
    links = np.array([[0, 1, 2], [2, 3, -1], [3, -1, -1]], dtype=np.int32)
    found = propagate(matrix, ints(0, 0, 1), links, 2, 0, backend=backend)
    np.testing.assert_array_equal(found, [[[1, 1], [0, 1], [0, 0]]])


@pytest.mark.parametrize("backend", BACKENDS)
def test_labels_of_an_isolated_node_vanish_with_the_first_step(backend):
    matrix = propagation_matrix(np.array([[-1], [2], [1]], dtype=np.int32))
    found = propagate(
        matrix, ints(0, 1), np.array([[0], [1]], dtype=np.int32), 2, 2, backend=backend
    )
    assert found[0].tolist() == [[1, 0], [0, 1]]
    assert not found[1:, :, 0].any()
    assert found[2].tolist() == [[0, 0], [0, 1]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_arguments_stay_as_they_are(problem, backend):
    neighbors, labeled_classes, test_neighbors, n_classes = problem
    matrix = propagation_matrix(neighbors)
    before = [array.copy() for array in (*matrix, labeled_classes, test_neighbors)]
    propagate(matrix, labeled_classes, test_neighbors, n_classes, 3, 2, backend)
    for array, copy in zip((*matrix, labeled_classes, test_neighbors), before, strict=True):
        np.testing.assert_array_equal(array, copy)


# --- back ends ---


@pytest.mark.parametrize("installed", [True, False])
def test_auto_takes_mkl_where_it_is_installed(monkeypatch, installed):
    monkeypatch.setattr(native, "mkl_available", lambda: installed)
    matrix = propagation_matrix(np.zeros((1, 1), dtype=np.int32))
    assert create_backend("auto", matrix).name == ("mkl" if installed else "native")


def test_mkl_that_is_not_installed_is_refused(monkeypatch):
    monkeypatch.setattr(native, "mkl_available", lambda: False)
    matrix = propagation_matrix(np.zeros((1, 1), dtype=np.int32))
    with pytest.raises(ValueError, match=r"diffusion.backend: got 'mkl', but .* not installed;"):
        create_backend("mkl", matrix)


@pytest.mark.parametrize("backend", BACKENDS)
def test_back_ends_know_their_name(backend):
    matrix = propagation_matrix(np.zeros((1, 1), dtype=np.int32))
    assert create_backend(backend, matrix).name == backend


# --- faults ---


def two_nodes():
    return propagation_matrix(np.array([[0, 1], [1, 0]], dtype=np.int32))


def test_an_unknown_back_end_is_refused():
    message = "diffusion.backend: got 'torch', expected one of: auto, native, mkl, scipy"
    with pytest.raises(ValueError, match=message):
        propagate(two_nodes(), ints(0), ints(0)[None], 1, 1, backend="torch")


@pytest.mark.parametrize(
    ("labeled_classes", "message"),
    [
        (ints(0, 2), r"labeled_classes: found 0\.\.2, expected 0\.\.1"),
        (ints(-1, 1), r"labeled_classes: found -1\.\.1, expected 0\.\.1"),
        (ints(0, 1, 0), "labeled_classes: 3 labels for 2 nodes"),
    ],
)
def test_classes_that_do_not_fit_are_refused(labeled_classes, message):
    with pytest.raises(ValueError, match=message):
        propagate(two_nodes(), labeled_classes, ints(0)[None], 2, 1)


@pytest.mark.parametrize("bad", [2, -2])
@pytest.mark.parametrize(
    "backend",
    ["native", pytest.param("mkl", marks=needs_mkl), "scipy"],
)
def test_test_neighbours_out_of_range_are_refused(backend, bad):
    links = np.array([[0, 1], [0, bad]], dtype=np.int32)
    with pytest.raises(ValueError, match=rf"row 1, column 1 holds {bad}, expected -1 or 0\.\.1"):
        propagate(two_nodes(), ints(0), links, 1, 1, backend=backend)
