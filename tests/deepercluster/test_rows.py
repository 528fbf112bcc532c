"""Rows of arrays and of files, all of them and some."""

import re

import numpy as np
import pytest
import torch

from lowshot_kedro.deepercluster.rows import ArrayRows, FileRows, read_blocks, share_of
from lowshot_kedro.errors import InputError
from lowshot_kedro.training.processes import Processes

MATRIX = np.random.default_rng(0).standard_normal((3000, 7)).astype(np.float32)


def written(folder, matrix, offset=0):
    path = folder / "rows.bin"
    path.write_bytes(bytes(offset) + matrix.tobytes())
    return path


@pytest.fixture
def kinds(tmp_path):
    path = written(tmp_path, MATRIX, 12)
    mapped = np.memmap(path, np.float32, "r", 12, MATRIX.shape)
    return {
        "array": ArrayRows(MATRIX),
        "float64": ArrayRows(MATRIX.astype(float)),
        "Fortran": ArrayRows(np.asfortranarray(MATRIX)),
        "big-endian": ArrayRows(MATRIX.astype(">f4")),
        "list": ArrayRows(MATRIX.tolist()),
        "file": FileRows(path, 7, 3000, offset=12),
        "memmap": ArrayRows(mapped),
        "slice of a memmap": ArrayRows(mapped[:, :]),
        "part": ArrayRows(np.concatenate([MATRIX[:5], MATRIX, MATRIX[:5]]), 5, 3005),
        "part of a memmap": ArrayRows(np.memmap(path, np.float32, "r", 12, MATRIX.shape), 0, 3000),
    }


def test_rows_in_a_row_and_some(kinds):
    rng = np.random.default_rng(1)
    numbers = [
        np.array([], np.int64),
        np.array([0, 2999]),
        np.arange(100, 300),
        np.sort(rng.choice(3000, 1500, replace=False)),
        np.sort(rng.choice(3000, 5, replace=False)),
    ]
    for name, rows in kinds.items():
        assert (rows.n_rows, rows.n_columns) == (3000, 7)
        for room in (None, np.empty((3000, 7), np.float32)):
            for first, last in ((0, 3000), (17, 400), (5, 5)):
                out = None if room is None else room[: last - first]
                found = rows.read(first, last, out)
                assert found.dtype == np.float32 and (found == MATRIX[first:last]).all(), name
                assert out is None or found is out
            for some in numbers:
                out = None if room is None else room[: len(some)]
                found = rows.take(some, out)
                assert found.dtype == np.float32 and (found == MATRIX[some]).all(), name
                assert out is None or found is out


def test_only_a_memmap_as_it_was_opened_is_read_from_its_file(kinds, tmp_path):
    reads_files = {
        name for name, rows in kinds.items() if getattr(rows, "_file", 0) not in (0, None)
    }
    assert reads_files == {"file", "memmap", "part of a memmap"}
    private = np.memmap(written(tmp_path, MATRIX), np.float32, "c", shape=MATRIX.shape)
    private[3] = 1
    assert (ArrayRows(private).read(3, 4) == 1).all()
    npy = tmp_path / "rows.npy"
    np.save(npy, MATRIX)
    rows = ArrayRows(np.load(npy, mmap_mode="r"))
    assert (rows.read(0, 3000) == MATRIX).all()
    assert not rows.is_at_hand


def test_blocks(kinds):
    members = np.arange(1, 3000, 3)
    for rows in kinds.values():
        room = np.empty((700, 7), np.float32)
        whole = [(first, block.copy()) for first, block in read_blocks(rows, room)]
        assert [first for first, _ in whole] == [0, 700, 1400, 2100, 2800]
        assert (np.concatenate([block for _, block in whole]) == MATRIX).all()
        some = [block.copy() for _, block in read_blocks(rows, room, members)]
        assert (np.concatenate(some) == MATRIX[members]).all()


def test_shares_follow_each_other():
    for n_rows, n_processes in ((10, 3), (2, 5), (0, 2)):
        shares = [
            share_of(MATRIX[:n_rows], Processes(rank, n_processes, torch.device("cpu")))
            for rank in range(n_processes)
        ]
        parts = [share.rows.read(0, share.rows.n_rows) for share in shares]
        assert (np.concatenate(parts) == MATRIX[:n_rows]).all()
        firsts = np.cumsum([0] + [len(part) for part in parts])[:-1]
        assert [share.first for share in shares] == firsts.tolist()
        assert {share.n_rows for share in shares} == {n_rows}


def test_files_that_are_too_short(tmp_path):
    path = written(tmp_path, MATRIX)
    expected = "found 84000 bytes, expected 84028: 3001 rows of 7 numbers"
    with pytest.raises(InputError, match=re.escape(expected)):
        FileRows(path, 7, 3001)
    with pytest.raises(FileNotFoundError):
        FileRows(tmp_path / "other", 7, 1)
    rows = FileRows(path, 7, 3000)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="has become shorter"):
        rows.read(0, 10)
