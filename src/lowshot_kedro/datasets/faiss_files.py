"""Search indexes and vector transforms as faiss writes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import faiss
import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.blocks import Blocks, InvertedFile, Resumable
from lowshot_kedro.datasets.faiss_format import (
    FLAT_OFFSET,
    IndexHeader,
    inverted_file_bytes,
    map_index,
    write_flat,
    write_inverted_file,
)
from lowshot_kedro.datasets.file_dataset import FileDataset
from lowshot_kedro.datasets.resumable import ResumableDataset, ResumableFiles
from lowshot_kedro.datasets.table_dataset import PREVIEW_ROWS
from lowshot_kedro.disk import require_space
from lowshot_kedro.errors import InputError
from lowshot_kedro.input_files import require_file
from lowshot_kedro.parameters import require_integer

_KINDS = {
    "IxFI": "IndexFlatIP",
    "IxF2": "IndexFlatL2",
    "IwFl": "IndexIVFFlat",
    "IHNf": "IndexHNSWFlat",
}

# Indexes around another one.
_WRAPPERS = (faiss.IndexPreTransform, faiss.IndexIDMap, faiss.IndexRefine)
# Numbers of metrics that a message names; the others are of no use here.
_METRICS = {1: "METRIC_L2", 2: "METRIC_L1", 3: "METRIC_Linf"}

IndexContent = faiss.Index | Blocks[NDArray[np.float32]] | InvertedFile


def _writer(file: BinaryIO) -> Any:
    """Lets faiss write through Python, which notices when the disk is full at the end."""
    return faiss.PyCallbackIOWriter(file.write)  # type: ignore[attr-defined]


class FaissIndexDataset(
    FileDataset[IndexContent | Resumable[IndexContent], faiss.Index], ResumableDataset
):
    """A faiss index file such as ndis1000000.index.

    It has to compare by inner products. A loaded flat index or inverted file is a memory map of the
    file: it finds what an index in memory finds, but nothing may be added to it. Other kinds are
    loaded whole.

    Saving accepts a faiss index; normalised vectors as :class:`~lowshot_kedro.blocks.Blocks`,
    which become an IndexFlatIP; an :class:`~lowshot_kedro.blocks.InvertedFile`, which becomes an
    IndexIVFFlat; or a :class:`~lowshot_kedro.blocks.Resumable` of one of these. Of blocks, one is
    in memory at a time.

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
        require_integer("n_columns", n_columns, 1, where=filepath)
        if n_rows is not None:
            require_integer("n_rows", n_rows, 0, where=filepath)
        self._n_columns = n_columns
        self._n_rows = n_rows
        self._files = ResumableFiles(self._filepath, self._filepath)

    def check(self) -> None:
        """Compare the header of the file with the vectors and the metric expected.

        Raises:
            FileNotFoundError: If it is not there.
            ValueError: If it is cut off, not trained, compares by anything but inner products, or
                holds other vectors than expected.
        """
        if self._n_rows != 0:
            self._header()

    def _header(self) -> IndexHeader:
        header = IndexHeader.read(self._filepath)
        if header.dimension != self._n_columns:
            raise InputError(
                f"{self._filepath}: vectors of dimension {header.dimension}, expected "
                f"{self._n_columns}"
            )
        if header.metric != faiss.METRIC_INNER_PRODUCT:
            raise _other_metric(self._filepath, header.metric)
        if not header.is_trained:
            raise _untrained(self._filepath)
        if self._n_rows is not None and header.n_vectors != self._n_rows:
            raise InputError(
                f"{self._filepath}: holds {header.n_vectors} vectors, expected "
                f"graph.n_background = {self._n_rows}"
            )
        return header

    def check_space(self) -> None:
        """Refuse to begin what the disk has no room for, where the size is known."""
        self._files.require_space(4 * (self._n_rows or 0) * self._n_columns)

    def _read(self) -> faiss.Index:
        if self._n_rows == 0:
            return faiss.IndexFlatIP(self._n_columns)
        header = self._header()
        try:
            if header.n_bytes is not None:
                index = map_index(self._filepath)
            else:
                index = faiss.read_index(str(self._filepath))
        except (RuntimeError, MemoryError) as error:
            raise InputError(
                f"{self._filepath}: not a readable faiss index; is it cut off?"
            ) from error
        _require_usable(index, self._filepath)
        return index

    def save(self, data: IndexContent | Resumable[IndexContent]) -> None:
        """Write the file whole or not at all; compute a Resumable where it is not there yet.

        Raises:
            DiskFullError: Naming the file.
            ValueError: If the vectors have another dimension, or blocks are not what they announce.
        """
        if isinstance(data, Resumable):
            self._files.save(data, self.check, self._write_over)
            return
        with self._files.written_anew() as (path,):
            self._write(path, data)

    def _write_over(self, data: IndexContent, paths: Sequence[Path]) -> None:
        """Write the file from its beginning: only the work before it can be continued."""
        (path,) = paths
        try:
            path.unlink(missing_ok=True)
            self._write(path, data)
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def _write(self, path: Path, data: IndexContent | Resumable[IndexContent]) -> None:
        assert not isinstance(data, Resumable), "save writes what it becomes"
        name = str(self._filepath)
        if isinstance(data, InvertedFile):
            dimension, n_bytes = data.centroids.shape[1], inverted_file_bytes(data)
        elif isinstance(data, Blocks):
            dimension, n_bytes = data.n_columns, 4 * data.n_rows * data.n_columns
        else:
            dimension, n_bytes = data.d, 4 * data.ntotal * data.d
        if dimension != self._n_columns:
            raise InputError(
                f"{name}: got vectors of dimension {dimension}, expected {self._n_columns}"
            )
        require_space(self._filepath, n_bytes)
        with path.open("wb") as file:
            if isinstance(data, InvertedFile):
                write_inverted_file(file, data, name)
            elif isinstance(data, Blocks):
                write_flat(file, data.checked(name), (data.n_rows, data.n_columns))
            else:
                faiss.write_index(data, _writer(file))

    def _exists(self) -> bool:
        return self._n_rows == 0 or super()._exists()

    def _facts(self) -> dict[str, str]:
        if self._n_rows == 0:
            return {"shape": f"(0, {self._n_columns})", "dtype": "float32", "size on disk": "0 B"}
        header = IndexHeader.read(self._filepath)
        return {
            "shape": f"({header.n_vectors}, {header.dimension})",
            "dtype": "float32",
            "kind": _KINDS.get(header.kind, header.kind),
            "size on disk": self._size_on_disk(),
            **self._files.facts(),
        }

    def _n_bytes(self) -> int:
        return 0 if self._n_rows == 0 else super()._n_bytes()

    def _size(self) -> tuple[int, int]:
        if self._n_rows == 0:
            return 0, self._n_columns
        header = IndexHeader.read(self._filepath)
        return header.n_vectors, header.dimension

    def _first_rows(self) -> NDArray[np.float32]:
        nothing = np.empty((0, 0), dtype=np.float32)
        if self._n_rows == 0:
            return nothing
        header = IndexHeader.read(self._filepath)
        if not header.is_flat or header.n_vectors == 0:
            return nothing
        return np.memmap(
            self._filepath,
            mode="r",
            dtype="<f4",
            offset=FLAT_OFFSET,
            shape=(min(PREVIEW_ROWS, header.n_vectors), header.dimension),
        )


def _require_usable(index: faiss.Index, path: Path) -> None:
    """Refuse an index of which a part within does not do what its header says.

    Lists may be chosen by distances: those of the published indexes are.
    """
    part: Any = index
    while isinstance(part, _WRAPPERS):
        if isinstance(part, faiss.IndexPreTransform):
            transforms: Any = part.chain
            chain = (transforms.at(number) for number in range(transforms.size()))
            if not all(transform.is_trained for transform in chain):
                raise _untrained(path)
        if isinstance(part, faiss.IndexIDMap):
            numbers = faiss.vector_to_array(part.id_map)
            if not np.array_equal(numbers, np.arange(index.ntotal)):
                raise InputError(
                    f"{path}: its vectors are not numbered 0..{index.ntotal - 1}, expected an "
                    "index of the vectors in their order"
                )
        inner = part.base_index if isinstance(part, faiss.IndexRefine) else part.index
        part = faiss.downcast_index(inner)
        if part.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise _other_metric(path, part.metric_type)
        if not part.is_trained:
            raise _untrained(path)
        if part.ntotal != index.ntotal:
            raise InputError(
                f"{path}: says {index.ntotal} vectors, but a {type(part).__name__} within holds "
                f"{part.ntotal}"
            )
    if isinstance(part, faiss.IndexIVF):
        found = (part.quantizer.ntotal, part.quantizer.d)
        if found != (part.nlist, part.d):
            raise InputError(
                f"{path}: has {found[0]} centroids of dimension {found[1]}, expected {part.nlist} "
                f"of dimension {part.d}, one for each list"
            )


def _other_metric(path: Path, metric: int) -> InputError:
    return InputError(
        f"{path}: compares by {_METRICS.get(metric, f'metric {metric}')}, expected "
        "METRIC_INNER_PRODUCT over normalised vectors; remove it to have it built anew"
    )


def _untrained(path: Path) -> InputError:
    return InputError(f"{path}: is not trained, expected what can be used as it is")


class FaissTransformDataset(
    FileDataset[faiss.VectorTransform | Resumable[faiss.VectorTransform], faiss.VectorTransform],
    ResumableDataset,
):
    """A faiss VectorTransform file such as PCAR256.vt.

    Saving accepts a transform, or a :class:`~lowshot_kedro.blocks.Resumable` of one.

    Args:
        filepath: The file.
        metadata: For Kedro plugins.

    Example:
        .. code-block:: yaml

            pca_transform:
              type: lowshot_kedro.datasets.FaissTransformDataset
              filepath: data/06_models/PCAR256.vt
    """

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        super().__init__(filepath=filepath, metadata=metadata)
        self._files = ResumableFiles(self._filepath, self._filepath)

    def _read(self) -> faiss.VectorTransform:
        require_file(self._filepath)
        try:
            transform = faiss.read_VectorTransform(str(self._filepath))
        except (RuntimeError, MemoryError) as error:
            raise InputError(
                f"{self._filepath}: not a readable faiss transform; is it cut off?"
            ) from error
        if not transform.is_trained:
            raise _untrained(self._filepath)
        _require_finite(transform, self._filepath)
        return transform

    def save(self, data: faiss.VectorTransform | Resumable[faiss.VectorTransform]) -> None:
        """Write the file whole or not at all; compute a Resumable where it is not there yet.

        Raises:
            DiskFullError: Naming the file.
        """
        if isinstance(data, Resumable):
            self._files.save(data, self.check, self._write_over)
            return
        with self._files.written_anew() as (path,):
            self._write(path, data)

    def _write_over(self, data: faiss.VectorTransform, paths: Sequence[Path]) -> None:
        """Write the file from its beginning: only the work before it can be continued."""
        self._write(paths[0], data)

    def _write(
        self, path: Path, data: faiss.VectorTransform | Resumable[faiss.VectorTransform]
    ) -> None:
        assert not isinstance(data, Resumable), "save writes what it becomes"
        with path.open("wb") as file:
            faiss.write_VectorTransform(data, _writer(file))

    def _facts(self) -> dict[str, str]:
        transform = self._read()
        return {
            "kind": type(transform).__name__,
            "shape": f"{transform.d_in} → {transform.d_out}",
            "dtype": "float32",
            **_variance_kept(transform),
            "size on disk": self._size_on_disk(),
            **self._files.facts(),
        }

    def _size(self) -> tuple[int, int]:
        transform = self._read()
        return transform.d_out, transform.d_in

    def _first_rows(self) -> list[NDArray[np.float32]]:
        transform = self._read()
        if not isinstance(transform, faiss.LinearTransform):
            return []
        return list(faiss.vector_to_array(transform.A).reshape(transform.d_out, transform.d_in))


def _require_finite(transform: faiss.VectorTransform, path: Path) -> None:
    """Refuse a linear transform of which no number would come."""
    if isinstance(transform, faiss.LinearTransform):
        matrix, offset = (faiss.vector_to_array(part) for part in (transform.A, transform.b))
        if not (np.isfinite(matrix).all() and np.isfinite(offset).all()):
            raise InputError(f"{path}: holds NaN or infinite values, expected finite numbers")


def _variance_kept(transform: faiss.VectorTransform) -> dict[str, str]:
    """The part of the variance kept, for a preview; nothing where a transform does not know it."""
    if not isinstance(transform, faiss.PCAMatrix):
        return {}
    variances = faiss.vector_to_array(transform.eigenvalues).clip(0)
    if not variances.sum() > 0:
        return {}
    return {"variance kept": f"{variances[: transform.d_out].sum() / variances.sum():.1%}"}
