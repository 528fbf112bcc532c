"""Search indexes and vector transforms as faiss writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import faiss
import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.datasets.file_dataset import FileDataset
from lowshot_kedro.datasets.files import require_file, require_space


def _writer(file: BinaryIO) -> Any:
    """Lets faiss write through Python, which notices when the disk is full at the end."""
    return faiss.PyCallbackIOWriter(file.write)  # type: ignore[attr-defined]


class FaissIndexDataset(FileDataset[faiss.Index, faiss.Index]):
    """A faiss index file such as ndis1000000.index.

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
        """See that the file is there; what is in it shows when it is read."""
        if self._n_rows != 0:
            require_file(self._filepath)

    def _read(self) -> faiss.Index:
        if self._n_rows == 0:
            return faiss.IndexFlatIP(self._n_columns)
        try:
            index = faiss.read_index(str(self._filepath))
        except RuntimeError as error:
            raise ValueError(
                f"{self._filepath}: not a readable faiss index; is it cut off? ({error})"
            ) from error
        if index.d != self._n_columns:
            raise ValueError(
                f"{self._filepath}: vectors of dimension {index.d}, expected {self._n_columns}"
            )
        if self._n_rows is not None and index.ntotal != self._n_rows:
            raise ValueError(
                f"{self._filepath}: holds {index.ntotal} vectors, expected graph.n_background = "
                f"{self._n_rows}"
            )
        return index

    def _write(self, path: Path, data: faiss.Index) -> None:
        require_space(self._filepath, 4 * data.ntotal * data.d)
        with path.open("wb") as file:
            faiss.write_index(data, _writer(file))

    def _exists(self) -> bool:
        return self._n_rows == 0 or super()._exists()

    def _facts(self) -> dict[str, str]:
        index = self._read()
        return {
            "shape": f"({index.ntotal}, {index.d})",
            "dtype": "float32",
            "kind": type(index).__name__,
            "size on disk": self._size_on_disk() if self._n_rows != 0 else "0 B",
        }

    def _first_rows(self) -> list[NDArray[np.float32]]:
        index = self._read()
        if not isinstance(index, faiss.IndexFlat):
            return []
        return list(index.reconstruct_n(0, min(10, index.ntotal)))


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

    def check(self) -> None:
        """Read the file: transforms are small."""
        self._read()

    def _read(self) -> faiss.VectorTransform:
        require_file(self._filepath)
        try:
            return faiss.read_VectorTransform(str(self._filepath))
        except RuntimeError as error:
            raise ValueError(
                f"{self._filepath}: not a readable faiss transform; is it cut off? ({error})"
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
