"""Memory within a budget, and work on disk that a later run continues."""

from __future__ import annotations

import logging
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lowshot_kedro.blocks import row_ranges
from lowshot_kedro.errors import NotEnoughMemoryError
from lowshot_kedro.graph.vectors import release
from lowshot_kedro.memory import available_bytes, format_bytes, format_gigabytes, rss_bytes
from lowshot_kedro.progress import Progress
from lowshot_kedro.threads import map_in_threads

logger = logging.getLogger(__name__)

# What blocks and libraries need beside the arrays that are planned.
SPARE_BYTES = 640 * 2**20
_ROWS_ON_DISK = 4096


class MemoryBudget:
    """How much memory this process may take, all told.

    Args:
        n_bytes: The budget; None: what it has and four fifths of what is free.

    Raises:
        ValueError: If the process has more than that already.
    """

    def __init__(self, n_bytes: int | None = None) -> None:
        taken = rss_bytes()
        self._bytes = taken + available_bytes() * 4 // 5 if n_bytes is None else n_bytes
        # Half of what is spared will do: what an earlier phase has left must not stop a later one.
        least = taken + SPARE_BYTES // 2
        if n_bytes is not None and n_bytes < least:
            raise NotEnoughMemoryError(
                parameter="memory_budget_bytes",
                found=n_bytes,
                expected=f"at least {format_gigabytes(least)}: the process has "
                f"{format_gigabytes(taken)} before it begins",
            )

    @property
    def left(self) -> int:
        """Bytes that may still be taken by large arrays."""
        return max(self._bytes - rss_bytes() - SPARE_BYTES, 0)

    @property
    def is_short(self) -> bool:
        """Whether little is left beside what is spared for blocks."""
        return self._bytes - rss_bytes() < 2 * SPARE_BYTES


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that does not outlast the work, even if Ctrl-C comes while it is removed."""
    folder = tempfile.TemporaryDirectory()
    try:
        yield Path(folder.name)
    finally:
        try:
            folder.cleanup()
        except BaseException:
            folder.cleanup()
            raise


class Workspace:
    """A folder for work in progress, and memory as far as the budget allows.

    Args:
        folder: Lasts as long as the work, over several runs if need be.
        budget: How much memory may be taken.
    """

    def __init__(self, folder: Path, budget: MemoryBudget) -> None:
        self.folder = folder
        self.budget = budget
        # Not held here: what nobody needs any more takes no memory.
        self._references: list[weakref.ref[NDArray[Any]]] = []

    def allocate(self, name: str, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        """An array for one phase: in memory, or in a file where memory is short."""
        n_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        if n_bytes <= self.budget.left or n_bytes == 0:
            return np.empty(shape, dtype)
        logger.info(
            "%s of %s kept on disk: %s left of the memory budget",
            name,
            format_bytes(n_bytes),
            format_bytes(self.budget.left),
        )
        array = np.memmap(
            self.folder / f"{name}.scratch", mode="w+", dtype=dtype, shape=tuple(shape)
        )
        self._references.append(weakref.ref(array))
        return array

    @property
    def _mapped(self) -> list[NDArray[Any]]:
        """The arrays of this folder that are in files and still used."""
        there = (reference() for reference in self._references)
        return [array for array in there if array is not None]

    def rows_at_once(self, usual: int) -> int:
        """How many rows to work on before memory is released: few where arrays are on disk.

        Rows look at other rows all over these arrays, and every page they look at is held.
        """
        return min(usual, _ROWS_ON_DISK) if self._mapped else usual

    def release(self, *arrays: NDArray[Any]) -> None:
        """Give back the memory of what has been read from or written to files."""
        for array in (*self._mapped, *arrays):
            release(array)

    def relieve(self, *arrays: NDArray[Any]) -> None:
        """Give that memory back if memory is short; else it stays, since it is read again soon."""
        if self.budget.is_short:
            self.release(*arrays)

    def stage(self, name: str, n_rows: int, columns: Sequence[tuple[str, int, str]]) -> Stage:
        """A phase whose result is written row by row; see :class:`Stage`."""
        return Stage(self, name, n_rows, columns)


class Stage:
    """The result of one phase: matrices with as many rows each, written block after block.

    A run that is killed leaves whole blocks, which the next run takes over.

    Args:
        workspace: Folder and budget of the work.
        name: Name of the phase.
        n_rows: Rows of every matrix.
        columns: Name, number of columns and dtype of every matrix.
    """

    def __init__(
        self,
        workspace: Workspace,
        name: str,
        n_rows: int,
        columns: Sequence[tuple[str, int, str]],
    ) -> None:
        self.name = name
        self._workspace = workspace
        self._n_rows = n_rows
        self._files = [
            (workspace.folder / f"{name}.{part}", width, np.dtype(dtype))
            for part, width, dtype in columns
        ]

    @property
    def is_complete(self) -> bool:
        """Whether all rows are there."""
        return self._rows_there() == self._n_rows

    def _rows_there(self) -> int:
        counts = [
            path.stat().st_size // (width * dtype.itemsize) if path.is_file() else 0
            for path, width, dtype in self._files
        ]
        return min(self._n_rows, *counts) if self._n_rows else 0

    def fill(
        self,
        make: Callable[[int, int], tuple[NDArray[Any], ...]],
        block_rows: int,
        description: str,
    ) -> tuple[NDArray[Any], ...]:
        """Compute the blocks that are missing.

        Args:
            make: Takes a range of rows, first and one after the last, and returns a block of each
                matrix.
            block_rows: Rows of a block, the same in every run.
            description: For the progress bar.

        Returns:
            The matrices as read-only memmaps. In memory: a block that is being made, and two that
            are written meanwhile.
        """
        there = self._rows_there()
        there = there if there == self._n_rows else there // block_rows * block_rows
        files = [path.open("r+b" if path.is_file() else "w+b") for path, _, _ in self._files]
        for file, (_, width, dtype) in zip(files, self._files, strict=True):
            file.truncate(there * width * dtype.itemsize)
            file.seek(0, 2)
        if 0 < there < self._n_rows:
            logger.info("%s: continuing after row %d of %d", description, there, self._n_rows)

        def write(blocks: tuple[NDArray[Any], ...]) -> int:
            for file, (_, _, dtype), block in zip(files, self._files, blocks, strict=True):
                file.write(np.ascontiguousarray(block, dtype=dtype).data.cast("B"))
                file.flush()
            return len(blocks[0])

        stopped_by: list[BaseException] = []

        def made() -> Iterator[tuple[NDArray[Any], ...]]:
            # What has been made before an error is written all the same.
            try:
                for first, last in row_ranges(self._n_rows - there, block_rows):
                    yield make(there + first, there + last)
            except (Exception, KeyboardInterrupt) as error:
                stopped_by.append(error)

        try:
            with (
                Progress(self._n_rows, description, there) as bar,
                closing(map_in_threads(write, made(), n_waiting=0, n_threads=1)) as written,
            ):
                for n_rows in written:
                    self._workspace.release()
                    bar.update(n_rows)
        finally:
            for file in files:
                file.close()
        if stopped_by:
            raise stopped_by[0]
        return self.load()

    def load(self) -> tuple[NDArray[Any], ...]:
        """The matrices as read-only memmaps."""
        return tuple(
            np.memmap(path, mode="r", dtype=dtype, shape=(self._n_rows, width))
            if self._n_rows
            else np.empty((0, width), dtype)
            for path, width, dtype in self._files
        )

    def delete(self) -> None:
        """Remove the files."""
        for path, _, _ in self._files:
            path.unlink(missing_ok=True)
