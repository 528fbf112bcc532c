"""Features that others have made, from a file: what stands in for images and a network."""

from __future__ import annotations

import zipfile
import zlib
from math import prod
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.blocks import RegionFeatures, spread_rows
from lowshot_kedro.datasets.feature_writer import FEATURES, ROW_SHAPE
from lowshot_kedro.datasets.hdf5_features import HDF5Features, open_features
from lowshot_kedro.datasets.hdf5_files import find_dataset, open_hdf5
from lowshot_kedro.datasets.resumable import Facts, ResumableFiles
from lowshot_kedro.errors import InputError, in_one_line, shown
from lowshot_kedro.images.fingerprint import checksum
from lowshot_kedro.input_files import require_file

Shape: TypeAlias = tuple[int, int, int]

_NPZ = ".npz"
_N_COMPARED = 64
# Where an entry of a zip archive says how long its name and what follows that are, and what is
# before them.
_LENGTHS_AT, _ENTRY_BYTES = 26, 30


class ArrayFeatures:
    """Labelled features in an array, which may be a memmap: they are read block by block.

    Args:
        name: What an error message calls them.
        array: (n, d) or (n, C, h, w) numbers, whose rows are flattened.
        labels: int32 (n,), 0-based.
    """

    # Nobody has kept a list.
    broken_images = None

    def __init__(self, name: str, array: NDArray[Any], labels: NDArray[np.int32]) -> None:
        self.name = name
        self.labels = labels
        self.n_rows = len(array)
        self.n_columns = prod(array.shape[1:])
        self._array = array

    def read(
        self, first: int, last: int, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Rows first..last-1 as float32 (last - first, n_columns), in `out` if that is given.

        Raises:
            IndexError: If they are not all there.
        """
        if not 0 <= first <= last <= self.n_rows:
            raise IndexError(f"{self.name}: rows {first}..{last} of {self.n_rows}")
        result = np.empty((last - first, self.n_columns), np.float32) if out is None else out
        result[:] = self._array[first:last].reshape(last - first, self.n_columns)
        return result


def open_regions(path: Path) -> RegionFeatures:
    """Features of images from a file: dense maps, or vectors, which are maps of 1 × 1.

    Args:
        path: A feature file (HDF5) with all_feats (n, d) or (n, C, h, w), all_labels and count; an
            attribute `shape` of all_feats says what rows are flattened from. Or an .npz file with
            `features`, of the same shapes, and `labels` (n,): integers from 0, or words, which are
            numbered in their order. Arrays that are stored there without compression, as np.savez
            does, are not read into memory; compressed ones are.

    Raises:
        MissingFileError: If it is not there.
        InputError: If it is damaged or in another format.
    """
    features: HDF5Features | ArrayFeatures
    if path.suffix.lower() == _NPZ:
        features, shape = _open_npz(path)
    else:
        features = open_features((path,), dense=True)
        shape = _row_shape(path, features.n_columns)
    provenance = ResumableFiles(path, path).provenance()
    if not provenance:
        provenance = _facts_of(path, features, shape)
    return RegionFeatures(features, shape, provenance)


def _row_shape(path: Path, n_columns: int) -> Shape:
    with open_hdf5(path) as file:
        features = find_dataset(file, FEATURES)
        if features.ndim == 4:
            channels, height, width = map(int, features.shape[1:])
            return channels, height, width
        if ROW_SHAPE not in features.attrs:
            return n_columns, 1, 1
        found = np.asarray(features.attrs[ROW_SHAPE])
        if found.shape != (3,) or found.dtype.kind not in "iu" or found.min() < 1:
            raise InputError(f"{path}: {ROW_SHAPE} is {shown(found)}; expected three sizes")
        channels, height, width = map(int, found)
        if channels * height * width != n_columns:
            raise InputError(
                f"{path}: {ROW_SHAPE} is {shown(found)}, expected sizes of rows of {n_columns} "
                "numbers"
            )
        return channels, height, width


def _facts_of(path: Path, features: HDF5Features | ArrayFeatures, shape: Shape) -> Facts:
    """What tells features that come without a note from others: sizes, labels and some rows."""
    parts = [np.ascontiguousarray(features.labels, "<i4").tobytes()]
    for row in map(int, spread_rows(features.n_rows, _N_COMPARED)):
        parts.append(np.ascontiguousarray(features.read(row, row + 1), "<f4").tobytes())
    facts = {
        "kind": "features from a file",
        "n_rows": features.n_rows,
        "n_columns": features.n_columns,
        "shape": list(shape),
        "checksum": checksum(parts),
    }
    if features.n_rows > _N_COMPARED:
        # Gigabytes are not read to find out whether one of the other rows has changed.
        facts["modified"] = path.stat().st_mtime_ns
    return facts


def _open_npz(path: Path) -> tuple[ArrayFeatures, Shape]:
    require_file(path)
    expected = "an .npz file with features (n, d) or (n, C, h, w) and labels (n,)"
    try:
        features, labels = (_array_in(path, name) for name in ("features", "labels"))
    except KeyError as error:
        raise InputError(f"{path}: holds no array {error}; expected {expected}") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        found = in_one_line(error)
        raise InputError(f"{path}: cannot be read ({found}); expected {expected}") from error
    is_right = features.dtype.kind in "fiu" and features.ndim in (2, 4) and prod(features.shape[1:])
    if not is_right or labels.shape != features.shape[:1]:
        raise InputError(
            f"{path}: features are {features.dtype} of shape {features.shape}, labels of shape "
            f"{labels.shape}; expected {expected}"
        )
    if not len(features):
        raise InputError(f"{path}: features of no image; expected some")
    if labels.dtype.kind in "US":
        numbers = np.unique(labels, return_inverse=True)[1].reshape(-1)
    elif labels.dtype.kind in "iu":
        numbers = labels
    else:
        raise InputError(f"{path}: labels are {labels.dtype}; expected integers or words")
    if len(numbers) and not 0 <= numbers.min() <= numbers.max() <= np.iinfo(np.int32).max:
        raise InputError(
            f"{path}: labels are {numbers.min()}..{numbers.max()}; expected integers from 0 to "
            f"{np.iinfo(np.int32).max}"
        )
    channels, height, width = (*features.shape[1:], 1, 1)[:3]
    matrix = ArrayFeatures(str(path), features, numbers.astype(np.int32))
    return matrix, (channels, height, width)


def _array_in(path: Path, name: str) -> NDArray[Any]:
    """An array of an .npz file, in place where it is not compressed.

    Raises:
        KeyError: If there is none of this name.
    """
    with zipfile.ZipFile(path) as archive:
        try:
            entry = archive.getinfo(f"{name}.npy")
        except KeyError:
            raise KeyError(name) from None
    if entry.compress_type != zipfile.ZIP_STORED:
        with np.load(path, allow_pickle=False) as arrays:
            array: NDArray[Any] = arrays[name]
            return array
    with path.open("rb") as file:
        file.seek(entry.header_offset + _LENGTHS_AT)
        lengths = np.frombuffer(file.read(4), "<u2")
        start = entry.header_offset + _ENTRY_BYTES + int(lengths.sum())
        file.seek(start)
        version = np.lib.format.read_magic(file)
        read_header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, is_fortran, dtype = read_header(file)
        begin = file.tell()
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects")
    n_bytes = prod(shape) * dtype.itemsize
    if begin - start + n_bytes != entry.file_size:
        raise ValueError(f"{name} has {entry.file_size} bytes, not those of its shape {shape}")
    if not n_bytes:
        return np.empty(shape, dtype)
    order: Literal["F", "C"] = "F" if is_fortran else "C"
    stored: NDArray[Any] = np.memmap(path, dtype, "r", begin, shape, order)
    return stored
