"""The vectors that an inverted file holds: scaled to length 1, and list after list.

Neighbours are in one list, or in lists that stand near each other: what is read of them lies close
together in memory or in the file, where the rows of a matrix lie all over it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from lowshot_kedro import native
from lowshot_kedro.blocks import spread_rows
from lowshot_kedro.graph.vectors import is_mapped, normalized_rows, release

logger = logging.getLogger(__name__)

# Vectors that have to be those of the matrix, up to rounding.
_COMPARED_ROWS = 256
_ROUNDING = 1e-5


@dataclass(frozen=True)
class StoredVectors:
    """Vectors in the order of their lists, where an index has them.

    Attributes:
        index: What holds them, in memory or as a map of its file.
        parts: float32 (n, d), the vectors of all lists.
        numbers: int32 (n,), the number of each.
        places: int32 (p,), which of them are at the positions of a division; None: all.
    """

    index: faiss.IndexIVFFlat
    parts: native.VectorParts
    numbers: NDArray[np.int32]
    places: NDArray[np.int32] | None = None

    @classmethod
    def of(cls, index: faiss.IndexIVF, numbers: NDArray[np.int32]) -> StoredVectors | None:
        """The vectors of an index, without a copy.

        Args:
            index: An inverted file of any kind.
            numbers: int32 (n,), those of its vectors, list after list.

        Returns:
            None if it does not hold vectors as they are, or none at all.
        """
        lists: Any = faiss.downcast_InvertedLists(index.invlists)  # type: ignore[arg-type]
        row_bytes = 4 * index.d
        if not len(numbers):
            return None
        # Those derived from these keep something else.
        if type(index) is not faiss.IndexIVFFlat or type(lists) is not faiss.ArrayInvertedLists:
            return None
        if index.code_size != row_bytes or lists.code_size != row_bytes:
            return None
        parts = []
        for number in range(index.nlist):
            size = lists.list_size(number)
            if size:
                content = faiss.rev_swig_ptr(lists.get_codes(number), size * row_bytes)
                parts.append(content.view(np.float32).reshape(size, index.d))
        return cls(index, native.VectorParts(parts), numbers)

    def at(self, positions: NDArray[np.bool_]) -> StoredVectors:
        """The same vectors, of which a division has only some.

        Args:
            positions: bool (n,), which these are.
        """
        assert self.places is None
        places = np.flatnonzero(positions).astype(np.int32)
        return StoredVectors(self.index, self.parts, self.numbers, places)

    def agree_with(self, vectors: NDArray[np.float32], name: str) -> bool:
        """Whether these are the vectors of a matrix, as far as a sample tells.

        Args:
            vectors: float32 (n, d), a memmap or array, not normalised.
            name: What messages call the matrix.
        """
        rows = spread_rows(len(self.numbers), _COMPARED_ROWS)
        expected = normalized_rows(vectors, self.numbers[rows].astype(np.int64), name)
        agree = np.allclose(self.parts.take(rows), expected, rtol=0, atol=_ROUNDING)
        if not agree:
            logger.info("graph: the index holds other vectors than %s, which count", name)
        return agree

    def take(self, positions: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        """A copy of the vectors at some positions, which increase, float32 (m, d)."""
        return self.parts.take(positions if self.places is None else self.places[positions])

    def rank(
        self,
        queries: NDArray[np.float32],
        positions: NDArray[np.int32],
        k: int,
        found: tuple[NDArray[np.int32], NDArray[np.float32]] | None,
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Numbers and similarities, as :func:`~lowshot_kedro.native.rank_candidates` gives them."""
        places = positions
        if self.places is not None:
            places = np.where(positions < 0, np.int32(-1), self.places[positions])
        return native.rank_candidates(
            self.parts,
            None,
            queries,
            places,
            k,
            numbers=self.numbers,
            normalized=True,
            found=found,
        )

    @property
    def is_mapped(self) -> bool:
        """Whether they stay in a file until they are needed."""
        return any(is_mapped(held) for held in _held(self.index))

    def release(self) -> None:
        """Let the system have the memory into which the file of the index has been read."""
        release_index(self.index)


def release_index(index: faiss.Index) -> None:
    """Let the system have the memory into which the file of an index has been read."""
    for held in _held(index):
        release(held)


def _held(index: faiss.Index) -> Sequence[Any]:
    """What an index must not outlive, as faiss keeps it: among it the map of its file."""
    held: Sequence[Any] = getattr(index, "referenced_objects", ())
    return held
