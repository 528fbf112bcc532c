"""Features times the matrix of a transform."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterator
from contextlib import closing

import faiss
import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.blocks import FeatureMatrix, Resumable, RowBlocks, require_finite, row_ranges
from lowshot_kedro.errors import InputError
from lowshot_kedro.pca.features import describe_features
from lowshot_kedro.progress import Progress
from lowshot_kedro.threads import map_in_threads, map_rows

BLOCK_ROWS = 1024


def apply_transform(
    transform: faiss.VectorTransform, block: NDArray[np.float32], name: str
) -> NDArray[np.float32]:
    """Transform a block of rows.

    Args:
        transform: From float32 (m, transform.d_in) to float32 (m, transform.d_out).
        block: The rows.
        name: What an error message calls them.

    Raises:
        ValueError: If the dimensions differ.
    """
    _require_columns(transform, block.shape[1], name)
    if len(block) == 0:
        return np.empty((0, transform.d_out), dtype=np.float32)
    return np.concatenate(map_rows(transform.apply, np.ascontiguousarray(block)))


def apply_pca(
    transform: faiss.VectorTransform, features: FeatureMatrix, block_rows: int = BLOCK_ROWS
) -> Resumable[RowBlocks[NDArray[np.float32]]]:
    """Transform all rows of a collection, while they are saved.

    Every thread reads rows of its own and transforms them while they are in its cache; meanwhile
    what is finished is written.

    Args:
        transform: A trained transform.
        features: The collection.
        block_rows: Rows that a thread reads and transforms together.

    Returns:
        Blocks of float32 (m, transform.d_out). In memory: a block of features for every thread, and
        three blocks more than threads that are transformed.

    Raises:
        ValueError: If the dimensions differ; when consumed, for NaN or infinity.
    """
    _require_columns(transform, features.n_columns, features.name)
    buffers = threading.local()

    def transformed(rows: tuple[int, int]) -> NDArray[np.float32]:
        first, last = rows
        # The same memory again and again: fresh memory would have to be cleared first.
        if not hasattr(buffers, "block"):
            buffers.block = np.empty((block_rows, features.n_columns), dtype=np.float32)
        block = features.read(first, last, out=buffers.block[: last - first])
        return _transformed(transform, block, first, features.name)

    def blocks(first_row: int) -> Iterator[NDArray[np.float32]]:
        ranges = (
            (first_row + first, first_row + last)
            for first, last in row_ranges(features.n_rows - first_row, block_rows)
        )
        with (
            Progress(features.n_rows, "PCA", first_row) as bar,
            closing(map_in_threads(transformed, ranges)) as results,
        ):
            for result in results:
                yield result
                bar.update(len(result))

    rows = RowBlocks(features.n_rows, transform.d_out, block_rows, blocks)
    provenance = {
        "kind": "vectors",
        "n_rows": rows.n_rows,
        "n_columns": rows.n_columns,
        "transform": describe_transform(transform),
        "features": describe_features(features),
    }
    return Resumable(provenance, lambda folder: rows)


def _require_columns(transform: faiss.VectorTransform, n_columns: int, name: str) -> None:
    if n_columns != transform.d_in:
        raise InputError(f"{name}: {n_columns} columns, but pca_transform expects {transform.d_in}")


def _transformed(
    transform: faiss.VectorTransform, block: NDArray[np.float32], first_row: int, name: str
) -> NDArray[np.float32]:
    """A block of a collection, transformed, without NaN and infinity."""
    result: NDArray[np.float32] = transform.apply(block)
    # A row that holds one of them gets no finite number, and results are fewer to look through.
    if not np.isfinite(result).all():
        rows = np.arange(first_row, first_row + len(block))
        require_finite(block, rows, name)
        require_finite(result, rows, f"{name} after pca_transform")
    return result


def describe_transform(transform: faiss.VectorTransform) -> str:
    """A checksum of all that the file of a transform says."""
    writer = faiss.VectorIOWriter()
    faiss.write_VectorTransform(transform, writer)  # type: ignore[arg-type]
    return f"{zlib.crc32(faiss.vector_to_array(writer.data).tobytes()):08x}"
