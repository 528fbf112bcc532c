import faiss
import numpy as np
import pytest

from lowshot_kedro.datasets import FaissIndexDataset, FaissTransformDataset
from tests.datasets.helpers import random_features, refused, refused_by_check_and_load

VECTORS, _ = random_features(20, 4)


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


def test_reads_an_index_of_another_kind(tmp_path):
    other = faiss.index_factory(4, "HNSW8", faiss.METRIC_INNER_PRODUCT)
    other.add(VECTORS)
    path = tmp_path / "ndis20.index"
    faiss.write_index(other, str(path))
    dataset = FaissIndexDataset(filepath=str(path), n_columns=4)
    assert isinstance(dataset.load(), faiss.IndexHNSW)
    assert "IndexHNSW" in str(dataset.preview())


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
