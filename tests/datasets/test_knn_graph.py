import struct

import numpy as np
import pytest

from lowshot_kedro.blocks import Blocks, KnnGraph
from lowshot_kedro.datasets import KnnGraphDataset
from tests.datasets.helpers import content_of, refused, refused_by_check_and_load

INDICES = np.array([[0, 2, 1], [1, 0, -1], [2, 70_000, 1], [3, 1, 0]], dtype=np.int32)
SIMILARITIES = np.array(
    [[1, 0.5, 0.25], [1, 0.125, -np.inf], [1, 0.75, 0.5], [1, 0, -0.5]], dtype=np.float32
)
FILES = {
    "ndis4_k3_I_11.int32": struct.pack("<12i", *INDICES.ravel()),
    "ndis4_k3_D_11.float32": struct.pack("<12f", *SIMILARITIES.ravel()),
}


@pytest.fixture
def stem(tmp_path):
    return tmp_path / "ndis4_k3"


@pytest.fixture
def published(stem):
    for name, content in FILES.items():
        (stem.parent / name).write_bytes(content)
    return stem


def test_reads_the_published_format(published):
    graph = KnnGraphDataset(filepath=str(published), k=3, n_rows=4).load()
    np.testing.assert_array_equal(graph.indices, INDICES)
    np.testing.assert_array_equal(graph.similarities, SIMILARITIES)
    assert (graph.indices.dtype, graph.similarities.dtype) == (np.int32, np.float32)
    assert isinstance(graph.indices, np.memmap)
    assert isinstance(graph.similarities, np.memmap)


@pytest.mark.parametrize("block_rows", [1, 3, 4, None])
def test_writes_exactly_the_published_bytes(stem, block_rows):
    graph = KnnGraph(INDICES, SIMILARITIES)
    if block_rows is not None:
        starts = range(0, 4, block_rows)
        data = Blocks(4, 3, lambda: (graph.part(s, s + block_rows, 3) for s in starts))
    else:
        data = graph
    KnnGraphDataset(filepath=str(stem), k=3).save(data)
    assert content_of(stem.parent) == FILES


def test_wider_numbers_and_strided_columns_are_converted(stem):
    wide = np.hstack([INDICES, INDICES]).astype(np.int64)[:, :3]
    KnnGraphDataset(filepath=str(stem), k=3).save(KnnGraph(wide, SIMILARITIES.astype(np.float64)))
    assert content_of(stem.parent) == FILES


@pytest.mark.parametrize("name", FILES)
def test_missing_file(published, name):
    (published.parent / name).unlink()
    dataset = KnnGraphDataset(filepath=str(published), k=3)
    assert not dataset.exists()
    refused_by_check_and_load(dataset, FileNotFoundError, name)


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_off_within_a_row(published, name):
    (published.parent / name).write_bytes(FILES[name][:-4])
    dataset = KnnGraphDataset(filepath=str(published), k=3)
    refused_by_check_and_load(dataset, ValueError, name, "44 bytes", "rows of 3 ×", "cut off")


@pytest.mark.parametrize("name, rows", [*zip(FILES, [(3, 4), (4, 3)], strict=True)])
def test_files_of_different_numbers_of_rows(published, name, rows):
    (published.parent / name).write_bytes(FILES[name][:-12])
    dataset = KnnGraphDataset(filepath=str(published), k=3)
    facts = (*FILES, f"holds {rows[0]} rows", f" {rows[1]};")
    refused_by_check_and_load(dataset, ValueError, *facts)


def test_another_number_of_columns(published):
    dataset = KnnGraphDataset(filepath=str(published), k=5)
    refused_by_check_and_load(dataset, ValueError, "48 bytes", "rows of 5 ×")


@pytest.mark.parametrize("n_rows", [3, 5])
def test_another_number_of_rows_than_expected(published, n_rows):
    dataset = KnnGraphDataset(filepath=str(published), k=3, n_rows=n_rows)
    facts = ("ndis4_k3_I_11.int32", "4 rows", f"graph.n_background = {n_rows}")
    refused_by_check_and_load(dataset, ValueError, *facts)


def test_zero_rows_need_no_file(stem):
    dataset = KnnGraphDataset(filepath=str(stem), k=3, n_rows=0)
    dataset.check()
    graph = dataset.load()
    assert dataset.exists()
    assert graph.indices.shape == graph.similarities.shape == (0, 3)
    assert (graph.indices.dtype, graph.similarities.dtype) == (np.int32, np.float32)


def test_refuses_to_write_another_number_of_columns(stem):
    with refused(ValueError, stem, "got 3 columns", "expected 4"):
        KnnGraphDataset(filepath=str(stem), k=4).save(KnnGraph(INDICES, SIMILARITIES))
    assert content_of(stem.parent) == {}


@pytest.mark.parametrize(
    "block",
    [
        KnnGraph(INDICES[:3], SIMILARITIES[:3]),
        KnnGraph(INDICES, SIMILARITIES[:3]),
        KnnGraph(INDICES[:, :2], SIMILARITIES[:, :2]),
    ],
    ids=["fewer rows", "unequal", "narrow"],
)
def test_refuses_blocks_that_are_not_what_they_announce(stem, block):
    with refused(ValueError, stem):
        KnnGraphDataset(filepath=str(stem), k=3).save(Blocks(4, 3, lambda: [block]))
    assert content_of(stem.parent) == {}


def test_a_disk_that_fills_up_at_the_last_moment_leaves_the_older_graph(published, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with refused(OSError, "disk is full"):
        KnnGraphDataset(filepath=str(published), k=3).save(KnnGraph(INDICES + 1, SIMILARITIES))
    assert content_of(published.parent) == FILES
