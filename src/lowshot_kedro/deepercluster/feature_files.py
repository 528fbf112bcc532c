"""Rows of images on disk that several processes write, a batch of images at a time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.deepercluster.rows import FileRows
from lowshot_kedro.disk import full_disk_named
from lowshot_kedro.progress import Stopwatch
from lowshot_kedro.training import stopping
from lowshot_kedro.training.processes import Processes

Item = TypeVar("Item")

# Between two notes of what is on the disk, as lost by a machine that stops.
_SECONDS_BETWEEN_NOTES = 30
# Items of a process between two questions whether to stop.
_ITEMS_OF_ROUND = 16


class BatchFile:
    """A raw float32 file of rows in batches, and a note of those that are there.

    The note has a byte for each batch: 0 for one that is missing, else 1 + the number of images in
    it that are blank ones. Any process writes any batch; on a file system that all share, a work
    that has been stopped goes on in another number of processes.

    Args:
        path: The file of rows.
        n_columns: Numbers of a row.
        n_rows: Rows.
        batch_rows: Rows of each batch but the last, at most 254.
    """

    def __init__(self, path: Path, n_columns: int, n_rows: int, batch_rows: int) -> None:
        self.path, self._note = path, path.with_suffix(".done")
        self.n_columns, self.n_rows, self.batch_rows = n_columns, n_rows, batch_rows
        self._to_note: dict[int, int] = {}
        self._since_note = Stopwatch()

    @property
    def n_batches(self) -> int:
        """Batches of all rows."""
        return -(-self.n_rows // self.batch_rows)

    def create(self) -> None:
        """Make the files, of one process for all; what is there already stays."""
        for path, size in ((self._note, self.n_batches), (self.path, self._bytes(self.n_rows))):
            with path.open("ab") as file:
                if file.tell() < size:
                    file.truncate(size)

    def remove(self) -> None:
        """Remove the files, as one process for all."""
        self._note.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def missing(self, batches: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of some batches that are not there."""
        missing: NDArray[np.int64] = batches[self._noted()[batches] == 0]
        return missing

    def n_blank(self, batches: NDArray[np.int64]) -> list[int]:
        """Images of some batches that are blank ones, for each batch that is there."""
        found: list[int] = (self._noted()[batches].astype(np.int64) - 1).tolist()
        return found

    def rows_of(self, batch: int) -> tuple[int, int]:
        """The first row of a batch, and the one after its last."""
        first = batch * self.batch_rows
        return first, min(self.n_rows, first + self.batch_rows)

    def write(self, batch: int, rows: NDArray[np.float32], n_blank: int) -> None:
        """Write a batch. It counts as there when that is noted, which happens now and then."""
        with full_disk_named(self.path), self.path.open("r+b") as file:
            file.seek(self._bytes(batch * self.batch_rows))
            file.write(np.ascontiguousarray(rows, np.float32).tobytes())
        self._to_note[batch] = 1 + n_blank
        if self._since_note.seconds >= _SECONDS_BETWEEN_NOTES:
            self.note()

    def note(self) -> None:
        """Note what this process has written, when it is on the disk."""
        if self._to_note:
            with self.path.open("r+b") as file:
                os.fsync(file.fileno())
            with self._note.open("r+b") as file:
                for batch, value in sorted(self._to_note.items()):
                    file.seek(batch)
                    file.write(bytes([value]))
                file.flush()
                os.fsync(file.fileno())
        self._to_note.clear()
        self._since_note = Stopwatch()

    def open(self, rows: range) -> FileRows:
        """Some rows that are there, for reading."""
        return FileRows(self.path, self.n_columns, len(rows), offset=self._bytes(rows.start))

    def _noted(self) -> NDArray[np.uint8]:
        return np.fromfile(self._note, np.uint8, self.n_batches)

    def _bytes(self, n_rows: int) -> int:
        return 4 * self.n_columns * n_rows


def stoppable_loop(
    items: Iterable[Item], n_items: int, processes: Processes, after: str
) -> Iterator[Item]:
    """The items of a process; now and then all processes ask whether they are to stop.

    All call this together, each with its own items, and use them up. What has been done with the
    items before must be kept in a way from which the work can go on.

    Args:
        items: Of this process.
        n_items: How many.
        processes: Those that work together.
        after: What has been done when the work is stopped, for people.

    Raises:
        StoppedBySignal: If a signal asks for it.
    """
    rounds = -(-n_items // _ITEMS_OF_ROUND)
    if processes.n_processes > 1:
        # Whoever whitens features of their own may have no PyTorch.
        import torch

        rounds = int(processes.stack(torch.tensor(rounds)).max())
    iterator = iter(items)
    for number in range(rounds):
        for _ in range(min(_ITEMS_OF_ROUND, max(0, n_items - number * _ITEMS_OF_ROUND))):
            yield next(iterator)
        stopping.stop_if_wanted(processes, after)
    yield from iterator
