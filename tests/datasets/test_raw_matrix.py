import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lowshot_kedro.datasets import RawMatrixDataset
from lowshot_kedro.matrices import Blocks
from tests.datasets.helpers import array_blocks, refused, refused_by_check_and_load

ROWS = [(1.0, -2.5, 3.25), (4.0, 0.0, -0.125), (1e-3, 7.0, 8.0), (9.0, 10.0, 11.0)]
BYTES = b"".join(struct.pack("<3f", *row) for row in ROWS)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "vectors.raw"


def test_reads_little_endian_float32_row_after_row(path):
    path.write_bytes(BYTES)
    loaded = RawMatrixDataset(filepath=str(path), n_columns=3).load()
    np.testing.assert_array_equal(loaded, np.array(ROWS, dtype=np.float32))
    assert isinstance(loaded, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        loaded[0, 0] = 1


@pytest.mark.parametrize(
    "data",
    [
        np.array(ROWS, dtype=np.float32),
        np.array(ROWS, dtype=np.float32).astype(">f4"),
        np.asfortranarray(np.array(ROWS, dtype=np.float64).astype(np.float32)),
        np.repeat(np.array(ROWS, dtype=np.float32), 2, axis=1)[:, ::2],
        array_blocks(
            np.array(ROWS[:1], dtype=np.float32),
            np.empty((0, 3), dtype=np.float32),
            np.array(ROWS[1:], dtype=np.float32),
        ),
    ],
    ids=["array", "big-endian", "fortran", "strided", "blocks"],
)
def test_writes_exactly_the_published_bytes(path, data):
    RawMatrixDataset(filepath=str(path), n_columns=3).save(data)
    assert path.read_bytes() == BYTES


@settings(deadline=None)
@given(
    data=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
        elements=st.floats(width=32),
    ),
    cut=st.integers(0, 9),
)
def test_blocks_and_arrays_survive_a_round_trip(tmp_path_factory, data, cut):
    path = tmp_path_factory.mktemp("raw") / "new folder" / "vectors.raw"
    dataset = RawMatrixDataset(filepath=str(path), n_columns=data.shape[1])
    dataset.save(array_blocks(data[:cut], data[cut:]))
    np.testing.assert_array_equal(np.fromfile(path, "<f4").reshape(data.shape), data)
    np.testing.assert_array_equal(dataset.load(), data)


def test_other_number_types(path):
    data = np.arange(6, dtype=np.int64).reshape(3, 2)
    RawMatrixDataset(filepath=str(path), n_columns=2, dtype="int64").save(data)
    assert path.read_bytes() == struct.pack("<6q", *range(6))


@pytest.mark.parametrize("n_rows", [1, 3, 4])
def test_n_rows_takes_the_first_rows(path, n_rows):
    path.write_bytes(BYTES)
    loaded = RawMatrixDataset(filepath=str(path), n_columns=3, n_rows=n_rows).load()
    np.testing.assert_array_equal(loaded, np.array(ROWS[:n_rows], dtype=np.float32))


def test_zero_rows_need_no_file(path):
    dataset = RawMatrixDataset(filepath=str(path), n_columns=3, n_rows=0)
    dataset.check()
    assert dataset.exists()
    assert dataset.load().shape == (0, 3)
    assert dataset.load().dtype == np.float32


def test_an_empty_file_has_no_rows(path):
    path.write_bytes(b"")
    assert RawMatrixDataset(filepath=str(path), n_columns=3).load().shape == (0, 3)


def test_missing_file(path):
    dataset = RawMatrixDataset(filepath=str(path), n_columns=3)
    assert not dataset.exists()
    refused_by_check_and_load(dataset, FileNotFoundError, path)


@pytest.mark.parametrize("cut", [1, 4, 8])
def test_a_file_cut_off_within_a_row(path, cut):
    path.write_bytes(BYTES[:-cut])
    dataset = RawMatrixDataset(filepath=str(path), n_columns=3)
    refused_by_check_and_load(dataset, ValueError, path, f"{48 - cut} bytes", "3 × float32")


def test_another_number_of_columns(path):
    path.write_bytes(BYTES)
    dataset = RawMatrixDataset(filepath=str(path), n_columns=5)
    refused_by_check_and_load(dataset, ValueError, path, "48 bytes", "5 × float32", "columns")


def test_more_rows_asked_for_than_there_are(path):
    path.write_bytes(BYTES)
    dataset = RawMatrixDataset(filepath=str(path), n_columns=3, n_rows=5)
    refused_by_check_and_load(dataset, ValueError, path, "4 rows", "5", "graph.n_background")


def test_refuses_to_write_another_number_of_columns(path):
    dataset = RawMatrixDataset(filepath=str(path), n_columns=4)
    with refused(ValueError, path, "got 3 columns", "expected 4"):
        dataset.save(np.array(ROWS, dtype=np.float32))
    assert not path.exists()


@pytest.mark.parametrize("shape", [(3, 3), (5, 3), (4, 2)], ids=["fewer", "more", "narrow"])
def test_refuses_blocks_that_are_not_what_they_announce(path, shape):
    blocks = Blocks(n_rows=4, n_columns=3, make=lambda: [np.ones(shape, dtype=np.float32)])
    with refused(ValueError, path):
        RawMatrixDataset(filepath=str(path), n_columns=3).save(blocks)
    assert not path.exists()
