import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lowshot_kedro import native
from lowshot_kedro.diffusion import (
    Clamping,
    Power,
    PropagationOptions,
    create_backend,
    labeled_rows,
    propagation_matrix,
)
from lowshot_kedro.diffusion.backends import native_backend
from lowshot_kedro.diffusion.backends.native_backend import aligned_empty, compact, inverse
from lowshot_kedro.diffusion.backends.registry import candidates, free_bytes
from lowshot_kedro.errors import InputError

from .cases import (
    BACKENDS,
    MATRICES,
    N_ITERATIONS,
    ints,
    larger_matrix,
    larger_problem,
    run,
    two_nodes,
)
from .strategies import neighbor_lists, problems
from .truth import dense_matrix, dense_start, scale_columns

PRESENT = [1, 1, 1, 0, 1, 1, 1]
EVERY_NODE = np.arange(400, dtype=np.int32)[:, None]


# --- names ---


@pytest.mark.parametrize("name", ["native", "torch", "mkl", "scipy"])
def test_a_name_stands_for_itself(name, monkeypatch):
    monkeypatch.setattr(native, "mkl_available", lambda: True)
    assert candidates(name) == [name]


@pytest.mark.parametrize("backend", BACKENDS)
def test_back_ends_know_their_name(backend):
    assert create_backend(backend, two_nodes()).name == backend


def test_auto_without_a_gpu_is_native(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: pytest.fail("there is no GPU"))
    assert candidates("auto") == ["native"]


@pytest.mark.parametrize(
    ("precision", "expected"), [("float32", ["torch", "native"]), ("bfloat16", ["native"])]
)
def test_auto_tries_a_gpu_first(monkeypatch, precision, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert candidates("auto", precision) == expected


def test_memory_is_that_of_the_gpu_where_scores_are_held_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (1000, 10**10))
    assert free_bytes("torch") == 1000
    assert free_bytes("native") > 1000


@pytest.mark.parametrize("free, expected", [(10**9, "torch"), (1000, "native")])
def test_a_run_goes_where_it_fits(monkeypatch, free, expected):
    taken = []

    def create(name, matrix, precision):
        taken.append(name)
        return create_backend("native", matrix, precision)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free, 10**10))
    monkeypatch.setattr("lowshot_kedro.diffusion.propagation.create_backend", create)
    run(larger_matrix("constant"), *larger_problem().task, 1)
    assert taken == [expected]


def test_an_unknown_back_end_is_refused():
    message = "backend: got 'cuda', expected one of: auto, native, torch, mkl, scipy"
    with pytest.raises(InputError, match=message):
        PropagationOptions(backend="cuda")


@pytest.mark.parametrize("backend", ["auto", "native", "scipy"])
def test_an_unknown_precision_is_refused(backend):
    message = "precision: got 'float16', expected one of: float32, bfloat16"
    with pytest.raises(InputError, match=message):
        PropagationOptions(backend=backend, precision="float16")


@pytest.mark.parametrize("backend", ["scipy", "torch", "mkl"])
def test_half_precision_elsewhere_than_native_is_refused(backend):
    message = f"precision: got 'bfloat16', which back end {backend} does not have"
    with pytest.raises(InputError, match=message):
        PropagationOptions(backend=backend, precision="bfloat16")


def test_mkl_that_is_not_installed_is_refused(monkeypatch):
    monkeypatch.setattr(native, "mkl_available", lambda: False)
    with pytest.raises(InputError, match=r"backend: got 'mkl', but .* not installed;"):
        run(two_nodes(), ints(0), ints([0]), 1, 1, backend="mkl")


# --- steps ---


def start_of(matrix, first=0, last=7):
    return labeled_rows(larger_problem().labeled_classes, first, last, matrix.rank)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_is_a_product_with_columns_scaled_and_an_adjustment_another(backend):
    matrix, problem = larger_matrix("gaussian"), larger_problem()
    engine = create_backend(backend, matrix)
    engine.start(start_of(matrix))
    expected = dense_start(problem.labeled_classes, 400, 7)
    np.testing.assert_allclose(engine.read(EVERY_NODE), expected, rtol=1e-6)
    dense = dense_matrix(problem.neighbors, problem.similarities, **MATRICES["gaussian"])
    engine.step()
    expected = scale_columns(dense @ expected)
    np.testing.assert_allclose(engine.read(EVERY_NODE), expected, rtol=2e-6)
    engine.step((Power(2),))
    expected = scale_columns((dense @ expected) ** 2)
    found = engine.read(EVERY_NODE)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(found.sum(axis=0), PRESENT, rtol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_adjustments_get_columns_that_sum_to_one_and_the_start(backend):
    matrix = larger_matrix("constant")
    engine, labeled = create_backend(backend, matrix), start_of(matrix)
    engine.start(labeled)
    seen = []

    def double(scores, start):
        assert start is labeled
        seen.append(scores.sum(axis=0))
        scores *= 2

    engine.step((double, double))
    engine.step((double,))
    np.testing.assert_allclose(seen, [PRESENT] * 3, rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("n_steps", [0, 1, 3])
def test_reading_the_last_step_at_once_is_like_reading_after_it(backend, n_steps):
    matrix = larger_matrix("constant")
    links = larger_problem().test_neighbors
    separate, together = create_backend(backend, matrix), create_backend(backend, matrix)
    for engine in (separate, together):
        engine.start(start_of(matrix))
        for _ in range(n_steps):
            engine.step()
    separate.step()
    expected = separate.read(links)
    np.testing.assert_allclose(together.step_and_read(links), expected, rtol=2e-6)
    assert expected.any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_reading_changes_nothing(backend):
    matrix = larger_matrix("constant")
    engine = create_backend(backend, matrix)
    engine.start(start_of(matrix))
    engine.step()
    first = engine.read(EVERY_NODE)
    np.testing.assert_array_equal(first, engine.read(EVERY_NODE))


def steps_of(engine, matrix, first, last, n_steps=4, adjustments=()):
    engine.start(start_of(matrix, first, last))
    for _ in range(n_steps - 1):
        engine.step(adjustments)
    return engine.step_and_read(larger_problem().test_neighbors)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("ranges", [[(0, 7), (0, 3), (2, 6), (0, 7)], [(0, 1), (0, 7), (0, 1)]])
def test_a_start_forgets_what_was_before(backend, ranges):
    matrix = larger_matrix("constant")
    used = create_backend(backend, matrix)
    for first, last in ranges:
        found = steps_of(used, matrix, first, last, adjustments=(Clamping(),))
        fresh = create_backend(backend, matrix)
        expected = steps_of(fresh, matrix, first, last, adjustments=(Clamping(),))
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("n_steps", [2, 3, 4])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_narrower_slice_whose_classes_have_no_label_may_follow(backend, n_steps):
    matrix = larger_matrix("constant")
    engine = create_backend(backend, matrix)
    assert steps_of(engine, matrix, 0, 3).any()
    found = steps_of(engine, matrix, 3, 4, n_steps)
    np.testing.assert_array_equal(found, np.zeros((50, 1)))


# --- the native one ---


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["constant", "sinkhorn"])
@pytest.mark.parametrize("part", [0, 0.02, 0.3, 1])
@pytest.mark.parametrize("sample_rows", [10, 4096])
def test_sparse_scores_change_no_bit(monkeypatch, precision, name, part, sample_rows):
    arguments = larger_matrix(name), *larger_problem().task, N_ITERATIONS, 0, "native"
    expected = run(*arguments, precision=precision)
    monkeypatch.setattr(native_backend, "SPARSE_PART", part)
    monkeypatch.setattr(native_backend, "SAMPLE_ROWS", sample_rows)
    np.testing.assert_array_equal(run(*arguments, precision=precision), expected)


@pytest.mark.parametrize("sample_rows", [10, 4096])
def test_scores_are_sparse_as_long_as_few_are_not_zero(monkeypatch, sample_rows):
    monkeypatch.setattr(native_backend, "SAMPLE_ROWS", sample_rows)
    # A ring: after s steps a label has reached s + 1 nodes or fewer.
    nodes = np.arange(400, dtype=np.int32)
    matrix = propagation_matrix(np.roll(nodes, 1)[:, None])
    engine = create_backend("native", matrix)
    engine.start(labeled_rows(ints(0), 0, 1))
    kinds = []
    for _ in range(60):
        engine.step()
        kinds.append(isinstance(engine._scores, native.SparseScores))
    assert all(kinds[:30])
    assert not any(kinds[55:])


@settings(deadline=None, max_examples=40)
@given(problems(), st.integers(0, 3))
def test_compacted_links_lead_to_the_same_rows(problem, extra):
    links, n_nodes = problem.test_neighbors, len(problem.neighbors) + extra
    rows, positions = compact(links, n_nodes)
    assert (rows.dtype, positions.dtype) == (np.int32, np.int32)
    np.testing.assert_array_equal(rows, np.unique(links[links >= 0]))
    np.testing.assert_array_equal(positions < 0, links < 0)
    np.testing.assert_array_equal(rows[positions[links >= 0]], links[links >= 0])


@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (7, 3), (1000, 64)])
@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_score_matrices_begin_at_a_cache_line(shape, dtype):
    found = aligned_empty(shape, np.dtype(dtype))
    assert (found.shape, found.dtype) == (shape, dtype)
    assert found.flags.c_contiguous
    assert found.flags.writeable
    assert found.ctypes.data % 64 == 0 or found.size == 0


def test_zero_columns_are_scaled_by_one():
    found = inverse(np.array([0, 0.5, 4]))
    np.testing.assert_array_equal(found, [1, 2, 0.25])
    assert found.dtype == np.float32


@pytest.fixture
def threads():
    before = native.get_num_threads()
    yield native.set_num_threads
    native.set_num_threads(before)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("node_ordering", ["given", "clustered"])
@pytest.mark.parametrize("name", ["constant", "gaussian", "reciprocal_gaussian_sinkhorn"])
def test_threads_change_no_bit(threads, name, node_ordering, precision):
    rng = np.random.default_rng(0)
    neighbors = neighbor_lists(rng, 3000, 3000, 6, 0.05)
    similarities = rng.uniform(0.5, 1, neighbors.shape).astype(np.float32)
    labels, links = rng.integers(0, 20, 300).astype(np.int32), neighbor_lists(rng, 600, 3000, 5, 0)
    results = set()
    for count in (1, 2, 3, 16):
        threads(count)
        matrix = propagation_matrix(
            neighbors, similarities=similarities, node_ordering=node_ordering, **MATRICES[name]
        )
        found = run(matrix, labels, links, 20, 4, 0, "native", precision=precision)
        arrays = (*matrix.rows, matrix.rank, matrix.column_totals, found)
        results.add(b"".join(array.tobytes() for array in arrays if array is not None))
    assert len(results) == 1
