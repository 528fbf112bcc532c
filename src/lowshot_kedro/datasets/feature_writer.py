"""Writing feature files row by row, so that a process may be killed at any moment.

HDF5 promises nothing about a file whose writer was killed. So it only lays the empty file out;
the rows then go to the places it has chosen for them, past the library, as in any raw matrix.
"""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.blocks import LabeledBlock
from lowshot_kedro.datasets.files import partial_path
from lowshot_kedro.datasets.hdf5_files import find_dataset, open_hdf5

FEATURES, LABELS, COUNT = "all_feats", "all_labels", "count"
# Beside these, for ourselves alone: by what images are known again, see KeyedRowBlocks.
KEYS = "image_keys"
# An attribute of FEATURES: what its rows are flattened from, where they are.
ROW_SHAPE = "shape"
BYTES_PER_NUMBER = 4

_SECONDS_BETWEEN_COMMITS = 5
_PROBLEM_COLUMNS = ("picture", "problem")


class FeatureWriter:
    """Feature files of one collection, one after the other, that are filled from the front.

    Every file has its count of valid rows. It moves only after the rows are on disk, so whatever
    stops this process, the next one continues after rows that are there.

    Args:
        paths: The files. Those of the same sizes that are there already are continued.
        n_rows: Rows of the collection.
        n_columns: Dimension of the features.
        rows_per_file: Rows of every file but the last.
        problems: The list to which the problems of the rows are added; None: they are dropped.
        keys: uint8 (n_rows, b), kept with the rows; None: the files hold none.
        row_shape: What rows are flattened from, noted in files laid out anew; None: nothing.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        n_rows: int,
        n_columns: int,
        rows_per_file: int,
        problems: ProblemList | None = None,
        keys: NDArray[np.uint8] | None = None,
        row_shape: Sequence[int] | None = None,
    ) -> None:
        self._rows_per_file = rows_per_file
        self._problems = problems
        self._keys = keys
        key_bytes = 0 if keys is None else keys.shape[1]
        with ExitStack() as opened:
            self._files = []
            for number, path in enumerate(paths):
                rows = min(rows_per_file, n_rows - number * rows_per_file)
                self._files.append(_File(path, rows, n_columns, key_bytes, row_shape))
                opened.callback(self._files[-1].close)
            self._close = opened.pop_all().close
        self._uncommitted: dict[int, int] = {}
        self._committed_at = time.monotonic()

    def __enter__(self) -> FeatureWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            # What an error has left unwritten is not counted, what was written before it is.
            self.commit()
        finally:
            self._close()

    @property
    def rows_done(self) -> int:
        """Rows on disk from the first one on."""
        done = 0
        for file in self._files:
            done += file.count
            if file.count < file.n_rows:
                break
        return done

    def continue_at(self, row: int) -> None:
        """Take back all rows from this one on, and their problems: they are written again.

        Args:
            row: At most `rows_done`.
        """
        for number, file in enumerate(self._files):
            kept = max(0, row - number * self._rows_per_file)
            if file.count > kept:
                file.commit(kept)
        if self._problems is not None:
            self._problems.begin(row)

    def write(self, first_row: int, block: LabeledBlock) -> None:
        """Write rows and their problems, and count them every few seconds.

        Args:
            first_row: Number of the first of them; all rows before it are written already.
            block: float32 (m, n_columns) features and int32 (m,) labels.
        """
        if self._problems is not None:
            self._problems.add(first_row, block.problems)
        start = 0
        while start < len(block.features):
            number, position = divmod(first_row + start, self._rows_per_file)
            end = min(len(block.features), start + self._rows_per_file - position)
            self._files[number].write(position, block.rows(start, end))
            if self._keys is not None:
                keys = self._keys[first_row + start : first_row + end]
                self._files[number].write_keys(position, keys)
            self._uncommitted[number] = position + end - start
            start = end
        if time.monotonic() - self._committed_at >= _SECONDS_BETWEEN_COMMITS:
            self.commit()

    def commit(self) -> None:
        """Wait until all rows and their problems are on disk, then count them."""
        # Forgotten first: a system says only once that it could not write.
        uncommitted, self._uncommitted = self._uncommitted, {}
        if uncommitted and self._problems is not None:
            self._problems.sync()
        for number, count in uncommitted.items():
            self._files[number].commit(count)
        self._committed_at = time.monotonic()


class _Layout(NamedTuple):
    """The places of the arrays in a file, in bytes from its beginning; and its count of rows.

    Work that an earlier version has begun has no place for keys.
    """

    features_at: int
    labels_at: int
    count_at: int
    n_counted: int
    keys_at: int | None


class _File:
    """One feature file: continued if it is there and of this size, otherwise laid out anew."""

    def __init__(
        self,
        path: Path,
        n_rows: int,
        n_columns: int,
        key_bytes: int,
        row_shape: Sequence[int] | None,
    ) -> None:
        self.n_rows = n_rows
        self._n_columns = n_columns
        layout = _find_layout(path, n_rows, n_columns, key_bytes)
        if layout is None:
            _lay_out(path, n_rows, n_columns, key_bytes, row_shape)
            layout = _find_layout(path, n_rows, n_columns, key_bytes)
            assert layout is not None, "HDF5 allocates at once what it is told to"
        self._layout = layout
        self.count = layout.n_counted
        self._descriptor = os.open(path, os.O_WRONLY)

    def write(self, position: int, block: LabeledBlock) -> None:
        """Write rows of which the first one is row `position` of this file."""
        row_bytes = BYTES_PER_NUMBER * self._n_columns
        self._write_at(self._layout.features_at + position * row_bytes, block.features, "<f4")
        self._write_at(self._layout.labels_at + position * BYTES_PER_NUMBER, block.labels, "<i4")

    def write_keys(self, position: int, keys: NDArray[np.uint8]) -> None:
        """Write the keys of rows of which the first one is row `position` of this file."""
        if self._layout.keys_at is not None:
            self._write_at(self._layout.keys_at + position * keys.shape[1], keys, "u1")

    def commit(self, count: int) -> None:
        """Wait until all rows are on disk, then write down how many there are."""
        os.fsync(self._descriptor)
        self._write_at(self._layout.count_at, np.array([count]), "<i4")
        os.fsync(self._descriptor)
        self.count = count

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _write_at(self, offset: int, numbers: NDArray[Any], dtype: str) -> None:
        rest = np.ascontiguousarray(numbers, dtype=dtype).reshape(-1).view(np.uint8).data
        while rest:
            written = os.pwrite(self._descriptor, rest, offset)
            rest, offset = rest[written:], offset + written


def _lay_out(
    path: Path, n_rows: int, n_columns: int, key_bytes: int, row_shape: Sequence[int] | None
) -> None:
    """An empty feature file with a place for every row, on disks that can as a file with holes."""
    arrays = [
        (FEATURES, (n_rows, n_columns), h5py.h5t.IEEE_F32LE),
        (LABELS, (n_rows,), h5py.h5t.STD_I32LE),
        (COUNT, (1,), h5py.h5t.STD_I32LE),
    ]
    if key_bytes:
        arrays.append((KEYS, (n_rows, key_bytes), h5py.h5t.STD_U8LE))
    with h5py.File(path, "w") as file:
        for name, shape, numbers in arrays:
            properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            # The same rows make the same file at any time of day.
            properties.set_obj_track_times(False)
            if name != COUNT:
                properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            space = h5py.h5s.create_simple(shape)
            h5py.h5d.create(file.id, name.encode(), numbers, space, properties)
        if row_shape is not None:
            file[FEATURES].attrs[ROW_SHAPE] = np.array(row_shape, "<i8")


def _find_layout(path: Path, n_rows: int, n_columns: int, key_bytes: int) -> _Layout | None:
    """The layout of a feature file; None for no file, another one, or one never laid out."""
    expected = [((n_rows, n_columns), "<f4"), ((n_rows,), "<i4"), ((1,), "<i4")]
    try:
        with open_hdf5(path) as file:
            arrays = [find_dataset(file, name) for name in (FEATURES, LABELS, COUNT)]
            if [(array.shape, array.dtype.str) for array in arrays] != expected:
                return None
            offsets = [array.id.get_offset() for array in arrays]
            found = int(arrays[-1][0])
            keys_at = None
            if key_bytes and KEYS in file:
                keys = find_dataset(file, KEYS)
                if (keys.shape, keys.dtype.str) != ((n_rows, key_bytes), "|u1"):
                    return None
                keys_at = keys.id.get_offset()
    except Exception:
        # The library has many ways to say that a file is damaged; in all cases it is of no use.
        return None
    if not 0 <= found <= n_rows or (n_rows and None in offsets):
        return None
    features_at, labels_at, count_at = (offset or 0 for offset in offsets)
    return _Layout(features_at, labels_at, count_at, found, keys_at)


class ProblemList:
    """The images of a collection that are blank, and why, as a CSV file: image, problem.

    Args:
        path: The CSV file.
        first_image: The number that the first row of the features has as an image.
    """

    def __init__(self, path: Path, first_image: int = 0) -> None:
        self.path = path
        self._first_image = first_image

    def __iter__(self) -> Iterator[tuple[int, str]]:
        """Numbers of images and what is wrong with them; none where there is no list."""
        try:
            # A line that a killed process has left unfinished, perhaps within a character, is none.
            with self.path.open(newline="", encoding="utf-8", errors="replace") as file:
                rows = csv.reader(line for line in file if line.endswith("\n"))
                next(rows, None)
                for image, problem in rows:
                    yield int(image), problem
        except FileNotFoundError:
            return

    def begin(self, n_rows: int) -> None:
        """Start the list, or keep what it says about the first rows, and nothing else."""
        self._write(partial_path(self.path), _before(self, self._first_image + n_rows), "w")
        partial_path(self.path).replace(self.path)

    def add(self, first_row: int, problems: Mapping[int, str]) -> None:
        """Add what is wrong with images of a block.

        Args:
            first_row: Number of the first row of the block.
            problems: What is wrong, by row of the block.
        """
        first = self._first_image + first_row
        if problems:
            lines = ((first + row, problems[row]) for row in sorted(problems))
            self._write(self.path, lines, "a")

    def sync(self) -> None:
        """Wait until all that was added is on disk."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())

    def _write(self, path: Path, lines: Iterable[tuple[int, str]], mode: str) -> None:
        with path.open(mode, newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            if mode == "w":
                writer.writerow(_PROBLEM_COLUMNS)
            # Every problem is a line, whatever the message of a library looks like.
            writer.writerows((image, _one_line(problem)) for image, problem in lines)


def _one_line(problem: str) -> str:
    return " ".join(problem.replace("\0", "").split())


def _before(problems: Iterable[tuple[int, str]], end: int) -> Iterator[tuple[int, str]]:
    return ((image, problem) for image, problem in problems if image < end)
