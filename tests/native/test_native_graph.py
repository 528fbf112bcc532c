import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowshot_kedro import native
from lowshot_kedro.native import graph

from .strategies import (
    SEEDS,
    adjacency,
    as_scipy,
    matrices,
    neighbor_lists,
    random_neighbors,
    unsigned,
)


def weights_of_links(neighbors, weights, rows, columns):
    """For each pair of nodes the weight of the first such link, or zero."""
    nodes = len(neighbors)
    present = neighbors >= 0
    links, firsts = np.unique(
        (np.arange(nodes)[:, None] * nodes + neighbors)[present], return_index=True
    )
    if not len(links):
        return np.zeros(len(rows), np.float32)
    wanted = rows.astype(np.int64) * nodes + columns
    place = np.minimum(np.searchsorted(links, wanted), len(links) - 1)
    return np.where(links[place] == wanted, weights[present][firsts][place], np.float32(0))


def check_symmetrize(neighbors, weights=None, reciprocal=False):
    before = neighbors.copy()
    matrix = native.symmetrize(neighbors, weights, reciprocal)
    native.check_matrix(matrix)
    np.testing.assert_array_equal(neighbors, before)

    links = adjacency(neighbors)
    truth = (links + links.T).tocoo()
    kept = truth.data == 2 if reciprocal else truth.data > 0
    rows, columns, counts = truth.row[kept], truth.col[kept], truth.data[kept]
    order = np.lexsort((columns, counts == 1, rows))
    rows, columns, counts = rows[order], columns[order], counts[order]
    nodes = len(neighbors)
    assert (matrix.indptr.dtype, matrix.indices.dtype) == (np.int64, np.int32)
    np.testing.assert_array_equal(np.diff(matrix.indptr), np.bincount(rows, minlength=nodes))
    np.testing.assert_array_equal(matrix.indices, columns)
    if weights is None:
        assert matrix.values is None and matrix.mutual.dtype == np.int32
        np.testing.assert_array_equal(
            matrix.mutual, np.bincount(rows[counts == 2], minlength=nodes)
        )
    else:
        assert matrix.mutual is None and matrix.values.dtype == np.float32
        there = weights_of_links(neighbors, weights, rows, columns)
        back = weights_of_links(neighbors, weights, columns, rows)
        np.testing.assert_array_equal(matrix.values, there + back)


def random_weights(neighbors, seed=1):
    return np.random.default_rng(seed).normal(size=neighbors.shape).astype(np.float32)


@given(neighbor_lists(), st.booleans())
def test_symmetrize_is_the_sum_with_the_transpose(neighbors, reciprocal):
    check_symmetrize(neighbors, reciprocal=reciprocal)


@given(neighbor_lists(), SEEDS, st.booleans())
def test_symmetrize_with_weights(neighbors, seed, reciprocal):
    check_symmetrize(neighbors, random_weights(neighbors, seed), reciprocal)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reciprocal", [False, True])
def test_symmetrize_with_a_hub_and_many_blocks_of_rows(weighted, reciprocal):
    neighbors = random_neighbors(20_011, 7)
    check_symmetrize(neighbors, random_weights(neighbors) if weighted else None, reciprocal)


@pytest.mark.parametrize("ranges", [1, 2, 3, 7, 10**6])
def test_symmetrize_in_any_number_of_ranges(ranges, monkeypatch):
    neighbors = random_neighbors(101, 6)
    monkeypatch.setattr(graph, "SYMMETRIZE_RANGES", ranges)
    monkeypatch.setattr(graph, "MIN_RANGE_ROWS", 1)
    for reciprocal in (False, True):
        check_symmetrize(neighbors, None, reciprocal)
        check_symmetrize(neighbors, random_weights(neighbors), reciprocal)


@pytest.mark.parametrize("order", ["up", "down", "same", "sawtooth"])
@pytest.mark.parametrize("weighted", [False, True])
def test_symmetrize_sorts_long_rows_of_any_order(order, weighted):
    rows = 300
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
    check_symmetrize(neighbors, random_weights(neighbors) if weighted else None)


def test_symmetrize_by_hand():
    neighbors = np.array([[0, 1, 1], [2, -1, 0], [-1, -1, -1], [1, -1, 1]], np.int32)
    matrix = native.symmetrize(neighbors)
    assert matrix.indptr.tolist() == [0, 2, 5, 6, 7]
    assert matrix.mutual.tolist() == [2, 1, 0, 0]
    assert matrix.indices.tolist() == [0, 1, 0, 2, 3, 1, 1]
    assert (matrix.n_nodes, matrix.n_bytes) == (4, 5 * 8 + 4 * 4 + 7 * 4)
    weights = np.array([[1, 2, 4], [8, 16, 32], [64, 64, 64], [128, 256, 512]], np.float32)
    matrix = native.symmetrize(neighbors, weights)
    assert matrix.values.tolist() == [2, 34, 34, 8, 128, 8, 128]
    matrix = native.symmetrize(neighbors, weights, reciprocal=True)
    assert matrix.indptr.tolist() == [0, 2, 3, 3, 3]
    assert matrix.indices.tolist() == [0, 1, 0]
    assert matrix.values.tolist() == [2, 34, 34]


@pytest.mark.parametrize("neighbor", [0, -1])
def test_symmetrize_of_one_node(neighbor):
    for width in (1, 3):
        neighbors = np.full((1, width), neighbor, np.int32)
        check_symmetrize(neighbors)
        check_symmetrize(neighbors, random_weights(neighbors))


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (4, 0)])
def test_symmetrize_of_nothing(shape):
    matrix = native.symmetrize(np.empty(shape, np.int32))
    assert matrix.indptr.tolist() == [0] * (shape[0] + 1)
    assert matrix.mutual.tolist() == [0] * shape[0]
    assert matrix.indices.size == 0
    matrix = native.symmetrize(np.empty(shape, np.int32), np.empty(shape, np.float32))
    assert matrix.indices.size == matrix.values.size == 0


def test_symmetrize_of_the_first_columns_of_a_matrix_in_which_all_else_is_wrong():
    wide = np.full((50, 9), 10**6, np.int32)
    wide[:, :4] = random_neighbors(50, 4)
    for width in (0, 1, 4):
        check_symmetrize(wide[:, :width])
        check_symmetrize(wide[:, :width], random_weights(wide[:, :width]))


@given(neighbor_lists())
def test_cluster_nodes_is_a_permutation(neighbors):
    before = neighbors.copy()
    order = native.cluster_nodes(neighbors)
    assert order.dtype == np.int32
    np.testing.assert_array_equal(np.sort(order), np.arange(len(neighbors)))
    np.testing.assert_array_equal(neighbors, before)


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (4, 0)])
def test_cluster_nodes_of_nothing(shape):
    assert native.cluster_nodes(np.empty(shape, np.int32)).tolist() == list(range(shape[0]))


def clustered_neighbors(clusters, size, width, strangers):
    """Links within clusters whose nodes are numbered at random, but for a share of them."""
    rng = np.random.default_rng(7)
    nodes = clusters * size
    names = rng.permutation(nodes).astype(np.int32)
    cluster = np.arange(nodes) // size
    targets = cluster[:, None] * size + rng.integers(0, size, (nodes, width))
    strange = rng.random((nodes, width)) < strangers
    targets[strange] = rng.integers(0, nodes, strange.sum())
    neighbors = np.empty((nodes, width), np.int32)
    neighbors[names] = names[targets]
    return neighbors


def mean_distance(neighbors, rank):
    return np.abs(rank[neighbors] - rank[:, None]).mean()


@pytest.mark.parametrize(("strangers", "limit"), [(0.0, 0.1), (0.1, 0.25)])
def test_cluster_nodes_puts_neighbors_next_to_each_other(strangers, limit):
    neighbors = clustered_neighbors(clusters=300, size=20, width=8, strangers=strangers)
    order = native.cluster_nodes(neighbors)
    rank = np.argsort(order)
    before = mean_distance(neighbors, np.arange(len(order)))
    assert mean_distance(neighbors, rank) < limit * before


def inverse(order):
    return np.argsort(order).astype(np.int32)


@given(neighbor_lists(), SEEDS)
def test_renumber_permutes_rows_and_columns(neighbors, seed):
    before = neighbors.copy()
    nodes = len(neighbors)
    order = np.random.default_rng(seed).permutation(nodes).astype(np.int32)
    found = native.renumber(neighbors, order, inverse(order))
    assert found.dtype == np.int32 and found.shape == neighbors.shape
    for number, node in enumerate(order):
        missing = neighbors[node] < 0
        assert (found[number][missing] == -1).all()
        np.testing.assert_array_equal(order[found[number][~missing]], neighbors[node][~missing])
    np.testing.assert_array_equal(neighbors, before)
    matrix, permuted = as_scipy(native.symmetrize(neighbors)), as_scipy(native.symmetrize(found))
    np.testing.assert_array_equal(permuted.toarray(), matrix.toarray()[order][:, order])


def test_renumber_with_many_rows_and_back():
    neighbors = random_neighbors(5000, 6)
    order = native.cluster_nodes(neighbors)
    there = native.renumber(neighbors, order, inverse(order))
    back = native.renumber(there, inverse(order), order)
    np.testing.assert_array_equal(back, neighbors)


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (4, 0)])
def test_renumber_of_nothing(shape):
    order = np.arange(shape[0], dtype=np.int32)
    assert native.renumber(np.empty(shape, np.int32), order, order).shape == shape


@given(matrices())
def test_column_totals(matrix):
    totals = native.column_totals(matrix)
    assert totals.dtype == np.float32
    expected = np.asarray(as_scipy(matrix).sum(0)).ravel()
    magnitude = np.asarray(as_scipy(unsigned(matrix)).sum(0)).ravel()
    assert (np.abs(totals - expected) <= 1e-6 * magnitude).all()


def test_column_totals_of_a_hub():
    matrix = native.symmetrize(random_neighbors(20_000, 3))
    expected = np.asarray(as_scipy(matrix).sum(0)).ravel()
    np.testing.assert_allclose(native.column_totals(matrix), expected, rtol=1e-6)


def weighted_matrix(neighbors, seed):
    """Random values, of which some rows have none but zero."""
    matrix = native.symmetrize(neighbors, np.ones(neighbors.shape, np.float32))
    values = np.random.default_rng(seed).normal(size=matrix.values.size).astype(np.float32)
    rows = np.repeat(np.arange(len(neighbors)), np.diff(matrix.indptr))
    values[rows % 4 == 0] = 0
    return matrix._replace(values=values)


@given(neighbor_lists(), SEEDS)
def test_normalize_rows(neighbors, seed):
    matrix = weighted_matrix(neighbors, seed)
    rows = np.repeat(np.arange(len(neighbors)), np.diff(matrix.indptr))
    sums = np.bincount(rows, np.abs(matrix.values.astype(float)), len(neighbors))
    sums[sums == 0] = 1
    expected = matrix.values.astype(float) / sums[rows]
    native.normalize_rows(matrix.indptr, matrix.values)
    np.testing.assert_allclose(matrix.values, expected, rtol=1e-7)


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


@pytest.mark.parametrize("rows", [0, 1, 300])
def test_shifted_neighbors(rows):
    rng = np.random.default_rng(rows)
    indices = rng.integers(-1, 50, (rows, 9), dtype=np.int32)
    similarities = rng.random((rows, 11), dtype=np.float32)
    similarities[:, :7][indices[:, :7] < 0] = -np.inf
    shifted = np.zeros((rows, 7), np.int32)
    native.shift_neighbors(indices[:, :7], similarities[:, :7], 50, 8, shifted)
    expected = np.where(indices < 0, -1, indices + 8)[:, :7]
    np.testing.assert_array_equal(shifted, expected)


def test_merge_neighbors_up_to_the_largest_index():
    first = np.array([[2**31 - 1]], np.int32)
    second = np.array([[1]], np.int32)
    one = np.ones((1, 1), np.float32)
    indices, _ = native.merge_neighbors(first, one, second, one, 2, 0, 2**31 - 2)
    assert indices.tolist() == [[2**31 - 1, 2**31 - 1]]
    indices, _ = native.merge_neighbors(first, one, second, one, 2, -(2**31) + 1, -1)
    assert indices.tolist() == [[0, 0]]
