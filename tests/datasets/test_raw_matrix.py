import json
import shutil
import struct
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lowshot_kedro.blocks import Blocks, Resumable, RowBlocks
from lowshot_kedro.datasets import RawMatrixDataset
from tests.datasets.helpers import (
    array_blocks,
    content_of,
    forks,
    killed_half_way,
    refused,
    refused_by_check_and_load,
)

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


# --- computed while it is saved ---

MATRIX = np.array(ROWS, dtype=np.float32)
PROVENANCE = {"kind": "vectors", "n_rows": 4}
NOTE = "vectors.raw.made_from.json"


class Computation:
    """The rows in blocks of one, and which of them have been computed."""

    def __init__(self, at=None, midway=lambda: None, **facts):
        self.at, self.midway = at, midway
        self.provenance = PROVENANCE | facts
        self.computed = []

    def blocks(self, first_row):
        for row in range(first_row, 4):
            if row == self.at:
                self.midway()
            self.computed.append(row)
            yield MATRIX[row : row + 1]

    def save(self, path, n_rows=None):
        rows = RowBlocks(4, 3, 1, self.blocks)
        dataset = RawMatrixDataset(filepath=str(path), n_columns=3, n_rows=n_rows)
        dataset.save(Resumable(self.provenance, lambda folder: rows))
        return self.computed


@pytest.mark.parametrize("n_rows", [None, 0, 2, 4])
def test_all_rows_are_saved_however_few_are_loaded(path, n_rows):
    assert Computation().save(path, n_rows) == [0, 1, 2, 3]
    assert json.loads((path.parent / NOTE).read_text()) == PROVENANCE
    assert content_of(path.parent).keys() == {NOTE, path.name}
    assert path.read_bytes() == BYTES
    assert Computation().save(path, n_rows) == []


@forks
@pytest.mark.parametrize("at", range(4))
def test_the_next_run_continues_after_the_rows_of_a_killed_process(tmp_path, at):
    path = tmp_path / "killed" / "vectors.raw"
    killed_half_way(lambda wait: Computation(at, wait).save(path), tmp_path / "marker")
    assert not path.exists()
    assert Computation().save(path) == [*range(at, 4)]
    assert path.read_bytes() == BYTES


def test_a_file_of_others_is_used_as_it_is(path):
    path.write_bytes(b"?" * 60)
    assert Computation().save(path) == []
    assert content_of(path.parent) == {path.name: b"?" * 60}


@pytest.mark.parametrize(
    ("n_rows", "content", "facts"),
    [
        (5, BYTES, ["holds 4 rows, but 5 are asked for"]),
        (None, BYTES[:-1], ["47 bytes", "cut off"]),
    ],
)
def test_a_file_of_others_that_cannot_be_used_is_refused_at_once(path, n_rows, content, facts):
    path.write_bytes(content)
    dataset = RawMatrixDataset(filepath=str(path), n_columns=3, n_rows=n_rows)
    with refused(ValueError, path, *facts):
        dataset.check_kept()
    with refused(ValueError, path, *facts):
        Computation().save(path, n_rows)
    assert path.read_bytes() == content


def test_a_file_of_ones_own_is_no_matter_before_the_run(path):
    Computation().save(path)
    RawMatrixDataset(filepath=str(path), n_columns=3, n_rows=5).check_kept()
    path.unlink()
    RawMatrixDataset(filepath=str(path), n_columns=3, n_rows=5).check_kept()


@pytest.mark.parametrize("n_rows", [None, 0, 2])
@pytest.mark.parametrize("size", [36, 60])
def test_a_kept_file_has_as_many_rows_as_were_made(path, n_rows, size):
    Computation().save(path)
    path.write_bytes((BYTES + BYTES)[:size])
    facts = (path, f"holds {size // 12} rows, but was made with 4", "delete it")
    with refused(ValueError, *facts):
        Computation().save(path, n_rows)
    # Rows made from something else replace it.
    assert Computation(seed=1).save(path, n_rows) == [0, 1, 2, 3]
    assert path.read_bytes() == BYTES


def test_another_number_of_columns_is_not_begun(path):
    dataset = RawMatrixDataset(filepath=str(path), n_columns=4)
    computation = Computation()
    rows = RowBlocks(4, 3, 1, computation.blocks)
    with refused(ValueError, path, "got 3 columns", "expected 4"):
        dataset.save(Resumable(PROVENANCE, lambda folder: rows))
    assert computation.computed == []
    assert content_of(path.parent) == {}


def test_an_array_replaces_a_matrix_that_was_computed(path):
    Computation().save(path)
    RawMatrixDataset(filepath=str(path), n_columns=3).save(MATRIX[:2])
    assert content_of(path.parent) == {path.name: BYTES[:24]}


@pytest.mark.parametrize(("n_rows", "is_enough"), [(4, True), (5, False), (None, True)])
def test_a_disk_without_room_is_noticed_before_the_run(path, monkeypatch, n_rows, is_enough):
    usage = SimpleNamespace(total=1 << 40, used=(1 << 40) - 48, free=48)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    dataset = RawMatrixDataset(filepath=str(path), n_columns=3, n_rows=n_rows)
    if is_enough:
        dataset.check_space()
    else:
        with refused(OSError, path, "60 B needed", "only 48 B free"):
            dataset.check_space()


def test_a_preview_says_what_a_matrix_was_made_from(path):
    Computation().save(path)
    shown = str(RawMatrixDataset(filepath=str(path), n_columns=3).preview())
    assert "made from" in shown
    assert "kind vectors, n_rows 4" in shown
