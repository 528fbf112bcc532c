"""Matrices without a header: little-endian numbers, row after row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.blocks import Blocks, Resumable, RowBlocks
from lowshot_kedro.datasets.file_dataset import FileDataset
from lowshot_kedro.datasets.resumable import ResumableDataset, ResumableFiles, append_blocks
from lowshot_kedro.disk import require_space
from lowshot_kedro.errors import InputError
from lowshot_kedro.input_files import require_file
from lowshot_kedro.parameters import require_integer


def map_matrix(path: Path, n_rows: int, n_columns: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The first rows of a raw matrix as a read-only memmap, or an empty array for none."""
    if n_rows == 0:
        return np.empty((0, n_columns), dtype=dtype)
    return np.memmap(path, mode="r", dtype=dtype, shape=(n_rows, n_columns))


def write_rows(file: BinaryIO, rows: NDArray[Any], dtype: np.dtype[Any]) -> None:
    """Append rows to an open file.

    ndarray.tofile goes past the file object, and loses the error of a disk that is full at the end.
    """
    file.write(np.ascontiguousarray(rows, dtype=dtype).data.cast("B") if rows.size else b"")


def count_rows(path: Path, n_columns: int, dtype: np.dtype[Any]) -> int:
    """Rows of a raw matrix, from its size.

    Raises:
        FileNotFoundError: If the file is not there.
        ValueError: If its size is no whole number of rows.
    """
    size = require_file(path)
    n_rows, rest = divmod(size, n_columns * dtype.itemsize)
    if rest:
        raise InputError(
            f"{path}: {size} bytes are no whole number of rows of {n_columns} × {dtype}; the file "
            "is cut off, or has another number of columns"
        )
    return n_rows


MatrixContent = NDArray[Any] | Blocks[NDArray[Any]] | Resumable[RowBlocks[NDArray[Any]]]


class RawMatrixDataset(FileDataset[MatrixContent, NDArray[Any]], ResumableDataset):
    """A raw matrix such as concatenated_PCAR256.raw: a memmap in, an array or blocks out.

    Loading takes no memory. Saving accepts an array, :class:`~lowshot_kedro.blocks.Blocks`, of
    which one is in memory at a time, or a :class:`~lowshot_kedro.blocks.Resumable` of row blocks,
    which an interrupted run leaves to the next one to continue. All rows are saved, however few are
    loaded.

    Args:
        filepath: The file.
        n_columns: Columns of the matrix.
        n_rows: Load only this many of the first rows; None: all. 0 needs no file.
        dtype: Type of the numbers.
        metadata: For Kedro plugins.

    Example:
        .. code-block:: yaml

            background_vectors:
              type: lowshot_kedro.datasets.RawMatrixDataset
              filepath: data/04_feature/f100m/concatenated_PCAR256.raw
              n_columns: 256

        >>> dataset = RawMatrixDataset(filepath="vectors.raw", n_columns=256)
        >>> dataset.save(np.zeros((10, 256), dtype=np.float32))
        >>> dataset.load().shape
        (10, 256)
    """

    def __init__(
        self,
        *,
        filepath: str,
        n_columns: int,
        n_rows: int | None = None,
        dtype: str = "float32",
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(filepath=filepath, metadata=metadata)
        require_integer("n_columns", n_columns, 1, where=filepath)
        if n_rows is not None:
            require_integer("n_rows", n_rows, 0, where=filepath)
        self._n_columns = n_columns
        self._n_rows = n_rows
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._files = ResumableFiles(self._filepath, self._filepath)

    def check_space(self) -> None:
        """Refuse to begin what the disk has no room for, where the size is known."""
        self._files.require_space((self._n_rows or 0) * self._row_bytes)

    @property
    def _row_bytes(self) -> int:
        return self._n_columns * self._dtype.itemsize

    def _rows(self) -> int:
        """Rows to load, from the size of the file and what is asked for."""
        if self._n_rows == 0:
            return 0
        available = count_rows(self._filepath, self._n_columns, self._dtype)
        if self._n_rows is None:
            return available
        if self._n_rows > available:
            raise InputError(
                f"{self._filepath}: holds {available} rows, but {self._n_rows} are asked for; "
                "lower graph.n_background"
            )
        return self._n_rows

    def _read(self) -> NDArray[Any]:
        return map_matrix(self._filepath, self._rows(), self._n_columns, self._dtype)

    def save(self, data: MatrixContent) -> None:
        """Write the file whole or not at all; compute a Resumable as far as it is not done.

        Raises:
            DiskFullError: Naming the file.
            ValueError: If the matrix has another number of columns, or blocks are not what they
                announce.
        """
        if isinstance(data, Resumable):
            check = partial(self._check_made, data.provenance)
            self._files.save(data, check, self._append)
            return
        with self._files.written_anew() as (path,):
            self._write(path, data)

    def _check_made(self, provenance: Mapping[str, Any]) -> None:
        """Refuse a file that is there but damaged; n_rows loads a part and sees a part of that."""
        self.check()
        n_rows = provenance.get("n_rows")
        if self._files.are_of_others() or n_rows is None:
            return
        found = count_rows(self._filepath, self._n_columns, self._dtype)
        if found != n_rows:
            raise InputError(
                f"{self._filepath}: holds {found} rows, but was made with {n_rows}; delete it to "
                "have it computed anew"
            )

    def _append(self, blocks: RowBlocks[NDArray[Any]], paths: Sequence[Path]) -> None:
        """Write the blocks that are not yet in an unfinished file."""
        self._require_columns(blocks.n_columns)
        append_blocks(blocks, self._filepath, paths, [self._row_bytes], self._write_block)

    def _write(self, path: Path, data: MatrixContent) -> None:
        assert not isinstance(data, Resumable), "save writes what it becomes"
        blocks: Iterable[NDArray[Any]]
        if isinstance(data, Blocks):
            n_rows, n_columns = data.n_rows, data.n_columns
            blocks = data.checked(str(self._filepath))
        else:
            (n_rows, n_columns), blocks = data.shape, [data]
        self._require_columns(n_columns)
        require_space(self._filepath, n_rows * self._row_bytes)
        with path.open("wb") as file:
            for block in blocks:
                self._write_block([file], block)

    def _write_block(self, files: Sequence[BinaryIO], block: NDArray[Any]) -> None:
        write_rows(files[0], block, self._dtype)

    def _require_columns(self, n_columns: int) -> None:
        if n_columns != self._n_columns:
            raise InputError(
                f"{self._filepath}: got {n_columns} columns, expected {self._n_columns}"
            )

    def _exists(self) -> bool:
        return self._n_rows == 0 or super()._exists()

    def _describe(self) -> dict[str, Any]:
        return {**super()._describe(), "n_rows": self._n_rows, "n_columns": self._n_columns}

    def _facts(self) -> dict[str, str]:
        n_rows = self._rows()
        return {
            "shape": f"({n_rows}, {self._n_columns})",
            "dtype": str(self._dtype),
            "size on disk": self._size_on_disk(),
            **self._files.facts(),
        }

    def _n_bytes(self) -> int:
        return super()._n_bytes() if self._rows() else 0

    def _size(self) -> tuple[int, int]:
        return self._rows(), self._n_columns

    def _first_rows(self) -> NDArray[Any]:
        return self._read()
