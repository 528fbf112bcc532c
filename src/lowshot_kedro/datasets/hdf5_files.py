"""HDF5 files that others have written: nothing is read from other files that they name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import h5py

from lowshot_kedro.errors import InputError, in_one_line
from lowshot_kedro.input_files import require_file
from lowshot_kedro.memory import format_bytes

# What deflate makes of equal bytes; more stands in no file, but follows from its header alone.
_MAX_RATIO = 1032
# So much may follow from a header: labels that are all 0 and that nobody has written.
_ALWAYS_ALLOWED = 64 * 2**20
# A compressed chunk is unpacked whole for any row of it.
_MAX_CHUNK = 2**30
_MAX_LINKS = 16


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it is no file, cut off or no HDF5; for whatever the library cannot read in
            it, also within the block.
    """
    require_file(path)
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path}: not a readable HDF5 file; is it cut off? ({error})") from error
    with file:
        try:
            yield file
        except (OSError, RuntimeError) as error:
            raise InputError(f"{path}: cannot be read ({in_one_line(error)})") from error


def find_dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """A dataset whose numbers stand in the file itself, and can be unpacked.

    Args:
        file: The file.
        name: Its name in the root group. It may be a link within the file.

    Raises:
        ValueError: If there is none, or it is a link to another file or in a circle, takes its
            numbers from other files, has no shape, or needs a filter that the library lacks.
    """
    found = _follow(file, name)
    where = f"{file.filename}: {name}"
    if found is None:
        names = ", ".join(list(file)[:10])
        raise InputError(f"{file.filename}: no dataset {name}; found {names or 'none'}")
    if not isinstance(found, h5py.Dataset):
        kind = "group" if isinstance(found, h5py.Group) else "data type"
        raise InputError(f"{where} is a {kind}, expected a dataset")
    if found.is_virtual or found.id.get_create_plist().get_external_count():
        raise InputError(f"{where} takes its numbers from other files, expected them in this one")
    if found.shape is None:
        raise InputError(f"{where} has no shape, expected numbers")
    try:
        _ = found.dtype
    except TypeError as error:
        raise InputError(f"{where} is of a type that is no number ({error})") from error
    _require_filters(found, where)
    return found


def require_stored(dataset: h5py.Dataset, where: str, n_rows: int | None = None) -> int:
    """Refuse a dataset of which the file holds far too little.

    Args:
        dataset: A dataset that :func:`find_dataset` has returned.
        where: What a message calls it: file and name.
        n_rows: How many of its first rows are wanted; None: all.

    Returns:
        Bytes of these rows, unpacked.

    Raises:
        ValueError: If they are more than 64 MiB and more than a compression could have made of what
            is stored, or if chunks are too large to unpack one for a row.
    """
    shape = dataset.shape if n_rows is None else (n_rows, *dataset.shape[1:])
    n_bytes = int(prod(map(int, shape))) * int(dataset.dtype.itemsize)
    stored = dataset.id.get_storage_size()
    if n_bytes > max(_ALWAYS_ALLOWED, stored * _MAX_RATIO):
        raise InputError(
            f"{where} has shape {dataset.shape}, of which {format_bytes(n_bytes)} are to be read, "
            f"but the file holds {format_bytes(stored)} of it; expected numbers that are stored"
        )
    chunk_bytes = prod(dataset.chunks or (0,)) * dataset.dtype.itemsize
    if chunk_bytes > _MAX_CHUNK:
        raise InputError(
            f"{where} lies in chunks of {format_bytes(chunk_bytes)}, each of which is unpacked for "
            f"any of its rows; expected at most {format_bytes(_MAX_CHUNK)}"
        )
    return n_bytes


def _follow(file: h5py.File, name: str) -> Any:
    """The object that a name stands for; None if there is none. Another file is never opened."""
    found: Any = file
    parts = [name]
    n_links = 0
    while parts:
        part = parts.pop(0)
        if part in ("", "."):
            continue
        link = _link(found, part)
        if link is None and n_links:
            raise InputError(f"{file.filename}: {name} is a link to nothing, expected numbers")
        if link is None:
            return None
        if isinstance(link, h5py.HardLink):
            found = found[part]
            continue
        n_links += 1
        if not isinstance(link, h5py.SoftLink):
            other = getattr(link, "filename", "another file")
            raise InputError(
                f"{file.filename}: {name} is a link to {other}, expected the numbers in this file"
            )
        if n_links > _MAX_LINKS:
            raise InputError(
                f"{file.filename}: {name} is a link that leads in a circle, expected numbers"
            )
        if link.path.startswith("/"):
            found = file
        parts = [*link.path.split("/"), *parts]
    return found


def _link(group: Any, name: str) -> Any:
    """How a name stands in a group; None if it does not."""
    if not isinstance(group, h5py.Group):
        return None
    try:
        return group.get(name, getlink=True)
    except TypeError:  # Of a kind that the library does not know.
        return object()


def _require_filters(dataset: h5py.Dataset, where: str) -> None:
    properties = dataset.id.get_create_plist()
    if not properties.get_nfilters() or not dataset.id.get_num_chunks():
        return
    # What could be left out while writing has a bit there.
    left_out = dataset.id.get_chunk_info(0).filter_mask
    for number in range(properties.get_nfilters()):
        code, _, _, name = properties.get_filter(number)
        if not left_out >> number & 1 and not h5py.h5z.filter_avail(code):
            known = name.decode("utf-8", "replace") or "without a name"
            raise InputError(
                f"{where} is compressed by the filter {code} ({known}), which this installation of "
                "HDF5 lacks; expected gzip, lzf or no compression"
            )
