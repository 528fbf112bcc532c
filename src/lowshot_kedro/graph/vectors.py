"""Walking over vectors that lie on disk, without holding them."""

from __future__ import annotations

import mmap
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.blocks import require_finite, row_ranges, spread_rows
from lowshot_kedro.errors import InputError

BLOCK_ROWS = 16384
_CHECKSUM_ROWS = 1024
_SHOWN_ROWS = 10
# Below, as for the compiled functions, 1 / length is no number of single precision.
_MIN_LENGTH = 1e-36


def checked_copy(vectors: NDArray[np.float32], first_row: int, name: str) -> NDArray[np.float32]:
    """A copy of some rows of a matrix, C-contiguous.

    Args:
        vectors: float32 (m, d).
        first_row: Number of the first of these rows in the whole matrix.
        name: What an error message calls the matrix.

    Raises:
        ValueError: For NaN or infinity.
    """
    copy = np.array(vectors, dtype=np.float32, order="C")
    require_finite(copy, np.arange(first_row, first_row + len(copy)), name)
    return copy


def lengths_of(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """The length of each row."""
    # In float32 the squares of large finite numbers overflow, and those of small ones vanish.
    lengths: NDArray[np.float64] = np.sqrt(
        np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
    )
    return lengths


def normalize(vectors: NDArray[np.float32], first_row: int, name: str) -> NDArray[np.float32]:
    """A copy with rows of length 1; a zero row stays zero.

    Args:
        vectors: float32 (m, d).
        first_row: Number of the first of these rows in the whole matrix.
        name: What an error message calls the matrix.

    Raises:
        ValueError: For NaN or infinity.
    """
    copy = checked_copy(vectors, first_row, name)
    lengths = lengths_of(copy)
    copy /= np.where(lengths == 0, 1, lengths)[:, None]
    return copy


# Makes a copy of some rows; gets the number of the first, and what a message calls the matrix.
Mapping = Callable[[NDArray[np.float32], int, str], NDArray[np.float32]]


def mapped_blocks(
    vectors: NDArray[np.float32], mapping: Mapping, name: str, first_row: int = 0
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """All vectors in blocks, copied by a mapping, with the number of the first of each block.

    Args:
        vectors: float32 (n, d), a memmap or array.
        mapping: For instance :func:`normalize`.
        name: What an error message calls the vectors.
        first_row: Where to begin.

    Yields:
        Copies of up to 16384 rows. What has been read of a memmap is given back to the system.

    Raises:
        ValueError: For NaN or infinity anywhere from the first row on, with the numbers of the
            rows.
    """
    for first, last in row_ranges(len(vectors) - first_row, BLOCK_ROWS):
        begin = first_row + first
        try:
            block = mapping(vectors[begin : first_row + last], begin, name)
        except InputError:
            _refuse_bad_rows(vectors, begin, name)
            raise
        yield begin, block
        release(vectors)


def normalized_blocks(
    vectors: NDArray[np.float32], name: str, first_row: int = 0
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """All vectors in blocks, scaled to length 1, as :func:`mapped_blocks` gives them."""
    return mapped_blocks(vectors, normalize, name, first_row)


def _refuse_bad_rows(vectors: NDArray[np.float32], first_row: int, name: str) -> None:
    """Name all rows at fault, so that nobody has to mend them one block after the other."""
    bad: list[int] = []
    for first, last in row_ranges(len(vectors) - first_row, BLOCK_ROWS):
        finite = np.isfinite(vectors[first_row + first : first_row + last]).all(axis=1)
        bad += (first_row + first + np.flatnonzero(~finite)).tolist()
    if bad:
        shown = ", ".join(map(str, bad[:_SHOWN_ROWS])) + (", …" if len(bad) > _SHOWN_ROWS else "")
        raise InputError(
            f"{name}: found NaN or infinite values in {len(bad)} row(s), numbers {shown}; "
            "expected finite numbers"
        )


def mapped_rows(
    vectors: NDArray[np.float32], rows: NDArray[np.integer[Any]], mapping: Mapping, name: str
) -> NDArray[np.float32]:
    """Some vectors, copied by a mapping.

    Args:
        vectors: float32 (n, d), a memmap or array.
        rows: Integers (m,), row numbers.
        mapping: For instance :func:`normalize`.
        name: What an error message calls the vectors.

    Raises:
        ValueError: If these hold NaN or infinity, naming all rows of the vectors that do.
    """
    copies = np.empty((len(rows), vectors.shape[1]), np.float32)
    for first, last in row_ranges(len(rows), BLOCK_ROWS):
        try:
            copies[first:last] = mapping(vectors[rows[first:last]], 0, name)
        except InputError:
            # With the numbers that rows have in the matrix.
            for _ in mapped_blocks(vectors, mapping, name):
                pass
            raise
        # Rows that lie far apart take whole pages with them.
        release(vectors)
    return copies


def normalized_rows(
    vectors: NDArray[np.float32], rows: NDArray[np.integer[Any]], name: str
) -> NDArray[np.float32]:
    """Some vectors, scaled to length 1, as :func:`mapped_rows` gives them."""
    return mapped_rows(vectors, rows, normalize, name)


def inverse_lengths(vectors: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    """1 / length of every vector, float32 (n,); 0 for those shorter than 1e-36.

    Args:
        vectors: float32 (n, d), a memmap or array.
        name: What messages call them.

    Raises:
        ValueError: For NaN or infinity.
    """
    inverse = np.zeros(len(vectors), np.float32)
    for first, block in mapped_blocks(vectors, checked_copy, name):
        lengths = lengths_of(block)
        there = lengths >= _MIN_LENGTH
        inverse[first : first + len(block)][there] = 1 / lengths[there]
    return inverse


def describe_vectors(vectors: NDArray[Any]) -> dict[str, Any]:
    """Sizes and a checksum of vectors or rows of neighbours, for their provenance."""
    rows = vectors[spread_rows(len(vectors), _CHECKSUM_ROWS)]
    checksum = zlib.crc32(np.ascontiguousarray(rows).tobytes())
    return {"n_rows": len(vectors), "n_columns": vectors.shape[1], "checksum": f"{checksum:08x}"}


def is_mapped(array: object) -> bool:
    """Whether this is a memmap."""
    return isinstance(getattr(array, "_mmap", None), mmap.mmap)


def release(array: NDArray[Any]) -> None:
    """Let the system have the memory into which a memmap has been read; nothing is lost.

    Other arrays stay as they are.
    """
    mapped = getattr(array, "_mmap", None)
    if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
