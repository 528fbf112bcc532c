"""What X may be."""

import logging
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from lowshot_kedro import LabelDiffusion, graph
from lowshot_kedro.errors import InputError

from .making import clusters, few_labels
from .truth import is_clear

METRICS = ["euclidean", "cosine"]


def whole_numbers():
    """From -100 to 100, which every type but the unsigned ones holds; labels."""
    X, classes = clusters(80, dimension=5, seed=3)
    return np.round(25 * X).clip(-100, 100), few_labels(classes, 3)


def in_a_file(X, path, dtype, order="C"):
    np.asarray(X, dtype).ravel(order).tofile(path)
    return np.memmap(path, dtype, "r", shape=X.shape, order=order)


def read_only(X):
    X = X.copy()
    X.flags.writeable = False
    return X


def kinds_of_rows(folder=Path()):
    X, _ = whole_numbers()
    wide = np.repeat(np.repeat(X, 2, axis=0), 3, axis=1)
    return {
        "float16": lambda: X.astype(np.float16),
        "float32": lambda: X.astype(np.float32),
        "longdouble": lambda: X.astype(np.longdouble),
        "int8": lambda: X.astype(np.int8),
        "int64": lambda: X.astype(np.int64),
        "big-endian": lambda: X.astype(">f4"),
        "objects": lambda: X.astype(object),
        "Fortran order": lambda: np.asfortranarray(X),
        "Fortran order, float32": lambda: np.asfortranarray(X, np.float32),
        "every other row and third column": lambda: wide[::2, ::3],
        "the same in float32": lambda: wide.astype(np.float32)[::2, ::3],
        "backwards twice": lambda: X[::-1, ::-1].copy()[::-1, ::-1],
        "read-only": lambda: read_only(X),
        "list": X.tolist,
        "list of arrays": lambda: list(X),
        "frame": lambda: pd.DataFrame(X),
        "frame of mixed types": lambda: pd.DataFrame(X).astype({0: np.int8, 1: np.float32}),
        "file of float16": lambda: in_a_file(X, folder / "x", np.float16),
        "file of float32": lambda: in_a_file(X, folder / "x", np.float32),
        "file of float64": lambda: in_a_file(X, folder / "x", np.float64),
        "file of int16": lambda: in_a_file(X, folder / "x", np.int16),
        "file in Fortran order": lambda: in_a_file(X, folder / "x", np.float32, "F"),
        "csr": lambda: sparse.csr_array(X),
        "csc": lambda: sparse.csc_matrix(X.astype(np.float32)),
        "coo of integers": lambda: sparse.coo_array(X.astype(np.int64)),
    }


@pytest.mark.parametrize("kind", kinds_of_rows())
@pytest.mark.parametrize("metric", METRICS)
def test_rows_of_any_kind_give_the_same(metric, kind, tmp_path):
    X, y = whole_numbers()
    assert is_clear(X, X, 5, metric)
    plain = LabelDiffusion(5, 4, metric=metric).fit(X, y)
    rows = kinds_of_rows(tmp_path)[kind]()
    model = LabelDiffusion(5, 4, metric=metric).fit(rows, y)
    assert model.n_features_in_ == 5
    np.testing.assert_allclose(model.label_distributions_, plain.label_distributions_, atol=1e-6)
    np.testing.assert_allclose(model.predict_proba(rows), plain.predict_proba(X), atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint64, bool])
def test_unsigned_rows_do_not_wrap_around(dtype):
    X, classes = clusters(80, dimension=30)
    y = few_labels(classes, 3)
    rows = (np.round(25 * X).clip(-100, 100) + 100) if dtype is not bool else X > 0.3
    rows = rows.astype(dtype)
    model = LabelDiffusion(5, 4).fit(rows, y)
    plain = LabelDiffusion(5, 4).fit(rows.astype(float), y)
    np.testing.assert_allclose(model.label_distributions_, plain.label_distributions_, atol=1e-6)
    np.testing.assert_allclose(model.predict_proba(rows), plain.predict_proba(rows), atol=1e-6)


def test_rows_far_from_the_origin_are_told_apart():
    X, classes = clusters(90, spread=1.0)
    new, _ = clusters(30, spread=1.0, seed=1)
    y = few_labels(classes)
    near = LabelDiffusion(6, 5).fit(X, y)
    far = LabelDiffusion(6, 5).fit(X + 1e8, y)
    np.testing.assert_allclose(far.label_distributions_, near.label_distributions_, atol=1e-5)
    np.testing.assert_allclose(far.predict_proba(new + 1e8), near.predict_proba(new), atol=1e-5)


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1e6, 1e12])
@pytest.mark.parametrize("metric", METRICS)
def test_the_unit_of_measurement_does_not_matter(metric, scale):
    X, classes = clusters(90, spread=1.0)
    y = few_labels(classes)
    model = LabelDiffusion(6, 5, metric=metric).fit(X, y)
    scaled = LabelDiffusion(6, 5, metric=metric).fit(X * scale, y)
    np.testing.assert_allclose(scaled.label_distributions_, model.label_distributions_, atol=1e-5)
    np.testing.assert_allclose(scaled.predict_proba(X * scale), model.predict_proba(X), atol=1e-5)


@pytest.mark.parametrize(("metric", "scale"), [("euclidean", 1e25), ("cosine", 1e60)])
def test_numbers_too_large_for_single_precision_are_refused(metric, scale):
    X, classes = clusters()
    with pytest.raises(ValueError, match=r"^X\b"):
        LabelDiffusion(5, metric=metric).fit(X * scale, few_labels(classes))


@pytest.mark.parametrize("scale", [1e-20, 1e-30, 1e-45, 1e-100, 1e-300, 1e-320])
@pytest.mark.parametrize("kind", ["dense", "sparse", "shifted"])
def test_rows_too_near_to_each_other_for_single_precision_are_refused(kind, scale):
    X, classes = clusters()
    # Where rows are far from the origin only the differences count.
    rows = X * scale + (1e-5 * scale if kind == "shifted" else 0)
    rows = sparse.csr_array(rows) if kind == "sparse" else rows
    with pytest.raises(ValueError, match=r"^X: rows differ by .*expected.*multiply"):
        LabelDiffusion(5).fit(rows, few_labels(classes))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1e-36, 1e-38])
def test_rows_too_short_for_a_cosine_in_single_precision_are_refused(scale, dtype):
    X, classes = clusters(700)
    y = few_labels(classes)
    rows = X.astype(dtype)
    rows[613] *= scale
    model = LabelDiffusion(5, metric="cosine")
    with pytest.raises(ValueError, match=r"^X: row 613 .*cosine.*multiply"):
        model.fit(rows, y)
    model.fit(X, y)
    with pytest.raises(ValueError, match=r"^X: row 613 .*cosine.*multiply"):
        model.predict(rows)
    with pytest.raises(ValueError, match=r"^X: row 0 .*cosine"):
        model.fit(X * 1e-300, y)


def test_rows_that_do_not_differ_at_all_may_be_as_small_as_they_like():
    for value in (0.0, 1e-30, 1.0, 1e17):
        model = LabelDiffusion(5, 2).fit(np.full((30, 2), value), [0] + [-1] * 29)
        assert model.transduction_[0] == 0


@pytest.mark.parametrize("scale", [1e39, 1e200, 1e300])
@pytest.mark.parametrize("make", [np.asarray, sparse.csr_array], ids=["dense", "sparse"])
def test_finite_numbers_are_not_called_infinite(make, scale):
    X, classes = clusters()
    model = LabelDiffusion(5, 3, metric="cosine")
    with pytest.raises(ValueError, match=r"^X: row \d+ .*too large.*expected.*divide"):
        model.fit(make(X * scale), few_labels(classes))
    model.fit(X, few_labels(classes))
    with pytest.raises(ValueError, match=r"^X: row \d+ .*too large.*expected.*divide"):
        model.predict(make(X * scale))


def test_rows_that_are_all_alike_are_neighbors_of_each_other():
    X = np.ones((30, 3))
    model = LabelDiffusion(5, "auto").fit(X, [0] + [-1] * 29)
    assert set(model.transduction_.tolist()) <= {0, -1}
    assert model.transduction_[0] == 0


# --- files ---


class GraphIsNext(Exception):
    pass


@pytest.mark.parametrize(
    ("dtype", "order", "most"),
    [(np.float32, "C", 0.02), (np.float32, "F", 1.4), (np.float64, "C", 0.9)],
)
@pytest.mark.parametrize("metric", METRICS)
def test_the_graph_gets_rows_in_a_file_as_they_are_or_converted_block_by_block(
    metric, dtype, order, most, tmp_path, monkeypatch
):
    path = tmp_path / "rows"
    rows = np.memmap(path, dtype, "w+", shape=(150_000, 128), order=order)
    y = np.where(np.arange(len(rows)) < 10, 0, -1)
    got = []

    def build_knn_graph(vectors, *_, **__):
        got.append((vectors, tracemalloc.get_traced_memory()[1]))
        raise GraphIsNext

    monkeypatch.setattr(graph, "build_knn_graph", build_knn_graph)
    tracemalloc.start()
    with pytest.raises(GraphIsNext):
        LabelDiffusion(metric=metric).fit(rows, y)
    tracemalloc.stop()
    [(vectors, peak)] = got
    assert peak < most * rows.nbytes
    assert (vectors.dtype, vectors.shape) == (np.float32, rows.shape)
    assert vectors.flags.c_contiguous
    if most < 0.1:
        assert isinstance(vectors, np.memmap) and np.shares_memory(vectors, rows)


# --- sparse rows ---


def sparse_rows(n=120, n_columns=600, rank=8, seed=0):
    """Mostly zeros; their distances need no more than `rank` columns."""
    rng = np.random.default_rng(seed)
    base = np.where(rng.random((n, rank)) < 0.6, rng.uniform(0.5, 2, (n, rank)), 0)
    base[np.arange(n), np.arange(n) % rank] += 3 + rng.random(n)
    repeated = np.repeat(base, n_columns // rank, axis=1)
    return sparse.csr_array(repeated), few_labels(np.arange(n) % rank, 3)


@pytest.mark.parametrize("metric", METRICS)
def test_sparse_rows_with_few_columns_give_what_dense_ones_give(metric):
    X, y = sparse_rows()
    model = LabelDiffusion(5, 3, metric=metric, n_components=600).fit(X, y)
    dense = LabelDiffusion(5, 3, metric=metric).fit(X.toarray(), y)
    assert model.n_features_in_ == 600
    np.testing.assert_array_equal(model.label_distributions_, dense.label_distributions_)
    np.testing.assert_array_equal(model.predict_proba(X), dense.predict_proba(X.toarray()))


@pytest.mark.parametrize("metric", METRICS)
def test_sparse_rows_with_many_columns_are_reduced_which_keeps_what_fits(metric, caplog):
    X, y = sparse_rows()
    assert is_clear(X.toarray(), X.toarray(), 5, metric)
    caplog.set_level(logging.INFO, "lowshot_kedro")
    model = LabelDiffusion(5, 3, metric=metric, n_components=16).fit(X, y)
    lines = [message for message in caplog.messages if "600" in message and "16" in message]
    assert len(lines) == 1 and "column" in lines[0]
    dense = LabelDiffusion(5, 3, metric=metric).fit(X.toarray(), y)
    assert model.n_features_in_ == 600
    np.testing.assert_allclose(model.label_distributions_, dense.label_distributions_, atol=1e-5)
    of_new = dense.predict_proba(X.toarray()[:20])
    np.testing.assert_allclose(model.predict_proba(X[:20]), of_new, atol=1e-5)
    np.testing.assert_allclose(model.predict_proba(X.toarray()[:20]), of_new, atol=1e-5)


def test_texts_as_counted_words_are_told_apart_by_a_reduction_that_random_state_fixes():
    rng = np.random.default_rng(0)
    classes = np.arange(400) % 4
    # Every class prefers a quarter of 2000 words.
    words = (rng.integers(0, 500, (400, 60)) + 500 * classes[:, None]) % 2000
    words[:, :25] = rng.integers(0, 2000, (400, 25))
    X = sparse.csr_array(
        (np.ones(words.size), (np.repeat(np.arange(400), 60), words.ravel())), (400, 2000)
    )
    model = LabelDiffusion(metric="cosine", n_components=32).fit(X, few_labels(classes, 3))
    again = LabelDiffusion(metric="cosine", n_components=32).fit(X, few_labels(classes, 3))
    assert (model.transduction_ == classes).mean() > 0.95
    np.testing.assert_array_equal(model.label_distributions_, again.label_distributions_)


# --- faults ---


def with_faults(kind):
    X, _ = whole_numbers()
    X = X.astype(np.float32 if kind == "float32" else np.float64)
    X[3, 1], X[17, 0] = np.nan, np.inf
    return {"sparse": sparse.csr_array, "frame": pd.DataFrame, "list": np.ndarray.tolist}.get(
        kind, lambda rows: rows
    )(X)


@pytest.mark.parametrize("n_components", [256, 2])
@pytest.mark.parametrize("kind", ["float64", "float32", "sparse", "frame", "list"])
@pytest.mark.parametrize("metric", METRICS)
def test_rows_that_are_no_finite_numbers_are_named(metric, kind, n_components):
    X, y = whole_numbers()
    faulty = with_faults(kind)
    model = LabelDiffusion(5, metric=metric, n_components=n_components)
    with pytest.raises(ValueError, match=r"^X\b.*NaN.* 3, 17\b"):
        model.fit(faulty, y)
    model.fit(sparse.csr_array(X) if kind == "sparse" else X, y)
    with pytest.raises(ValueError, match=r"^X\b.*NaN.* 3, 17\b"):
        model.predict(faulty)


@pytest.mark.parametrize("kind", ["float64", "sparse"])
@pytest.mark.parametrize("metric", METRICS)
def test_a_row_of_numbers_too_large_is_named_and_no_other(metric, kind):
    X, y = whole_numbers()
    X = X.astype(np.float64)
    large = X.copy()
    large[50, 2] = 1e300
    if kind == "sparse":
        X, large = sparse.csr_array(X), sparse.csr_array(large)
    model = LabelDiffusion(5, metric=metric)
    with pytest.raises(InputError, match=r"^X: row 50 holds numbers too large for float32"):
        model.fit(large, y)
    model.fit(X, y)
    with pytest.raises(InputError, match=r"^X: row 50 holds numbers too large for float32"):
        model.predict(large)


@pytest.mark.parametrize("method", ["exact", "ivf", "HNSW8"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_row_too_far_from_all_others_is_named(method, dtype):
    X, y = whole_numbers()
    X = X.astype(dtype)
    far = X.copy()
    far[50, 2] = 1e30
    model = LabelDiffusion(5, metric="euclidean", graph_method=method)
    with pytest.raises(InputError, match=r"^X: row 50 is 9\.88e\+29 away from the mean"):
        model.fit(far, y)
    model.fit(X, y)
    with pytest.raises(InputError, match=r"^X: row 50 is 1e\+30 away from the mean"):
        model.predict(far)


def test_rows_that_are_no_finite_numbers_in_a_file_are_named(tmp_path):
    _, y = whole_numbers()
    faulty = with_faults("float32")
    with pytest.raises(ValueError, match=r"^X\b.*NaN.* 3, 17\b"):
        LabelDiffusion(5).fit(in_a_file(faulty, tmp_path / "x", np.float32), y)


def no_tables():
    numbers = np.zeros((80, 5))
    return {
        "vector": np.zeros(80),
        "cube": np.zeros((80, 2, 2)),
        "no column": np.zeros((80, 0)),
        "no row": np.zeros((0, 5)),
        "text": "rows",
        "number": 3,
        "nothing": None,
        "texts": np.full((80, 5), "a"),
        "bytes": np.full((80, 5), b"1"),
        "texts among objects": np.full((80, 5), "a", object),
        "None among objects": np.where(numbers == 0, None, 1.0),
        "complex": np.zeros((80, 5), complex),
        "sparse complex": sparse.csr_array(np.ones((80, 5), complex)),
        "dates": np.zeros((80, 5), "datetime64[s]"),
        "durations": np.zeros((80, 5), "timedelta64[s]"),
        "frame of dates": pd.DataFrame({"a": pd.date_range("2020", periods=80)}),
        "frame of texts": pd.DataFrame({"a": ["x"] * 80, "b": 1.0}),
        "frame of categories": pd.DataFrame({"a": pd.Categorical(["x", "y"] * 40)}),
        "frame with NA": pd.DataFrame({"a": pd.array([1, None] * 40, dtype="Int64")}),
        "integers that no float holds": np.full((80, 5), 10**400, object),
        "lists of different lengths": [[1], [1, 2]] * 40,
        "masked": np.ma.masked_equal(np.arange(400).reshape(80, 5), 7),
        "records": np.zeros(80, [("a", float)]),
    }


@pytest.mark.parametrize("name", no_tables())
@pytest.mark.parametrize("metric", METRICS)
def test_what_is_no_table_of_numbers_is_refused_with_a_line_that_names_x(metric, name):
    _, y = whole_numbers()
    with pytest.raises(ValueError) as raised:
        LabelDiffusion(5, metric=metric).fit(no_tables()[name], y)
    message = str(raised.value)
    assert message.startswith("X: "), message
    assert "\n" not in message and len(message) < 300


def test_rows_of_zeros_have_no_cosine_and_are_linked_to_nothing():
    rng = np.random.default_rng(0)
    X = rng.uniform(1, 2, (40, 3))
    X[[5, 17]] = 0
    y = np.full(40, -1)
    y[:4] = [0, 1, 0, 1]
    model = LabelDiffusion(5, 30, metric="cosine")
    with pytest.warns(UserWarning) as caught:
        model.fit(X, y)
    assert ["2 of 40 rows are all zeros" in str(each.message) for each in caught] == [True, False]
    assert np.flatnonzero(model.transduction_ == -1).tolist() == [5, 17]
    assert not np.isin(model.neighbors_, [5, 17]).any()
    with pytest.warns(UserWarning, match="1 of 2 rows"):
        assert (model.predict(np.array([[0.0, 0, 0], [1, 1, 2]])) == -1).tolist() == [True, False]
    others = np.delete(np.arange(40), [5, 17])
    without = LabelDiffusion(5, 30, metric="cosine").fit(X[others], y[others])
    np.testing.assert_array_equal(model.transduction_[others], without.transduction_)
