import pickle
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from lowshot_kedro.errors import InputError
from lowshot_kedro.graph import (
    METHODS,
    METRICS,
    build_knn_graph,
    exact_lists,
    exact_search,
    knn_graph,
    unlabeled_nodes,
)

from .making import same_bits, threads
from .truth import clustered_vectors, random_vectors, unit

each_metric = pytest.mark.parametrize("metric", METRICS)
EVERY_METHOD = ["exact", "ivf", "descent", "IVF16,Flat", "HNSW16"]


def truth(queries, vectors, metric):
    """Similarities of every query to every vector, in double precision."""
    if metric == "cosine":
        return unit(queries) @ unit(vectors).T
    queries, vectors = (np.asarray(array, np.float64) for array in (queries, vectors))
    return np.stack([-((vectors - query) ** 2).sum(axis=1) for query in queries])


def tolerance(similarities, metric):
    return 2e-6 if metric == "cosine" else 1e-5 * np.abs(similarities)


def assert_well_formed(graph, similarities, k, metric):
    """Sorted, equal ones by number, none twice; similarities are the true ones."""
    n = similarities.shape[1]
    indices, found = graph
    assert indices.shape == found.shape == (len(similarities), k)
    assert (indices.dtype, found.dtype) == (np.int32, np.float32)
    there = min(k, n)
    assert (indices[:, there:] == -1).all() and (found[:, there:] == -np.inf).all()
    indices, found = indices[:, :there], found[:, :there]
    assert (indices >= 0).all() and (indices < n).all()
    assert all(len(set(row)) == there for row in indices.tolist())
    order = np.lexsort((indices, -found), axis=1)
    np.testing.assert_array_equal(order, np.broadcast_to(np.arange(there), order.shape))
    expected = np.take_along_axis(similarities, indices.astype(np.int64), axis=1)
    assert (np.abs(found - expected) <= tolerance(expected, metric)).all()


def assert_nearest(graph, similarities, k, metric):
    """Every row holds the k nearest, as far as single precision can tell."""
    assert_well_formed(graph, similarities, k, metric)
    there = min(k, similarities.shape[1])
    best = -np.sort(-similarities, axis=1)[:, :there]
    assert (np.abs(graph.similarities[:, :there] - best) <= tolerance(best, metric)).all()


def recall(graph, similarities, k, metric):
    last = -np.sort(-similarities, axis=1)[:, k - 1 : k]
    found = np.take_along_axis(similarities, graph.indices.astype(np.int64), axis=1)
    return (found >= last - tolerance(last, metric)).mean()


@each_metric
@pytest.mark.parametrize("method", EVERY_METHOD)
def test_neighbors_and_those_of_new_vectors_are_found(metric, method):
    everything = clustered_vectors(1260, 24)
    vectors, queries = everything[:1200].copy(), everything[1200:]
    graph, search = build_knn_graph(vectors, 7, metric=metric, method=method, target_recall=0.98)
    similarities = truth(vectors, vectors, metric)
    assert_well_formed(graph, similarities, 7, metric)
    # Of an index of faiss it says itself how much it finds.
    least = 0.95 if method in METHODS else 0.5
    assert recall(graph, similarities, 7, metric) > least
    found = search.search(queries, 9)
    similarities = truth(queries, vectors, metric)
    assert_well_formed(found, similarities, 9, metric)
    assert recall(found, similarities, 9, metric) > least


@pytest.mark.parametrize("method", ["exact", "ivf", "descent"])
def test_cosine_neighbors_are_those_of_the_pipelines(method):
    vectors = clustered_vectors(1200, 24)
    graph, _ = build_knn_graph(vectors, 6, method=method)
    # Those rank by the vectors that the index holds, which are rounded to length 1.
    expected = unlabeled_nodes(vectors, 6, method, "X").neighbors
    np.testing.assert_allclose(graph.similarities, expected.similarities, atol=1e-6)
    assert (graph.indices == expected.indices).mean() > 0.999


@pytest.mark.parametrize("least", [10, 1000])
@each_metric
def test_pynndescent_gets_points_and_its_neighbors_are_ranked(metric, least, monkeypatch):
    class NNDescent:
        """As far as it is used here, and without a minute of compiling."""

        def __init__(self, points, metric, n_neighbors, **_):
            reference = NearestNeighbors(n_neighbors=n_neighbors, metric=metric).fit(points)
            _, indices = reference.kneighbors(points)
            self.neighbor_graph = indices[:, ::-1].astype(np.int32), None

    monkeypatch.setitem(sys.modules, "pynndescent", SimpleNamespace(NNDescent=NNDescent))
    monkeypatch.setattr(knn_graph, "EXACT_BELOW", least)
    vectors = awkward("offset" if metric == "euclidean" else "scales", 300, 12)
    graph, search = build_knn_graph(vectors, 5, metric=metric, method="pynndescent")
    assert_nearest(graph, truth(vectors, vectors, metric), 5, metric)
    found = search.search(vectors[:50] + np.float32(0.5), 5)
    similarities = truth(vectors[:50] + np.float32(0.5), vectors, metric)
    assert_well_formed(found, similarities, 5, metric)
    assert recall(found, similarities, 5, metric) > 0.95


@pytest.mark.parametrize(
    ("metric", "of_scikit_learn"), [("cosine", "cosine"), ("euclidean", "sqeuclidean")]
)
def test_exact_neighbors_are_those_of_scikit_learn(metric, of_scikit_learn):
    vectors, queries = random_vectors(400), random_vectors(50, seed=1)
    reference = NearestNeighbors(n_neighbors=8, metric=of_scikit_learn, algorithm="brute")
    reference.fit(vectors.astype(np.float64))
    graph, search = build_knn_graph(vectors, 8, metric=metric, method="exact")
    for found, rows in ((graph, vectors), (search.search(queries, 8), queries)):
        distances, indices = reference.kneighbors(rows.astype(np.float64))
        np.testing.assert_array_equal(found.indices, indices)
        similarities = 1 - distances if metric == "cosine" else -distances
        np.testing.assert_allclose(found.similarities, similarities, rtol=1e-5, atol=1e-6)


def awkward(kind, n, dimension):
    rng = np.random.default_rng(n)
    vectors = rng.standard_normal((n, dimension))
    if kind == "all equal":
        vectors[:] = vectors[0]
    elif kind == "zeros":
        vectors[:] = 0
    elif kind == "some zeros":
        vectors[::3] = 0
    elif kind == "duplicates":
        vectors = vectors[rng.integers(0, max(1, n // 20), n)]
    elif kind == "grid":
        vectors = rng.integers(0, 3, (n, dimension))
    elif kind == "constant columns":
        vectors[:, ::2] = 7
    elif kind == "offset":
        vectors = 10 * vectors + 1e6
    elif kind == "scales":
        vectors *= np.logspace(-3, 3, dimension)
    elif kind == "heavy tails":
        vectors = np.exp(3 * vectors)
    elif kind == "tiny":
        vectors *= 1e-12
    elif kind == "huge":
        vectors *= 1e15
    return vectors.astype(np.float32)


KINDS = ["all equal", "zeros", "some zeros", "duplicates", "grid", "constant columns", "offset",
         "scales", "heavy tails", "tiny", "huge"]  # fmt: skip


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(KINDS),
    n=st.sampled_from([1, 2, 3, 30, 200]),
    dimension=st.sampled_from([1, 2, 7, 70]),
    k=st.sampled_from([1, 3, 10, 250]),
    metric=st.sampled_from(METRICS),
    method=st.sampled_from(["exact", "ivf", "descent"]),
)
def test_awkward_vectors_find_their_neighbors(kind, n, dimension, k, metric, method):
    vectors = awkward(kind, n, dimension)
    graph, search = build_knn_graph(vectors, k, metric=metric, method=method, target_recall=1.0)
    similarities = truth(vectors, vectors, metric)
    if method == "exact":
        assert_nearest(graph, similarities, k, metric)
        assert_nearest(search.search(vectors[:5], k), similarities[:5], k, metric)
    else:
        found = search.search(vectors[:5], k)
        assert_well_formed(found, similarities[:5], k, metric)


@each_metric
@pytest.mark.parametrize("kind", ["duplicates", "grid", "some zeros", "offset", "heavy tails"])
@pytest.mark.parametrize("method", ["exact", "descent"])
def test_neighbors_do_not_depend_on_what_else_is_searched_for(metric, kind, method):
    vectors = awkward(kind, 1200, 5)
    graph, search = build_knn_graph(vectors, 6, metric=metric, method=method)
    queries = np.concatenate([vectors[:60], awkward("offset", 20, 5)])
    together = search.search(queries, 6)
    order = np.random.default_rng(0).permutation(len(queries))
    assert same_bits(search.search(queries[order], 6), [array[order] for array in together])
    for row in range(0, len(queries), 7):
        alone = search.search(queries[row : row + 1], 6)
        assert same_bits(alone, [array[row : row + 1] for array in together])
    if method == "exact":
        assert same_bits(search.search(vectors, 6), graph)
        similarities = truth(vectors, vectors, metric)
        assert_nearest(graph, similarities, 6, metric)


@each_metric
def test_of_thousands_of_equal_vectors_the_first_are_the_neighbors(metric):
    vectors = awkward("duplicates", 9000, 3)
    vectors[::2] = 2
    graph, search = build_knn_graph(vectors, 5, metric=metric)
    assert (graph.indices[::2] == [0, 2, 4, 6, 8]).all()
    assert (search.search(vectors[:1], 5).indices == [0, 2, 4, 6, 8]).all()


@each_metric
def test_a_last_place_that_rounding_could_decide_is_looked_at_again(metric, monkeypatch):
    vectors = awkward("grid", 700, 4)
    expected, _ = build_knn_graph(vectors, 5, metric=metric)
    compared = []
    compare_all = exact_search.ExactNodes._compare_all
    monkeypatch.setattr(exact_search, "_SPARE", 1)
    monkeypatch.setattr(exact_search, "_MAX_WIDTH", 20)
    monkeypatch.setattr(
        exact_search.ExactNodes,
        "_compare_all",
        lambda self, queries, k: compared.append(len(queries)) or compare_all(self, queries, k),
    )
    graph, _ = build_knn_graph(vectors, 5, metric=metric)
    assert same_bits(graph, expected)
    # Equal queries are looked at once.
    assert 0 < sum(compared) <= 81
    assert_nearest(graph, truth(vectors, vectors, metric), 5, metric)


@each_metric
@pytest.mark.parametrize("method", ["exact", "descent", "IVF16,Flat"])
def test_threads_blocks_and_copies_change_no_bit(metric, method, monkeypatch):
    vectors, queries = clustered_vectors(1200, 40), clustered_vectors(30, 40, seed=1)
    graph, search = build_knn_graph(vectors, 6, metric=metric, method=method)
    found = search.search(queries, 6)
    copy = pickle.loads(pickle.dumps(search))
    assert same_bits(copy.search(queries, 6), found)
    with threads(1):
        again, search = build_knn_graph(vectors, 6, metric=metric, method=method)
        assert same_bits(again, graph)
        assert same_bits(search.search(queries, 6), found)


@each_metric
@pytest.mark.parametrize("method", ["exact", "descent"])
def test_vectors_may_lie_on_disk_and_stay_as_they_are(metric, method, tmp_path):
    vectors = clustered_vectors(1000, 20)
    np.save(tmp_path / "vectors.npy", vectors)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    graph, search = build_knn_graph(mapped, 4, metric=metric, method=method)
    expected, searching = build_knn_graph(vectors, 4, metric=metric, method=method)
    assert same_bits(graph, expected)
    copy = pickle.loads(pickle.dumps(search))
    assert same_bits(copy.search(vectors[:9], 4), searching.search(vectors[:9], 4))
    np.testing.assert_array_equal(vectors, clustered_vectors(1000, 20))


@pytest.mark.parametrize("dimension", [1, 30])
def test_vectors_that_codes_cannot_tell_apart_are_compared_as_they_are(
    dimension, monkeypatch, caplog
):
    vectors = awkward("heavy tails", 1500, dimension)
    called = []
    plain = exact_lists.exact_list_graph
    monkeypatch.setattr(
        knn_graph, "exact_list_graph", lambda *arguments: called.append(1) or plain(*arguments)
    )
    graph, search = build_knn_graph(vectors, 6, metric="euclidean", method="descent")
    similarities = truth(vectors, vectors, "euclidean")
    assert called
    assert_well_formed(graph, similarities, 6, "euclidean")
    assert recall(graph, similarities, 6, "euclidean") > 0.97
    assert same_bits(search.search(vectors[:9], 6), exact(vectors, 6).part(0, 9, 6))
    with threads(1):
        assert same_bits(
            build_knn_graph(vectors, 6, metric="euclidean", method="descent")[0], graph
        )
    monkeypatch.setattr(exact_lists, "_MAX_COMPARED", 10)
    few, _ = build_knn_graph(vectors, 6, metric="euclidean", method="descent")
    assert recall(few, similarities, 6, "euclidean") < recall(graph, similarities, 6, "euclidean")
    assert "target_recall: got 0." in caplog.text


def exact(vectors, k):
    return build_knn_graph(vectors, k, metric="euclidean", method="exact")[0]


@each_metric
@pytest.mark.parametrize("method", ["exact", "descent", "HNSW16"])
def test_what_is_not_finite_is_named_with_its_row(metric, method):
    vectors = clustered_vectors(300, 8)
    _, search = build_knn_graph(vectors, 3, metric=metric, method="exact")
    vectors[[7, 250], 3] = np.nan, np.inf
    with pytest.raises(InputError, match=r"rows of mine: .* in 2 row\(s\), numbers 7, 250"):
        build_knn_graph(vectors, 3, metric=metric, method=method, name="rows of mine")
    with pytest.raises(InputError, match=r"new rows: .* in 1 row\(s\), numbers 7"):
        search.search(vectors[:9], 3, name="new rows")


def test_numbers_whose_squares_are_infinite_are_refused():
    vectors = clustered_vectors(30, 8)
    vectors[5, 5] = 1e20
    with pytest.raises(InputError, match=r"X: row 5 is 9\.67e"):
        build_knn_graph(vectors, 3, metric="euclidean")
    build_knn_graph(vectors, 3, metric="cosine")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vectors": np.zeros((3, 2))}, "X: got float64 (3, 2), expected a C-contiguous float32"),
        ({"vectors": np.zeros(3, np.float32)}, "X: got float32 (3,), expected a C-contiguous"),
        ({"vectors": np.zeros((0, 2), np.float32)}, "X: got 0 rows and 2 columns"),
        ({"vectors": np.zeros((2, 0), np.float32)}, "X: got 2 rows and 0 columns"),
        ({"k": 0}, "k: got 0, expected 1..8192"),
        ({"k": 8193}, "k: got 8193, expected 1..8192"),
        ({"metric": "manhattan"}, "metric: got 'manhattan', expected one of: cosine, euclidean"),
        ({"method": "guess"}, "method: got 'guess', expected one of: auto, exact"),
    ],
)
def test_what_cannot_be_used_is_refused(changes, message):
    arguments = {"vectors": np.zeros((3, 2), np.float32), "k": 2, **changes}
    with pytest.raises(InputError) as error:
        build_knn_graph(**arguments)
    assert message in str(error.value)


def test_queries_need_as_many_columns():
    _, search = build_knn_graph(clustered_vectors(30, 8), 3)
    with pytest.raises(InputError, match=r"X: got shape \(4, 7\), expected 8 columns"):
        search.search(np.zeros((4, 7), np.float32), 3)
    assert search.search(np.zeros((0, 8), np.float32), 3).indices.shape == (0, 3)
