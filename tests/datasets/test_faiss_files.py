import gc
import os
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import numpy as np
import pytest

from lowshot_kedro.blocks import InvertedFile, ListBlock, Resumable
from lowshot_kedro.datasets import FaissIndexDataset, FaissTransformDataset
from lowshot_kedro.errors import InputError
from tests.datasets.helpers import (
    array_blocks,
    content_of,
    random_features,
    refused,
    refused_by_check_and_load,
)

VECTORS, _ = random_features(20, 4)
# Vectors of each list. Faiss has another form for files of which no more than half the lists are
# filled.
SIZES = {
    "all filled": [3, 9, 8],
    "some empty": [0, 5, 0, 7, 8],
    "one": [20],
    "one empty": [0],
    "half empty": [0, 12, 8, 0],
    "most empty": [0] * 7 + [20] + [0] * 12,
    "just over half": [0, 5, 5, 10, 0],
    "none filled": [0, 0, 0],
}


def file_of_lists(sizes, blocks=None, n_probe=2):
    """Numbers in descending order, so that they are not where the vectors stand."""
    numbers = np.arange(sum(sizes))[::-1].copy()
    whole = ListBlock(numbers, VECTORS[: len(numbers)], np.array(sizes))
    centroids = random_features(len(sizes), 4)[0]
    return InvertedFile(centroids, np.array(sizes), n_probe, blocks or (lambda: [whole]))


def as_faiss_makes_it(content: InvertedFile) -> faiss.IndexIVFFlat:
    quantizer = faiss.IndexFlatIP(4)
    quantizer.add(content.centroids)
    index = faiss.IndexIVFFlat(quantizer, 4, len(content.sizes), faiss.METRIC_INNER_PRODUCT)
    index.is_trained = True
    index.nprobe = content.n_probe
    (block,) = content.make()
    lists = np.repeat(np.arange(len(content.sizes)), content.sizes)
    index.add_core(
        len(lists), faiss.swig_ptr(block.vectors), faiss.swig_ptr(block.numbers),
        faiss.swig_ptr(lists),
    )  # fmt: skip
    return index


def written_by_faiss(index: faiss.Index) -> bytes:
    return faiss.serialize_index(index).tobytes()


@pytest.fixture
def index():
    index = faiss.IndexFlatIP(4)
    index.add(VECTORS)
    return index


@pytest.fixture
def transform():
    transform = faiss.PCAMatrix(4, 2, 0, True)
    transform.train(VECTORS)
    return transform


@pytest.fixture
def index_path(tmp_path, index):
    path = tmp_path / "ndis20.index"
    faiss.write_index(index, str(path))
    return path


@pytest.fixture
def transform_path(tmp_path, transform):
    path = tmp_path / "PCAR2.vt"
    faiss.write_VectorTransform(transform, str(path))
    return path


def test_plain_faiss_reads_an_index_that_is_written(tmp_path, index):
    path = tmp_path / "new folder" / "ndis20.index"
    FaissIndexDataset(filepath=str(path), n_columns=4).save(index)
    np.testing.assert_array_equal(faiss.read_index(str(path)).reconstruct_n(0, 20), VECTORS)


def test_reads_an_index_that_plain_faiss_writes(index_path):
    index = FaissIndexDataset(filepath=str(index_path), n_columns=4, n_rows=20).load()
    similarities, found = index.search(VECTORS[:3], 20)
    expected = VECTORS[:3] @ VECTORS.T
    np.testing.assert_allclose(similarities, -np.sort(-expected), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(expected, found, 1), similarities, rtol=1e-5)


@pytest.mark.parametrize("n_rows", [0, 1, 20])
def test_blocks_become_what_faiss_writes_for_a_flat_index(tmp_path, n_rows):
    path = tmp_path / "ndis.index"
    index = faiss.IndexFlatIP(4)
    index.add(VECTORS[:n_rows])
    blocks = array_blocks(VECTORS[: n_rows // 2], VECTORS[n_rows // 2 : n_rows])
    FaissIndexDataset(filepath=str(path), n_columns=4).save(blocks)
    assert path.read_bytes() == written_by_faiss(index)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("lists_per_block", [1, 2, 100])
def test_lists_become_what_faiss_writes_for_an_inverted_file(tmp_path, sizes, lists_per_block):
    path = tmp_path / "ndis.index"
    expected = as_faiss_makes_it(file_of_lists(sizes))
    (whole,) = file_of_lists(sizes).make()

    def blocks():
        for first in range(0, len(sizes), lists_per_block):
            rows = slice(sum(sizes[:first]), sum(sizes[: first + lists_per_block]))
            counts = np.zeros(len(sizes), int)
            counts[first : first + lists_per_block] = sizes[first : first + lists_per_block]
            yield ListBlock(whole.numbers[rows], whole.vectors[rows], counts)

    FaissIndexDataset(filepath=str(path), n_columns=4).save(file_of_lists(sizes, blocks))
    assert path.read_bytes() == written_by_faiss(expected)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("block_rows", [1, 6])
def test_parts_of_lists_become_the_same_file(tmp_path, sizes, block_rows):
    path = tmp_path / "ndis.index"
    (whole,) = file_of_lists(sizes).make()
    lists = np.repeat(np.arange(len(sizes)), sizes)
    # A list gets its vectors in order, whatever comes in between.
    order = np.random.default_rng(0).permutation(lists)
    rows = np.argsort(np.argsort(order, kind="stable"))

    def blocks():
        for first in range(0, len(rows), block_rows):
            of_block = np.sort(rows[first : first + block_rows])
            counts = np.bincount(lists[of_block], minlength=len(sizes))
            yield ListBlock(whole.numbers[of_block], whole.vectors[of_block], counts)

    FaissIndexDataset(filepath=str(path), n_columns=4).save(file_of_lists(sizes, blocks))
    assert path.read_bytes() == written_by_faiss(as_faiss_makes_it(file_of_lists(sizes)))


def test_both_forms_of_inverted_files_are_tried():
    forms = {written_by_faiss(as_faiss_makes_it(file_of_lists(sizes))) for sizes in SIZES.values()}
    assert (
        {b"full" in form for form in forms} == {b"sprs" in form for form in forms} == {True, False}
    )


def test_one_block_of_lists_is_in_memory_at_a_time(tmp_path):
    alive = []

    class Tracked(np.ndarray):
        pass

    def blocks():
        for number in range(20):
            assert not any(reference() is not None for reference in alive)
            vectors = VECTORS[number : number + 1].view(Tracked)
            alive.append(weakref.ref(vectors))
            block = ListBlock(np.array([number]), vectors, np.eye(20, dtype=int)[number])
            del vectors
            yield block
            del block

    dataset = FaissIndexDataset(filepath=str(tmp_path / "ndis20.index"), n_columns=4)
    dataset.save(file_of_lists([1] * 20, blocks))
    assert len(alive) == 20


@pytest.mark.parametrize(
    ("sizes", "counts", "facts"),
    [
        ([3, 9, 8], [[3, 0, 0], [0, 8, 0], [0, 0, 8]], ["got lists of 19 vectors; expected 20"]),
        ([3, 9], [[3, 5], [0, 5]], ["a block has 5 vectors of list 1; expected at most 4 more"]),
        ([3, 0, 8], [[0, 2, 0]], ["a block has 2 vectors of list 1; expected at most 0 more"]),
        ([3, 9, 8], [[3, 9, 0]], ["got lists of 12 vectors; expected 20"]),
        ([3, 0, 8], [], ["got lists of 0 vectors; expected 11"]),
        ([3, -1, 8], [[10]], ["got sizes of shape (3,), smallest -1; expected 3 sizes from 0"]),
    ],
    ids=["one is missing", "too many", "empty", "too few", "none", "negative size"],
)
def test_lists_that_are_not_what_they_announce_are_refused(tmp_path, sizes, counts, facts):
    path = tmp_path / "ndis.index"
    blocks = [
        ListBlock(np.arange(sum(each)), VECTORS[: sum(each)], np.array(each)) for each in counts
    ]
    with refused(ValueError, path, *facts):
        FaissIndexDataset(filepath=str(path), n_columns=4).save(
            file_of_lists(sizes, lambda: blocks)
        )
    assert content_of(tmp_path) == {}


@pytest.mark.parametrize(
    "block",
    [
        ListBlock(np.arange(19), VECTORS, np.array([20])),
        ListBlock(np.arange(20), VECTORS[:, :3], np.array([20])),
        ListBlock(np.arange(20), VECTORS, np.array([20, 0])),
    ],
)
def test_a_block_of_unequal_parts_is_refused(tmp_path, block):
    dataset = FaissIndexDataset(filepath=str(tmp_path / "ndis.index"), n_columns=4)
    with refused(ValueError, "ndis.index", "numbers of shape", "as many numbers as vectors"):
        dataset.save(file_of_lists([20], lambda: [block]))


@pytest.mark.parametrize(
    ("counts", "found"), [([9, 10], "of 19, smallest 9"), ([21, -1], "of 20, smallest -1")]
)
def test_a_block_with_wrong_counts_is_refused(tmp_path, counts, found):
    block = ListBlock(np.arange(20), VECTORS, np.array(counts))
    dataset = FaissIndexDataset(filepath=str(tmp_path / "ndis.index"), n_columns=4)
    with refused(ValueError, "ndis.index", f"a block of 20 vectors has counts {found}; expected"):
        dataset.save(file_of_lists([12, 8], lambda: [block]))


def test_vectors_of_another_dimension_are_not_written(tmp_path, index):
    path = tmp_path / "ndis.index"
    for data in (index, array_blocks(VECTORS), file_of_lists([20])):
        with refused(ValueError, path, "dimension 4, expected 5"):
            FaissIndexDataset(filepath=str(path), n_columns=5).save(data)
    assert content_of(tmp_path) == {}


def large_indexes():
    """Of so many vectors that searches in several threads overlap."""
    vectors, _ = random_features(5000, 32)
    flat = faiss.IndexFlatIP(32)
    flat.add(vectors)
    published = faiss.IndexIVFFlat(faiss.IndexFlatL2(32), 32, 50, faiss.METRIC_INNER_PRODUCT)
    published.train(vectors)
    published.add(vectors)
    published.nprobe = 7
    inverted = faiss.index_factory(32, "IVF50,Flat", faiss.METRIC_INNER_PRODUCT)
    inverted.train(vectors)
    inverted.add(vectors)
    inverted.nprobe = 7
    return {"flat": flat, "published": published, "inverted file": inverted}


@pytest.mark.parametrize("kind", ["flat", "published", "inverted file"])
def test_a_mapped_index_finds_what_an_index_in_memory_finds(tmp_path, kind):
    index = large_indexes()[kind]
    path = tmp_path / "ndis5000.index"
    faiss.write_index(index, str(path))
    path.chmod(0o444)
    mapped = FaissIndexDataset(filepath=str(path), n_columns=32, n_rows=5000).load()
    gc.collect()
    queries, _ = random_features(400, 32)
    expected = index.search(queries, 9)
    for found, wanted in zip(mapped.search(queries, 9), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)

    with ThreadPoolExecutor(4) as pool:
        parts = [*pool.map(lambda part: mapped.search(part, 9), np.split(queries, 8))]
    np.testing.assert_array_equal(np.concatenate([part[1] for part in parts]), expected[1])

    assert written_by_faiss(mapped) == path.read_bytes()
    # It may be saved where it comes from.
    FaissIndexDataset(filepath=str(path), n_columns=32).save(mapped)
    assert written_by_faiss(faiss.read_index(str(path))) == written_by_faiss(index)
    np.testing.assert_array_equal(mapped.search(queries, 9)[1], expected[1])


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
@pytest.mark.parametrize("kind", ["flat", "inverted file"])
def test_loading_an_index_does_not_read_its_vectors(tmp_path, kind):
    path = tmp_path / "ndis.index"
    dataset = FaissIndexDataset(filepath=str(path), n_columns=4)
    n_rows = 4_000_000
    zeros = np.zeros((n_rows, 4), dtype=np.float32)
    if kind == "flat":
        dataset.save(array_blocks(zeros))
    else:
        sizes = np.full(10, n_rows // 10)
        lists = ListBlock(np.arange(n_rows), zeros, sizes)
        dataset.save(InvertedFile(VECTORS[:10], sizes, 1, lambda: [lists]))
        del lists
    del zeros
    gc.collect()
    before = resident_bytes()
    index = dataset.load()
    assert index.ntotal == n_rows
    assert resident_bytes() - before < path.stat().st_size / 4
    assert index.search(VECTORS[:1], 1)[0] == 0


def test_reads_an_index_of_another_kind(tmp_path):
    other = faiss.index_factory(4, "HNSW8", faiss.METRIC_INNER_PRODUCT)
    other.add(VECTORS)
    path = tmp_path / "ndis20.index"
    faiss.write_index(other, str(path))
    dataset = FaissIndexDataset(filepath=str(path), n_columns=4)
    assert isinstance(dataset.load(), faiss.IndexHNSW)
    assert "IndexHNSW" in str(dataset.preview())


def faiss_index(description, metric=faiss.METRIC_INNER_PRODUCT, is_trained=True):
    index = faiss.index_factory(4, description, metric)
    if is_trained:
        index.train(VECTORS)
        if isinstance(index, faiss.IndexIDMap):
            index.add_with_ids(VECTORS, np.arange(20))
        else:
            index.add(VECTORS)
    return index


KINDS = [
    "Flat", "IVF2,Flat", "HNSW8", "SQ8", "IVF2,SQ8", "PCA2,Flat", "L2norm,IVF2,Flat",
    "IDMap,Flat", "Flat,RFlat", "IVF2_HNSW4,Flat",
]  # fmt: skip


@pytest.mark.parametrize("description", KINDS)
def test_an_index_of_inner_products_of_any_kind_is_read(tmp_path, description):
    path = tmp_path / "ndis20.index"
    dataset = FaissIndexDataset(filepath=str(path), n_columns=4, n_rows=20)
    faiss.write_index(faiss_index(description), str(path))
    dataset.check()
    assert dataset.load().ntotal == 20


@pytest.mark.parametrize("description", KINDS)
def test_an_index_of_distances_is_refused(tmp_path, description):
    path = tmp_path / "ndis20.index"
    faiss.write_index(faiss_index(description, faiss.METRIC_L2), str(path))
    dataset = FaissIndexDataset(filepath=str(path), n_columns=4)
    refused_by_check_and_load(
        dataset, InputError, path, "by METRIC_L2", "expected METRIC_INNER_PRODUCT"
    )


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        (faiss.METRIC_L1, "METRIC_L1"),
        (faiss.METRIC_Linf, "METRIC_Linf"),
        (faiss.METRIC_Canberra, "metric 20"),
    ],
)
def test_an_index_of_yet_another_metric_is_refused(tmp_path, metric, name):
    path = tmp_path / "ndis20.index"
    index = faiss.IndexFlat(4, metric)
    index.add(VECTORS)
    faiss.write_index(index, str(path))
    dataset = FaissIndexDataset(filepath=str(path), n_columns=4)
    refused_by_check_and_load(dataset, InputError, path, f"by {name}", "METRIC_INNER_PRODUCT")


@pytest.mark.parametrize("description", ["IVF2,Flat", "SQ8", "PCA2,Flat", "IVF2,SQ8"])
def test_an_untrained_index_is_refused(tmp_path, description):
    path = tmp_path / "ndis20.index"
    index = faiss_index(description, is_trained=False)
    # As if it held them.
    index.ntotal = 20
    faiss.write_index(index, str(path))
    dataset = FaissIndexDataset(filepath=str(path), n_columns=4, n_rows=20)
    refused_by_check_and_load(dataset, InputError, path, "is not trained")


def other_metric_within(index):
    faiss.downcast_index(index.index).metric_type = faiss.METRIC_L2


def untrained_within(index):
    index.index.is_trained = False


def untrained_transform_within(index):
    index.chain.at(0).is_trained = False


def fewer_within(index):
    faiss.downcast_index(index.index).reset()
    index.ntotal = 20


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (other_metric_within, "by METRIC_L2"),
        (untrained_within, "is not trained"),
        (untrained_transform_within, "is not trained"),
        (fewer_within, "within holds 0"),
    ],
)
def test_what_is_wrong_within_another_index_is_found(tmp_path, change, found):
    path = tmp_path / "ndis20.index"
    index = faiss_index("PCA2,Flat")
    change(index)
    faiss.write_index(index, str(path))
    with refused(InputError, path, found):
        FaissIndexDataset(filepath=str(path), n_columns=4, n_rows=20).load()


@pytest.mark.parametrize(
    "numbers", [np.arange(20) + 10**12, np.arange(20)[::-1], np.zeros(20, int)]
)
def test_an_index_that_numbers_its_vectors_in_another_way_is_refused(tmp_path, numbers):
    path = tmp_path / "ndis20.index"
    index = faiss.IndexIDMap(faiss.IndexFlatIP(4))
    index.add_with_ids(VECTORS, numbers.copy())
    faiss.write_index(index, str(path))
    with refused(InputError, path, "not numbered 0..19"):
        FaissIndexDataset(filepath=str(path), n_columns=4).load()


def test_an_inverted_file_with_too_few_centroids_is_refused(tmp_path):
    path = tmp_path / "ndis20.index"
    index = faiss_index("IVF2,Flat")
    faiss.downcast_index(index.quantizer).reset()
    faiss.write_index(index, str(path))
    with refused(InputError, path, "0 centroids of dimension 4, expected 2"):
        FaissIndexDataset(filepath=str(path), n_columns=4).load()


def test_an_index_of_binary_vectors_is_refused(tmp_path):
    path = tmp_path / "ndis20.index"
    index = faiss.IndexBinaryFlat(32)
    index.add(np.zeros((20, 4), np.uint8))
    faiss.write_index_binary(index, str(path))
    dataset = FaissIndexDataset(filepath=str(path), n_columns=4)
    refused_by_check_and_load(dataset, InputError, path, "binary vectors")


def test_an_empty_index_where_vectors_are_needed_is_refused(tmp_path):
    path = tmp_path / "ndis20.index"
    faiss.write_index(faiss.IndexFlatIP(4), str(path))
    dataset = FaissIndexDataset(filepath=str(path), n_columns=4, n_rows=20)
    refused_by_check_and_load(dataset, InputError, path, "holds 0 vectors")


@pytest.mark.parametrize(
    "make",
    [
        lambda: faiss.PCAMatrix(4, 2),
        lambda: faiss.PCAMatrix(4, 2, 0, True),
        lambda: faiss.OPQMatrix(4, 2),
        lambda: faiss.RandomRotationMatrix(4, 2),
    ],
)
def test_an_untrained_transform_is_refused(tmp_path, make):
    path = tmp_path / "PCAR2.vt"
    transform = make()
    transform.is_trained = False
    faiss.write_VectorTransform(transform, str(path))
    refused_by_check_and_load(
        FaissTransformDataset(filepath=str(path)), InputError, path, "is not trained"
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("part", ["A", "b"])
def test_a_transform_that_gives_no_numbers_is_refused(tmp_path, part, value):
    path = tmp_path / "PCAR2.vt"
    transform = faiss.PCAMatrix(4, 2)
    transform.train(VECTORS)
    numbers = faiss.vector_to_array(getattr(transform, part))
    numbers[1] = value
    faiss.copy_array_to_vector(numbers, getattr(transform, part))
    faiss.write_VectorTransform(transform, str(path))
    refused_by_check_and_load(
        FaissTransformDataset(filepath=str(path)), InputError, path, "NaN or infinite values"
    )


def test_zero_rows_need_no_index_file(tmp_path):
    dataset = FaissIndexDataset(filepath=str(tmp_path / "none.index"), n_columns=4, n_rows=0)
    dataset.check()
    index = dataset.load()
    assert dataset.exists()
    assert (index.ntotal, index.d, index.metric_type) == (0, 4, faiss.METRIC_INNER_PRODUCT)


def test_missing_files(tmp_path):
    path = tmp_path / "absent"
    for dataset in (
        FaissIndexDataset(filepath=str(path), n_columns=4),
        FaissTransformDataset(filepath=str(path)),
    ):
        assert not dataset.exists()
        refused_by_check_and_load(dataset, FileNotFoundError, path)


@pytest.mark.parametrize("kept", [0, 3, 30, 200])
def test_a_truncated_index(index_path, kept):
    index_path.write_bytes(index_path.read_bytes()[:kept])
    with refused(ValueError, index_path, "not a readable faiss index", "cut off"):
        FaissIndexDataset(filepath=str(index_path), n_columns=4).load()


@pytest.mark.parametrize("name", ["all filled", "most empty", "one empty"])
def test_an_inverted_file_that_is_cut_off_anywhere(tmp_path, name):
    # It would end the process when the missing part is searched.
    path = tmp_path / "ndis20.index"
    content = written_by_faiss(as_faiss_makes_it(file_of_lists(SIZES[name])))
    dataset = FaissIndexDataset(filepath=str(path), n_columns=4)
    path.write_bytes(content)
    dataset.check()
    for kept in range(len(content)):
        path.write_bytes(content[:kept])
        with refused(ValueError, path, "not a readable faiss index; is it cut off?"):
            dataset.check()
    with refused(ValueError, f"It has {kept} bytes, expected at least {len(content)}"):
        dataset.load()


def test_an_inverted_file_with_parts_that_are_not_known_here_is_read_whole(tmp_path):
    path = tmp_path / "ndis20.index"
    dataset = FaissIndexDataset(filepath=str(path), n_columns=4)
    by_graph = faiss.index_factory(4, "IVF2_HNSW4,Flat", faiss.METRIC_INNER_PRODUCT)
    by_graph.train(VECTORS)
    by_graph.add(VECTORS)
    reconstructing = as_faiss_makes_it(file_of_lists([12, 8]))
    reconstructing.make_direct_map()
    for index in (by_graph, reconstructing):
        faiss.write_index(index, str(path))
        found = dataset.load()
        assert not hasattr(found, "referenced_objects")
        for part, wanted in zip(found.search(VECTORS, 3), index.search(VECTORS, 3), strict=True):
            np.testing.assert_array_equal(part, wanted)


def test_an_index_of_another_dimension(index_path):
    with refused(ValueError, index_path, "dimension 4", "expected 5"):
        FaissIndexDataset(filepath=str(index_path), n_columns=5).load()


@pytest.mark.parametrize("n_rows", [19, 21])
def test_an_index_of_another_size(index_path, n_rows):
    with refused(ValueError, index_path, "20 vectors", f"graph.n_background = {n_rows}"):
        FaissIndexDataset(filepath=str(index_path), n_columns=4, n_rows=n_rows).load()


def test_plain_faiss_reads_a_transform_that_is_written(tmp_path, transform):
    path = tmp_path / "new folder" / "PCAR2.vt"
    FaissTransformDataset(filepath=str(path)).save(transform)
    read = faiss.read_VectorTransform(str(path))
    np.testing.assert_array_equal(read.apply(VECTORS), transform.apply(VECTORS))


def test_reads_a_transform_that_plain_faiss_writes(transform_path, transform):
    loaded = FaissTransformDataset(filepath=str(transform_path)).load()
    matrix = faiss.vector_to_array(transform.A).reshape(2, 4)
    expected = VECTORS @ matrix.T + faiss.vector_to_array(transform.b)
    np.testing.assert_allclose(loaded.apply(VECTORS), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kept", [0, 3, 40])
def test_a_truncated_transform(transform_path, kept):
    transform_path.write_bytes(transform_path.read_bytes()[:kept])
    dataset = FaissTransformDataset(filepath=str(transform_path))
    refused_by_check_and_load(dataset, ValueError, transform_path, "not a readable faiss transform")


def test_an_index_is_no_transform(index_path):
    dataset = FaissTransformDataset(filepath=str(index_path))
    refused_by_check_and_load(dataset, ValueError, index_path, "not a readable faiss transform")


# --- a transform that is trained while it is saved ---


class Training:
    """A transform, and how often it has been trained."""

    def __init__(self, transform, **facts):
        self.transform = transform
        self.provenance = {"kind": "pca", "n_components": 2, "features": {"n_rows": 20}} | facts
        self.begun = 0

    def begin(self, folder):
        assert folder.is_dir()
        self.begun += 1
        return self.transform

    def save(self, path):
        FaissTransformDataset(filepath=str(path)).save(Resumable(self.provenance, self.begin))
        return self.begun


def test_a_trained_transform_is_written_with_a_note_and_kept(tmp_path, transform):
    path = tmp_path / "PCAR2.vt"
    assert Training(transform).save(path) == 1
    assert content_of(tmp_path).keys() == {path.name, "PCAR2.vt.made_from.json"}
    np.testing.assert_array_equal(
        faiss.read_VectorTransform(str(path)).apply(VECTORS), transform.apply(VECTORS)
    )
    assert Training(transform).save(path) == 0
    assert Training(transform, n_components=3).save(path) == 1


def test_a_published_transform_is_used_as_it_is(transform_path, transform):
    published = content_of(transform_path.parent)
    FaissTransformDataset(filepath=str(transform_path)).check_kept()
    assert Training(transform).save(transform_path) == 0
    assert content_of(transform_path.parent) == published


def test_a_published_transform_that_cannot_be_read_is_refused_at_once(transform_path, transform):
    transform_path.write_bytes(transform_path.read_bytes()[:40])
    with refused(ValueError, transform_path, "not a readable faiss transform"):
        FaissTransformDataset(filepath=str(transform_path)).check_kept()
    with refused(ValueError, transform_path, "not a readable faiss transform"):
        Training(transform).save(transform_path)


def test_nothing_is_checked_that_will_be_made(tmp_path, transform):
    path = tmp_path / "PCAR2.vt"
    FaissTransformDataset(filepath=str(path)).check_kept()
    Training(transform).save(path)
    path.write_bytes(b"?")
    FaissTransformDataset(filepath=str(path)).check_kept()


def test_a_transform_given_replaces_one_that_was_trained(tmp_path, transform):
    path = tmp_path / "PCAR2.vt"
    Training(transform).save(path)
    FaissTransformDataset(filepath=str(path)).save(transform)
    assert content_of(tmp_path).keys() == {path.name}


def test_a_preview_says_how_much_variance_a_transform_keeps(transform_path, transform):
    variances = np.sort(np.linalg.eigvalsh(np.cov(VECTORS.T)))[::-1]
    kept = variances[:2].sum() / variances.sum()
    dataset = FaissTransformDataset(filepath=str(transform_path))
    assert f"'variance kept', '{100 * kept:.1f}%'" in str(dataset.preview())
    assert "made from" not in str(dataset.preview())
    other = faiss.RandomRotationMatrix(4, 2)
    other.init(1)
    forgetful = faiss.read_VectorTransform(str(transform_path))
    forgetful.eigenvalues.resize(0)
    for without in (other, forgetful):
        dataset.save(without)
        assert "variance" not in str(dataset.preview())
    transform_path.unlink()
    Training(transform).save(transform_path)
    assert "kind pca, n_components 2" in str(dataset.preview())
