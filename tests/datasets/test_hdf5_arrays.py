import h5py
import numpy as np
import pytest

from lowshot_kedro.datasets import HDF5ArraysDataset
from tests.datasets.helpers import refused_by_check_and_load

ARRAYS = {
    "scores": np.arange(6, dtype=np.float32).reshape(3, 2),
    "labels": np.array([3, 1, 2], dtype=np.int32),
    "seed": np.int64(17),
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "scores.hdf5"


def same(found, expected):
    assert set(found) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


def test_plain_h5py_reads_what_is_written(path):
    HDF5ArraysDataset(filepath=str(path)).save(ARRAYS)
    with h5py.File(path, "r") as file:
        same({name: file[name][()] for name in file}, ARRAYS)


def test_reads_what_plain_h5py_writes(path):
    with h5py.File(path, "w") as file:
        for name, array in ARRAYS.items():
            file[name] = array
    same(HDF5ArraysDataset(filepath=str(path)).load(), ARRAYS)


def test_missing_file(path):
    refused_by_check_and_load(HDF5ArraysDataset(filepath=str(path)), FileNotFoundError, path)


@pytest.mark.parametrize("content", [b"", b"no HDF5 at all", None])
def test_a_file_that_is_cut_off_or_no_hdf5(path, content):
    HDF5ArraysDataset(filepath=str(path)).save(ARRAYS)
    path.write_bytes(path.read_bytes()[:-50] if content is None else content)
    dataset = HDF5ArraysDataset(filepath=str(path))
    refused_by_check_and_load(dataset, ValueError, path, "not a readable HDF5 file")
