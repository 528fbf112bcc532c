import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowshot_kedro import native

from .strategies import (
    SEEDS,
    as_scipy,
    largest,
    matrices,
    neighbor_lists,
    positive_factors,
    random_matrix,
    random_neighbors,
    scores_for,
    to_sparse,
    unsigned,
    widened,
)

FORMATS = [np.float32, np.uint16]
WIDTHS = [1, 2, 3, 5, 8, 31, 64, 65, 127, 128, 129, 130, 255, 256, 257, 300]


def in_format(scores, dtype):
    """As they are, or as bfloat16; the first columns of as wide a matrix as they were."""
    if dtype == np.float32:
        return scores
    more = scores.strides[0] // scores.itemsize - scores.shape[1] if len(scores) > 1 else 0
    return widened(native.to_bfloat16(scores), more)


def plain(scores):
    """In double precision."""
    if isinstance(scores, native.SparseScores):
        return scores.to_dense().astype(float)
    return (native.from_bfloat16(scores) if scores.dtype == np.uint16 else scores).astype(float)


def assert_close(found, expected, magnitude, tolerance=2e-6):
    """Rounding errors are relative to the sum of what was added, signs aside."""
    assert (np.abs(found - expected) <= tolerance * magnitude + 1e-37).all()


def assert_same_bits(found, expected):
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found.tobytes() == expected.tobytes()


def check_multiply(matrix, scores, rows=None, tolerance=2e-6):
    """The product of one matrix, in every form that the formats allow."""
    columns = scores.shape[1]
    factors = positive_factors(columns)
    expected = (as_scipy(matrix) @ plain(scores)) * factors.astype(float)
    magnitude = (as_scipy(unsigned(matrix)) @ np.abs(plain(scores))) * factors.astype(float)
    if rows is not None:
        expected, magnitude = expected[rows], magnitude[rows]
    out = np.full(expected.shape, np.nan, np.float32)
    sums = native.multiply(matrix, scores, factors, out, rows)
    assert_close(out, expected, magnitude, tolerance)
    assert (out[magnitude == 0] == 0).all()
    assert sums.dtype == np.float64
    assert_close(sums, out.astype(float).sum(0), np.abs(out).astype(float).sum(0), 1e-14)

    sparse = to_sparse(scores)
    again = np.full_like(out, np.nan)
    assert_same_bits(native.multiply(matrix, sparse, factors, again, rows), sums)
    assert_same_bits(again, out)
    check_multiply_sparse(matrix, sparse, factors, rows, scores.dtype)
    if scores.dtype == np.float32:
        return out
    rounded = np.full(out.shape, 12345, np.uint16)
    sums = native.multiply(matrix, scores, factors, rounded, rows)
    assert_same_bits(rounded, native.to_bfloat16(out))
    assert_close(sums, plain(rounded).sum(0), np.abs(plain(rounded)).sum(0), 1e-14)
    again = np.full_like(rounded, 54321)
    assert_same_bits(native.multiply(matrix, sparse, factors, again, rows), sums)
    assert_same_bits(again, rounded)
    return out


def check_multiply_sparse(matrix, scores, factors, rows, dtype):
    nodes = matrix.n_nodes if rows is None else len(rows)
    dense = np.empty((nodes, scores.n_columns), dtype)
    sums = native.multiply(matrix, scores, factors, dense, rows)
    found, found_sums = native.multiply_sparse(matrix, scores, factors, dense.size, rows)
    assert (found.dtype, found.n_columns) == (dtype, scores.n_columns)
    assert_same_bits(found.to_dense().astype(float), plain(dense))
    assert_same_bits(found_sums, sums)
    counts = (found.spans & np.uint64(2**24 - 1)).astype(int)
    assert len(found.entries) == counts.sum()
    for begin, count in zip((found.spans >> np.uint64(24)).astype(int), counts, strict=True):
        assert (np.diff(found.entries["column"][begin : begin + count]) > 0).all()
    needed = len(found.entries)
    exact, _ = native.multiply_sparse(matrix, scores, factors, needed, rows)
    assert_same_bits(exact.to_dense(), found.to_dense())
    if needed > 0:
        assert native.multiply_sparse(matrix, scores, factors, needed - 1, rows) is None
        assert native.multiply_sparse(matrix, scores, factors, 0, rows) is None


@pytest.mark.parametrize("dtype", FORMATS)
@given(data=st.data(), matrix=matrices())
def test_multiply_is_scipy_s(dtype, data, matrix):
    scores = in_format(data.draw(scores_for(matrix.n_nodes)), dtype)
    before = scores.copy()
    check_multiply(matrix, scores)
    np.testing.assert_array_equal(scores, before)


@pytest.mark.parametrize("dtype", FORMATS)
@given(data=st.data(), neighbors=neighbor_lists())
def test_multiply_by_symmetric_graphs(dtype, data, neighbors):
    scores = in_format(data.draw(scores_for(len(neighbors), st.integers(1, 40))), dtype)
    check_multiply(native.symmetrize(neighbors, reciprocal=data.draw(st.booleans())), scores)
    weights = np.random.default_rng(1).random(neighbors.shape, dtype=np.float32)
    check_multiply(native.symmetrize(neighbors, weights), scores)


@pytest.mark.parametrize("dtype", FORMATS)
@given(data=st.data(), matrix=matrices())
def test_multiply_some_rows(dtype, data, matrix):
    """In any order, some of them twice."""
    rows = data.draw(st.lists(st.integers(0, matrix.n_nodes - 1), max_size=50))
    scores = in_format(data.draw(scores_for(matrix.n_nodes)), dtype)
    check_multiply(matrix, scores, np.array(rows, np.int32))


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("with_values", [False, True])
def test_multiply_of_every_width(dtype, columns, with_values):
    rng = np.random.default_rng(columns)
    rows = 300
    matrix = random_matrix(rng, rng.integers(0, 20, rows), with_values)
    scores = rng.random((rows, columns), dtype=np.float32)
    scores[rng.random(scores.shape) < 0.8] = 0
    check_multiply(matrix, in_format(scores, dtype))


@pytest.mark.parametrize("dtype", FORMATS)
def test_multiply_with_a_hub_and_many_blocks_of_rows(dtype):
    rows, columns = 3001, 13
    rng = np.random.default_rng(1)
    scores = rng.random((rows, columns), dtype=np.float32)
    scores[rng.random(scores.shape) < 0.9] = 0
    neighbors = random_neighbors(rows, 6)
    check_multiply(native.symmetrize(neighbors), in_format(scores, dtype), tolerance=1e-5)
    selection = rng.integers(0, rows, 2 * rows, dtype=np.int32)
    check_multiply(native.symmetrize(neighbors), in_format(scores, dtype), selection, 1e-5)


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("columns", [1, 3, 128, 200])
def test_multiply_touches_no_columns_beyond_those_of_out(dtype, columns):
    rng = np.random.default_rng(2)
    matrix = random_matrix(rng, rng.integers(0, 9, 70), with_values=False)
    scores = in_format(rng.random((70, columns), dtype=np.float32), dtype)
    factors = positive_factors(columns)
    for operand in (scores, widened(scores, 3), to_sparse(scores)):
        expected = np.empty((70, columns), dtype)
        sums = native.multiply(matrix, operand, factors, expected)
        out = widened(np.zeros((70, columns), dtype), 5)
        assert_same_bits(native.multiply(matrix, operand, factors, out), sums)
        np.testing.assert_array_equal(out, expected)
        assert (out.base[:, columns:] == largest(np.dtype(dtype))).all()


def test_multiply_bfloat16_gives_what_the_same_numbers_give_as_float32():
    rng = np.random.default_rng(3)
    for with_values in (False, True):
        matrix = random_matrix(rng, rng.integers(0, 30, 90), with_values)
        for columns in WIDTHS:
            bits = native.to_bfloat16(rng.normal(size=(90, columns)).astype(np.float32))
            factors = positive_factors(columns)
            from_bits, from_floats = np.empty((2, 90, columns), np.float32)
            sums = native.multiply(matrix, bits, factors, from_bits)
            others = native.multiply(matrix, native.from_bfloat16(bits), factors, from_floats)
            assert_same_bits(from_bits, from_floats)
            assert_same_bits(sums, others)


def test_multiply_by_hand():
    indptr, indices = np.array([0, 3, 3, 4]), np.array([2, 0, 1, 1], np.int32)
    scores = np.array([[8, 0], [16, 1], [32, 0]], np.float32)
    factors, out = np.array([1, 10], np.float32), np.empty((3, 2), np.float32)
    matrix = native.SparseMatrix(indptr, indices, np.array([1, 0, 0], np.int32), None)
    assert native.multiply(matrix, scores, factors, out).tolist() == [38, 12.5]
    assert out.tolist() == [[22, 2.5], [0, 0], [16, 10]]
    matrix = native.SparseMatrix(indptr, indices, None, np.array([1, -1, 2, 3], np.float32))
    assert native.multiply(matrix, scores, factors, out).tolist() == [104, 50]
    assert out.tolist() == [[56, 20], [0, 0], [48, 30]]


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (4, 0)])
def test_multiply_of_nothing(dtype, shape):
    matrix = native.symmetrize(np.zeros((shape[0], 1), np.int32))
    factors = np.ones(shape[1], np.float32)
    for scores in (np.empty(shape, dtype), to_sparse(np.zeros(shape, dtype))):
        sums = native.multiply(matrix, scores, factors, np.empty(shape, dtype))
        assert sums.tolist() == [0] * shape[1]
    found, sums = native.multiply_sparse(matrix, scores, factors, 0)
    assert found.to_dense().shape == shape and sums.tolist() == [0] * shape[1]


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("links", [0, 3])
def test_rows_and_scores_without_anything_give_zero(dtype, links):
    matrix = native.symmetrize(random_neighbors(40, 3)[:, :links])
    scores = np.zeros((40, 5), dtype) if links else np.ones((40, 5), dtype)
    factors = np.ones(5, np.float32)
    for operand in (scores, to_sparse(scores)):
        out = np.full((40, 5), 7, dtype)
        assert not native.multiply(matrix, operand, factors, out).any()
        assert not out.any()
    found, sums = native.multiply_sparse(matrix, operand, factors, 0)
    assert not found.to_dense().any() and not sums.any()


@pytest.mark.parametrize("dtype", FORMATS)
@given(data=st.data(), neighbors=neighbor_lists())
def test_sum_neighbors(dtype, data, neighbors):
    nodes = len(neighbors) + data.draw(st.integers(0, 5))
    scores = in_format(data.draw(scores_for(nodes)), dtype)
    factors = data.draw(st.sampled_from([None, positive_factors(scores.shape[1])]))
    picked = plain(scores)[neighbors] * (neighbors >= 0)[:, :, None]
    scale = 1 if factors is None else factors.astype(float)
    found = native.sum_neighbors(neighbors, scores, factors)
    assert found.dtype == np.float32
    assert_close(found, picked.sum(1) * scale, np.abs(picked).sum(1) * scale, 1e-5)
    assert_same_bits(native.sum_neighbors(neighbors, to_sparse(scores), factors), found)


@pytest.mark.parametrize("dtype", FORMATS)
def test_sum_neighbors_with_many_blocks_of_rows(dtype):
    scores = in_format(np.random.default_rng(4).random((50, 150), dtype=np.float32), dtype)
    neighbors = np.random.default_rng(5).integers(-1, 50, (2000, 4), dtype=np.int32)
    expected = (plain(scores)[neighbors] * (neighbors >= 0)[:, :, None]).sum(1)
    for operand in (scores, to_sparse(scores)):
        found = native.sum_neighbors(neighbors, operand)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_sum_neighbors_counts_every_occurrence():
    scores = np.array([[1, 2], [10, 20]], np.float32)
    neighbors = np.array([[1, 1, -1], [-1, -1, -1], [0, 1, -1]], np.int32)
    for operand in (scores, native.to_bfloat16(scores), to_sparse(scores)):
        found = native.sum_neighbors(neighbors, operand)
        assert found.tolist() == [[20, 40], [0, 0], [11, 22]]


@pytest.mark.parametrize("nodes", [0, 2])
@pytest.mark.parametrize("width", [0, 3])
def test_sum_neighbors_without_nodes_or_neighbors(nodes, width):
    missing = np.full((2, width), -1, np.int32)
    scores = np.ones((nodes, 2), np.float32)
    for operand in (scores, to_sparse(scores)):
        assert native.sum_neighbors(missing, operand).tolist() == [[0, 0]] * 2
        assert native.sum_neighbors(missing[:0], operand).shape == (0, 2)


@pytest.mark.parametrize("dtype", FORMATS)
@given(data=st.data(), rows=st.integers(1, 1000), weighted=st.booleans())
def test_column_sums(dtype, data, rows, weighted):
    scores = in_format(data.draw(scores_for(rows, st.integers(1, 30))), dtype)
    weights = np.ones(rows, np.float32)
    if weighted:
        weights = np.random.default_rng(6).normal(size=rows).astype(np.float32)
    terms = plain(scores) * weights[:, None].astype(float)
    found = native.column_sums(scores, weights if weighted else None)
    assert found.dtype == np.float64
    assert_close(found, terms.sum(0), np.abs(terms).sum(0), 1e-14)
    sparse = to_sparse(scores)
    assert_same_bits(native.column_sums(sparse, weights if weighted else None), found)


def test_column_sums_are_taken_in_double_precision():
    smallest, biggest = np.finfo(np.float32).smallest_subnormal, np.finfo(np.float32).max
    scores = np.array([[smallest, biggest, 1], [0, biggest, 2**-40]], np.float32)
    expected = [float(smallest), 2 * float(biggest), 1 + 2**-40]
    assert native.column_sums(scores).tolist() == expected
    assert native.column_sums(to_sparse(scores)).tolist() == expected


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (4, 0)])
def test_column_sums_of_nothing(shape):
    for scores in (np.empty(shape, np.float32), to_sparse(np.zeros(shape, np.float32))):
        assert native.column_sums(scores).tolist() == [0] * shape[1]


@given(data=st.data(), rows=st.integers(1, 1000), more=st.sampled_from([0, 1, 5]))
def test_scale_columns(data, rows, more):
    scores = widened(data.draw(scores_for(rows, st.integers(1, 30))), more)
    factors = np.random.default_rng(7).normal(size=scores.shape[1]).astype(np.float32)
    expected = scores * factors
    native.scale_columns(scores, factors)
    np.testing.assert_array_equal(scores, expected)
    assert more == 0 or (scores.base[:, -more:] == np.inf).all()


@given(st.data(), SEEDS)
def test_sparse_scores(data, seed):
    rng = np.random.default_rng(seed)
    shape = (data.draw(st.integers(1, 60)), data.draw(st.integers(1, 300)))
    rows = rng.permutation(shape[0])[: data.draw(st.integers(0, shape[0]))]
    columns = rng.integers(0, shape[1], len(rows))
    values = rng.normal(size=len(rows)).astype(np.float32)
    expected = np.zeros(shape, np.float32)
    expected[rows, columns] = values
    found = native.sparse_scores(rows, columns, values, shape)
    assert (found.n_columns, found.dtype) == (shape[1], np.float32)
    assert found.nbytes == found.spans.nbytes + found.entries.nbytes
    np.testing.assert_array_equal(found.to_dense(), expected)
    found = native.sparse_scores(rows, columns, values, shape, np.uint16)
    assert found.dtype == np.uint16
    rounded = native.from_bfloat16(native.to_bfloat16(expected))
    np.testing.assert_array_equal(found.to_dense(), rounded)


def test_bfloat16_keeps_the_numbers_it_has():
    bits = np.arange(2**16, dtype=np.uint16)
    values = native.from_bfloat16(bits)
    assert values.dtype == np.float32
    finite = np.isfinite(values)
    assert finite.sum() == 2 * (2**15 - 2**7)
    np.testing.assert_array_equal(native.to_bfloat16(values[finite]), bits[finite])


def test_bfloat16_rounds_to_the_nearest_and_ties_to_even():
    lower = np.arange(0, 0x7F80, dtype=np.uint32)
    for sign in (0, 0x8000):
        for remainder, up in (
            (0, 0),
            (1, 0),
            (0x7FFF, 0),
            (0x8000, lower & 1),
            (0x8001, 1),
            (0xFFFF, 1),
        ):
            values = ((lower + sign) << 16 | remainder).astype(np.uint32).view(np.float32)
            np.testing.assert_array_equal(native.to_bfloat16(values), lower + sign + up)


def test_bfloat16_keeps_shapes_and_takes_any_layout():
    values = np.random.default_rng(8).random((6, 4), dtype=np.float32)
    bits = native.to_bfloat16(values)
    assert bits.dtype == np.uint16
    for view in (np.s_[::2], np.s_[:, :3], np.s_[::-1, ::-1], np.s_[:0], np.s_[2]):
        np.testing.assert_array_equal(native.to_bfloat16(values[view]), bits[view])
        np.testing.assert_array_equal(
            native.from_bfloat16(bits[view]), native.from_bfloat16(bits)[view]
        )
    np.testing.assert_array_equal(native.to_bfloat16(values.T), bits.T)
    np.testing.assert_array_equal(native.from_bfloat16(bits.T), native.from_bfloat16(bits).T)
