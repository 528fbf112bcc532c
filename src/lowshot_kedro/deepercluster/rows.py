"""Rows that need not fit in memory, and the share of them that a process works on."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lowshot_kedro.blocks import row_ranges
from lowshot_kedro.errors import InputError, shown
from lowshot_kedro.input_files import require_file
from lowshot_kedro.interruption import require_no_stop
from lowshot_kedro.training.processes import Processes

# Rows between two wanted ones are read along if they are not more bytes: a call takes as long.
_READ_ALONG_BYTES = 2**12
_MAX_SPAN_BYTES = 2**20
# What taking rows needs beside those that it returns.
TAKING_BYTES = 2 * _MAX_SPAN_BYTES


class Rows(Protocol):
    """Rows of numbers that are read when they are asked for."""

    @property
    def n_rows(self) -> int:
        """How many there are."""
        ...

    @property
    def n_columns(self) -> int:
        """Numbers of a row."""
        ...

    def read(
        self, first: int, last: int, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Rows first..last-1, float32 (last - first, n_columns), in `out` if that is given."""
        ...

    def take(
        self, numbers: NDArray[np.int64], out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Some rows, float32 (len(numbers), n_columns), by their numbers, which increase."""
        ...


@dataclass(frozen=True)
class Share:
    """The rows of a collection that one of several processes works on.

    Shares of all processes stand one after the other, in the order of their ranks.

    Attributes:
        rows: The rows of this process; there may be none.
        first: The number of its first row among those of all processes.
        n_rows: Rows of all processes.
        processes: Those that work together.
    """

    rows: Rows
    first: int
    n_rows: int
    processes: Processes


class FileRows:
    """Rows of a raw float32 file in the machine's byte order, which is read and not mapped.

    So it does not count as memory of the process, but for what is asked for.

    Args:
        path: The file.
        n_columns: Numbers of a row.
        n_rows: How many rows there are.
        offset: Bytes before the first one.

    Raises:
        InputError: If the file is shorter than that.
        OSError: If it cannot be read.
    """

    def __init__(self, path: str | Path, n_columns: int, n_rows: int, *, offset: int = 0) -> None:
        self.n_rows, self.n_columns = n_rows, n_columns
        self._path, self._offset = Path(path), offset
        size, expected = require_file(self._path), offset + 4 * n_columns * n_rows
        if size < expected:
            raise InputError(
                f"{self._path}: found {size} bytes, expected {expected}: {n_rows} rows of "
                f"{n_columns} numbers"
            )
        self._file = os.open(self._path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        weakref.finalize(self, os.close, self._file)

    def read(
        self, first: int, last: int, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Rows first..last-1, float32 (last - first, n_columns), in `out` if that is given.

        Raises:
            InputError: If the file has become shorter.
        """
        out = _room(out, last - first, self.n_columns)
        view = out.reshape(-1).view(np.uint8).data
        done, begin = 0, self._offset + 4 * self.n_columns * first
        while done < len(view):
            n_bytes = os.preadv(self._file, [view[done:]], begin + done)
            if not n_bytes:
                raise InputError(
                    f"{self._path}: found {begin + done} bytes, expected more: it has become "
                    "shorter while it was read"
                )
            done += n_bytes
        return out

    def take(
        self, numbers: NDArray[np.int64], out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Some rows, float32 (len(numbers), n_columns), by their numbers, which increase."""
        out = _room(out, len(numbers), self.n_columns)
        row_bytes = 4 * max(self.n_columns, 1)
        max_rows = max(1, _MAX_SPAN_BYTES // row_bytes)
        gap = 1 + _READ_ALONG_BYTES // row_bytes
        breaks = np.flatnonzero(np.diff(numbers) > gap) + 1
        for begin, end in zip([0, *breaks.tolist()], [*breaks.tolist(), len(numbers)], strict=True):
            while begin < end:
                first = int(numbers[begin])
                stop = begin + int(np.searchsorted(numbers[begin:end], first + max_rows))
                last = int(numbers[stop - 1]) + 1
                if last - first == stop - begin:
                    self.read(first, last, out[begin:stop])
                else:
                    out[begin:stop] = self.read(first, last)[numbers[begin:stop] - first]
                begin = stop
        return out


class ArrayRows:
    """Rows of an array, which become float32 block by block where they are of another type.

    A numpy.memmap of float32 numbers is read from its file, so that it does not count as memory of
    the process.

    Args:
        array: (n, d) numbers, or what `numpy.asarray` takes.
        first: The first row that counts.
        last: The row after the last; None: all.

    Raises:
        InputError: If it is no matrix of numbers.
    """

    def __init__(self, array: ArrayLike, first: int = 0, last: int | None = None) -> None:
        matrix = as_matrix(array)
        self._array = matrix[first:last]
        self.n_rows, self.n_columns = self._array.shape
        self._file = _file_of(matrix, first, self.n_rows)

    def read(
        self, first: int, last: int, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Rows first..last-1, float32 (last - first, n_columns), in `out` if that is given."""
        if self._file is not None:
            return self._file.read(first, last, out)
        return self._converted(self._array[first:last], out)

    def take(
        self, numbers: NDArray[np.int64], out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Some rows, float32 (len(numbers), n_columns), by their numbers, which increase."""
        if self._file is not None:
            return self._file.take(numbers, out)
        if out is not None and self._array.dtype == np.float32:
            # Without "clip" numpy would make a copy, lest there be a number that is no row.
            return np.take(self._array, numbers, 0, out, "clip")
        return self._converted(self._array[numbers], out)

    @property
    def is_at_hand(self) -> bool:
        """Whether rows need not be copied to be used."""
        array = self._array
        is_float = array.dtype == np.float32 and array.dtype.isnative
        return self._file is None and is_float and array.flags.c_contiguous and array.flags.aligned

    def _converted(
        self, block: NDArray[Any], out: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        # What float32 cannot hold becomes infinite, and is refused as that.
        with np.errstate(over="ignore"):
            if out is None:
                return np.ascontiguousarray(block, np.float32)
            out[...] = block
        return out


def share_of(array: ArrayLike, processes: Processes) -> Share:
    """The part of a collection, which every process has as a whole, that this one works on.

    Args:
        array: (n, d) numbers.
        processes: Those that work together; each gets as many rows as the others, or one less.

    Raises:
        InputError: If it is no matrix of numbers.
    """
    matrix = as_matrix(array)
    first = len(matrix) * processes.rank // processes.n_processes
    last = len(matrix) * (processes.rank + 1) // processes.n_processes
    return Share(ArrayRows(matrix, first, last), first, len(matrix), processes)


def read_blocks(
    rows: Rows, room: NDArray[np.float32], members: NDArray[np.int64] | None = None
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Rows one block after the other; between two of them this can be stopped.

    Args:
        rows: What is read.
        room: (n, n_columns), whose rows are as many as a block has. A block lasts until the next.
        members: int64, increasing numbers of the rows that are wanted; None: all.

    Yields:
        The place of its first row among those that are wanted, and the block.
    """
    at_hand = members is None and isinstance(rows, ArrayRows) and rows.is_at_hand
    for first, last in row_ranges(rows.n_rows if members is None else len(members), len(room)):
        require_no_stop()
        if at_hand:
            yield first, rows.read(first, last)
        elif members is None:
            yield first, rows.read(first, last, room[: last - first])
        else:
            yield first, rows.take(members[first:last], room[: last - first])


def as_matrix(array: ArrayLike) -> NDArray[Any]:
    """An array of (n, d) real numbers, d at least 1, without a copy where it is one already.

    Raises:
        InputError: If it is none.
    """
    expected = "a matrix of numbers, (rows, columns)"
    try:
        matrix = np.asanyarray(array)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(parameter="features", found=shown(array), expected=expected) from error
    if matrix.ndim != 2 or matrix.shape[1] < 1 or matrix.dtype.kind not in "biuf":
        found = f"{matrix.dtype} {matrix.shape}"
        raise InputError(parameter="features", found=found, expected=expected)
    return matrix


def _file_of(matrix: NDArray[Any], first: int, n_rows: int) -> FileRows | None:
    """The file of a whole memmap, as it was opened; None for everything else."""
    if type(matrix) is not np.memmap or matrix.dtype != np.float32 or not matrix.dtype.isnative:
        return None
    # A slice says the offset of the whole; what a private copy holds is not in the file.
    is_whole = type(matrix.base) is not np.memmap and matrix.flags.c_contiguous
    if not is_whole or matrix.filename is None or matrix.mode == "c":
        return None
    offset = int(matrix.offset) + 4 * matrix.shape[1] * first
    return FileRows(matrix.filename, matrix.shape[1], n_rows, offset=offset)


def _room(out: NDArray[np.float32] | None, n_rows: int, n_columns: int) -> NDArray[np.float32]:
    return np.empty((n_rows, n_columns), np.float32) if out is None else out
