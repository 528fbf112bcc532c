import logging

import faiss
import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from lowshot_kedro import threads as threads_module
from lowshot_kedro.blocks import KnnGraph
from lowshot_kedro.graph import index as index_module
from lowshot_kedro.graph import measure_quality, normalize
from lowshot_kedro.graph import vectors as vectors_module
from lowshot_kedro.graph.quality import ExactSearch, recall, sample_rows
from lowshot_kedro.graph.spaces import COSINE, Space

from .making import graph_of, threads
from .truth import clustered_vectors, dense_graph, random_vectors, similarities_of

NONE = -np.inf


@pytest.mark.parametrize(
    ("found", "wanted", "expected"),
    [
        ([1, 0.9, 0.8], [1, 0.9, 0.8], 1),
        ([1, 0.9, 0.7], [1, 0.9, 0.8], 2 / 3),
        ([0.7, 0.6, 0.5], [1, 0.9, 0.8], 0),
        # Another one that is as similar as the third, and one that is so but for rounding.
        ([1, 0.8, 0.8], [1, 0.9, 0.8], 1),
        ([1, 0.9, 0.7999995], [1, 0.9, 0.8], 1),
        ([1, 0.9, 0.79999], [1, 0.9, 0.8], 2 / 3),
        # The order of what is found does not matter, and what comes after the third does not count.
        ([0.8, 1, 0.9], [1, 0.9, 0.8], 1),
        ([1, 0.9, 0.7, 0.8], [1, 0.9, 0.8, 0.8], 2 / 3),
        # Missing ones.
        ([1, NONE, NONE], [1, 0.9, 0.8], 1 / 3),
        ([1, 0.9, NONE], [1, 0.9, NONE], 1),
        ([1, NONE, NONE], [1, 0.9, NONE], 1 / 2),
        ([1, 0.9, 0.9], [1, 0.9, NONE], 1),
        ([NONE] * 3, [NONE] * 3, 1),
        # All equal, and negative.
        ([1, 1, 1], [1, 1, 1], 1),
        ([0, 0, -0.1], [0, 0, 0], 2 / 3),
        ([-0.5, -0.6, -0.8], [-0.5, -0.6, -0.7], 2 / 3),
    ],
)
def test_recall_of_a_row(found, wanted, expected):
    rows = recall(np.array([found], np.float32), np.array([wanted], np.float32), 3)
    assert rows.tolist() == pytest.approx([expected])


def test_recall_of_rows():
    found = np.array([[1, 0.5], [1, 0.9], [0.1, NONE]], np.float32)
    wanted = np.array([[1, 0.9], [1, 0.9], [1, 0.9]], np.float32)
    assert recall(found, wanted, 2).tolist() == [0.5, 1, 0]
    assert recall(found, wanted, 1).tolist() == [1, 1, 0]
    assert recall(found[:0], wanted[:0], 2).shape == (0,)


@pytest.mark.parametrize("block_rows", [1, 7, 1024, 5000])
def test_exact_search_goes_block_by_block(block_rows):
    vectors, queries = random_vectors(2500), normalize(random_vectors(40, seed=1), 0, "q")
    exact = ExactSearch(queries, 6)
    directions = normalize(vectors, 0, "v")
    for first in range(0, len(vectors), block_rows):
        exact.add(directions[first : first + block_rows], first)
    similarities = similarities_of(queries, vectors)
    expected = np.argsort(-similarities, axis=1)[:, :6]
    np.testing.assert_array_equal(exact.indices, expected)
    values = np.take_along_axis(similarities, expected, axis=1)
    np.testing.assert_allclose(exact.similarities, values, atol=1e-6)


def test_exact_search_finds_no_more_than_there_are():
    queries = normalize(random_vectors(2), 0, "q")
    exact = ExactSearch(queries, 4)
    assert exact.indices.tolist() == [[-1] * 4] * 2
    exact.add(queries, 0)
    assert exact.indices.tolist() == [[0, 1, -1, -1], [1, 0, -1, -1]]
    assert (exact.similarities[:, 2:] == NONE).all()


def test_exact_search_keeps_those_of_earlier_blocks_among_equal_ones():
    queries = normalize(random_vectors(1), 0, "q")
    exact = ExactSearch(queries, 3)
    for first in (0, 2, 4):
        exact.add(np.repeat(queries, 2, axis=0), first)
    assert set(exact.indices[0, :2].tolist()) == {0, 1}
    assert exact.indices[0, 2] in (2, 3)


def test_sampled_rows_are_different_and_always_the_same():
    rows = sample_rows(1000, 50)
    assert len(np.unique(rows)) == 50
    assert (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(rows, sample_rows(1000, 50))
    assert sample_rows(20, 50).tolist() == list(range(20))
    assert sample_rows(0, 50).tolist() == []


def test_an_exact_graph_has_recall_1(monkeypatch):
    monkeypatch.setattr(vectors_module, "BLOCK_ROWS", 100)
    vectors = clustered_vectors(700)
    quality = measure_quality(dense_graph(vectors, 8), vectors, 8, 300)
    assert quality == {
        "recall": 1, "recall_error": 0, "worst_row_recall": 1, "rows_below_half": 0, "k": 8,
        "n_vectors": 700, "n_sampled": 300, "compared_with": "exact search over all vectors",
    }  # fmt: skip


def test_known_errors_are_found():
    vectors = random_vectors(400)
    graph = dense_graph(vectors, 40)
    indices = graph.indices[:, :4].copy()
    # Neighbours 30 and beyond are far from the first four.
    indices[:100, 3] = graph.indices[:100, 30]
    indices[100:200, 1:] = graph.indices[100:200, 31:34]
    indices[200:250, 2:] = -1
    indices[250:300, 1] = indices[250:300, 0]
    quality = measure_quality(KnnGraph(indices, graph.similarities[:, :4]), vectors, 4, 400)
    of_rows = np.repeat([0.75, 0.25, 0.5, 0.75, 1], [100, 100, 50, 50, 100])
    assert quality["recall"] == pytest.approx(of_rows.mean())
    assert quality["recall_error"] == pytest.approx(of_rows.std() / 20)
    assert quality["worst_row_recall"] == 0.25
    assert quality["rows_below_half"] == 100


def test_what_a_graph_says_of_its_similarities_does_not_count():
    vectors = random_vectors(200)
    graph = dense_graph(vectors, 5)
    flattered = KnnGraph(np.roll(graph.indices, 100, axis=0), np.ones((200, 5), np.float32))
    assert measure_quality(flattered, vectors, 5)["recall"] < 0.2
    modest = KnnGraph(graph.indices, np.zeros((200, 5), np.float32))
    assert measure_quality(modest, vectors, 5)["recall"] == 1


def test_the_figure_is_that_of_scikit_learn():
    vectors = clustered_vectors(2000, noise=1)
    graph = graph_of(vectors, 10, "IVF32,Flat")
    quality = measure_quality(graph, vectors, 10, 2000)
    model = NearestNeighbors(n_neighbors=10, metric="cosine", algorithm="brute").fit(vectors)
    expected = model.kneighbors(vectors, return_distance=False)
    common = [len(np.intersect1d(*pair)) for pair in zip(graph.indices, expected, strict=True)]
    assert 0.3 < np.mean(common) / 10 < 0.95
    assert quality["recall"] == pytest.approx(np.mean(common) / 10, abs=1e-3)
    of_sample = measure_quality(graph, vectors, 10, 500)
    error = of_sample["recall_error"]
    assert 0 < error < 0.03
    assert abs(of_sample["recall"] - quality["recall"]) < 4 * error


def test_duplicates_are_as_good_as_each_other():
    vectors = random_vectors(300)
    vectors[:50] = vectors[0]
    indices = dense_graph(vectors, 5).indices
    # Other ones of the fifty.
    indices[:50] = np.arange(45, 50)
    graph = KnnGraph(indices, np.zeros((300, 5), np.float32))
    assert measure_quality(graph, vectors, 5)["recall"] == 1


def test_more_neighbors_than_vectors_and_no_vectors():
    vectors = random_vectors(3)
    assert measure_quality(dense_graph(vectors, 5), vectors, 5)["recall"] == 1
    nothing = np.empty((0, 16), np.float32)
    empty = KnnGraph(np.empty((0, 5), np.int32), np.empty((0, 5), np.float32))
    quality = measure_quality(empty, nothing, 5)
    assert (quality["recall"], quality["n_sampled"]) == (1, 0)


def test_the_number_of_threads_changes_nothing():
    vectors = clustered_vectors(3000)
    graph = graph_of(vectors, 10, "IVF32,Flat")
    found = []
    for count in (1, 3):
        with threads(count):
            found.append(measure_quality(graph, vectors, 10, 500))
    assert found[0] == found[1]


def test_the_figure_is_logged(caplog):
    vectors = random_vectors(60)
    with caplog.at_level(logging.INFO):
        measure_quality(dense_graph(vectors, 4), vectors, 4, 20)
    assert "recall@4 against exact search: 1.0000 ± 0.0000 (20 of 60 rows, wo" in caplog.text


@pytest.mark.parametrize("row", [3, 1999])
def test_nan_is_refused_with_its_row(row):
    vectors = random_vectors(2000)
    graph = dense_graph(vectors[:10], 4)
    graph = KnnGraph(np.resize(graph.indices, (2000, 4)), np.resize(graph.similarities, (2000, 4)))
    vectors[row, 0] = np.nan
    # Whether or not the row is one of the sample.
    for n_sampled in (2, 1999):
        with pytest.raises(ValueError, match=rf"background_vectors: found NaN .* numbers {row};"):
            measure_quality(graph, vectors, 4, n_sampled)


def test_distances_count_as_equal_if_they_differ_by_less_than_a_millionth_of_them():
    space = Space(np.zeros(3, np.float32))
    wanted = np.array([[-1e-9, -2e-9], [-1e9, -2e9], [0, 0]], np.float32)
    found = np.array([[-1e-9, -2.1e-9], [-1e9, -2.000001e9], [0, -1e-30]], np.float32)
    assert recall(found, wanted, 2, space).tolist() == [0.5, 1, 0.5]


@pytest.mark.parametrize("space", [COSINE, Space(np.zeros(16, np.float32))])
def test_a_comparison_is_cut_into_short_calls(monkeypatch, space):
    """Calls of faiss in other threads cannot be stopped; what is found is the same."""
    vectors = random_vectors(5000, 16)
    queries = vectors[:300] + np.float32(0.1)
    sizes = []
    knn = faiss.knn

    def measured(few, many, k, **options):
        sizes.append(few.size * len(many))
        return knn(few, many, k, **options)

    most = 100 * 1024 * 16
    monkeypatch.setattr(threads_module, "MAX_MULTIPLICATIONS", most)
    monkeypatch.setattr(faiss, "knn", measured)
    search = ExactSearch(queries, 7, space)
    for first in range(0, 5000, 2500):
        search.add(vectors[first : first + 2500], first)
    assert sum(sizes) == queries.size * len(vectors)
    assert max(sizes) <= most
    sizes.clear()
    kind = faiss.IndexFlatL2 if space.is_euclidean else faiss.IndexFlatIP
    index = kind(16)
    index.add(vectors)
    found = index_module.search(index, queries, 7)
    assert sum(sizes) == queries.size * len(vectors)
    assert max(sizes) <= most
    similarities = (
        -cdist(queries, vectors, "sqeuclidean") if space.is_euclidean else queries @ vectors.T
    )
    wanted = np.argsort(-similarities, axis=1)[:, :7]
    for indices in (search.indices, found.indices):
        np.testing.assert_array_equal(indices, wanted)
    np.testing.assert_allclose(
        found.similarities, np.take_along_axis(similarities, wanted, axis=1), rtol=1e-4, atol=1e-4
    )
