"""A few named arrays in one HDF5 file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.datasets.class_list import class_namer, in_project
from lowshot_kedro.datasets.file_dataset import FileDataset
from lowshot_kedro.datasets.files import require_space
from lowshot_kedro.datasets.knn_graph import LINK_HEADINGS, readable_links
from lowshot_kedro.datasets.table_dataset import PREVIEW_COLUMNS, PREVIEW_ROWS
from lowshot_kedro.errors import InputError
from lowshot_kedro.input_files import require_file
from lowshot_kedro.matrices import KnnGraph

# What the arrays of scores are called that say what their columns and rows are.
_CLASSES, _TEST_CLASSES = "classes", "test_classes"


def open_hdf5(path: Path) -> h5py.File:
    """Open an HDF5 file for reading.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it is cut off or no HDF5.
    """
    require_file(path)
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path}: not a readable HDF5 file; is it cut off? ({error})") from error


class HDF5ArraysDataset(FileDataset[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]):
    """Named arrays, loaded whole: scores of test images, neighbours of test images.

    Args:
        filepath: The HDF5 file.
        class_list: A class split file (.json) or a CSV file as
            :class:`~lowshot_kedro.datasets.ClassListDataset` reads it, for previews of scores,
            which then name classes.
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
        class_list: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(filepath=filepath, metadata=metadata)
        self._class_list = None if class_list is None else in_project(class_list)

    def check(self) -> None:
        """Open the file.

        Raises:
            FileNotFoundError: If it is not there.
            ValueError: If it is cut off or no HDF5.
        """
        open_hdf5(self._filepath).close()

    def _read(self) -> dict[str, NDArray[Any]]:
        with open_hdf5(self._filepath) as file:
            return {name: array[()] for name, array in file.items()}

    def _write(self, path: Path, data: dict[str, NDArray[Any]]) -> None:
        require_space(self._filepath, sum(array.nbytes for array in data.values()))
        with h5py.File(path, "w") as file:
            for name, array in data.items():
                file.create_dataset(name, data=array)

    def _facts(self) -> dict[str, str]:
        with open_hdf5(self._filepath) as file:
            arrays = {name: f"{array.dtype} {array.shape}" for name, array in file.items()}
        return {**arrays, "size on disk": self._size_on_disk()}

    def _size(self) -> tuple[int, int] | None:
        with open_hdf5(self._filepath) as file:
            matrix = _matrix(file)
            return None if matrix is None else (matrix.shape[0], matrix.shape[1])

    def _headings(self) -> Sequence[str]:
        with open_hdf5(self._filepath) as file:
            if _is_graph(file):
                return LINK_HEADINGS
            labels = _labels(file)
        if labels is None:
            return super()._headings()
        return ["class", *map(class_namer(self._class_list), labels[:PREVIEW_COLUMNS])]

    def _row_classes(self) -> list[str]:
        with open_hdf5(self._filepath) as file:
            labels = _labels(file)
            if labels is None or _TEST_CLASSES not in file:
                return []
            classes = file[_TEST_CLASSES][:PREVIEW_ROWS]
        name = class_namer(self._class_list)
        return [name(labels[number]) for number in classes]

    def _first_rows(self) -> Iterator[Sequence[Any] | NDArray[Any]]:
        with open_hdf5(self._filepath) as file:
            matrix = _matrix(file)
            if _is_graph(file):
                parts = (file[name][:PREVIEW_ROWS] for name in KnnGraph._fields)
                yield from map(readable_links, *parts)
            elif matrix is not None:
                yield from np.asarray(matrix[:PREVIEW_ROWS])


def _matrix(file: h5py.File) -> h5py.Dataset | None:
    """The first of the arrays that is a matrix."""
    return next((array for array in file.values() if array.ndim == 2), None)


def _is_graph(file: h5py.File) -> bool:
    """Whether the arrays are the links of a k-NN graph."""
    return set(file) == set(KnnGraph._fields)


def _labels(file: h5py.File) -> list[int] | None:
    """The original labels of the columns of scores; None where the matrix is no such thing."""
    matrix = _matrix(file)
    if matrix is None or _CLASSES not in file or file[_CLASSES].shape != matrix.shape[1:]:
        return None
    return list(map(int, file[_CLASSES][()]))
