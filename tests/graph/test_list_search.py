import faiss
import numpy as np
import pytest

from lowshot_kedro.graph import index_in_memory, normalize
from lowshot_kedro.graph import list_search as list_search_module
from lowshot_kedro.graph.list_search import Division, ListSearch, division_of, is_divided
from lowshot_kedro.graph.workspace import MemoryBudget, Workspace

from .making import same_bits
from .truth import assert_nearest, clustered_vectors, random_vectors, recall_of, similarities_of


def division(offsets, numbers):
    return Division(
        np.zeros((len(offsets) - 1, 4), np.float32),
        np.array(offsets, np.int64),
        np.array(numbers, np.int32),
        1,
    )


def search_over(vectors, folder, n_probe=None):
    index = index_in_memory(vectors, "ivf")
    if n_probe:
        index.nprobe = n_probe
    workspace = Workspace(folder, MemoryBudget())
    return ListSearch.of(vectors, division_of(index), workspace, "v")


# --- division ---


def test_positions_are_where_the_numbers_are():
    divided = division([0, 2, 2, 5], [3, 0, 4, 1, 2])
    assert divided.positions.tolist() == [1, 3, 4, 0, 2]
    np.testing.assert_array_equal(divided.numbers[divided.positions], np.arange(5))


@pytest.mark.parametrize(
    ("offsets", "expected"),
    [
        ([0, 2, 5], [0, 0, 1, 1, 1]),
        ([0, 0, 0, 5], [2, 2, 2, 2, 2]),
        ([0, 5, 5, 5], [0, 0, 0, 0, 0]),
        ([0, 1, 1, 1, 4, 4, 5, 5], [0, 3, 3, 3, 5]),
    ],
)
def test_every_position_has_its_list_also_beside_empty_ones(offsets, expected):
    divided = division(offsets, range(5))
    assert divided.lists(0, 5).tolist() == expected
    assert divided.lists(1, 4).tolist() == expected[1:4]
    assert divided.lists(3, 3).tolist() == []


def test_the_division_is_that_of_the_index():
    vectors = clustered_vectors(600)
    index = index_in_memory(vectors, "ivf")
    index.nprobe = 7
    divided = division_of(index)
    assert divided.n_probe == 7
    np.testing.assert_array_equal(divided.centroids, index.quantizer.reconstruct_n(0, index.nlist))
    for number in range(index.nlist):
        size = index.invlists.list_size(number)
        first, last = divided.offsets[number : number + 2]
        assert last - first == size
        if size:
            expected = faiss.rev_swig_ptr(index.invlists.get_ids(number), size)
            np.testing.assert_array_equal(divided.numbers[first:last], expected)


def test_lists_that_are_empty_have_no_numbers():
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(4), 4, 5, faiss.METRIC_INNER_PRODUCT)
    index.train(normalize(random_vectors(5, 4), 0, "v"))
    divided = division_of(index)
    assert divided.offsets.tolist() == [0] * 6
    assert divided.numbers.tolist() == []
    assert divided.stored is None


@pytest.mark.parametrize("numbers", [[0, 1, 2, 4], [0, 1, 1, 2], [-1, 0, 1, 2], [0, 1, 2, 2**40]])
def test_other_numbers_than_those_of_rows_are_refused(numbers):
    vectors = normalize(random_vectors(4, 4), 0, "v")
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(4), 4, 1, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add_with_ids(vectors, np.array(numbers, np.int64))
    with pytest.raises(ValueError, match=r"background_index: its vectors are not numbered 0\.\.3;"):
        division_of(index)


@pytest.mark.parametrize(
    ("description", "expected"), [("IVF4,Flat", True), ("Flat", False), ("HNSW8", False)]
)
def test_only_an_inverted_file_is_divided(description, expected):
    assert is_divided(faiss.index_factory(4, description)) == expected


# --- search ---


@pytest.mark.parametrize("query_rows", [64, 65536])
def test_a_search_of_all_lists_finds_the_most_similar(monkeypatch, tmp_path, query_rows):
    monkeypatch.setattr(list_search_module, "QUERY_ROWS", query_rows)
    vectors, queries = random_vectors(800), random_vectors(200, seed=1)
    search = search_over(vectors, tmp_path)
    n_lists = len(search.division.centroids)
    found = search.search(normalize(queries, 0, "q"), 7, n_lists)
    assert_nearest(found.indices, similarities_of(queries, vectors), 7)


def test_more_lists_find_more(tmp_path):
    vectors, queries = clustered_vectors(2000, noise=1.5), clustered_vectors(300, seed=1)
    search = search_over(vectors, tmp_path, n_probe=3)
    directions = normalize(queries, 0, "q")
    recalls = [
        recall_of(search.search(directions, 8, n_probe).indices, queries, vectors, 8)
        for n_probe in (1, 3, 20, 1000)
    ]
    assert recalls == sorted(recalls)
    assert recalls[0] < 0.9
    assert recalls[-1] > 0.999
    assert same_bits(search.search(directions, 8), search.search(directions, 8, 3))


def test_one_search_finds_what_faiss_finds_in_the_same_lists(tmp_path):
    vectors, queries = clustered_vectors(2000), clustered_vectors(300, seed=1)
    index = index_in_memory(vectors, "ivf")
    index.nprobe = 5
    workspace = Workspace(tmp_path, MemoryBudget())
    search = ListSearch.of(vectors, division_of(index), workspace, "v")
    directions = normalize(queries, 0, "q")
    _, expected = index.search(directions, 8)
    found = search.search(directions, 8).indices
    common = [len(np.intersect1d(*pair)) for pair in zip(found, expected, strict=True)]
    assert np.mean(common) / 8 > 0.98


def test_more_lists_may_be_wanted_than_can_be_looked_through(tmp_path):
    vectors = random_vectors(9000, 8)
    sizes = np.arange(9001, dtype=np.int64)
    divided = Division(normalize(vectors, 0, "v"), sizes, np.arange(9000, dtype=np.int32), 9000)
    workspace = Workspace(tmp_path, MemoryBudget())
    search = ListSearch.of(vectors, divided, workspace, "v")
    found = search.search(normalize(vectors[:50], 0, "q"), 5)
    assert recall_of(found.indices, vectors[:50], vectors, 5) > 0.95


def test_codes_on_disk_find_the_same(monkeypatch, tmp_path):
    vectors = clustered_vectors(1500)
    queries = normalize(vectors[:300], 0, "q")
    divided = division_of(index_in_memory(vectors, "ivf"))
    workspace = Workspace(tmp_path, MemoryBudget())
    in_memory = ListSearch.of(vectors, divided, workspace, "v")
    assert not isinstance(in_memory.codes.values, np.memmap)
    monkeypatch.setattr(MemoryBudget, "left", 0)
    on_disk = ListSearch.of(vectors, divided, workspace, "v")
    assert isinstance(on_disk.codes.values, np.memmap)
    assert same_bits(on_disk.search(queries, 8), in_memory.search(queries, 8))


def test_no_queries_find_nothing(tmp_path):
    found = search_over(clustered_vectors(100), tmp_path).search(np.empty((0, 32), np.float32), 3)
    assert found.indices.shape == found.similarities.shape == (0, 3)
