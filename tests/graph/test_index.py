import faiss
import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from lowshot_kedro.graph import build_index, index_in_memory, methods, normalize, search, vectors
from lowshot_kedro.graph import index as index_module
from lowshot_kedro.graph.index import on_gpus

from .truth import assert_nearest, random_vectors, similarities_of, unit

# --- normalize ---


def test_rows_get_length_one_and_the_original_stays():
    vectors = random_vectors(20)
    before = vectors.copy()
    np.testing.assert_allclose(normalize(vectors, 0, "v"), unit(vectors), atol=1e-6)
    np.testing.assert_array_equal(vectors, before)


def test_a_zero_row_stays_zero():
    vectors = random_vectors(3)
    vectors[1] = 0
    assert not normalize(vectors, 0, "v")[1].any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_named_with_its_row_in_the_whole_matrix(value):
    vectors = random_vectors(5)
    vectors[3, 2] = value
    with pytest.raises(
        ValueError, match=r"vectors: found NaN or infinite .* 1 row\(s\), num.* 103"
    ):
        normalize(vectors, 100, "vectors")


def test_opposite_infinities_are_found():
    vectors = random_vectors(2)
    vectors[1, :2] = np.inf, -np.inf
    with pytest.raises(ValueError, match="numbers 1;"):
        normalize(vectors, 0, "vectors")


@pytest.mark.parametrize(
    "size",
    [1e-25, 1e-15, 1e15, 1e20],
)
def test_the_size_of_finite_numbers_does_not_matter(size):
    row = normalize(np.full((1, 16), size, dtype=np.float32), 0, "v")
    np.testing.assert_allclose(row, 1 / 4, rtol=1e-5)


def test_normalize_reads_a_transposed_view():
    wide = random_vectors(6, 9)
    np.testing.assert_allclose(normalize(wide.T, 0, "v"), unit(wide.T), atol=1e-6)


# --- exact search ---


@pytest.mark.parametrize("block_rows", [7, 16384])
def test_exact_search_finds_the_most_similar(monkeypatch, block_rows):
    monkeypatch.setattr(vectors_module, "BLOCK_ROWS", block_rows)
    vectors, queries = random_vectors(100), random_vectors(30, seed=1)
    index = index_in_memory(vectors, "exact")
    assert (index.ntotal, index.d) == (100, 16)
    found = search(index, normalize(queries, 0, "q"), 9)
    similarities = similarities_of(queries, vectors)
    assert_nearest(found.indices, similarities, 9)
    expected = np.take_along_axis(similarities, found.indices.astype(np.int64), axis=1)
    np.testing.assert_allclose(found.similarities, expected, atol=1e-6)
    assert found.similarities.dtype == np.float32


def test_exact_search_agrees_with_scikit_learn():
    vectors, queries = random_vectors(200), random_vectors(50, seed=1)
    found = search(index_in_memory(vectors, "exact"), normalize(queries, 0, "q"), 5)
    model = NearestNeighbors(n_neighbors=5, metric="cosine").fit(vectors)
    distances, indices = model.kneighbors(queries)
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_allclose(found.similarities, 1 - distances, atol=1e-5)


def test_search_pads_where_the_index_holds_fewer():
    vectors = random_vectors(3)
    found = search(index_in_memory(vectors, "exact"), normalize(vectors, 0, "v"), 5)
    assert (found.indices[:, 3:] == -1).all()
    assert (found.similarities[:, 3:] == -np.inf).all()
    assert [sorted(row) for row in found.indices[:, :3].tolist()] == [[0, 1, 2]] * 3
    assert (found.indices[:, 0] == range(3)).all()


@pytest.mark.parametrize("method", ["exact", "ivf", "auto"])
def test_an_empty_index_finds_nothing(method):
    index = index_in_memory(np.empty((0, 16), dtype=np.float32), method)
    assert (index.ntotal, index.d) == (0, 16)
    found = search(index, normalize(random_vectors(2), 0, "q"), 3)
    assert found.indices.tolist() == [[-1] * 3] * 2
    assert found.similarities.tolist() == [[-np.inf] * 3] * 2


def test_no_queries_find_nothing():
    found = search(index_in_memory(random_vectors(4), "exact"), np.empty((0, 16), np.float32), 3)
    assert found.indices.shape == found.similarities.shape == (0, 3)


def test_zero_vectors_are_similar_to_nothing():
    vectors = random_vectors(6)
    vectors[2] = 0
    found = search(index_in_memory(vectors, "exact"), normalize(vectors, 0, "v"), 6)
    assert not found.similarities[2].any()
    assert (found.similarities[found.indices == 2] == 0).all()


def test_results_do_not_depend_on_the_number_of_threads():
    vectors = random_vectors(3000, 24)
    queries = normalize(vectors, 0, "v")
    before = faiss.omp_get_max_threads()
    results = []
    try:
        for n_threads in (1, 3):
            faiss.omp_set_num_threads(n_threads)
            results.append(search(index_in_memory(vectors, "exact"), queries, 8))
    finally:
        faiss.omp_set_num_threads(before)
    np.testing.assert_array_equal(results[0].indices, results[1].indices)
    np.testing.assert_array_equal(results[0].similarities, results[1].similarities)


# --- inverted file ---


@pytest.mark.parametrize("block_rows", [300, 16384])
def test_an_inverted_file_finds_nearly_what_exact_search_finds(monkeypatch, block_rows):
    monkeypatch.setattr(vectors_module, "BLOCK_ROWS", block_rows)
    vectors = random_vectors(1000)
    index = index_in_memory(vectors, "ivf")
    assert isinstance(index, faiss.IndexIVFFlat)
    assert (index.ntotal, index.nlist) == (1000, 4 * 31)
    queries = normalize(vectors, 0, "v")
    found = search(index, queries, 5)
    np.testing.assert_array_equal(found.indices[:, 0], np.arange(1000))
    np.testing.assert_allclose(found.similarities[:, 0], 1, atol=1e-5)
    exact = search(index_in_memory(vectors, "exact"), queries, 5)
    common = [len(set(a) & set(b)) for a, b in zip(found.indices, exact.indices, strict=True)]
    assert np.mean(common) / 5 > 0.95


@pytest.mark.parametrize(("n_vectors", "n_lists"), [(1, 4), (3, 4), (5, 8), (11, 12)])
def test_too_few_vectors_for_an_inverted_file_are_refused(n_vectors, n_lists):
    message = (
        f"graph.method: got 'ivf', but v has only {n_vectors} rows for {n_lists} lists; use ex"
    )
    with pytest.raises(ValueError, match=message):
        index_in_memory(random_vectors(n_vectors), "ivf", name="v")


def test_auto_turns_to_an_inverted_file_when_there_are_many(monkeypatch):
    vectors = random_vectors(100)
    assert isinstance(index_in_memory(vectors), faiss.IndexFlat)
    monkeypatch.setattr(index_module, "_EXACT_BELOW", 100)
    assert isinstance(index_in_memory(vectors, "auto"), faiss.IndexIVFFlat)
    assert isinstance(index_in_memory(vectors[:99], "auto"), faiss.IndexFlat)


# --- faults ---


@pytest.mark.parametrize("method", ["exact", "ivf"])
def test_nan_is_refused_with_its_row(monkeypatch, method):
    monkeypatch.setattr(vectors_module, "BLOCK_ROWS", 10)
    vectors = random_vectors(64)
    vectors[37, 0] = np.nan
    with pytest.raises(ValueError, match=r"background_vectors: found NaN .* numbers 37;"):
        index_in_memory(vectors, method)


def test_more_rows_than_node_numbers_are_refused():
    too_many = np.broadcast_to(np.float32(0), (2**31, 4))
    with pytest.raises(ValueError, match="v: 2147483648 rows, expected at most 2147483647"):
        index_in_memory(too_many, "exact", name="v")


# --- GPU ---


@pytest.mark.parametrize(("free", "moves"), [(10_000, False), (1_000_000, True)])
def test_an_index_moves_to_the_gpus_only_where_it_fits(monkeypatch, free, moves):
    index = index_in_memory(random_vectors(1000), "exact")
    moved = object()
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 2)
    monkeypatch.setattr(faiss, "index_cpu_to_all_gpus", lambda _: moved, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda gpu: ([10**9, free][gpu], 10**9))
    assert on_gpus(index) is (moved if moves else index)


def test_an_index_stays_where_there_is_no_gpu(monkeypatch):
    index = index_in_memory(random_vectors(10), "exact")
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    assert on_gpus(index) is index
