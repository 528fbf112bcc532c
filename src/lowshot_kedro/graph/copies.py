"""Vectors that occur very often: the first of them stand for all.

Work on rows that are equal grows with the square of their number, and rows that fill each other's
lists would be linked to nothing else. So only the first ones are searched for and found, and the
others are linked through these.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro import native
from lowshot_kedro.blocks import KnnGraph, row_ranges
from lowshot_kedro.graph.spaces import Space
from lowshot_kedro.graph.vectors import BLOCK_ROWS, release
from lowshot_kedro.graph.workspace import Workspace
from lowshot_kedro.progress import logged_step

logger = logging.getLogger(__name__)

_SEED = 20180618


@dataclass(frozen=True)
class Copies:
    """Rows that are left out, because others like them come before.

    Attributes:
        n_rows: All rows there are.
        rows: int32 (c,), those left out, increasing.
        first: int32 (c,), for each of them the first row that is like it.
    """

    n_rows: int
    rows: NDArray[np.int32]
    first: NDArray[np.int32]

    @cached_property
    def kept(self) -> NDArray[np.int32]:
        """int32 (m,), the rows that are not left out, increasing."""
        is_kept = np.ones(self.n_rows, np.bool_)
        is_kept[self.rows] = False
        return np.flatnonzero(is_kept).astype(np.int32)

    @cached_property
    def _groups(self) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
        """Rows left out, group after group; where that of each row kept begins, and its size."""
        order = np.argsort(self.first, kind="stable")
        firsts, begins, counts = np.unique(self.first[order], return_index=True, return_counts=True)
        begin, n_more = np.zeros((2, len(self.kept)), np.int64)
        place = np.searchsorted(self.kept, firsts)
        begin[place], n_more[place] = begins, counts
        return self.rows[order], begin, n_more

    def complete(self, graph: KnnGraph, through_first: bool) -> KnnGraph:
        """The graph over all rows from the one over those kept.

        Args:
            graph: Graph over the rows kept, which are numbered 0, 1, 2 … in it.
            through_first: Whether a row left out is linked to the first row like it and to itself
                alone; else it has the neighbours of that row.

        Returns:
            In memory besides: the rows kept, 4 bytes each.
        """
        kept, k = self.kept, graph.indices.shape[1]
        complete = KnnGraph(
            np.empty((self.n_rows, k), np.int32), np.empty((self.n_rows, k), np.float32)
        )
        for first, last in row_ranges(len(kept), BLOCK_ROWS):
            rows, indices = kept[first:last], graph.indices[first:last]
            complete.indices[rows] = np.where(indices < 0, np.int32(-1), kept[indices])
            complete.similarities[rows] = graph.similarities[first:last]
        itself = min(1, k - 1)
        for first, last in row_ranges(len(self.rows), BLOCK_ROWS):
            rows, like = self.rows[first:last], self.first[first:last]
            indices, similarities = complete.indices[like], complete.similarities[like]
            if through_first:
                indices[:, itself], similarities[:, itself] = rows, similarities[:, 0]
                indices[:, itself + 1 :], similarities[:, itself + 1 :] = -1, -np.inf
            complete.indices[rows], complete.similarities[rows] = indices, similarities
        return complete

    def expand(self, found: KnnGraph) -> KnnGraph:
        """The nearest of all rows from the nearest of those kept, if one of equal rows is kept.

        Args:
            found: (q, k), rows kept by their numbers among these, most similar first.

        Returns:
            (q, k), by their numbers among all; after a row all that are like it.
        """
        kept, k = self.kept, found.indices.shape[1]
        members, begin, n_more = self._groups
        there = found.indices >= 0
        sizes = np.where(there, 1 + np.minimum(n_more[found.indices], k), 0)
        ends = np.cumsum(sizes, axis=1)
        expanded = KnnGraph(np.empty_like(found.indices), np.empty_like(found.similarities))
        rows = np.arange(len(ends))
        for column in range(k):
            source = (ends <= column).sum(axis=1)
            is_there = source < k
            of = np.minimum(source, k - 1)
            number = found.indices[rows, of]
            after = column - (ends[rows, of] - sizes[rows, of])
            copy = begin[number] + np.maximum(after - 1, 0)
            of_copy = members[np.minimum(copy, len(members) - 1)]
            expanded.indices[:, column] = np.where(
                is_there, np.where(after > 0, of_copy, kept[number]), -1
            )
            expanded.similarities[:, column] = np.where(
                is_there, found.similarities[rows, of], -np.inf
            )
        return expanded


def find_copies(
    vectors: NDArray[np.float32],
    max_copies: int,
    n_kept: int,
    workspace: Workspace,
    name: str,
    space: Space,
    block_rows: int = BLOCK_ROWS,
) -> Copies | None:
    """Find the vectors of which there are more than some number.

    Args:
        vectors: float32 (n, d), a memmap or array.
        max_copies: How many rows may be equal, or equal once they are scaled to length 1 where the
            cosine counts.
        n_kept: How many of more equal rows are kept, at most max_copies: the first ones.
        workspace: Folder for checksums that the budget has no room for.
        name: What messages call the vectors.
        space: Space in which they are compared.
        block_rows: Rows that are compared together.

    Returns:
        None if there are no such vectors. In memory: 16 bytes for each vector meanwhile.

    Raises:
        ValueError: For NaN or infinity.
    """
    with logged_step("graph: looking for rows that are equal"):
        checksums = _checksums(vectors, workspace, name, space)
        ordered = workspace.allocate("ordered checksums", checksums.shape, checksums.dtype)
        ordered[:] = checksums
        ordered.sort()
        frequent = np.unique(ordered[max_copies:][ordered[max_copies:] == ordered[:-max_copies]])
        if not len(frequent):
            return None
        found = frequent[np.minimum(np.searchsorted(frequent, checksums), len(frequent) - 1)]
        rows = np.flatnonzero(found == checksums)
        of_checksum = np.searchsorted(frequent, checksums[rows])
        order = np.argsort(of_checksum, kind="stable")
        rows, of_checksum = rows[order], of_checksum[order]
        starts = np.flatnonzero(np.diff(of_checksum, prepend=-1))
        first = np.repeat(rows[starts], np.diff(starts, append=len(rows)))
        # Rows may be different and have one checksum all the same.
        alike = np.concatenate(
            [
                (
                    space.query_rows(vectors, rows[begin:end], name)
                    == space.query_rows(vectors, first[begin:end], name)
                ).all(axis=1)
                for begin, end in row_ranges(len(rows), block_rows)
            ]
        )
        rows, first = rows[alike], first[alike]
        starts = np.flatnonzero(np.diff(first, prepend=-1))
        rank = np.arange(len(rows)) - np.repeat(starts, np.diff(starts, append=len(rows)))
        sizes = np.repeat(np.diff(starts, append=len(rows)), np.diff(starts, append=len(rows)))
        left_out = (rank >= n_kept) & (sizes > max_copies)
        rows, first = rows[left_out], first[left_out]
        order = np.argsort(rows)
    if not len(rows):
        return None
    logger.info(
        "graph: %d of %d rows equal earlier ones, and get their neighbours",
        len(rows),
        len(vectors),
    )
    return Copies(len(vectors), rows[order].astype(np.int32), first[order].astype(np.int32))


def _checksums(
    vectors: NDArray[np.float32], workspace: Workspace, name: str, space: Space
) -> NDArray[np.uint64]:
    """A checksum of each row: the same for equal rows, as a rule another one for others."""
    checksums = workspace.allocate("checksums", (len(vectors),), np.uint64)
    factors = np.random.default_rng(_SEED).integers(
        0, 2**64, vectors.shape[1:], dtype=np.uint64, endpoint=False
    ) | np.uint64(1)
    for first, last in row_ranges(len(vectors), BLOCK_ROWS):
        block = np.ascontiguousarray(vectors[first:last], dtype=np.float32)
        try:
            checksums[first:last] = native.checksum_rows(block, factors, space.is_euclidean)
        except ValueError:
            # Says which rows of the whole matrix are at fault.
            for _ in space.point_blocks(vectors, name, first):
                pass
            raise
        release(vectors)
    release(checksums)
    return checksums
