"""Walking over vectors that lie on disk, without holding them."""

from __future__ import annotations

import mmap
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.errors import InputError
from lowshot_kedro.matrices import require_finite, row_ranges, spread_rows

BLOCK_ROWS = 16384
_CHECKSUM_ROWS = 1024
_SHOWN_ROWS = 10


def normalize(vectors: NDArray[np.float32], first_row: int, name: str) -> NDArray[np.float32]:
    """A copy with rows of length 1; a zero row stays zero.

    Args:
        vectors: float32 (m, d).
        first_row: Number of the first of these rows in the whole matrix.
        name: What an error message calls the matrix.

    Raises:
        ValueError: For NaN or infinity.
    """
    copy = np.array(vectors, dtype=np.float32, order="C")
    require_finite(copy, np.arange(first_row, first_row + len(copy)), name)
    # In float32 the squares of large finite numbers overflow, and those of small ones vanish.
    lengths = np.sqrt(np.einsum("ij,ij->i", copy, copy, dtype=np.float64))
    copy /= np.where(lengths == 0, 1, lengths)[:, None]
    return copy


def normalized_blocks(
    vectors: NDArray[np.float32], name: str, first_row: int = 0
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """All vectors in blocks, scaled to length 1, with the number of the first of each block.

    Args:
        vectors: float32 (n, d), a memmap or array.
        name: What an error message calls them.
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
            block = normalize(vectors[begin : first_row + last], begin, name)
        except InputError:
            _refuse_bad_rows(vectors, begin, name)
            raise
        yield begin, block
        release(vectors)


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


def normalized_rows(
    vectors: NDArray[np.float32], rows: NDArray[np.int64], name: str
) -> NDArray[np.float32]:
    """Some vectors, scaled to length 1.

    Args:
        vectors: float32 (n, d), a memmap or array.
        rows: int64 (m,), row numbers.
        name: What an error message calls the vectors.

    Raises:
        ValueError: If these hold NaN or infinity, naming all rows of the vectors that do.
    """
    normalized = np.empty((len(rows), vectors.shape[1]), np.float32)
    for first, last in row_ranges(len(rows), BLOCK_ROWS):
        try:
            normalized[first:last] = normalize(vectors[rows[first:last]], 0, name)
        except InputError:
            _refuse_bad_rows(vectors, 0, name)
            raise
        # Rows that lie far apart take whole pages with them.
        release(vectors)
    return normalized


def describe_vectors(vectors: NDArray[Any]) -> dict[str, Any]:
    """What tells these vectors, or rows of neighbours, from others: sizes and a checksum."""
    rows = vectors[spread_rows(len(vectors), _CHECKSUM_ROWS)]
    checksum = zlib.crc32(np.ascontiguousarray(rows).tobytes())
    return {"n_rows": len(vectors), "n_columns": vectors.shape[1], "checksum": f"{checksum:08x}"}


def release(array: NDArray[Any]) -> None:
    """Let the system have the memory into which a memmap has been read; nothing is lost.

    Other arrays stay as they are.
    """
    mapped = getattr(array, "_mmap", None)
    if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
