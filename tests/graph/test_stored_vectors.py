"""An inverted file holds the vectors of the matrix, and what is ranked by them is true."""

import faiss
import numpy as np
import pytest

from lowshot_kedro import native
from lowshot_kedro.datasets import FaissIndexDataset
from lowshot_kedro.graph import background_graph, build_index, index_in_memory, normalize
from lowshot_kedro.graph import list_search as list_search_module
from lowshot_kedro.graph import stored_vectors as stored_vectors_module
from lowshot_kedro.graph.copies import Copies
from lowshot_kedro.graph.list_search import ListSearch, division_of
from lowshot_kedro.graph.workspace import MemoryBudget, Workspace

from .making import joined, same_bits
from .truth import assert_nearest, clustered_vectors, dense_graph, random_vectors, similarities_of


@pytest.fixture(params=["in memory", "in a file"])
def index_of(request, tmp_path):
    def make(vectors):
        if request.param == "in memory":
            return index_in_memory(vectors, "ivf")
        dataset = FaissIndexDataset(
            filepath=str(tmp_path / "vectors.index"), n_columns=vectors.shape[1]
        )
        dataset.save(build_index(vectors, "ivf"))
        return dataset.load()

    return make


def search_over(vectors, divided, folder):
    return ListSearch.of(vectors, divided, Workspace(folder, MemoryBudget()), "v")


def random_candidates(n_queries, n_positions, width, seed=0):
    rng = np.random.default_rng(seed)
    candidates = np.array([rng.permutation(n_positions)[:width] for _ in range(n_queries)])
    candidates[rng.random(candidates.shape) < 0.1] = -1
    return candidates.astype(np.int32)


def assert_ranked(found, queries, vectors, candidates, numbers, k):
    """The k best of the candidates, which are positions of these numbers."""
    similarities = similarities_of(queries, vectors)
    allowed = np.full(similarities.shape, -2.0)
    rows, columns = np.nonzero(candidates >= 0)
    chosen = numbers[candidates[rows, columns]]
    allowed[rows, chosen] = similarities[rows, chosen]
    assert_nearest(found.indices, allowed, k)
    expected = np.take_along_axis(similarities, found.indices.astype(np.int64), axis=1)
    np.testing.assert_allclose(found.similarities, expected, rtol=0, atol=2e-6)


def assert_nearly_true(graph, vectors, least):
    """All similarities are right, and at least this part of the neighbours."""
    similarities = similarities_of(vectors, vectors)
    expected = np.take_along_axis(similarities, graph.indices.astype(np.int64), axis=1)
    np.testing.assert_allclose(graph.similarities, expected, rtol=0, atol=1e-6)
    assert (np.diff(graph.similarities, axis=1) <= 0).all()
    k = graph.indices.shape[1]
    assert (graph.indices == dense_graph(vectors, k).indices).mean() > least


def test_stored_vectors_are_the_normalised_rows_list_after_list(index_of):
    vectors = random_vectors(700)
    vectors[5] = 0
    divided = division_of(index_of(vectors))
    expected = normalize(vectors, 0, "v")[divided.numbers]
    for positions in (np.arange(700), np.arange(300, 431), np.arange(3, 700, 5), np.arange(0)):
        found = divided.stored.take(positions)
        np.testing.assert_allclose(found, expected[positions], rtol=0, atol=1e-6)
    assert divided.stored.agree_with(vectors, "v")


def test_candidates_are_ranked_by_stored_vectors(index_of, tmp_path, monkeypatch):
    vectors, queries = random_vectors(700), normalize(random_vectors(90, seed=1), 0, "q")
    divided = division_of(index_of(vectors))
    search = search_over(vectors, divided, tmp_path)
    # Whoever looks at the rows of the matrix now finds something else.
    search.vectors = -vectors
    candidates = random_candidates(90, 700, 60)
    found = search.rank(queries, candidates, 9)
    assert_ranked(found, queries, vectors, candidates, divided.numbers, 9)
    expected = normalize(vectors, 0, "v")[divided.numbers[100:200]]
    np.testing.assert_allclose(search.queries_at(np.arange(100, 200)), expected, atol=1e-6)


def test_memory_is_given_back_where_it_is_short(index_of, tmp_path, monkeypatch):
    vectors, queries = random_vectors(700), normalize(random_vectors(90, seed=1), 0, "q")
    search = search_over(vectors, division_of(index_of(vectors)), tmp_path)
    candidates = random_candidates(90, 700, 60)
    expected = search.rank(queries, candidates, 9)
    monkeypatch.setattr(MemoryBudget, "left", 0)
    monkeypatch.setattr(list_search_module, "_FEW_CANDIDATES", 600)
    monkeypatch.setattr(list_search_module, "_MANY_STORED_CANDIDATES", 1200)
    released = []
    monkeypatch.setattr(stored_vectors_module, "release", released.append)
    is_mapped = search.division.stored.is_mapped
    for scattered, n_parts in ((True, 10), (False, 5)):
        released.clear()
        found = search.rank(queries, candidates, 9, scattered)
        assert same_bits(found, expected)
        assert len(released) == (n_parts if is_mapped else 0)


def test_vectors_without_their_copies_stand_where_the_others_leave_room(index_of, tmp_path):
    vectors = random_vectors(600)
    rows = np.arange(300, 600, 3, dtype=np.int32)
    vectors[rows] = vectors[rows % 7]
    divided = division_of(index_of(vectors)).without(Copies(600, rows, rows % 7))
    n_kept = 600 - len(rows)
    expected = normalize(vectors, 0, "v")[divided.numbers]
    for positions in (np.arange(n_kept), np.arange(99, 300), np.arange(1, n_kept, 7)):
        found = divided.stored.take(positions)
        np.testing.assert_allclose(found, expected[positions], rtol=0, atol=1e-6)
    search = search_over(vectors, divided, tmp_path)
    search.vectors = -vectors
    queries, candidates = normalize(vectors[:50], 0, "q"), random_candidates(50, n_kept, 40)
    found = search.rank(queries, candidates, 8)
    assert_ranked(found, queries, vectors, candidates, divided.numbers, 8)


@pytest.mark.parametrize("description", ["IVF8,PQ4", "IVF8,SQ8", "IVF8,SQfp16"])
def test_what_is_no_vector_is_not_ranked_by(description, tmp_path):
    vectors = clustered_vectors(2000, 16)
    index = faiss.index_factory(16, description, faiss.METRIC_INNER_PRODUCT)
    normalized = normalize(vectors, 0, "v")
    index.train(normalized)
    index.add(normalized)
    divided = division_of(index)
    assert divided.stored is None
    search = search_over(vectors, divided, tmp_path)
    queries, candidates = normalized[:40], random_candidates(40, 2000, 30)
    found = search.rank(queries, candidates, 6)
    assert_ranked(found, queries, vectors, candidates, divided.numbers, 6)


@pytest.mark.parametrize("change", ["others", "lengths", "rounded"])
def test_an_index_of_other_vectors_is_no_reason_to_rank_by_them(change, tmp_path, caplog):
    vectors = clustered_vectors(1000, 16)
    other = {
        "others": clustered_vectors(1000, 16, seed=1),
        "lengths": 2 * normalize(vectors, 0, "v"),
        "rounded": normalize(vectors, 0, "v").astype(np.float16).astype(np.float32),
    }[change]
    index = faiss.index_factory(16, "IVF8,Flat", faiss.METRIC_INNER_PRODUCT)
    index.train(normalize(vectors, 0, "v"))
    index.add(other)
    index.nprobe = 8
    graph = joined(background_graph(index, vectors, 5, "ivf"), 5)
    assert "the index holds other vectors than background_vectors" in caplog.text
    assert_nearly_true(graph, vectors, 0.9)


def test_the_graph_of_vectors_on_disk_is_the_true_one(tmp_path, monkeypatch):
    vectors = clustered_vectors(1500)
    dataset = FaissIndexDataset(filepath=str(tmp_path / "vectors.index"), n_columns=32)
    dataset.save(build_index(vectors, "descent"))
    graph = joined(background_graph(dataset.load(), vectors, 6, "descent", 0.999), 6)
    assert_nearly_true(graph, vectors, 0.998)
    # As little memory as there may be changes nothing.
    monkeypatch.setattr(MemoryBudget, "left", 0)
    assert same_bits(
        joined(background_graph(dataset.load(), vectors, 6, "descent", 0.999), 6), graph
    )


@pytest.mark.parametrize("width", [3, 10, 40, 300])
def test_candidates_that_are_surely_too_far_are_not_missed(tmp_path, width, monkeypatch):
    vectors = clustered_vectors(1500)
    search = search_over(vectors, division_of(index_in_memory(vectors, "ivf")), tmp_path)
    queries = search.queries_at(np.arange(1500))
    codes, _ = search.encoder.encode(queries)
    positions, scores = search.candidates(codes.values, len(search.division.centroids), width)
    compared = []
    rank_candidates = native.rank_candidates

    def rank(*arguments, **keywords):
        compared.append(int((arguments[3] >= 0).sum()))
        return rank_candidates(*arguments, **keywords)

    monkeypatch.setattr(native, "rank_candidates", rank)
    expected = search.rank(queries, positions, 8)
    n_all, compared[:] = sum(compared), []
    found = search.rank_likely(queries, codes.biases, positions, scores, 8)
    assert same_bits(found, expected)
    # Eight of each, and few others.
    n_few = 1500 * min(width, 8)
    assert n_few <= sum(compared) <= (n_all if width < 40 else n_few + 0.5 * (n_all - n_few))


def test_where_codes_mislead_every_candidate_is_ranked(monkeypatch):
    vectors = clustered_vectors(1500)
    index = index_in_memory(vectors, "ivf")
    expected = joined(background_graph(index, vectors, 6, "descent"), 6)
    ranked = []

    def rank_as_codes_say(search, queries, biases, positions, scores, k, scattered=False):
        ranked.append(len(queries))
        return search.rank(queries, np.ascontiguousarray(positions[:, :k]), k, scattered)

    monkeypatch.setattr(ListSearch, "rank_likely", rank_as_codes_say)
    assert same_bits(joined(background_graph(index, vectors, 6, "descent"), 6), expected)
    # The sample alone.
    assert ranked == [256]
