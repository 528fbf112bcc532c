"""Rows that count are on disk, whatever happens to the process that writes them."""

import errno
import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from lowshot_kedro.blocks import LabeledBlock
from lowshot_kedro.datasets import feature_writer
from lowshot_kedro.datasets.feature_writer import FeatureWriter, ProblemList
from tests.datasets.extraction import N_COLUMNS, read_with_h5py, row_content

N_ROWS, ROWS_PER_FILE = 10, 4
OPEN_FILES = Path("/proc/self/fd")


@pytest.fixture
def paths(tmp_path):
    return [tmp_path / f"{number}.hdf5" for number in range(3)]


def writer_of(paths, n_rows=N_ROWS, n_columns=N_COLUMNS, problems=None, keys=None):
    return FeatureWriter(paths, n_rows, n_columns, ROWS_PER_FILE, problems, keys)


def rows(first, last, problems=None):
    return LabeledBlock(*row_content(first, last), problems or {})


def counts(paths):
    return [read_with_h5py(path)[2] for path in paths]


@pytest.fixture
def commits_at_once(monkeypatch):
    monkeypatch.setattr(feature_writer, "_SECONDS_BETWEEN_COMMITS", 0)


@pytest.mark.parametrize("batch_rows", [1, 3, 4, 5, 8, 10])
def test_rows_go_to_the_file_they_belong_to(paths, batch_rows):
    with writer_of(paths) as writer:
        for first in range(0, N_ROWS, batch_rows):
            writer.write(first, rows(first, min(N_ROWS, first + batch_rows)))
    for path, (first, last) in zip(paths, [(0, 4), (4, 8), (8, 10)], strict=True):
        features, labels, count = read_with_h5py(path)
        expected_features, expected_labels = row_content(first, last)
        np.testing.assert_array_equal(features, expected_features, strict=True)
        np.testing.assert_array_equal(labels, expected_labels, strict=True)
        assert count == [last - first]


def test_a_file_is_complete_from_the_start_but_for_its_rows(paths):
    with writer_of(paths), h5py.File(paths[0], "r") as file:
        assert {name: (array.shape, array.dtype.str) for name, array in file.items()} == {
            "all_feats": ((4, 3), "<f4"),
            "all_labels": ((4,), "<i4"),
            "count": ((1,), "<i4"),
        }
        assert file["count"][0] == 0


def keys_in(paths):
    found = []
    for path in paths:
        with h5py.File(path, "r") as file:
            found.append(file["image_keys"][()] if "image_keys" in file else None)
    return found


def test_keys_stay_with_the_rows_that_were_written_with_them(paths):
    keys = np.random.default_rng(0).integers(1, 256, (N_ROWS, 16), dtype=np.uint8)
    with writer_of(paths, keys=keys) as writer:
        writer.write(0, rows(0, 6))
    # A file that has changed since then has another key when the work goes on.
    later = keys + np.uint8(1)
    with writer_of(paths, keys=later) as writer:
        assert writer.rows_done == 6
        writer.continue_at(5)
        writer.write(5, rows(5, N_ROWS))
    expected = np.concatenate([keys[:5], later[5:]])
    np.testing.assert_array_equal(np.concatenate(keys_in(paths)), expected)
    assert counts(paths) == [[4], [4], [2]]


def test_work_that_was_begun_without_keys_goes_on_without_them(paths):
    with writer_of(paths) as writer:
        writer.write(0, rows(0, 6))
    with writer_of(paths, keys=np.ones((N_ROWS, 16), np.uint8)) as writer:
        assert writer.rows_done == 6
        writer.write(6, rows(6, N_ROWS))
    assert keys_in(paths) == [None] * 3
    np.testing.assert_array_equal(read_with_h5py(paths[2])[0], row_content(8, 10)[0])


def test_rows_do_not_count_before_they_are_committed(paths):
    with writer_of(paths) as writer:
        writer.write(0, rows(0, 6))
        assert counts(paths) == [[0], [0], [0]]
        assert writer.rows_done == 0
        np.testing.assert_array_equal(read_with_h5py(paths[1])[0][:2], row_content(4, 6)[0])
        writer.commit()
        assert counts(paths) == [[4], [2], [0]]
        assert writer.rows_done == 6
        writer.write(6, rows(6, 7))
        assert counts(paths) == [[4], [2], [0]]
    assert counts(paths) == [[4], [3], [0]]


def test_rows_are_committed_every_few_seconds(paths, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(feature_writer.time, "monotonic", lambda: clock[0])
    with writer_of(paths) as writer:
        for first, (seconds, counted) in enumerate([(4.9, 0), (0.2, 2), (4.9, 2), (0.2, 4)]):
            clock[0] += seconds
            writer.write(first, rows(first, first + 1))
            assert counts(paths)[0] == [counted]


def offset_of(path, name):
    with h5py.File(path, "r") as file:
        return file[name].id.get_offset()


def test_a_count_moves_after_rows_and_problems_have_reached_the_disk(
    paths, tmp_path, monkeypatch, commits_at_once
):
    problems = ProblemList(tmp_path / "problems.csv")
    write, synchronise = os.pwrite, os.fsync
    unsafe, safe_sizes, n_counts = set(), {}, 0

    def pwrite(descriptor, content, offset):
        nonlocal n_counts
        inode = os.fstat(descriptor).st_ino
        if offset == count_offsets[inode]:
            n_counts += 1
            assert inode not in unsafe
            assert safe_sizes[problems.path.stat().st_ino] == problems.path.stat().st_size
        else:
            unsafe.add(inode)
        return write(descriptor, content, offset)

    def fsync(descriptor):
        synchronise(descriptor)
        status = os.fstat(descriptor)
        unsafe.discard(status.st_ino)
        safe_sizes[status.st_ino] = status.st_size

    with writer_of(paths, problems=problems) as writer:
        writer.continue_at(0)
        count_offsets = {path.stat().st_ino: offset_of(path, "count") for path in paths}
        monkeypatch.setattr(os, "pwrite", pwrite)
        monkeypatch.setattr(os, "fsync", fsync)
        for first in range(N_ROWS):
            writer.write(first, rows(first, first + 1, {0: "bad"}))
        assert n_counts == N_ROWS
    assert counts(paths) == [[4], [4], [2]]


def failing_once(monkeypatch, name, at_call=1):
    """A function of the system that says once that the disk is full, and works again."""
    function, calls = getattr(os, name), []

    def fail(*arguments):
        calls.append(arguments)
        if len(calls) == at_call:
            raise OSError(errno.ENOSPC, "No space left on device")
        return function(*arguments)

    monkeypatch.setattr(os, name, fail)


def test_rows_that_the_disk_has_once_refused_do_not_count(paths, monkeypatch):
    # After it has said so, the system takes them for written.
    with pytest.raises(OSError, match="No space left"), writer_of(paths) as writer:
        writer.write(0, rows(0, 3))
        writer.commit()
        writer.write(3, rows(3, 7))
        failing_once(monkeypatch, "fsync")
        writer.commit()
    assert counts(paths) == [[3], [0], [0]]


@pytest.mark.parametrize(("at_call", "expected"), [(1, [3, 0]), (2, [3, 0]), (3, [4, 0])])
def test_rows_that_do_not_fit_do_not_count(paths, monkeypatch, at_call, expected):
    with pytest.raises(OSError, match="No space left"), writer_of(paths) as writer:
        writer.write(0, rows(0, 3))
        # Features and labels of row 3, then those of rows 4..6 in the next file.
        failing_once(monkeypatch, "pwrite", at_call)
        writer.write(3, rows(3, 7))
    assert counts(paths)[:2] == [[expected[0]], [expected[1]]]


def test_a_system_that_writes_a_few_bytes_at_a_time(paths, monkeypatch):
    write = os.pwrite
    monkeypatch.setattr(
        os, "pwrite", lambda descriptor, content, at: write(descriptor, content[:7], at)
    )
    with writer_of(paths) as writer:
        writer.write(0, rows(0, N_ROWS))
    monkeypatch.undo()
    np.testing.assert_array_equal(read_with_h5py(paths[1])[0], row_content(4, 8)[0])
    assert counts(paths) == [[4], [4], [2]]


def test_an_error_commits_what_was_written_before_it(paths):
    with pytest.raises(InterruptedError), writer_of(paths) as writer:
        writer.write(0, rows(0, 5))
        raise InterruptedError
    assert counts(paths) == [[4], [1], [0]]


def test_files_that_are_there_are_continued(paths):
    with writer_of(paths) as writer:
        writer.write(0, rows(0, 6))
    with writer_of(paths) as writer:
        assert writer.rows_done == 6
        writer.continue_at(6)
        writer.write(6, rows(6, 10))
    fresh = [path.with_name(f"fresh{path.name}") for path in paths]
    with writer_of(fresh) as writer:
        writer.write(0, rows(0, 10))
    for path, other in zip(paths, fresh, strict=True):
        assert path.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("row", range(7))
def test_rows_that_are_written_again_do_not_count_until_then(paths, tmp_path, row):
    problems = ProblemList(tmp_path / "problems.csv")
    with writer_of(paths, problems=problems) as writer:
        writer.continue_at(0)
        writer.write(0, rows(0, 6, {number: f"bad {number}" for number in range(6)}))
    with writer_of(paths, problems=problems) as writer:
        writer.continue_at(row)
        kept = min(row, 6)
        assert writer.rows_done == kept
        assert counts(paths) == [[min(kept, 4)], [max(0, kept - 4)], [0]]
        assert list(problems) == [(number, f"bad {number}") for number in range(kept)]


def test_a_later_file_that_is_complete_counts_for_nothing_without_the_earlier_one(paths, tmp_path):
    problems = ProblemList(tmp_path / "problems.csv")
    with writer_of(paths, problems=problems) as writer:
        writer.continue_at(0)
        writer.write(0, rows(0, 8, {5: "bad"}))
    paths[0].unlink()
    with writer_of(paths, problems=problems) as writer:
        assert writer.rows_done == 0
        writer.continue_at(0)
        writer.write(0, rows(0, 4))
    # Otherwise row 5 would count again, but not be on the list of problems.
    with writer_of(paths) as writer:
        assert writer.rows_done == 4


def valid(**changes):
    arrays = {
        "all_feats": np.zeros((4, N_COLUMNS), "<f4"),
        "all_labels": np.zeros(4, "<i4"),
        "count": np.array([2], "<i4"),
    }
    return arrays | changes


@pytest.mark.parametrize(
    "arrays",
    [
        valid(all_feats=np.zeros((4, 2), "<f4")),
        valid(all_feats=np.zeros((5, N_COLUMNS), "<f4")),
        valid(all_feats=np.zeros((4, N_COLUMNS), "<f8")),
        valid(all_feats=np.zeros((4, N_COLUMNS), ">f4")),
        valid(all_labels=np.zeros(3, "<i4")),
        valid(all_labels=np.zeros(4, "<i8")),
        valid(count=np.array([5], "<i4")),
        valid(count=np.array([-1], "<i4")),
        valid(count=np.array([2], "<i8")),
        valid(count=np.array(2, "<i4")),
        valid(count=np.empty(0, "<i4")),
        valid(count=None),
        valid(all_feats={"a": np.zeros(1)}),
        valid(all_labels=np.dtype("<i4")),
        {},
    ],
)
def test_a_file_of_another_kind_is_started_over(paths, arrays):
    with h5py.File(paths[0], "w") as file:
        for name, array in arrays.items():
            if isinstance(array, dict):
                file.create_group(name)
            elif array is not None:
                file[name] = array
    is_started_over(paths)


def is_started_over(paths):
    with writer_of(paths) as writer:
        assert writer.rows_done == 0
        writer.write(0, rows(0, 4))
    np.testing.assert_array_equal(read_with_h5py(paths[0])[0], row_content(0, 4)[0])


def test_a_file_whose_rows_have_no_place_of_their_own_is_started_over(paths):
    with h5py.File(paths[0], "w") as file:
        for name, array in valid().items():
            file.create_dataset(name, data=array, chunks=True)
    is_started_over(paths)


def test_a_file_that_was_never_allocated_is_started_over(paths):
    with h5py.File(paths[0], "w") as file:
        for name, array in valid().items():
            file.create_dataset(name, array.shape, array.dtype)
    is_started_over(paths)


def test_a_file_of_another_maker_is_continued_if_it_looks_the_same(paths):
    with h5py.File(paths[0], "w") as file:
        for name, array in valid().items():
            file[name] = array
    with writer_of(paths) as writer:
        assert writer.rows_done == 2


@pytest.mark.parametrize(
    "content", [b"", b"no HDF5 at all" * 100, b"\x89HDF\r\n\x1a\n" + bytes(500)]
)
def test_garbage_is_started_over(paths, content):
    paths[0].write_bytes(content)
    is_started_over(paths)


def test_a_file_that_was_cut_off_anywhere_is_started_over(paths):
    with writer_of(paths) as writer:
        writer.write(0, rows(0, 3))
    content = paths[0].read_bytes()
    for size in range(0, len(content), 97):
        paths[0].write_bytes(content[:size])
        is_started_over(paths)


def test_no_rows_at_all(paths):
    with writer_of(paths[:1], n_rows=0) as writer:
        assert writer.rows_done == 0
        writer.continue_at(0)
    features, labels, count = read_with_h5py(paths[0])
    assert (features.shape, labels.shape, count) == ((0, 3), (0,), [0])


@pytest.mark.skipif(not OPEN_FILES.exists(), reason="the system does not list open files")
def test_no_file_stays_open(paths):
    before = len([*OPEN_FILES.iterdir()])
    with writer_of(paths) as writer:
        writer.write(0, rows(0, 1))
    with pytest.raises(OSError):
        writer_of([paths[0], paths[0].with_name("absent") / "1.hdf5"], n_rows=8)
    assert len([*OPEN_FILES.iterdir()]) == before


# The list of problems.

PROBLEMS = {
    0: "a, comma",
    1: 'a "quote"',
    2: "two\nlines\r\nor three",
    3: "ümläut 図 \u2028 \U0001f4a5",
    4: "",
    5: "  many \t spaces ",
    7: "'apostrophe'; semicolon",
}
AS_LISTED = {
    2: "two lines or three",
    3: "ümläut 図 \U0001f4a5",
    5: "many spaces",
}


@pytest.fixture
def problems(tmp_path):
    found = ProblemList(tmp_path / "problems.csv", first_image=1000)
    found.begin(0)
    return found


def test_problems_are_listed_line_by_line_by_number(problems):
    problems.add(0, {})
    problems.add(20, {3: PROBLEMS[1], 1: PROBLEMS[0]})
    problems.add(30, {0: "no such file"})
    assert problems.path.read_text(encoding="utf-8") == (
        'picture,problem\n1021,"a, comma"\n1023,"a ""quote"""\n1030,no such file\n'
    )
    assert list(problems) == [(1021, PROBLEMS[0]), (1023, PROBLEMS[1]), (1030, "no such file")]


def test_whatever_a_problem_looks_like_it_is_one_line_and_read_again(problems):
    problems.add(0, PROBLEMS)
    expected = PROBLEMS | AS_LISTED
    assert list(problems) == [(1000 + row, expected[row]) for row in sorted(expected)]
    assert len(problems.path.read_bytes().splitlines()) == 1 + len(PROBLEMS)


def test_a_list_that_is_not_there_is_empty(tmp_path):
    assert list(ProblemList(tmp_path / "absent.csv")) == []


def test_a_list_begins_again_with_what_it_says_about_the_first_rows(problems):
    problems.add(0, {0: "zero", 4: "four"})
    problems.add(5, {0: "five"})
    problems.begin(5)
    assert list(problems) == [(1000, "zero"), (1004, "four")]
    problems.begin(4)
    assert list(problems) == [(1000, "zero")]
    problems.begin(0)
    assert list(problems) == []


def test_a_line_that_a_killed_process_left_unfinished_is_none(problems):
    problems.add(0, {0: "zero", 2: "cut: 図"})
    content = problems.path.read_bytes()
    begin = content.index(b"1002")
    # Also within a character.
    for size in range(begin, len(content)):
        problems.path.write_bytes(content[:size])
        assert list(problems) == [(1000, "zero")]
        problems.begin(2)
        problems.add(2, {0: "again"})
        assert list(problems) == [(1000, "zero"), (1002, "again")]
