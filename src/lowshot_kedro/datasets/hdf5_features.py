"""Feature vectors with labels in HDF5, in one file or in blocks of a million images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.datasets.file_dataset import FileDataset
from lowshot_kedro.datasets.files import require_space, written_whole
from lowshot_kedro.datasets.hdf5_arrays import open_hdf5
from lowshot_kedro.datasets.table_dataset import PREVIEW_COLUMNS, PREVIEW_ROWS, TableDataset
from lowshot_kedro.errors import InputError
from lowshot_kedro.matrices import Blocks, LabeledBlock
from lowshot_kedro.resources import format_bytes

_FEATURES, _LABELS, _COUNT = "all_feats", "all_labels", "count"


@dataclass(frozen=True)
class HDF5Features:
    """The valid rows of one or several feature files, one after the other.

    Nothing is in memory but the labels, once asked for.

    Attributes:
        paths: The files.
        counts: Valid rows of each.
        n_columns: Dimension of the features.
    """

    paths: tuple[Path, ...]
    counts: tuple[int, ...]
    n_columns: int

    @property
    def name(self) -> str:
        """What an error message calls it."""
        return str(self.paths[0] if len(self.paths) == 1 else self.paths[0].parent)

    @property
    def n_rows(self) -> int:
        """Number of valid rows."""
        return sum(self.counts)

    @cached_property
    def labels(self) -> NDArray[np.int32]:
        """int32 (n_rows,), 0-based."""
        parts = []
        for path, count in zip(self.paths, self.counts, strict=True):
            with h5py.File(path, "r") as file:
                parts.append(file[_LABELS][:count].astype(np.int32))
        return np.concatenate(parts)

    def read(self, first: int, last: int) -> NDArray[np.float32]:
        """Rows first..last-1 as float32 (last - first, n_columns).

        Raises:
            IndexError: If they are not all there.
        """
        if not 0 <= first <= last <= self.n_rows:
            raise IndexError(f"{self.name}: rows {first}..{last} of {self.n_rows}")
        result = np.empty((last - first, self.n_columns), dtype=np.float32)
        start = 0
        for path, count in zip(self.paths, self.counts, strict=True):
            begin, end = max(first, start), min(last, start + count)
            if begin < end:
                with h5py.File(path, "r") as file:
                    file[_FEATURES].read_direct(
                        result,
                        np.s_[begin - start : end - start],
                        np.s_[begin - first : end - first],
                    )
            start += count
        return result

    def __len__(self) -> int:
        return self.n_rows


def open_features(paths: tuple[Path, ...]) -> HDF5Features:
    """Check feature files and describe what is in them.

    Raises:
        FileNotFoundError: If a file is not there.
        ValueError: If a file is cut off or no HDF5, lacks a dataset, or has one of another type or
            shape than the format says.
    """
    counts, widths = zip(*(_inspect(path) for path in paths), strict=True)
    for path, width in zip(paths, widths, strict=True):
        if width != widths[0]:
            raise InputError(f"{path}: {width} columns, but {paths[0].name} has {widths[0]}")
    return HDF5Features(paths, counts, widths[0])


def _inspect(path: Path) -> tuple[int, int]:
    with open_hdf5(path) as file:
        expected = {_FEATURES: (2, "f"), _LABELS: (1, "iu"), _COUNT: (1, "iu")}
        for key, (n_dimensions, kinds) in expected.items():
            if not isinstance(file.get(key), h5py.Dataset):
                raise InputError(f"{path}: no dataset {key}; found {', '.join(file) or 'none'}")
            shape, dtype = file[key].shape, file[key].dtype
            if len(shape) != n_dimensions or dtype.kind not in kinds:
                numbers = "float32" if kinds == "f" else "int32"
                raise InputError(
                    f"{path}: {key} is {dtype} of shape {shape}; expected {numbers} with "
                    f"{n_dimensions} dimension(s)"
                )
        (n_features, n_columns), (n_labels,) = file[_FEATURES].shape, file[_LABELS].shape
        if file[_COUNT].shape != (1,):
            raise InputError(f"{path}: count has shape {file[_COUNT].shape}; expected (1,)")
        count = int(file[_COUNT][0])
    if not 0 <= count <= min(n_features, n_labels):
        raise InputError(
            f"{path}: count is {count}, but all_feats has {n_features} rows and all_labels "
            f"{n_labels}"
        )
    return count, n_columns


def _create(path: Path, n_rows: int, n_columns: int) -> h5py.File:
    file = h5py.File(path, "w")
    file.create_dataset(_FEATURES, (n_rows, n_columns), dtype="<f4")
    file.create_dataset(_LABELS, (n_rows,), dtype="<i4")
    file.create_dataset(_COUNT, data=np.array([n_rows], dtype="<i4"))
    return file


def _write_rows(file: h5py.File, first: int, block: LabeledBlock) -> None:
    file[_FEATURES][first : first + len(block.features)] = block.features
    file[_LABELS][first : first + len(block.labels)] = block.labels


def _facts(features: HDF5Features, n_bytes: int) -> dict[str, str]:
    labels = features.labels
    return {
        "shape": f"({features.n_rows}, {features.n_columns})",
        "dtype": "float32",
        "labels": f"{labels.min()}..{labels.max()}" if len(labels) else "none",
        "size on disk": format_bytes(n_bytes),
    }


def _first_rows(features: HDF5Features) -> NDArray[np.float32]:
    return features.read(0, min(features.n_rows, PREVIEW_ROWS))[:, :PREVIEW_COLUMNS]


class HDF5FeaturesDataset(FileDataset[Blocks[LabeledBlock], HDF5Features]):
    """Features and labels of a training or test set: all_feats, all_labels, count.

    Loading gives an :class:`HDF5Features`, which reads from disk what is asked for.

    Args:
        filepath: The HDF5 file.
        metadata: For Kedro plugins.

    Example:
        .. code-block:: yaml

            train_features:
              type: lowshot_kedro.datasets.HDF5FeaturesDataset
              filepath: data/04_feature/train.hdf5

        >>> features = HDF5FeaturesDataset(filepath="train.hdf5").load()
        >>> features.read(0, 10).shape
        (10, 2048)
    """

    def _read(self) -> HDF5Features:
        return open_features((self._filepath,))

    def _write(self, path: Path, data: Blocks[LabeledBlock]) -> None:
        require_space(self._filepath, 4 * data.n_rows * (data.n_columns + 1))
        with _create(path, data.n_rows, data.n_columns) as file:
            first = 0
            for block in data.checked(str(self._filepath)):
                _write_rows(file, first, block)
                first += len(block.features)

    def _facts(self) -> dict[str, str]:
        return _facts(self._read(), self._filepath.stat().st_size)

    def _first_rows(self) -> NDArray[np.float32]:
        return _first_rows(self._read())


class HDF5FeatureBlocksDataset(TableDataset[Blocks[LabeledBlock], HDF5Features]):
    """Features of a background collection: block0.hdf5, block1.hdf5, … in one folder.

    Args:
        filepath: The folder.
        rows_per_file: Images in every block file but the last.
        metadata: For Kedro plugins.

    Example:
        .. code-block:: yaml

            background_features:
              type: lowshot_kedro.datasets.HDF5FeatureBlocksDataset
              filepath: data/04_feature/f100m
    """

    def __init__(
        self,
        *,
        filepath: str,
        rows_per_file: int = 1_000_000,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._filepath = Path(filepath)
        self._rows_per_file = rows_per_file
        self.metadata = metadata

    def _path(self, block: int) -> Path:
        return self._filepath / f"block{block}.hdf5"

    def _paths(self) -> Iterator[Path]:
        """The block files that are there, from block 0 up to the first gap."""
        block = 0
        while self._path(block).is_file():
            yield self._path(block)
            block += 1

    def check(self) -> None:
        """Open every block file and compare it with the format."""
        self._open()

    def load(self) -> HDF5Features:
        """All blocks as one collection."""
        return self._open()

    def _open(self) -> HDF5Features:
        return open_features(tuple(self._paths()) or (self._path(0),))

    def save(self, data: Blocks[LabeledBlock]) -> None:
        """Write all blocks; they get their names together, at the end."""
        require_space(self._path(0), 4 * data.n_rows * (data.n_columns + 1))
        n_files = max(1, -(-data.n_rows // self._rows_per_file))
        paths = [self._path(number) for number in range(n_files)]
        # More blocks of an older collection would pass for a part of this one.
        older = [
            path
            for path in self._filepath.glob("block*.hdf5")
            if path.stem.removeprefix("block").isdigit() and path not in paths
        ]
        with written_whole(*paths, obsolete=older) as unfinished:
            self._write_files(unfinished, data)

    def _write_files(self, paths: list[Path], data: Blocks[LabeledBlock]) -> None:
        pending = data.checked(str(self._path(0)))
        block = LabeledBlock(np.empty((0, data.n_columns), np.float32), np.empty(0, np.int32))
        for number, path in enumerate(paths):
            n_rows = min(self._rows_per_file, data.n_rows - number * self._rows_per_file)
            with _create(path, n_rows, data.n_columns) as file:
                written = 0
                while written < n_rows:
                    if len(block.features) == 0:
                        block = next(pending)
                    fits = n_rows - written
                    _write_rows(file, written, block.rows(None, fits))
                    written += min(fits, len(block.features))
                    block = block.rows(fits, None)
        # Lets the blocks notice that there are more of them than they announced.
        next(pending, None)

    def _exists(self) -> bool:
        return self._path(0).is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath), "rows_per_file": self._rows_per_file}

    def _facts(self) -> dict[str, str]:
        features = self._open()
        size = sum(path.stat().st_size for path in features.paths)
        return {"files": str(len(features.paths)), **_facts(features, size)}

    def _first_rows(self) -> NDArray[np.float32]:
        return _first_rows(self._open())
