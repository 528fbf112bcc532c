"""A few named arrays in one HDF5 file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.datasets.file_dataset import FileDataset
from lowshot_kedro.datasets.files import require_file, require_space
from lowshot_kedro.errors import InputError


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
        metadata: For Kedro plugins.

    Example:
        .. code-block:: yaml

            diffusion_scores:
              type: lowshot_kedro.datasets.HDF5ArraysDataset
              filepath: data/07_model_output/diffusion_scores.hdf5

        >>> HDF5ArraysDataset(filepath="diffusion_scores.hdf5").load()["scores"].shape
        (15000, 500)
    """

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

    def _first_rows(self) -> Iterator[NDArray[Any]]:
        with open_hdf5(self._filepath) as file:
            matrix = next((array for array in file.values() if array.ndim == 2), None)
            if matrix is not None:
                yield from np.asarray(matrix[:10])
