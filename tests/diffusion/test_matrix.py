import numpy as np
import pytest
from hypothesis import given, settings

from lowshot_kedro import native
from lowshot_kedro.diffusion import choose_node_ordering, propagation_matrix, sinkhorn
from lowshot_kedro.diffusion import matrix as matrix_module
from lowshot_kedro.errors import InputError

from .cases import MATRICES, ints, larger_matrix, larger_problem
from .strategies import matrix_variants, neighbor_lists, problems
from .truth import dense_matrix

NODE_ORDERINGS = ["given", "clustered"]


def dense(matrix):
    """In the order of the nodes."""
    found = matrix.to_scipy().toarray()
    return found if matrix.rank is None else found[np.ix_(matrix.rank, matrix.rank)]


def sums_to_one_or_zero(sums):
    return np.all((np.abs(sums - 1) < 1e-6) | (sums == 0))


# --- W ---


def test_a_matrix_worked_out_by_hand():
    # Node 0 lists itself and 1; 1 lists 0; 2 lists 0; 3 nobody, and nobody lists 3.
    neighbors = ints([0, 1], [0, -1], [0, -1], [-1, -1])
    matrix = propagation_matrix(neighbors)
    expected = [[2 / 5, 2 / 5, 1 / 5, 0], [1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(dense(matrix), expected, rtol=1e-6)
    assert (matrix.n_nodes, matrix.n_edges) == (4, 5)
    # Offsets, mutual counts, columns, column totals.
    assert matrix.n_bytes == 5 * 8 + 4 * 4 + 5 * 4 + 4 * 4


def test_a_reciprocal_matrix_worked_out_by_hand():
    # 0 and 1 list each other, 2 lists itself and 0, 3 lists 0 without an answer.
    neighbors = ints([1, -1], [0, -1], [2, 0], [0, -1])
    expected = [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(dense(propagation_matrix(neighbors, reciprocal=True)), expected)


def test_a_weighted_matrix_worked_out_by_hand():
    # Distances 1 and 2 of a list that names node 1 twice: the first entry counts.
    neighbors = ints([1, 1, 2], [0, -1, -1], [-1, -1, -1])
    similarities = np.float32([[0.5, 0.25, -1], [0.5, 0, 0], [0, 0, 0]])
    matrix = propagation_matrix(neighbors, "gaussian", similarities, sigma=1)
    near, far = 2 * np.exp(-1), np.exp(-4)
    expected = [[0, near / (near + far), far / (near + far)], [1, 0, 0], [1, 0, 0]]
    np.testing.assert_allclose(dense(matrix), expected, rtol=1e-6)


@settings(deadline=None, max_examples=60)
@given(problems())
def test_the_matrix_is_the_normalised_sum_of_both_directions(problem):
    matrix = propagation_matrix(problem.neighbors)
    np.testing.assert_allclose(dense(matrix), dense_matrix(problem.neighbors), rtol=1e-6)
    indptr, indices, mutual, values = matrix.rows
    assert (indptr.dtype, indices.dtype, mutual.dtype) == (np.int64, np.int32, np.int32)
    assert values is None
    for node in range(matrix.n_nodes):
        assert len(set(indices[indptr[node] : indptr[node + 1]])) == np.diff(indptr)[node]


@pytest.mark.parametrize("node_ordering", NODE_ORDERINGS)
@settings(deadline=None, max_examples=60)
@given(problem=problems(), variant=matrix_variants)
def test_every_variant_is_that_of_dense_double_precision(node_ordering, problem, variant):
    neighbors, similarities = problem.neighbors, problem.similarities
    matrix = propagation_matrix(
        neighbors, similarities=similarities, node_ordering=node_ordering, **variant
    )
    expected = dense_matrix(neighbors, similarities, **variant)
    np.testing.assert_allclose(dense(matrix), expected, rtol=5e-6, atol=1e-12)
    assert sums_to_one_or_zero(matrix.to_scipy().sum(axis=1))


@pytest.mark.parametrize("name", MATRICES)
def test_rows_of_a_larger_matrix_sum_to_one(name):
    sums = larger_matrix(name).to_scipy().sum(axis=1)
    assert sums_to_one_or_zero(sums)
    assert (sums > 0).any()


@pytest.mark.parametrize("kind", ["constant", "gaussian"])
def test_missing_neighbours_may_stand_anywhere(kind):
    gaps, closed = ints([-1, 1, -1, 2], [-1, -1, -1, 0], [-1] * 4), ints([1, 2], [0, -1], [-1, -1])
    similarities = np.float32([[0, 0.9, 0, 0.5], [0, 0, 0, 0.7], [0] * 4])
    found = propagation_matrix(gaps, kind, similarities)
    expected = propagation_matrix(closed, kind, np.float32([[0.9, 0.5], [0.7, 0], [0, 0]]))
    np.testing.assert_array_equal(dense(found), dense(expected))


def test_an_empty_graph_has_an_empty_matrix():
    matrix = propagation_matrix(np.full((3, 2), -1, np.int32))
    assert matrix.n_edges == 0
    assert not dense(matrix).any()
    assert not matrix.column_totals.any()


# --- what it offers ---


@settings(deadline=None, max_examples=60)
@given(problems())
def test_values_are_made_where_none_are_kept(problem):
    matrix = propagation_matrix(problem.neighbors)
    indptr, indices, _, _ = matrix.rows
    values = matrix.values()
    assert (values.dtype, values.shape) == (np.float32, indices.shape)
    expected = dense_matrix(problem.neighbors)
    rows = np.repeat(np.arange(matrix.n_nodes), np.diff(indptr))
    np.testing.assert_allclose(values, expected[rows, indices], rtol=1e-6)


def test_values_that_are_kept_are_not_copied():
    matrix = larger_matrix("gaussian")
    assert matrix.values() is matrix.rows.values


@pytest.mark.parametrize("name", MATRICES)
def test_column_totals_are_the_sums_of_columns(name):
    matrix = larger_matrix(name)
    problem = larger_problem()
    expected = dense_matrix(problem.neighbors, problem.similarities, **MATRICES[name]).sum(axis=0)
    assert matrix.column_totals.dtype == np.float32
    np.testing.assert_allclose(matrix.column_totals, expected, rtol=1e-6, atol=1e-7)
    assert np.ptp(expected) > 1e-6


def test_rows_of_nodes_are_their_ranks_and_missing_ones_stay_missing():
    nodes = ints([0, -1, 399], [5, 5, -1])
    assert larger_matrix("constant").rows_of(nodes) is nodes
    matrix = larger_matrix("constant", "clustered")
    found = matrix.rows_of(nodes)
    assert found.dtype == np.int32
    for node, row in zip(nodes.ravel(), found.ravel(), strict=True):
        assert row == (-1 if node == -1 else matrix.rank[node])


@pytest.mark.parametrize("node_ordering", NODE_ORDERINGS)
@pytest.mark.parametrize("reciprocal", [False, True])
@pytest.mark.parametrize(("n", "k"), [(1, 1), (2, 5), (3000, 1), (3000, 8), (500, 30)])
def test_without_values_a_matrix_is_small(node_ordering, reciprocal, n, k):
    neighbors = neighbor_lists(np.random.default_rng(0), n, n, k, 0)
    matrix = propagation_matrix(neighbors, reciprocal=reciprocal, node_ordering=node_ordering)
    arrays = [*matrix.rows, matrix.rank, matrix.column_totals]
    assert matrix.n_bytes == sum(array.nbytes for array in arrays if array is not None)
    assert matrix.n_bytes <= (2 * k * 4 + 24) * n


# --- node ordering ---


def test_given_numbers_are_kept():
    assert larger_matrix("constant").rank is None


def test_auto_numbers_large_graphs(monkeypatch):
    neighbors = larger_problem().neighbors
    for limit, name in ((401, "given"), (400, "clustered")):
        monkeypatch.setattr(matrix_module, "LARGE_GRAPH_NODES", limit)
        found = propagation_matrix(neighbors, node_ordering="auto")
        assert bits(found) == bits(propagation_matrix(neighbors, node_ordering=name))
        assert bits(found) == bits(propagation_matrix(neighbors))


@pytest.mark.parametrize("name", MATRICES)
def test_clustered_numbers_are_a_permutation_and_the_matrix_stays_the_same(name):
    matrix = larger_matrix(name, "clustered")
    assert matrix.rank.dtype == np.int32
    np.testing.assert_array_equal(np.sort(matrix.rank), np.arange(400))
    np.testing.assert_allclose(dense(matrix), dense(larger_matrix(name)), rtol=1e-6)


def test_clustered_numbers_bring_neighbours_together():
    rng = np.random.default_rng(0)
    group = rng.permutation(np.repeat(np.arange(20), 50))
    members = np.stack([np.flatnonzero(group == number) for number in range(20)])
    neighbors = members[group][np.arange(1000)[:, None], rng.integers(0, 50, (1000, 8))]
    rank = propagation_matrix(neighbors.astype(np.int32), node_ordering="clustered").rank
    distance = np.abs(rank[neighbors] - rank[:, None]).mean()
    assert distance < 40 < np.abs(neighbors - np.arange(1000)[:, None]).mean() / 4


@pytest.mark.parametrize(
    ("n_nodes", "n_classes", "n_iterations", "expected"),
    [
        (10**6, 1000, 3, "clustered"),
        (10**6, 1000, 0, "given"),
        (1000, 1000, 3, "given"),
        (10**8, 16, 4, "given"),
        (10**8, 16, 5, "clustered"),
        (2**20, 8, 1000, "given"),
        (2**20, 9, 1000, "clustered"),
    ],
)
def test_ordering_pays_for_large_scores_and_long_runs(n_nodes, n_classes, n_iterations, expected):
    assert choose_node_ordering(n_nodes, n_classes, n_iterations) == expected


# --- Sinkhorn ---


def test_a_round_of_sinkhorn_worked_out_by_hand():
    matrix = propagation_matrix(ints([0, 1], [1, -1]), sinkhorn_rounds=1)
    # A + Aᵀ = 2 1; 1 2 → rows ⅔ ⅓; ⅓ ⅔, whose columns sum to 1 already.
    np.testing.assert_allclose(dense(matrix), [[2 / 3, 1 / 3], [1 / 3, 2 / 3]], rtol=1e-6)
    matrix = propagation_matrix(ints([0, 1], [-1, -1]), sinkhorn_rounds=1)
    # 2 1; 1 0 → ⅔ ⅓; 1 0 → columns ⅖ 1; ⅗ 0 → rows 2/7 5/7; 1 0.
    np.testing.assert_allclose(dense(matrix), [[2 / 7, 5 / 7], [1, 0]], rtol=1e-6)


@pytest.mark.parametrize("weight", ["constant", "gaussian"])
def test_sinkhorn_approaches_a_doubly_stochastic_matrix(weight):
    rng = np.random.default_rng(0)
    neighbors = np.hstack([np.arange(300)[:, None], rng.integers(0, 300, (300, 6))])
    neighbors = neighbors.astype(np.int32)
    similarities = rng.uniform(0.5, 1, neighbors.shape).astype(np.float32)
    deviations = []
    for rounds in (0, 1, 3, 10, 60):
        matrix = propagation_matrix(neighbors, weight, similarities, sinkhorn_rounds=rounds)
        assert sums_to_one_or_zero(matrix.to_scipy().sum(axis=1))
        deviations.append(np.abs(matrix.to_scipy().sum(axis=0) - 1).max())
    assert deviations == sorted(deviations, reverse=True)
    assert deviations[0] > 0.3
    assert deviations[-1] < 1e-5


def test_sinkhorn_in_blocks_of_entries_gives_the_same():
    whole, parts = (
        propagation_matrix(larger_problem().neighbors, sinkhorn_rounds=1).rows for _ in range(2)
    )
    before = whole.values.copy()
    sinkhorn(whole, 3)
    sinkhorn(parts, 3, block_entries=100)
    assert (whole.values != before).any()
    np.testing.assert_array_equal(whole.values, parts.values)


def test_sinkhorn_needs_values():
    with pytest.raises(ValueError, match="matrix: expected values, got a matrix without"):
        sinkhorn(native.symmetrize(ints([0, 1], [1, 0])), 1)


# --- bits ---


def bits(matrix):
    return [None if a is None else a.tobytes() for a in (*matrix.rows, matrix.rank)]


@pytest.mark.parametrize("node_ordering", NODE_ORDERINGS)
@pytest.mark.parametrize("variant", [{}, MATRICES["reciprocal_gaussian_sinkhorn"]])
def test_neighbours_mapped_from_a_file_give_the_same_bits(tmp_path, variant, node_ordering):
    problem = larger_problem()
    expected = propagation_matrix(
        problem.neighbors, similarities=problem.similarities, node_ordering=node_ordering, **variant
    )
    wide = np.hstack([problem.neighbors, np.full((400, 3), 10**6, np.int32)])
    for name, lists in (("narrow", problem.neighbors), ("wide", wide)):
        lists.tofile(tmp_path / name)
        mapped = np.memmap(tmp_path / name, np.int32, "r", shape=lists.shape)[:, :8]
        found = propagation_matrix(
            mapped, similarities=problem.similarities, node_ordering=node_ordering, **variant
        )
        assert bits(found) == bits(expected)


@pytest.mark.parametrize("name", ["constant", "gaussian"])
def test_the_input_stays_as_it_is(name):
    problem = larger_problem()
    before = problem.neighbors.copy(), problem.similarities.copy()
    for array in before:
        array.setflags(write=False)
    propagation_matrix(before[0], similarities=before[1], sinkhorn_rounds=2, **MATRICES[name])
    np.testing.assert_array_equal(before[0], problem.neighbors)
    np.testing.assert_array_equal(before[1], problem.similarities)


# --- faults ---


def test_an_unknown_edge_weight_is_refused():
    with pytest.raises(InputError, match=r"edge_weight: got 'cosine', expected .*constant"):
        propagation_matrix(np.zeros((1, 1), dtype=np.int32), "cosine")


def test_an_unknown_node_ordering_is_refused():
    message = "node_ordering: got 'random', expected one of: auto, given, clustered"
    with pytest.raises(InputError, match=message):
        propagation_matrix(np.zeros((1, 1), dtype=np.int32), node_ordering="random")


def test_weights_without_similarities_are_refused():
    with pytest.raises(InputError, match="similarities: got none; edge_weight gaussian needs"):
        propagation_matrix(ints([0]), "gaussian")


@pytest.mark.parametrize("node_ordering", NODE_ORDERINGS)
@pytest.mark.parametrize("kind", ["constant", "gaussian", "locally_scaled"])
@pytest.mark.parametrize("bad", [3, -2])
def test_a_neighbour_out_of_range_is_refused(kind, bad, node_ordering):
    neighbors = ints([0, 1], [2, bad], [0, 1])
    similarities = np.full((3, 2), 0.5, np.float32)
    with pytest.raises(ValueError, match=rf"row 1, column 1 holds {bad}, expected -1 or 0\.\.2"):
        propagation_matrix(neighbors, kind, similarities, node_ordering=node_ordering)
