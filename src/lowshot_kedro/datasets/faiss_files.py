"""Search indexes and vector transforms as faiss writes them."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.datasets.file_dataset import FileDataset
from lowshot_kedro.datasets.files import require_file, require_space
from lowshot_kedro.datasets.table_dataset import PREVIEW_ROWS
from lowshot_kedro.errors import InputError

_KINDS = {
    "IxFI": "IndexFlatIP",
    "IxF2": "IndexFlatL2",
    "IwFl": "IndexIVFFlat",
    "IHNf": "IndexHNSWFlat",
}
# Kind, d, ntotal, two unused numbers, is_trained, metric.
_LAYOUT = struct.Struct("<4siqqq?i")
# Where the vectors of a flat index begin: after the header and their number.
_FLAT_OFFSET = _LAYOUT.size + 8


def _writer(file: BinaryIO) -> Any:
    """Lets faiss write through Python, which notices when the disk is full at the end."""
    return faiss.PyCallbackIOWriter(file.write)  # type: ignore[attr-defined]


class _IndexHeader(NamedTuple):
    """The first bytes of every index file that faiss writes."""

    kind: str
    dimension: int
    n_vectors: int

    @classmethod
    def read(cls, path: Path) -> _IndexHeader:
        """Read the header of a file.

        Raises:
            ValueError: If the file is too short for what its header says.
        """
        size = require_file(path)
        with path.open("rb") as file:
            start = file.read(_LAYOUT.size)
        if len(start) < _LAYOUT.size:
            raise InputError(f"{path}: not a readable faiss index; is it cut off?")
        kind, dimension, n_vectors, *_ = _LAYOUT.unpack(start)
        header = cls(kind.decode("latin-1"), dimension, n_vectors)
        if header.is_flat and size < _FLAT_OFFSET + 4 * dimension * n_vectors:
            raise InputError(
                f"{path}: not a readable faiss index; is it cut off? {size} bytes do not hold "
                f"{n_vectors} vectors of dimension {dimension}"
            )
        return header

    @property
    def is_flat(self) -> bool:
        """Whether the vectors stand one after the other behind the header."""
        return self.kind in ("IxFI", "IxF2")


class FaissIndexDataset(FileDataset[faiss.Index, faiss.Index]):
    """A faiss index file such as ndis1000000.index, loaded whole.

    Args:
        filepath: The file.
        n_columns: Dimension of the vectors.
        n_rows: Vectors that the index must hold; None: any. 0 needs no file.
        metadata: For Kedro plugins.

    Example:
        .. code-block:: yaml

            background_index:
              type: lowshot_kedro.datasets.FaissIndexDataset
              filepath: data/05_model_input/knngraph/ndis1000000.index
              n_columns: 256
    """

    def __init__(
        self,
        *,
        filepath: str,
        n_columns: int,
        n_rows: int | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(filepath=filepath, metadata=metadata)
        self._n_columns = n_columns
        self._n_rows = n_rows

    def check(self) -> None:
        """Compare the header of the file with the dimension and number of vectors expected."""
        if self._n_rows == 0:
            return
        header = _IndexHeader.read(self._filepath)
        if header.dimension != self._n_columns:
            raise InputError(
                f"{self._filepath}: vectors of dimension {header.dimension}, expected "
                f"{self._n_columns}"
            )
        if self._n_rows is not None and header.n_vectors != self._n_rows:
            raise InputError(
                f"{self._filepath}: holds {header.n_vectors} vectors, expected "
                f"graph.n_background = {self._n_rows}"
            )

    def check_space(self) -> None:
        """Refuse to begin what the disk has no room for, where the size is known."""
        require_space(self._filepath, 4 * (self._n_rows or 0) * self._n_columns)

    def _read(self) -> faiss.Index:
        self.check()
        if self._n_rows == 0:
            return faiss.IndexFlatIP(self._n_columns)
        try:
            return faiss.read_index(str(self._filepath))
        except RuntimeError as error:
            raise InputError(
                f"{self._filepath}: not a readable faiss index; is it cut off?"
            ) from error

    def _write(self, path: Path, data: faiss.Index) -> None:
        require_space(self._filepath, 4 * data.ntotal * data.d)
        with path.open("wb") as file:
            faiss.write_index(data, _writer(file))

    def _exists(self) -> bool:
        return self._n_rows == 0 or super()._exists()

    def _facts(self) -> dict[str, str]:
        if self._n_rows == 0:
            return {"shape": f"(0, {self._n_columns})", "dtype": "float32", "size on disk": "0 B"}
        header = _IndexHeader.read(self._filepath)
        return {
            "shape": f"({header.n_vectors}, {header.dimension})",
            "dtype": "float32",
            "kind": _KINDS.get(header.kind, header.kind),
            "size on disk": self._size_on_disk(),
        }

    def _first_rows(self) -> NDArray[np.float32]:
        nothing = np.empty((0, 0), dtype=np.float32)
        if self._n_rows == 0:
            return nothing
        header = _IndexHeader.read(self._filepath)
        if not header.is_flat or header.n_vectors == 0:
            return nothing
        return np.memmap(
            self._filepath,
            mode="r",
            dtype="<f4",
            offset=_FLAT_OFFSET,
            shape=(min(PREVIEW_ROWS, header.n_vectors), header.dimension),
        )


class FaissTransformDataset(FileDataset[faiss.VectorTransform, faiss.VectorTransform]):
    """A faiss VectorTransform file such as PCAR256.vt.

    Args:
        filepath: The file.
        metadata: For Kedro plugins.

    Example:
        .. code-block:: yaml

            pca_transform:
              type: lowshot_kedro.datasets.FaissTransformDataset
              filepath: data/06_models/PCAR256.vt
    """

    def _read(self) -> faiss.VectorTransform:
        require_file(self._filepath)
        try:
            return faiss.read_VectorTransform(str(self._filepath))
        except RuntimeError as error:
            raise InputError(
                f"{self._filepath}: not a readable faiss transform; is it cut off?"
            ) from error

    def _write(self, path: Path, data: faiss.VectorTransform) -> None:
        with path.open("wb") as file:
            faiss.write_VectorTransform(data, _writer(file))

    def _facts(self) -> dict[str, str]:
        transform = self._read()
        return {
            "kind": type(transform).__name__,
            "shape": f"{transform.d_in} → {transform.d_out}",
            "dtype": "float32",
            "size on disk": self._size_on_disk(),
        }

    def _first_rows(self) -> list[NDArray[np.float32]]:
        transform = self._read()
        if not isinstance(transform, faiss.LinearTransform):
            return []
        return list(faiss.vector_to_array(transform.A).reshape(transform.d_out, transform.d_in))
