import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neighbors import NearestNeighbors, kneighbors_graph

from lowshot_kedro import LabelDiffusion

from .making import clusters, few_labels
from .truth import as_shares, classes_of, distributions, spread

FORMATS = [
    sparse.csr_array, sparse.csc_array, sparse.coo_array, sparse.lil_array, sparse.dok_array,
    sparse.csr_matrix, sparse.csc_matrix, sparse.coo_matrix, sparse.dia_matrix,
]  # fmt: skip


def precomputed(**settings):
    return LabelDiffusion(metric="precomputed", **settings)


def random_weights(rng, shape, density):
    """Not symmetric, some on the diagonal."""
    return np.where(rng.random(shape) < density, rng.uniform(0.1, 4, shape), 0)


def weighted_problem(n=40, n_new=12, seed=0, density=0.15):
    """Weights among rows, of which two stand alone; labels; weights of new rows, two without."""
    rng = np.random.default_rng(seed)
    weights, new = random_weights(rng, (n, n), density), random_weights(rng, (n_new, n), density)
    weights[:, -2:] = weights[-2:] = 0
    new[[3, 5]] = 0
    y = np.where(np.arange(n) < 9, np.arange(n) % 3, -1)
    return weights, y, new


def assert_as_computed_densely(model, X, y, new, weights, new_weights):
    """`X` and `new` are in whatever form, the weights the same in a dense array."""
    scores = spread(weights, y, model.n_iterations, model.class_prior)
    expected, of_new = distributions(scores, y), as_shares(new_weights @ scores)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        model.fit(X, y)
        found, labels = model.predict_proba(new), model.predict(new)
    np.testing.assert_allclose(model.label_distributions_, expected, atol=2e-5)
    np.testing.assert_allclose(found, of_new, atol=2e-5)
    classes = np.unique(y[y != -1])
    np.testing.assert_array_equal(labels == -1, ~of_new.any(axis=1))
    ranked = np.sort(np.pad(of_new, ((0, 0), (1, 0))), axis=1)
    certain = ranked[:, -1] - ranked[:, -2] > 1e-4
    np.testing.assert_array_equal(labels[certain], classes_of(of_new, classes)[certain])


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.__name__)
def test_weights_in_any_format_of_scipy_give_what_dense_ones_give(kind):
    weights, y, new = weighted_problem()
    assert_as_computed_densely(
        precomputed(n_iterations=4), kind(weights), y, kind(new), weights, new
    )


@settings(deadline=None, max_examples=25)
@given(
    st.integers(1, 20),
    st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    st.sampled_from([0, 1, 2, 5]),
    st.sampled_from(["uniform", "labeled"]),
    st.integers(0, 2**32 - 1),
)
def test_any_small_graph_gives_what_the_formulas_give(n, density, n_iterations, prior, seed):
    rng = np.random.default_rng(seed)
    weights, new = random_weights(rng, (n, n), density), random_weights(rng, (3, n), density)
    y = rng.integers(-1, 3, n)
    # Nothing but -1 and 1 would be two classes.
    y[rng.integers(n)] = 0
    model = precomputed(n_iterations=n_iterations, class_prior=prior)
    assert_as_computed_densely(
        model, sparse.csr_array(weights), y, sparse.csr_array(new), weights, new
    )


@pytest.mark.parametrize("dtype", [bool, np.int8, np.int64, np.float32, np.float64])
def test_weights_of_any_number_type(dtype):
    weights, y, new = (part.astype(dtype) for part in weighted_problem())
    y = weighted_problem()[1]
    assert_as_computed_densely(
        precomputed(n_iterations=3),
        sparse.csr_array(weights),
        y,
        sparse.csr_array(new),
        weights.astype(float),
        new.astype(float),
    )


def test_stored_zeros_are_no_links_and_entries_given_twice_are_added():
    weights, y, new = weighted_problem()
    rows, columns = np.nonzero(weights)
    halves = sparse.coo_array(
        (
            np.concatenate([weights[rows, columns] / 2] * 2 + [np.zeros(3)]),
            (
                np.concatenate([rows, rows, [38, 39, 0]]),
                np.concatenate([columns, columns, [0, 1, 39]]),
            ),
        ),
        weights.shape,
    )
    assert_as_computed_densely(precomputed(n_iterations=4), halves, y, new_array(new), weights, new)


def new_array(new):
    return sparse.csr_array(new)


def test_unsorted_columns_and_read_only_arrays_are_taken_as_they_are():
    weights, y, new = weighted_problem()
    matrix = sparse.csr_array(weights)
    for first, last in zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True):
        matrix.indices[first:last] = matrix.indices[first:last][::-1].copy()
        matrix.data[first:last] = matrix.data[first:last][::-1].copy()
    matrix.has_sorted_indices = False
    matrix.indices, matrix.indptr = matrix.indices.astype(np.int64), matrix.indptr.astype(np.int64)
    for part in (matrix.data, matrix.indices, matrix.indptr):
        part.flags.writeable = False
    before = matrix.indices.copy(), matrix.data.copy()
    assert_as_computed_densely(precomputed(n_iterations=4), matrix, y, new_array(new), weights, new)
    np.testing.assert_array_equal(matrix.indices, before[0])
    np.testing.assert_array_equal(matrix.data, before[1])


# --- lists of neighbours ---


def listed(weights, k, dtype=np.int64):
    """Lists and weights of the entries of a dense array, -1 where a row has fewer than k."""
    indices = np.full((len(weights), k), -1, dtype)
    values = np.zeros((len(weights), k))
    for row, of_row in enumerate(weights):
        columns = np.flatnonzero(of_row)
        indices[row, : len(columns)] = columns
        values[row, : len(columns)] = of_row[columns]
    return indices, values


@pytest.mark.parametrize("value_type", [np.float64, np.float32, None])
@pytest.mark.parametrize("index_type", [np.int64, np.int32, np.int16])
def test_lists_of_neighbors_give_what_dense_weights_give(index_type, value_type):
    weights, y, new = weighted_problem()
    indices, values = listed(weights, 14, index_type)
    new_indices, new_values = listed(new, 20, index_type)
    if value_type is None:
        weights, new = (weights > 0).astype(float), (new > 0).astype(float)
        values = new_values = None
    else:
        values, new_values = values.astype(value_type), new_values.astype(value_type)
    assert_as_computed_densely(
        precomputed(n_iterations=4), (indices, values), y, (new_indices, new_values), weights, new
    )


def test_a_neighbor_of_weight_zero_is_none():
    weights, y, new = weighted_problem()
    indices, values = listed(weights, 14)
    indices[indices == -1] = 0
    new_indices, new_values = listed(new, 20)
    new_indices[new_indices == -1] = 1
    assert_as_computed_densely(
        precomputed(n_iterations=4), (indices, values), y, (new_indices, new_values), weights, new
    )


def test_a_pair_may_be_a_list_and_its_parts_too():
    weights, y, new = weighted_problem()
    pair, new_pair = listed(weights, 14), listed(new, 20)
    for make in (list, lambda pair: [part.tolist() for part in pair]):
        assert_as_computed_densely(
            precomputed(n_iterations=4), make(pair), y, make(new_pair), weights, new
        )
    model = precomputed(n_iterations=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        model.fit([pair[0], None], y)
        assert model.score([pair[0], None], y) == model.score((pair[0], None), y)


def test_two_rows_in_a_list_are_a_matrix():
    model = precomputed(n_iterations=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        model.fit([[0, 1], [1, 0]], [0, 1])
    np.testing.assert_array_equal(model.predict([[1, 0], [0, 1]]), [1, 0])


@pytest.mark.parametrize("scale", [1e-299, 1e-40, 1e30, 1e300])
def test_the_scale_of_weights_does_not_matter(scale):
    weights, y, new = weighted_problem()
    assert_as_computed_densely(
        precomputed(n_iterations=4),
        sparse.csr_array(weights * scale),
        y,
        sparse.csr_array(new),
        weights,
        new,
    )


def test_what_fits_a_matrix_predicts_from_lists_and_the_other_way_round():
    weights, y, new = weighted_problem()
    for X, rows in (
        (sparse.csr_array(weights), listed(new, 20)),
        (listed(weights, 14), sparse.csr_array(new)),
    ):
        assert_as_computed_densely(precomputed(n_iterations=4), X, y, rows, weights, new)


# --- the same graph made here or elsewhere ---


@pytest.mark.parametrize("n_iterations", [4, "auto"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_a_graph_of_scikit_learn_gives_what_the_one_made_here_gives(metric, n_iterations):
    X, classes = clusters(120, dimension=6)
    new, _ = clusters(30, dimension=6, seed=1)
    y = few_labels(classes, 5)
    model = LabelDiffusion(6, n_iterations, metric=metric).fit(X, y)

    search = NearestNeighbors(n_neighbors=6, metric=metric).fit(X)
    with_lists = precomputed(n_iterations=n_iterations)
    with_lists.fit((search.kneighbors(X)[1], None), y)
    with_matrix = precomputed(n_iterations=n_iterations)
    with_matrix.fit(search.kneighbors_graph(X), y)
    for other, rows in (
        (with_lists, (search.kneighbors(new)[1], None)),
        (with_matrix, search.kneighbors_graph(new)),
    ):
        assert other.n_iterations_ == model.n_iterations_
        np.testing.assert_array_equal(other.transduction_, model.transduction_)
        np.testing.assert_allclose(
            other.label_distributions_, model.label_distributions_, atol=1e-6
        )
        np.testing.assert_allclose(other.predict_proba(rows), model.predict_proba(new), atol=1e-6)


def test_a_search_cuts_rows_and_columns_of_a_precomputed_graph():
    X, classes = clusters(120, spread=1.2)
    y = few_labels(classes, 15)
    graph = kneighbors_graph(X, 20, include_self=True)
    folds, grid = StratifiedKFold(3), [1, 3]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        search = GridSearchCV(
            precomputed(), {"n_iterations": grid}, cv=folds, error_score="raise"
        ).fit(graph, y)
    for number, n_iterations in enumerate(grid):
        for fold, (train, test) in enumerate(folds.split(X, y)):
            dense = graph.toarray()
            scores = spread(dense[np.ix_(train, train)], y[train], n_iterations)
            labels = classes_of(as_shares(dense[np.ix_(test, train)] @ scores), [0, 1, 2])
            counted = y[test] != -1
            expected = (labels == y[test])[counted].mean()
            found = search.cv_results_[f"split{fold}_test_score"][number]
            assert found == pytest.approx(expected)
    assert 0.4 < search.best_score_ < 1


def test_labelled_rows_that_stand_alone_keep_their_label():
    # 0 is linked to 1, which takes all its mass in one step; 2 and 3 are linked to nothing.
    matrix = sparse.csr_array(([1.0], ([0], [1])), (4, 4))
    with pytest.warns(UserWarning, match=r"\b1 of (the )?4\b"):
        model = precomputed(n_iterations=1).fit(matrix, [0, -1, 1, -1])
    assert model.transduction_.tolist() == [0, 0, 1, -1]
    assert model.n_unreached_ == 1
    np.testing.assert_array_equal(model.label_distributions_, [[1, 0], [1, 0], [0, 1], [0, 0]])


# --- faults ---


def changed(matrix, row, column, value):
    matrix = matrix.copy()
    matrix[row, column] = value
    return matrix


def faulty_graphs():
    weights, _, _ = weighted_problem()
    indices, values = listed(weights, 14)
    as_floats = indices.astype(float)
    return {
        "negative weight": (sparse.csr_array(changed(weights, 4, 7, -0.5)), r"X: .*-0\.5"),
        "NaN weight": (sparse.csr_array(changed(weights, 4, 7, np.nan)), "X: .*(nan|NaN)"),
        "infinite weight": (sparse.csr_array(changed(weights, 4, 7, np.inf)), "X: .*(inf|finite)"),
        "complex weights": (sparse.csr_array(weights * 1j), "X.*complex"),
        "not square": (sparse.csr_array(weights[:, :30]), "X: .*(40.*30|30.*40)"),
        "another size": (sparse.csr_array(weights[:30, :30]), r"30.*40|40.*30"),
        "lists of another size": ((indices[:30], values[:30]), r"30.*40|40.*30"),
        "index too large": ((changed(indices, 4, 0, 40), values), r"X.*row 4.*40"),
        "index too small": ((changed(indices, 4, 0, -2), values), r"X.*row 4.*-2"),
        "index beyond 32 bits": ((changed(indices, 4, 0, 2**32 + 1), values), "X.*4294967297"),
        "indices of floats": ((as_floats, values), "X.*float64"),
        "indices of one dimension": ((indices[:, 0], None), r"X.*\(40,\)"),
        "other shapes": ((indices, values[:, :5]), r"X.*(14.*5|5.*14)"),
        "negative similarity": ((indices, changed(values, 4, 0, -0.5)), r"X.*-0\.5"),
        "NaN similarity": ((indices, changed(values, 4, 0, np.nan)), "X.*(nan|NaN)"),
        "three arrays": ((indices, values, values), "X.*3"),
        "a list of three arrays": ([indices, values, values], "X: .*3"),
        "a list of one array": ([indices], "X: .*1"),
        "weights of texts": (weights.astype(str), "X: .*expected real numbers"),
        "weights among objects": (weights.astype(object), "X: .*expected real numbers"),
        "similarities of texts": ((indices, values.astype(str)), "X: .*expected real numbers"),
        "weights that are dates": (weights.astype("M8[s]"), "X: .*expected real numbers"),
        "weights too small": (sparse.csr_array(weights * 1e-320), "X: .*too small.*multiply"),
        "similarities too small": ((indices, values * 1e-310), "X: .*too small.*multiply"),
        "masked weights": (np.ma.masked_equal(weights, 0), "X: .*mask"),
        "masked neighbours": ((np.ma.masked_equal(indices, 3), values), "X: .*mask"),
        "neighbours of different lengths": (([[0], [0, 1]] * 20, None), "X: expected"),
        "a dense array of features": (np.zeros((40, 3)), "X.*precomputed|precomputed.*X"),
        "text": ("graph", "X"),
    }


@pytest.mark.parametrize("fault", faulty_graphs())
def test_a_graph_that_is_none_is_refused(fault):
    graph, message = faulty_graphs()[fault]
    _, y, _ = weighted_problem()
    with pytest.raises(ValueError, match=message):
        precomputed(n_iterations=2).fit(graph, y)


def faulty_links():
    _, _, new = weighted_problem()
    indices, values = listed(new, 20)
    return {
        "negative weight": (sparse.csr_array(changed(new, 4, 7, -0.5)), r"X.*-0\.5"),
        "NaN weight": (sparse.csr_array(changed(new, 4, 7, np.nan)), "X.*(nan|NaN)"),
        "another width": (sparse.csr_array(new[:, :30]), "30.*40"),
        "index too large": ((changed(indices, 4, 0, 40), values), r"X.*row 4.*40"),
        "index too small": ((changed(indices, 4, 0, -2), values), r"X.*row 4.*-2"),
        "NaN similarity": ((indices, changed(values, 4, 0, np.nan)), "X.*(nan|NaN)"),
        "features": (np.zeros((3, 4)), "X"),
    }


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("fault", faulty_links())
def test_links_of_new_rows_that_are_none_are_refused(fault):
    links, message = faulty_links()[fault]
    weights, y, _ = weighted_problem()
    model = precomputed(n_iterations=2).fit(sparse.csr_array(weights), y)
    with pytest.raises(ValueError, match=message):
        model.predict(links)
