import threading
import time
import tracemalloc
from pathlib import Path

import faiss
import numpy as np
import pytest

from lowshot_kedro.datasets import FaissTransformDataset, RawMatrixDataset
from lowshot_kedro.pca import apply_pca, apply_transform
from tests.features import MemoryFeatures
from tests.pca.making import correlated, features_of, matrix_of, trained

VECTORS = correlated()


@pytest.fixture(scope="module", params=[True, False], ids=["rotated", "plain"])
def transform(request):
    return trained(VECTORS, random_rotation=request.param)


def blocks_of(transform, features, first_row=0, **options):
    rows = apply_pca(transform, features, **options).begin(Path("not used"))
    return list(rows.starting_at(first_row))


def reading_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


@pytest.mark.parametrize("block_rows", [1, 150, 400, 10**6])
def test_blocks_are_what_faiss_computes_at_once(transform, block_rows):
    rows = apply_pca(transform, features_of(VECTORS), block_rows).begin(Path("not used"))
    assert (rows.n_rows, rows.n_columns, rows.block_rows) == (400, 5, block_rows)
    parts = list(rows.starting_at(0))
    assert [len(part) for part in parts[:-1]] == [block_rows] * (len(parts) - 1)
    found = np.concatenate(parts)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, transform.apply(VECTORS), rtol=1e-5, atol=1e-5)


def test_apply_follows_the_stored_matrix(transform):
    expected = VECTORS.astype(np.float64) @ matrix_of(transform).T.astype(np.float64)
    expected += faiss.vector_to_array(transform.b)
    found = apply_transform(transform, VECTORS[::2], "test.hdf5")
    np.testing.assert_allclose(found, expected[::2], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("random_rotation", [True, False])
def test_a_file_that_faiss_has_trained_and_written_gives_what_faiss_gives(
    tmp_path, random_rotation
):
    path = tmp_path / "PCAR64.vt"
    vectors = correlated(5000, 256)
    made = faiss.PCAMatrix(256, 64, 0, random_rotation)
    made.train(vectors)
    faiss.write_VectorTransform(made, str(path))
    read = FaissTransformDataset(filepath=str(path)).load()
    found = np.concatenate(blocks_of(read, features_of(vectors)))
    expected = made.apply(vectors)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("kind", ["L2norm", "RR5", "PCAW5", "OPQ2_4"])
def test_other_transforms_apply_too(kind):
    chain = faiss.index_factory(12, f"{kind},Flat")
    chain.train(VECTORS)
    other = faiss.downcast_VectorTransform(chain.chain.at(0))
    found = np.concatenate(blocks_of(other, features_of(VECTORS)))
    np.testing.assert_allclose(found, other.apply(VECTORS), rtol=1e-5, atol=1e-5)


def test_no_rows(transform):
    assert apply_transform(transform, np.empty((0, 12), np.float32), "test").shape == (0, 5)
    assert blocks_of(transform, features_of(np.empty((0, 12)))) == []


def test_another_dimension_is_refused_at_once(transform):
    message = "f100m: 11 columns, but pca_transform expects 12"
    features = features_of(np.ones((3, 11)))
    with pytest.raises(ValueError, match=message):
        apply_pca(transform, features)
    assert features.reads == []
    with pytest.raises(ValueError, match=message):
        apply_transform(transform, np.ones((3, 11), np.float32), "f100m")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", [0, 11])
def test_nan_is_named_by_its_row(transform, bad, column):
    spoiled = VECTORS.copy()
    spoiled[[123, 140], column] = bad
    with pytest.raises(ValueError, match=r"f100m: .*2 row\(s\), numbers 123, 140;"):
        blocks_of(transform, features_of(spoiled), block_rows=50)
    with pytest.raises(ValueError, match=r"numbers 123, 140;"):
        blocks_of(transform, features_of(spoiled), 100, block_rows=50)
    assert len(blocks_of(transform, features_of(spoiled), 150, block_rows=50)) == 5


def test_nan_shows_where_a_column_counts_for_nothing():
    constant = VECTORS.copy()
    constant[:, 3] = 2
    transform = trained(constant)
    matrix = matrix_of(transform).copy()
    matrix[:, 3] = 0
    faiss.copy_array_to_vector(matrix.ravel(), transform.A)
    constant[7, 3] = np.nan
    with pytest.raises(ValueError, match="numbers 7;"):
        blocks_of(transform, features_of(constant))


def test_results_that_are_too_large_are_no_fault_of_the_features():
    enlarging = trained(VECTORS)
    faiss.copy_array_to_vector(np.full(60, 3e38, np.float32), enlarging.A)
    with pytest.raises(ValueError, match=r"f100m after pca_transform: found NaN or infinite"):
        blocks_of(enlarging, features_of(VECTORS))


def test_the_number_of_threads_changes_no_bit():
    vectors = correlated(9000, 203)
    transform = trained(vectors, 64, random_rotation=True)
    before = faiss.omp_get_max_threads()
    results, numbers = [], []

    class Noted(MemoryFeatures):
        def read(self, first, last, out=None):
            workers.add(threading.get_ident())
            time.sleep(0.01)  # nobody is done before the others begin
            return super().read(first, last, out)

    try:
        for n_threads in (1, 2, 3):
            faiss.omp_set_num_threads(n_threads)
            features = Noted(vectors, "f100m")
            workers = set()
            results.append(np.concatenate(blocks_of(transform, features)).tobytes())
            numbers.append(len(workers - {threading.get_ident()}))
    finally:
        faiss.omp_set_num_threads(before)
    assert len(set(results)) == 1
    # As many as the caller has been given.
    assert numbers == [1, 2, 3]


# --- stopped and continued ---


class Interrupted(MemoryFeatures):
    stop_at = None

    def read(self, first, last, out=None):
        if first == self.stop_at:
            raise InterruptedError("stopped half-way")
        return super().read(first, last, out)


@pytest.mark.parametrize("stop_at", range(0, 400, 50))
def test_it_continues_after_the_last_block_and_gives_the_same_bits(transform, tmp_path, stop_at):
    def dataset(name):
        return RawMatrixDataset(filepath=str(tmp_path / name), n_columns=5)

    dataset("whole.raw").save(apply_pca(transform, features_of(VECTORS), block_rows=50))
    features = Interrupted(VECTORS, "f100m")
    result = apply_pca(transform, features, block_rows=50)
    features.stop_at = stop_at
    with pytest.raises(Exception, match="stopped half-way"):
        dataset("stopped.raw").save(result)
    assert not dataset("stopped.raw").exists()
    assert (tmp_path / ".partial-stopped.raw").stat().st_size == 20 * stop_at

    features.stop_at = None
    features.reads.clear()
    dataset("stopped.raw").save(result)
    assert sorted(features.reads) == [(first, first + 50) for first in range(stop_at, 400, 50)]
    whole = (tmp_path / "whole.raw").read_bytes()
    assert (tmp_path / "stopped.raw").read_bytes() == whole
    expected = transform.apply(VECTORS)
    np.testing.assert_allclose(dataset("stopped.raw").load(), expected, rtol=1e-5, atol=1e-5)


def test_what_it_was_made_from_tells_one_from_another(transform):
    other = VECTORS.copy()
    other[0, 0] += 1
    moved = trained(VECTORS[:399])
    every = [
        apply_pca(made, features_of(array)).provenance
        for made, array in [
            (transform, VECTORS),
            (moved, VECTORS),
            (transform, VECTORS[:-1]),
            (transform, other),
        ]
    ]
    assert all(every.count(provenance) == 1 for provenance in every)
    assert apply_pca(transform, features_of(VECTORS.copy())).provenance == every[0]


def test_a_transform_from_its_file_is_the_same(transform, tmp_path):
    dataset = FaissTransformDataset(filepath=str(tmp_path / "PCAR5.vt"))
    dataset.save(transform)
    found = apply_pca(dataset.load(), features_of(VECTORS))
    assert found.provenance == apply_pca(transform, features_of(VECTORS)).provenance


# --- side by side, in little memory ---


def test_the_next_blocks_are_read_meanwhile_but_not_all(transform):
    features = features_of(np.tile(VECTORS, (5, 1)))
    rows = apply_pca(transform, features, block_rows=50).begin(Path("not used"))
    features.reads.clear()
    blocks = iter(rows.starting_at(0))
    next(blocks)
    deadline = time.monotonic() + 10
    while len(features.reads) < 4:
        assert time.monotonic() < deadline, "nothing is read ahead"
        time.sleep(0.01)
    time.sleep(0.2)
    assert len(features.reads) <= 8
    blocks.close()
    assert reading_threads() == []


def test_a_collection_is_never_held(monkeypatch):
    class Endless:
        name = "f100m"
        n_rows, n_columns = 120_000, 256
        labels = None

        def read(self, first, last, out=None):
            return np.full((last - first, self.n_columns), first, dtype=np.float32)

    transform = trained(correlated(600, 256), 8)
    rows = apply_pca(transform, Endless()).begin(Path("not used"))
    tracemalloc.start()
    n_rows = sum(len(block) for block in rows.starting_at(0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n_rows == Endless.n_rows
    assert peak < 0.25 * 4 * Endless.n_rows * Endless.n_columns
