import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowshot_kedro import native
from lowshot_kedro.native import mkl

from .strategies import SEEDS, as_scipy, neighbor_lists, random_neighbors, scores_for, unsigned

needs_mkl = pytest.mark.skipif(not native.mkl_available(), reason="MKL is not installed")


def small_problem():
    neighbors = random_neighbors(400, 5)
    weights = np.random.default_rng(1).normal(size=neighbors.shape).astype(np.float32)
    scores = np.random.default_rng(2).random((400, 9), dtype=np.float32)
    return native.symmetrize(neighbors, weights), scores


def check_product(matrix, scores, tolerance=1e-6):
    out = np.full_like(scores, np.nan)
    native.multiply_mkl(matrix, scores, out)
    expected = as_scipy(matrix) @ scores.astype(float)
    magnitude = as_scipy(unsigned(matrix)) @ np.abs(scores).astype(float)
    assert (np.abs(out - expected) <= tolerance * magnitude).all()


@needs_mkl
@given(data=st.data(), neighbors=neighbor_lists(), seed=SEEDS)
def test_the_product_is_scipy_s(data, neighbors, seed):
    weights = np.random.default_rng(seed).normal(size=neighbors.shape).astype(np.float32)
    scores = data.draw(scores_for(len(neighbors)))
    check_product(native.symmetrize(neighbors, weights), np.ascontiguousarray(scores))


@needs_mkl
@pytest.mark.parametrize("columns", [1, 2, 31, 64, 65, 130])
def test_the_product_of_many_rows(columns):
    neighbors = random_neighbors(5000, 6)
    matrix = native.symmetrize(neighbors, np.ones(neighbors.shape, np.float32))
    native.normalize_rows(matrix.indptr, matrix.values)
    scores = np.random.default_rng(1).random((5000, columns), dtype=np.float32)
    check_product(matrix, scores, tolerance=1e-5)


@needs_mkl
def test_the_product_is_that_of_multiply():
    matrix, scores = small_problem()
    ours, theirs = np.empty_like(scores), np.empty_like(scores)
    native.multiply(matrix, scores, np.ones(scores.shape[1], np.float32), ours)
    native.multiply_mkl(matrix, scores, theirs)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@needs_mkl
@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (4, 0), (4, 2)])
def test_the_product_of_nothing(shape):
    neighbors = np.empty((shape[0], 0), np.int32)
    matrix = native.symmetrize(neighbors, np.empty(neighbors.shape, np.float32))
    check_product(matrix, np.ones(shape, np.float32))


@needs_mkl
@pytest.mark.parametrize(("edges", "rows"), [(1, 10**6), (100, 10**6), (10**9, 1), (10**9, 7)])
def test_blocks_of_rows_change_nothing(edges, rows):
    matrix, scores = small_problem()
    arrays = (matrix.indptr, matrix.indices, matrix.values)
    whole, parts = np.empty_like(scores), np.full_like(scores, np.nan)
    mkl.multiply(*arrays, scores, whole)
    mkl.multiply(*arrays, scores, parts, block_edges=edges, block_rows=rows)
    np.testing.assert_array_equal(whole, parts)


@needs_mkl
def test_matrices_without_values_are_refused():
    matrix = native.symmetrize(random_neighbors(400, 5))
    scores = np.ones((400, 9), np.float32)
    with pytest.raises(ValueError, match="values: expected a float32 array, got None"):
        native.multiply_mkl(matrix, scores, np.empty_like(scores))


@needs_mkl
def test_out_needs_memory_of_its_own():
    matrix, scores = small_problem()
    for name, out in (("scores", scores), ("values", matrix.values[:3600].reshape(400, 9))):
        with pytest.raises(ValueError, match=f"out: expected .* shared with {name}"):
            native.multiply_mkl(matrix, scores, out)


@needs_mkl
def test_score_matrices_beyond_two_to_the_31_elements():
    # Only a few pages of this matrix of 9 GB are ever touched.
    nodes, columns, width = 36_000_000, 64, 3
    try:
        scores = np.zeros((nodes, columns), np.float32)
    except MemoryError:
        pytest.skip("the system does not give out this much address space")
    rng = np.random.default_rng(3)
    rows = 50
    indices = rng.integers(nodes - 1000, nodes, (rows, width), dtype=np.int32)
    indices[:, 0] = rng.integers(0, 1000, rows)
    scores[indices.ravel()] = rng.random((rows * width, columns), dtype=np.float32)
    values = rng.random(rows * width, dtype=np.float32)
    indptr = np.arange(0, rows * width + 1, width, dtype=np.int64)
    out = np.empty((rows, columns), np.float32)
    mkl.multiply(indptr, indices.ravel(), values, scores, out)
    expected = np.einsum("rk,rkc->rc", values.reshape(rows, width).astype(float), scores[indices])
    np.testing.assert_allclose(out, expected, rtol=1e-6)


@pytest.fixture
def no_mkl(monkeypatch):
    mkl._load.cache_clear()
    monkeypatch.setattr(mkl, "_candidates", lambda: iter(["/nonexistent/libmkl_rt.so"]))
    yield
    mkl._load.cache_clear()


def test_without_mkl(no_mkl):
    assert not native.mkl_available()
    matrix, scores = small_problem()
    with pytest.raises(RuntimeError, match="libmkl_rt is not installed"):
        native.multiply_mkl(matrix, scores, np.empty_like(scores))


def test_a_library_that_is_not_mkl_is_passed_over(no_mkl, monkeypatch):
    monkeypatch.setattr(mkl, "_candidates", lambda: iter(["libc.so.6"]))
    assert not native.mkl_available()


def test_errors_of_mkl_are_raised():
    with pytest.raises(RuntimeError, match="mkl_sparse_s_mm returned status 3"):
        mkl._check("mkl_sparse_s_mm", 3)


NEIGHBOURHOOD = """
import sys
import numpy as np

def step():
    from lowshot_kedro import native
    neighbors = np.arange(3000, dtype=np.int32).reshape(1000, 3) % 1000
    matrix = native.symmetrize(neighbors, np.ones(neighbors.shape, np.float32))
    native.normalize_rows(matrix.indptr, matrix.values)
    scores = np.ones((1000, 5), np.float32)
    out = np.empty_like(scores)
    native.multiply_mkl(matrix, scores, out)
    assert abs(out - 1).max() < 1e-5

for name in sys.argv[1:]:
    if name == "native":
        step()
    elif name == "torch":
        import torch
        ones = torch.ones(300, 300)
        assert (ones @ ones == 300).all()
    else:
        import faiss
        index = faiss.IndexFlatIP(16)
        index.add(np.eye(16, dtype=np.float32))
        assert (index.search(np.eye(16, dtype=np.float32), 1)[1].ravel() == np.arange(16)).all()
step()
with open("/proc/self/maps") as maps:
    runtimes = {line.split()[-1] for line in maps if "omp" in line.rsplit("/", 1)[-1]}
assert any("libgomp" in path for path in runtimes), runtimes
foreign = [path for path in runtimes if any(x in path for x in ("libiomp", "/libomp"))]
assert not foreign, foreign
print("fine")
"""


@needs_mkl
@pytest.mark.parametrize(
    "order", [["native", "torch", "faiss"], ["faiss", "native", "torch"], ["torch", "native"]]
)
def test_no_second_kind_of_openmp_next_to_torch_and_faiss(order):
    for name in order:
        if name != "native":
            pytest.importorskip(name)
    command = [sys.executable, "-c", NEIGHBOURHOOD, *order]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "fine", done.stderr


def test_an_environment_that_asks_for_64_bit_integers_does_no_harm():
    """MKL would read the int32 offsets and indices as int64, and beyond their end."""
    script = """
import numpy as np
from lowshot_kedro import native
neighbors = np.array([[0, 1], [1, 2], [2, 0]], dtype=np.int32)
matrix = native.symmetrize(neighbors, np.ones((3, 2), np.float32))
scores = np.eye(3, dtype=np.float32)
ours, theirs = np.empty_like(scores), np.empty_like(scores)
native.multiply(matrix, scores, np.ones(3, np.float32), ours)
if native.mkl_available():
    native.multiply_mkl(matrix, scores, theirs)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
"""
    environment = {**os.environ, "MKL_INTERFACE_LAYER": "ILP64"}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
