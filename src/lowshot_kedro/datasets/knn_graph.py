"""Stored k-NN graphs: two raw matrices, neighbours and similarities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.blocks import Blocks, KnnGraph, Resumable, RowBlocks
from lowshot_kedro.datasets.raw_matrix import count_rows, map_matrix, write_rows
from lowshot_kedro.datasets.resumable import ResumableDataset, ResumableFiles, append_blocks
from lowshot_kedro.datasets.table_dataset import PREVIEW_COLUMNS, TableDataset
from lowshot_kedro.disk import require_space
from lowshot_kedro.errors import InputError
from lowshot_kedro.memory import format_bytes
from lowshot_kedro.parameters import require_integer

GraphContent = KnnGraph | Blocks[KnnGraph] | Resumable[RowBlocks[KnnGraph]]

_INDICES = np.dtype("<i4")
_SIMILARITIES = np.dtype("<f4")
# Above links: the nearest has number 0, as the column that it stands in.
LINK_HEADINGS = ["neighbour (similarity)", *map(str, range(PREVIEW_COLUMNS))]
_LINK_BYTES = _INDICES.itemsize + _SIMILARITIES.itemsize


class KnnGraphDataset(TableDataset[GraphContent, KnnGraph], ResumableDataset):
    """A graph in the published format: STEM_I_11.int32 and STEM_D_11.float32, raw, (n, k).

    Loading returns memmaps. Saving accepts a :class:`~lowshot_kedro.blocks.KnnGraph`, blocks of
    one, or a :class:`~lowshot_kedro.blocks.Resumable` of row blocks, which an interrupted run
    leaves to the next one to continue. The two files appear together.

    Args:
        filepath: The common beginning of both names, for instance knngraph/ndis1000000_k32.
        k: Columns of the graph.
        n_rows: Rows that the graph must have; None: any. 0 needs no file.
        metadata: For Kedro plugins.

    Example:
        .. code-block:: yaml

            background_graph:
              type: lowshot_kedro.datasets.KnnGraphDataset
              filepath: data/05_model_input/knngraph/ndis1000000_k32
              k: 32

        >>> graph = KnnGraphDataset(filepath="knngraph/ndis1000000_k32", k=32).load()
        >>> graph.indices.shape
        (1000000, 32)
    """

    def __init__(
        self,
        *,
        filepath: str,
        k: int,
        n_rows: int | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        require_integer("k", k, 1, where=filepath)
        if n_rows is not None:
            require_integer("n_rows", n_rows, 0, where=filepath)
        self._filepath = Path(filepath)
        self._k = k
        self._n_rows = n_rows
        self._files = ResumableFiles(self._filepath, self._indices_path, self._similarities_path)
        self.metadata = metadata

    @property
    def _indices_path(self) -> Path:
        return self._filepath.with_name(self._filepath.name + "_I_11.int32")

    @property
    def _similarities_path(self) -> Path:
        return self._filepath.with_name(self._filepath.name + "_D_11.float32")

    def check(self) -> None:
        """Compare the sizes of both files with each other and the rows expected.

        Raises:
            FileNotFoundError: If one is not there.
            ValueError: If a file is cut off, or the numbers of rows differ.
        """
        self._rows()

    def check_space(self) -> None:
        """Refuse to begin what the disk has no room for, where the size is known."""
        self._files.require_space((self._n_rows or 0) * self._k * _LINK_BYTES)

    def _rows(self) -> int:
        if self._n_rows == 0:
            return 0
        found = count_rows(self._indices_path, self._k, _INDICES)
        beside = count_rows(self._similarities_path, self._k, _SIMILARITIES)
        if found != beside:
            raise InputError(
                f"{self._indices_path}: holds {found} rows, but {self._similarities_path.name} "
                f"{beside}; one of them is cut off"
            )
        if self._n_rows is not None and found != self._n_rows:
            raise InputError(
                f"{self._indices_path}: holds {found} rows of {self._k} columns, expected "
                f"graph.n_background = {self._n_rows} rows"
            )
        return found

    def load(self) -> KnnGraph:
        """Memmaps of both files."""
        n_rows = self._rows()
        return KnnGraph(
            map_matrix(self._indices_path, n_rows, self._k, _INDICES),
            map_matrix(self._similarities_path, n_rows, self._k, _SIMILARITIES),
        )

    def save(self, data: GraphContent) -> None:
        """Write both files whole or not at all; compute a Resumable as far as it is not done.

        Raises:
            DiskFullError: Naming the file of the neighbours.
            ValueError: If the graph has another number of columns, or blocks are not what they
                announce.
        """
        if isinstance(data, Resumable):
            self._files.save(data, self.check, self._append)
            return
        if isinstance(data, Blocks):
            n_rows, k = data.n_rows, data.n_columns
            blocks = data.checked(str(self._indices_path))
        else:
            (n_rows, k), blocks = data.indices.shape, iter([data])
        self._require_columns(k)
        require_space(self._indices_path, n_rows * k * _LINK_BYTES)
        with (
            self._files.written_anew() as (first, second),
            first.open("wb") as indices,
            second.open("wb") as similarities,
        ):
            for block in blocks:
                _write_block((indices, similarities), block)

    def _append(self, blocks: RowBlocks[KnnGraph], paths: Sequence[Path]) -> None:
        """Write the blocks that are not yet in unfinished files."""
        self._require_columns(blocks.n_columns)
        widths = [self._k * dtype.itemsize for dtype in (_INDICES, _SIMILARITIES)]
        append_blocks(blocks, self._indices_path, paths, widths, _write_block)

    def _require_columns(self, k: int) -> None:
        if k != self._k:
            raise InputError(f"{self._indices_path}: got {k} columns, expected {self._k}")

    def _exists(self) -> bool:
        both = self._indices_path.exists() and self._similarities_path.exists()
        return self._n_rows == 0 or both

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._indices_path), "k": self._k, "n_rows": self._n_rows}

    def _facts(self) -> dict[str, str]:
        return {
            "shape": f"({self._rows()}, {self._k})",
            "dtype": "int32 neighbours, float32 similarities",
            "size on disk": format_bytes(self._n_bytes()),
            **self._files.facts(),
        }

    def _n_bytes(self) -> int:
        return self._rows() * self._k * _LINK_BYTES

    def _size(self) -> tuple[int, int]:
        return self._rows(), self._k

    def _headings(self) -> list[str]:
        return LINK_HEADINGS

    def _first_rows(self) -> Iterator[list[str]]:
        for indices, similarities in zip(*self.load(), strict=True):
            yield readable_links(indices, similarities)


def readable_links(indices: NDArray[Any], similarities: NDArray[Any]) -> list[str]:
    """A row of a graph as people read it: `17 (0.932)`."""
    links = zip(indices, similarities, strict=True)
    return [f"{neighbor} ({similarity:.3f})" for neighbor, similarity in links]


def _write_block(files: Sequence[BinaryIO], block: KnnGraph) -> None:
    indices, similarities = files
    write_rows(indices, block.indices, _INDICES)
    write_rows(similarities, block.similarities, _SIMILARITIES)
