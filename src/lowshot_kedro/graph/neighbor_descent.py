"""Nearest-neighbour descent by the library pynndescent.

W. Dong, C. Moses and K. Li, "Efficient k-nearest neighbor graph construction for generic similarity
measures", WWW 2011.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro import native
from lowshot_kedro.blocks import KnnGraph, RowBlocks, row_ranges
from lowshot_kedro.errors import InputError, NotEnoughMemoryError
from lowshot_kedro.extras import needed_by
from lowshot_kedro.graph.spaces import COSINE, Space
from lowshot_kedro.graph.vectors import BLOCK_ROWS
from lowshot_kedro.graph.workspace import MemoryBudget
from lowshot_kedro.memory import format_bytes
from lowshot_kedro.progress import logged_step

_SEED = 0
# What the library holds beside the vectors, which it copies: its graph, forest and candidates.
_BYTES_PER_LINK = 40
# Rows whose neighbours' vectors are put together at a time.
_COMPARED_ROWS = 512


class _ForkedProcess:
    """Whether this process was forked after numba's threads had begun.

    With GNU's OpenMP, numba then ends the process.
    """

    def __init__(self) -> None:
        self.has_lost_threads = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._look)

    def _look(self) -> None:
        numba = sys.modules.get("numba")
        with suppress(ValueError, AttributeError):  # no threads yet, or half imported
            self.has_lost_threads |= numba is not None and numba.threading_layer() == "omp"


_forked = _ForkedProcess()


def pynndescent_graph(
    vectors: NDArray[np.float32],
    stored_k: int,
    budget: MemoryBudget,
    folder: Path,
    name: str,
    space: Space = COSINE,
) -> RowBlocks[KnnGraph]:
    """The stored_k most similar vectors of every vector, by pynndescent's defaults.

    The library works in memory and in one go; a killed run begins anew, unless the search was over,
    when what it found is taken up again.

    Args:
        vectors: float32 (n, d), a memmap or array, not normalised.
        stored_k: Neighbours of each.
        budget: The library needs all vectors in memory.
        folder: Folder in which the result is kept until it is saved.
        name: What messages call the vectors.
        space: Space in which they are compared.

    Raises:
        ValueError: If the budget has no room for it, for NaN, or in a child of a process in which
            numba has worked side by side before the fork.
    """
    n_vectors, dimension = vectors.shape
    done = folder / "pynndescent.npz"
    if not done.is_file():
        if _forked.has_lost_threads:
            raise InputError(
                "pynndescent cannot be used in this process, which was forked from one that had "
                "used it; use descent, or start processes by spawn or loky",
                parameter="method",
            )
        needed = n_vectors * (8 * dimension + _BYTES_PER_LINK * stored_k)
        if needed > budget.left:
            raise NotEnoughMemoryError(
                f"pynndescent needs about {format_bytes(needed)} for {n_vectors} vectors, but "
                f"{format_bytes(budget.left)} of the memory budget are left; use descent",
                parameter="method",
            )
        with logged_step("graph: pynndescent"):
            indices, similarities = _search(vectors, stored_k, name, space)
        partial = folder / "partial.npz"
        np.savez(partial, indices=indices, similarities=similarities)
        partial.replace(done)
    with np.load(done) as found:
        graph = KnnGraph(found["indices"], found["similarities"])

    def blocks(first_row: int) -> Iterator[KnnGraph]:
        for first, last in row_ranges(n_vectors - first_row, BLOCK_ROWS):
            yield graph.part(first_row + first, first_row + last, stored_k)

    return RowBlocks(n_vectors, stored_k, BLOCK_ROWS, blocks)


@contextmanager
def _signals_as_they_are() -> Iterator[None]:
    """Raise what a signal handler raises, where numba makes a SystemError of it."""
    try:
        yield
    except SystemError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise cause from None


def _search(
    vectors: NDArray[np.float32], stored_k: int, name: str, space: Space
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    with needed_by(parameter="method", found="pynndescent"):
        from pynndescent import NNDescent  # compiles for seconds when it is imported

    n_vectors = len(vectors)
    points = np.empty(vectors.shape, np.float32)
    for first, block in space.point_blocks(vectors, name):
        points[first : first + len(block)] = block
    k = min(stored_k, n_vectors)
    indices = np.full((n_vectors, stored_k), -1, np.int32)
    similarities = np.full((n_vectors, stored_k), -np.inf, np.float32)
    if n_vectors > 1:
        with _signals_as_they_are():
            found, _ = NNDescent(
                points,
                metric="euclidean" if space.is_euclidean else "cosine",
                n_neighbors=k,
                random_state=_SEED,
                compressed=False,
            ).neighbor_graph
        indices[:, :k] = found
    elif n_vectors:
        indices[0, 0] = 0
    for first, last in row_ranges(n_vectors, _COMPARED_ROWS):
        of_block = indices[first:last]
        if space.is_euclidean:
            indices[first:last], similarities[first:last] = native.rank_candidates(
                vectors, None, vectors[first:last], of_block, stored_k
            )
            continue
        products = np.einsum("nd,nkd->nk", points[first:last], points[of_block])
        products[of_block < 0] = -np.inf
        order = np.lexsort((of_block, -products), axis=1)
        indices[first:last] = np.take_along_axis(of_block, order, axis=1)
        similarities[first:last] = np.take_along_axis(products, order, axis=1)
    return indices, similarities
