"""Rows of features that an older result has already, copied instead of computed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.blocks import (
    Blocks,
    FeatureMatrix,
    KeyedRowBlocks,
    LabeledBlock,
    RowBlocks,
    row_ranges,
)
from lowshot_kedro.progress import Progress

logger = logging.getLogger(__name__)


def rows_with_keys(
    keys: NDArray[np.uint8], older_keys: NDArray[np.uint8], broken: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Which row of an older result has the same key as each row.

    Args:
        keys: uint8 (n, b), of the rows; zeros alone are no key.
        older_keys: uint8 (m, b), of the older rows.
        broken: int64, older rows that hold no features of their image.

    Returns:
        int64 (n,), -1 for none. In memory: three times the older keys.
    """
    rows = np.setdiff1d(np.flatnonzero(older_keys.any(axis=1)), broken)
    wanted, found = _as_text(keys), _as_text(older_keys[rows])
    if not len(found):
        return np.full(len(keys), -1, np.int64)
    order = np.argsort(found, kind="stable")
    places = np.searchsorted(found, wanted, sorter=order).clip(max=len(found) - 1)
    same = (found[order[places]] == wanted) & keys.any(axis=1)
    return np.where(same, rows[order[places]], -1)


def _as_text(keys: NDArray[np.uint8]) -> NDArray[np.bytes_]:
    """Keys as values that numpy sorts, (n,)."""
    n_keys, n_bytes = keys.shape
    if not n_keys:
        return np.empty(0, f"S{n_bytes}")
    return np.ascontiguousarray(keys).view(f"S{n_bytes}")[:, 0]


def with_known_rows(
    blocks: KeyedRowBlocks[LabeledBlock], older: FeatureMatrix, known: NDArray[np.int64]
) -> RowBlocks[LabeledBlock]:
    """All rows of a result, of which some are copied and the others are computed.

    Args:
        blocks: The result.
        older: Where rows are copied from.
        known: int64 (blocks.n_rows,), the row there; -1 for those that are computed.

    Returns:
        Blocks as large as those of the result. In memory besides: a block, and 8 bytes for each row
        that is computed.
    """
    missing = np.flatnonzero(known < 0)
    computed = blocks.only(missing)
    n_known = len(known) - len(missing)

    def make(first_row: int) -> Iterator[LabeledBlock]:
        begin = int(np.searchsorted(missing, first_row))
        n_copied = int((known[:first_row] >= 0).sum())
        # A batch of other images might be rounded in another way.
        anchor = begin - begin % computed.block_rows
        taken = _Taken(computed.starting_at(anchor), begin - anchor)
        with closing(taken), Progress(n_known, "known images", n_copied, "image") as progress:
            for first, last in row_ranges(blocks.n_rows - first_row, blocks.block_rows):
                rows = known[first_row + first : first_row + last]
                features = np.empty((len(rows), blocks.n_columns), np.float32)
                _copy(older, rows, features)
                places = np.flatnonzero(rows < 0)
                features[places], problems = taken.take(len(places))
                labels = blocks.labels[first_row + first : first_row + last]
                yield LabeledBlock(
                    features,
                    labels,
                    {int(places[place]): problem for place, problem in problems.items()},
                )
                progress.update(len(rows) - len(places))
            taken.end()

    return RowBlocks(blocks.n_rows, blocks.n_columns, blocks.block_rows, make)


def _copy(older: FeatureMatrix, rows: NDArray[np.int64], features: NDArray[np.float32]) -> None:
    """Read older rows into their places, as many at a time as follow each other."""
    places = np.flatnonzero(rows >= 0)
    if not len(places):
        return
    breaks = np.flatnonzero((np.diff(places) != 1) | (np.diff(rows[places]) != 1)) + 1
    for run in np.split(places, breaks):
        first = int(rows[run[0]])
        older.read(first, first + len(run), features[run[0] : run[-1] + 1])


class _Taken:
    """Rows that are taken from blocks in order, as many at a time as are wanted.

    Args:
        blocks: The blocks; nothing is computed before something is wanted.
        n_skipped: How many of the first rows nobody wants.
    """

    def __init__(self, blocks: Blocks[LabeledBlock], n_skipped: int) -> None:
        self._blocks = blocks
        self._iterator: Iterator[LabeledBlock] | None = None
        self._rest: LabeledBlock | None = None
        self._n_skipped = n_skipped

    def take(self, n_rows: int) -> tuple[NDArray[np.float32], dict[int, str]]:
        """The next rows, float32 (n_rows, d), and what is wrong with images, by row of these."""
        parts = [np.empty((0, self._blocks.n_columns), np.float32)]
        problems: dict[int, str] = {}
        n_taken = 0
        while n_taken < n_rows:
            rest = self._rest or self._next()
            part = rest.rows(0, n_rows - n_taken)
            problems |= {n_taken + row: problem for row, problem in part.problems.items()}
            parts.append(part.features)
            n_part = len(part.features)
            n_taken += n_part
            left = rest.rows(n_part, len(rest.features))
            self._rest = left if len(left.features) else None
        return np.concatenate(parts), problems

    def _next(self) -> LabeledBlock:
        if self._iterator is None:
            self._iterator = iter(self._blocks)
        block = next(self._iterator)
        skipped, self._n_skipped = self._n_skipped, 0
        return block.rows(skipped, len(block.features))

    def end(self) -> None:
        """Let what computes them come to its end, when all are taken."""
        for _ in self._iterator or ():
            raise AssertionError("more rows than were asked for")

    def close(self) -> None:
        """Stop what computes them."""
        close = getattr(self._iterator, "close", None)
        if close is not None:
            close()
