import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowshot_kedro import native

from .strategies import adjacency, neighbor_lists, random_neighbors


def check_symmetrize(neighbors):
    before = neighbors.copy()
    indptr, indices, values = native.symmetrize(neighbors)
    matrix = adjacency(neighbors)
    truth = (matrix + matrix.T).tocsr()
    truth.sort_indices()
    assert (indptr.dtype, indices.dtype, values.dtype) == (np.int64, np.int32, np.float32)
    np.testing.assert_array_equal(indptr, truth.indptr)
    np.testing.assert_array_equal(indices, truth.indices)
    np.testing.assert_array_equal(values, truth.data)
    np.testing.assert_array_equal(neighbors, before)


@given(neighbor_lists())
def test_symmetrize_is_the_sum_with_the_transpose(neighbors):
    check_symmetrize(neighbors)


def test_symmetrize_with_a_hub_and_many_blocks_of_rows():
    check_symmetrize(random_neighbors(30_000, 7))


@pytest.mark.parametrize("order", ["up", "down", "same", "sawtooth"])
def test_symmetrize_sorts_long_rows_of_any_order(order):
    rows = 3000
    line = np.arange(rows, dtype=np.int32)
    first = {
        "up": line,
        "down": line[::-1],
        "same": np.full(rows, 5, np.int32),
        "sawtooth": (line * 7919) % rows,
    }[order]
    neighbors = np.full((rows, rows), -1, np.int32)
    neighbors[0] = first
    neighbors[rows - 1] = first[::-1]
    check_symmetrize(neighbors)


def test_symmetrize_by_hand():
    neighbors = np.array([[0, 1, 1], [2, -1, 0], [-1, -1, -1], [1, -1, 1]], np.int32)
    indptr, indices, values = native.symmetrize(neighbors)
    assert indptr.tolist() == [0, 2, 5, 6, 7]
    assert indices.tolist() == [0, 1, 0, 2, 3, 1, 1]
    assert values.tolist() == [2, 2, 2, 1, 1, 1, 1]


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (4, 0)])
def test_symmetrize_of_nothing(shape):
    indptr, indices, values = native.symmetrize(np.empty(shape, np.int32))
    assert indptr.tolist() == [0] * (shape[0] + 1)
    assert indices.size == values.size == 0


@given(neighbor_lists(), st.integers(0, 2**32 - 1))
def test_normalize_rows(neighbors, seed):
    indptr, _, values = native.symmetrize(neighbors)
    rng = np.random.default_rng(seed)
    values *= rng.normal(size=values.size).astype(np.float32)
    rows = np.repeat(np.arange(len(neighbors)), np.diff(indptr))
    values[rows % 4 == 0] = 0
    sums = np.bincount(rows, np.abs(values.astype(float)), len(neighbors))
    sums[sums == 0] = 1
    expected = values.astype(float) / sums[rows]
    native.normalize_rows(indptr, values)
    np.testing.assert_allclose(values, expected, rtol=1e-7)


def plain_merge(first, second, k):
    """Stable sort of both lists together, row by row. A list is (indices, similarities, offset)."""
    rows = len(first[0])
    indices = np.full((rows, k), -1, np.int32)
    similarities = np.full((rows, k), -np.inf, np.float32)
    for row in range(rows):
        entries = [
            (similarity, index + offset)
            for list_indices, list_similarities, offset in (first, second)
            for index, similarity in zip(list_indices[row], list_similarities[row], strict=True)
            if index >= 0
        ]
        entries = sorted(entries, key=lambda entry: -entry[0])[:k]
        for column, (similarity, index) in enumerate(entries):
            indices[row, column] = index
            similarities[row, column] = similarity
    return indices, similarities


def ranked_list(rng, rows, width, wide):
    indices = rng.integers(0, 1000, (rows, width), dtype=np.int32)
    # Few distinct values, so that ties are common.
    similarities = -np.sort(-rng.integers(-3, 4, (rows, width)).astype(np.float32), axis=1)
    missing = np.arange(width) >= rng.integers(0, width + 1, rows)[:, None]
    indices[missing] = -1
    similarities[missing] = rng.choice([np.nan, np.inf, 99, -np.inf], missing.sum())
    if wide:
        wide_indices = rng.integers(-9, 9, (rows, width + 2), dtype=np.int32)
        wide_similarities = np.full((rows, width + 5), np.nan, np.float32)
        wide_indices[:, :width] = indices
        wide_similarities[:, :width] = similarities
        indices, similarities = wide_indices[:, :width], wide_similarities[:, :width]
    return indices, similarities


@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(0, 20),
    widths=st.tuples(st.integers(0, 7), st.integers(0, 7)),
    k=st.integers(1, 16),
    offsets=st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)),
    wide=st.booleans(),
)
def test_merge_neighbors_is_a_stable_sort(seed, rows, widths, k, offsets, wide):
    rng = np.random.default_rng(seed)
    first = ranked_list(rng, rows, widths[0], wide)
    second = ranked_list(rng, rows, widths[1], wide)
    expected = plain_merge((*first, offsets[0]), (*second, offsets[1]), k)
    found = native.merge_neighbors(*first, *second, k, *offsets)
    assert (found[0].dtype, found[1].dtype) == (np.int32, np.float32)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def test_merge_neighbors_up_to_the_largest_index():
    first = np.array([[2**31 - 1]], np.int32)
    second = np.array([[1]], np.int32)
    one = np.ones((1, 1), np.float32)
    indices, _ = native.merge_neighbors(first, one, second, one, 2, 0, 2**31 - 2)
    assert indices.tolist() == [[2**31 - 1, 2**31 - 1]]
    indices, _ = native.merge_neighbors(first, one, second, one, 2, -(2**31) + 1, -1)
    assert indices.tolist() == [[0, 0]]
