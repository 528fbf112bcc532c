from types import SimpleNamespace

import faiss
import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from lowshot_kedro.graph import build_index, index_in_memory, normalize, search
from lowshot_kedro.graph import index as index_module
from lowshot_kedro.graph import vectors as vectors_module
from lowshot_kedro.graph.index import Assignment, assign_to_lists, on_gpus
from lowshot_kedro.graph.workspace import MemoryBudget, Workspace

from .making import same_bits, threads
from .truth import (
    assert_nearest,
    clustered_vectors,
    random_vectors,
    recall_of,
    similarities_of,
    unit,
)

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


def files_with_threads(monkeypatch, method, count):
    """All arrays of an index built by so many threads, and what a search in it finds."""
    monkeypatch.setattr(vectors_module, "BLOCK_ROWS", 500)
    vectors = clustered_vectors(5000, 24)
    with threads(count):
        index = index_in_memory(vectors, method)
        found = search(index, normalize(vectors, 0, "v"), 8)
    return [faiss.serialize_index(index), *found]


@pytest.mark.parametrize("method", ["exact", "ivf", "IVF16,Flat", "HNSW8"])
def test_index_and_results_do_not_depend_on_the_number_of_threads(monkeypatch, method):
    alone = files_with_threads(monkeypatch, method, 1)
    for count in (2, 3):
        assert same_bits(files_with_threads(monkeypatch, method, count), alone)


# --- inverted file ---


@pytest.mark.parametrize("block_rows", [300, 16384])
def test_an_inverted_file_finds_nearly_what_exact_search_finds(monkeypatch, block_rows):
    monkeypatch.setattr(index_module, "BLOCK_ROWS", block_rows)
    monkeypatch.setattr(index_module, "QUERY_ROWS", block_rows)
    vectors = random_vectors(1000)
    index = index_in_memory(vectors, "ivf", target_recall=0.95)
    assert isinstance(index, faiss.IndexIVFFlat)
    assert (index.ntotal, index.nlist) == (1000, 4 * 31)
    assert 1 < index.nprobe < index.nlist
    queries = normalize(vectors, 0, "v")
    found = search(index, queries, 5)
    np.testing.assert_array_equal(found.indices[:, 0], np.arange(1000))
    np.testing.assert_allclose(found.similarities[:, 0], 1, atol=1e-5)
    assert recall_of(found.indices, vectors, vectors, 5) > 0.95


def test_every_vector_stands_in_one_list_as_it_is():
    vectors = random_vectors(700)
    index = index_in_memory(vectors, "ivf")
    index.make_direct_map()
    np.testing.assert_allclose(index.reconstruct_n(0, 700), unit(vectors), atol=1e-6)
    numbers = [
        faiss.rev_swig_ptr(index.invlists.get_ids(i), index.invlists.list_size(i)).tolist()
        for i in range(index.nlist)
        if index.invlists.list_size(i)
    ]
    assert sorted(number for part in numbers for number in part) == list(range(700))
    assert all(part == sorted(part) for part in numbers)


def test_a_higher_recall_takes_more_lists():
    vectors = random_vectors(2000)
    probes = [index_in_memory(vectors, "ivf", recall).nprobe for recall in (0.5, 0.9, 0.99, 1)]
    assert probes == sorted(probes)
    assert probes[0] < probes[-1]


def test_lists_are_the_same_where_nobody_asks_how_many_to_look_through(tmp_path):
    vectors = np.random.default_rng(4).standard_normal((3000, 24)).astype(np.float32)
    workspace = Workspace(tmp_path, MemoryBudget(None))
    asked, other = (assign_to_lists(vectors, recall, workspace, "X") for recall in (0.9, None))
    assert same_bits(asked.centroids, other.centroids)
    assert same_bits(asked.lists, other.lists)
    # Whoever does not say it himself looks through all.
    assert asked.n_probe < len(asked.centroids) == other.n_probe


@pytest.mark.parametrize(
    ("n_vectors", "n_lists"),
    [(0, 1), (1, 1), (7, 1), (8, 2), (100, 25), (10_000, 400), (10**6, 4000), (10**8, 312_500)],
)
def test_lists_hold_4_to_320_vectors_on_average(n_vectors, n_lists):
    assert index_module.n_lists_for(n_vectors) == n_lists


@pytest.mark.parametrize("left", [0, 100_000, 10**6])
@pytest.mark.parametrize("rows_at_a_time", [1, 130, 10_000])
def test_the_lists_are_the_same_however_many_fit_in_memory(
    monkeypatch, tmp_path, rows_at_a_time, left
):
    vectors = clustered_vectors(1000)
    n_lists, row_bytes = 30, 4 * 32 + 8
    lists = np.random.default_rng(0).integers(0, n_lists // 2, 1000).astype(np.int32) * 2
    sizes = np.bincount(lists, minlength=n_lists)
    inverse_lengths = (1 / np.linalg.norm(vectors, axis=1)).astype(np.float32)
    monkeypatch.setattr(index_module, "BLOCK_ROWS", 70)
    monkeypatch.setattr(MemoryBudget, "left", left)
    assigned = Assignment(np.zeros((n_lists, 32), np.float32), lists, 1, inverse_lengths)
    workspace = Workspace(tmp_path, MemoryBudget())
    blocks = list(
        index_module._list_blocks(vectors, assigned, workspace, rows_at_a_time * row_bytes)
    )
    # With room for all vectors, blocks are of whole lists; else rows are read once, in order.
    is_short = left < 10**6
    if is_short:
        most = max(rows_at_a_time, left // 3 // row_bytes)
        ends = np.cumsum([len(block.numbers) for block in blocks])
        for first, last, block in zip([0, *ends[:-1]], ends, blocks, strict=True):
            assert sorted(block.numbers) == list(range(first, last))
    else:
        most = max(rows_at_a_time, sizes.max())
        assert all(((block.counts == 0) | (block.counts == sizes)).all() for block in blocks)
    assert all(0 < len(block.numbers) <= most for block in blocks)
    assert (len(blocks) == 1) == (most >= 1000)
    of_lists = [[] for _ in range(n_lists)]
    for block in blocks:
        for number, rows in block.parts():
            of_lists[number] += block.numbers[rows].tolist()
            expected = unit(vectors)[block.numbers[rows]]
            np.testing.assert_allclose(block.vectors[rows], expected, atol=1e-6)
    assert of_lists == [np.flatnonzero(lists == number).tolist() for number in range(n_lists)]


def test_an_inverted_file_is_the_same_where_memory_is_short(monkeypatch):
    vectors = clustered_vectors(2000)
    enough = index_in_memory(vectors, "ivf")
    monkeypatch.setattr(MemoryBudget, "left", 0)
    short = index_in_memory(vectors, "ivf")
    assert same_bits([faiss.serialize_index(short)], [faiss.serialize_index(enough)])


def test_what_an_index_follows_from_is_noted():
    vectors = random_vectors(100)
    note = build_index(vectors, "ivf", 0.9).provenance
    assert note["kind"] == "index"
    assert note["method"] == "inverted file"
    assert note["n_lists"] == 25
    assert note["target_recall"] == 0.9
    assert (note["vectors"]["n_rows"], note["vectors"]["n_columns"]) == (100, 16)
    assert build_index(vectors, "descent", 0.9).provenance == note
    changed = vectors.copy()
    changed[50, 3] += 1
    for other in (
        build_index(changed, "ivf", 0.9),
        build_index(vectors, "ivf", 0.8),
        build_index(vectors, "exact", 0.9),
        build_index(vectors, "HNSW8", 0.9),
    ):
        assert other.provenance != note


def test_an_index_that_cannot_be_trained_says_what_to_do():
    message = (
        r"method: faiss cannot train 'IVF16,Flat' on 9 vectors of v \(Number of training "
        r"points \(9\) should be .*\); use a smaller one, or exact"
    )
    with pytest.raises(ValueError, match=message):
        index_in_memory(random_vectors(9), "IVF16,Flat", name="v")


# --- faults ---


@pytest.mark.parametrize("row", [0, 1234, 19_999])
@pytest.mark.parametrize("method", ["exact", "ivf", "HNSW4", "IVF16,Flat"])
def test_nan_is_refused_with_its_row(method, row):
    vectors = np.random.default_rng(0).standard_normal((20_000, 4)).astype(np.float32)
    vectors[row, 0] = np.nan
    message = rf"^background_vectors: found NaN or infinite .* in 1 row\(s\), numbers {row};"
    with pytest.raises(ValueError, match=message):
        index_in_memory(vectors, method)


@pytest.mark.parametrize("method", ["exact", "ivf"])
def test_all_bad_rows_are_named_at_once(monkeypatch, method):
    monkeypatch.setattr(vectors_module, "BLOCK_ROWS", 10)
    vectors = random_vectors(64)
    vectors[[3, 37, 60], 0] = np.nan, np.inf, -np.inf
    with pytest.raises(ValueError, match=r"v: found NaN .* 3 row\(s\), numbers 3, 37, 60;"):
        index_in_memory(vectors, method, name="v")


def test_more_rows_than_node_numbers_are_refused():
    too_many = np.broadcast_to(np.float32(0), (2**31, 4))
    with pytest.raises(ValueError, match="v: 2147483648 rows, expected at most 2147483647"):
        build_index(too_many, "exact", name="v")


# --- GPU ---


# The vectors of the index take 64 000 bytes.
@pytest.mark.parametrize(
    ("free", "moves", "in_parts"),
    [(10_000, False, None), (60_000, True, True), (1_000_000, True, False)],
)
def test_an_index_moves_to_the_gpus_only_where_it_fits(monkeypatch, free, moves, in_parts):
    index = index_in_memory(random_vectors(1000), "exact")
    moved = []

    def move(_, options):
        moved.append(options.shard)
        return moved

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 2)
    monkeypatch.setattr(faiss, "GpuMultipleClonerOptions", SimpleNamespace, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_all_gpus", move, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda gpu: ([10**9, free][gpu], 10**9))
    assert on_gpus(index) is (moved if moves else index)
    assert moved == ([in_parts] if moves else [])


def test_an_index_stays_where_there_is_no_gpu(monkeypatch):
    index = index_in_memory(random_vectors(10), "exact")
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    assert on_gpus(index) is index
