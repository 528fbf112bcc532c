"""A few named arrays in one HDF5 file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.blocks import KnnGraph
from lowshot_kedro.datasets.class_list import class_namer, in_project
from lowshot_kedro.datasets.file_dataset import FileDataset
from lowshot_kedro.datasets.hdf5_files import find_dataset, open_hdf5, require_stored
from lowshot_kedro.datasets.knn_graph import LINK_HEADINGS, readable_links
from lowshot_kedro.datasets.table_dataset import PREVIEW_COLUMNS, PREVIEW_ROWS
from lowshot_kedro.disk import require_space
from lowshot_kedro.errors import InputError
from lowshot_kedro.memory import available_bytes, format_bytes

# What the arrays of scores are called that say what their columns and rows are.
_CLASSES, _TEST_CLASSES = "classes", "test_classes"


class HDF5ArraysDataset(FileDataset[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]):
    """Named arrays, loaded whole: scores of test images, neighbours of test images.

    Args:
        filepath: The HDF5 file.
        class_list: What names the classes in previews of scores: a class split file (.json), a
            CSV file as :class:`~lowshot_kedro.datasets.ClassListDataset` reads it, or name,
            filepath and arguments as of
            :class:`~lowshot_kedro.datasets.TorchvisionClassSplitDataset`.
        metadata: For Kedro plugins.

    Example:
        .. code-block:: yaml

            diffusion_scores:
              type: lowshot_kedro.datasets.HDF5ArraysDataset
              filepath: data/07_model_output/diffusion_scores.hdf5

        >>> HDF5ArraysDataset(filepath="diffusion_scores.hdf5").load()["scores"].shape
        (15000, 500)
    """

    def __init__(
        self,
        *,
        filepath: str,
        class_list: str | Mapping[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(filepath=filepath, metadata=metadata)
        self._class_list = in_project(class_list)

    def check(self) -> None:
        """Open the file and look at what it says of its arrays.

        Raises:
            FileNotFoundError: If it is not there.
            ValueError: If it is cut off or no HDF5, holds anything but arrays of numbers, or more
                than there is memory for.
        """
        with open_hdf5(self._filepath) as file:
            self._arrays(file)

    def _read(self) -> dict[str, NDArray[Any]]:
        with open_hdf5(self._filepath) as file:
            return {name: array[()] for name, array in self._arrays(file).items()}

    def _arrays(self, file: h5py.File) -> dict[str, h5py.Dataset]:
        """All arrays by name, not yet read."""
        arrays = {name: find_dataset(file, name) for name in file}
        n_bytes = 0
        for name, array in arrays.items():
            where = f"{self._filepath}: {name}"
            if array.dtype.kind not in "biuf":
                raise InputError(f"{where} is {array.dtype}, expected numbers")
            n_bytes += require_stored(array, where)
        free = available_bytes()
        if n_bytes > free:
            raise InputError(
                f"{self._filepath}: takes {format_bytes(n_bytes)} in memory, but "
                f"{format_bytes(free)} are free"
            )
        return arrays

    def _write(self, path: Path, data: dict[str, NDArray[Any]]) -> None:
        require_space(self._filepath, sum(array.nbytes for array in data.values()))
        with h5py.File(path, "w") as file:
            for name, array in data.items():
                file.create_dataset(name, data=array)

    def _facts(self) -> dict[str, str]:
        with open_hdf5(self._filepath) as file:
            found = self._arrays(file)
            arrays = {name: f"{array.dtype} {array.shape}" for name, array in found.items()}
        return {**arrays, "size on disk": self._size_on_disk()}

    def _size(self) -> tuple[int, int] | None:
        with open_hdf5(self._filepath) as file:
            matrix = _matrix(self._arrays(file))
            return None if matrix is None else (matrix.shape[0], matrix.shape[1])

    def _headings(self) -> Sequence[str]:
        with open_hdf5(self._filepath) as file:
            arrays = self._arrays(file)
            if _is_graph(arrays):
                return LINK_HEADINGS
            labels = _labels(arrays)
        if labels is None:
            return super()._headings()
        return ["class", *map(class_namer(self._class_list), labels[:PREVIEW_COLUMNS])]

    def _row_classes(self) -> list[str]:
        with open_hdf5(self._filepath) as file:
            arrays = self._arrays(file)
            labels = _labels(arrays)
            if labels is None or _TEST_CLASSES not in arrays:
                return []
            classes = arrays[_TEST_CLASSES][:PREVIEW_ROWS]
        name = class_namer(self._class_list)
        return [name(labels[number]) for number in classes]

    def _first_rows(self) -> Iterator[Sequence[Any] | NDArray[Any]]:
        with open_hdf5(self._filepath) as file:
            arrays = self._arrays(file)
            matrix = _matrix(arrays)
            if _is_graph(arrays):
                parts = (arrays[name][:PREVIEW_ROWS] for name in KnnGraph._fields)
                yield from map(readable_links, *parts)
            elif matrix is not None:
                yield from np.asarray(matrix[:PREVIEW_ROWS])


def _matrix(arrays: Mapping[str, h5py.Dataset]) -> h5py.Dataset | None:
    """The first of the arrays that is a matrix."""
    return next((array for array in arrays.values() if array.ndim == 2), None)


def _is_graph(arrays: Mapping[str, h5py.Dataset]) -> bool:
    """Whether the arrays are the links of a k-NN graph."""
    return set(arrays) == set(KnnGraph._fields)


def _labels(arrays: Mapping[str, h5py.Dataset]) -> list[int] | None:
    """The original labels of the columns of scores; None where the matrix is no such thing."""
    matrix = _matrix(arrays)
    if matrix is None or _CLASSES not in arrays or arrays[_CLASSES].shape != matrix.shape[1:]:
        return None
    return list(map(int, arrays[_CLASSES][()]))
