"""Matrices without a header: little-endian numbers, row after row."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.datasets.file_dataset import FileDataset
from lowshot_kedro.datasets.files import require_file, require_space
from lowshot_kedro.errors import InputError
from lowshot_kedro.matrices import Blocks


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


class RawMatrixDataset(FileDataset[NDArray[Any] | Blocks[NDArray[Any]], NDArray[Any]]):
    """A raw matrix such as concatenated_PCAR256.raw: a memmap in, an array or blocks out.

    Loading takes no memory. Saving accepts an array or
    :class:`~lowshot_kedro.matrices.Blocks`, of which one is in memory at a time.

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
        self._n_columns = n_columns
        self._n_rows = n_rows
        self._dtype = np.dtype(dtype).newbyteorder("<")

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

    def _write(self, path: Path, data: NDArray[Any] | Blocks[NDArray[Any]]) -> None:
        blocks: Iterable[NDArray[Any]]
        if isinstance(data, Blocks):
            n_rows, n_columns = data.n_rows, data.n_columns
            blocks = data.checked(str(self._filepath))
        else:
            (n_rows, n_columns), blocks = data.shape, [data]
        if n_columns != self._n_columns:
            raise InputError(
                f"{self._filepath}: got {n_columns} columns, expected {self._n_columns}"
            )
        require_space(self._filepath, n_rows * n_columns * self._dtype.itemsize)
        with path.open("wb") as file:
            for block in blocks:
                write_rows(file, block, self._dtype)

    def _exists(self) -> bool:
        return self._n_rows == 0 or super()._exists()

    def _describe(self) -> dict[str, Any]:
        return {**super()._describe(), "n_rows": self._n_rows, "n_columns": self._n_columns}

    def _facts(self) -> dict[str, str]:
        n_rows = self._rows()
        return {
            "shape": f"({n_rows}, {self._n_columns})",
            "dtype": str(self._dtype),
            "size on disk": self._size_on_disk() if n_rows else "0 B",
        }

    def _first_rows(self) -> NDArray[Any]:
        return self._read()
