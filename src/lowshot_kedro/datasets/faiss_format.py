"""The bytes of an index file, as faiss writes them.

These are the two kinds that this project makes: flat indexes and inverted files of whole vectors.
They are written block by block, and read as memory maps.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.blocks import InvertedFile, ListBlock
from lowshot_kedro.datasets.raw_matrix import write_rows
from lowshot_kedro.errors import InputError
from lowshot_kedro.input_files import require_file

# Kind, d, ntotal, two unused numbers, is_trained, metric.
_HEADER = struct.Struct("<4siqqq?i")
_UNUSED = 1 << 20
_INNER_PRODUCT = 0
_COUNT = struct.Struct("<Q")
# nlist, nprobe.
_SEARCH = struct.Struct("<QQ")
# Kind of the map from numbers to lists, and its length.
_DIRECT_MAP = struct.Struct("<bQ")
# "ilar", nlist, bytes per vector, how the sizes are stored, how many numbers that are.
_LISTS = struct.Struct("<4sQQ4sQ")
_FLOAT, _NUMBER = np.dtype("<f4"), np.dtype("<i8")
# Where the vectors of a flat index begin: after the header and the number of their entries.
FLAT_OFFSET = _HEADER.size + _COUNT.size
_FLAT_KINDS = (b"IxFI", b"IxF2")
_BINARY = b"IB"


class IndexHeader(NamedTuple):
    """The first bytes of every index file that faiss writes.

    Attributes:
        kind: Four letters.
        dimension: Columns of the vectors.
        n_vectors: How many vectors it holds.
        is_trained: Whether vectors can be added and searched.
        metric: The metric by which they are compared, as faiss numbers them.
        n_bytes: Size of the whole file; None for a kind of which only faiss knows it.
    """

    kind: str
    dimension: int
    n_vectors: int
    is_trained: bool
    metric: int
    n_bytes: int | None

    @classmethod
    def read(cls, path: Path) -> IndexHeader:
        """Read the header of a file, and of an inverted file also the sizes of its lists.

        Raises:
            FileNotFoundError: If it is not there.
            ValueError: If the file is too short for what its header says, or holds no vectors of
                float32.
        """
        size = require_file(path)
        with path.open("rb") as file:
            start = file.read(_HEADER.size)
            if len(start) < _HEADER.size:
                raise InputError(f"{path}: not a readable faiss index; is it cut off?")
            kind, dimension, n_vectors, _, _, is_trained, metric = _HEADER.unpack(start)
            if kind.startswith(_BINARY):
                # The other numbers stand in other places.
                raise InputError(f"{path}: is an index of binary vectors, expected one of float32")
            expected = None
            if dimension < 0 or n_vectors < 0:
                raise InputError(
                    f"{path}: not a readable faiss index; its header says {n_vectors} vectors of "
                    f"dimension {dimension}"
                )
            if kind in _FLAT_KINDS:
                expected = FLAT_OFFSET + _FLOAT.itemsize * dimension * n_vectors
            elif kind == b"IwFl":
                expected = _inverted_file_bytes(file, size)
        if expected is not None and size < expected:
            raise InputError(
                f"{path}: not a readable faiss index; is it cut off? It has {size} bytes, expected "
                f"at least {expected} for {n_vectors} vectors of dimension {dimension}"
            )
        name = kind.decode("latin-1")
        return cls(name, dimension, n_vectors, is_trained, metric, expected)

    @property
    def is_flat(self) -> bool:
        """Whether the vectors stand one after the other behind the header."""
        return self.kind.encode("latin-1") in _FLAT_KINDS


def _inverted_file_bytes(file: BinaryIO, size: int) -> int | None:
    """Bytes of an inverted file whose header has just been read, from the sizes of its lists.

    Returns:
        None if it has parts that are not known here. If the file, of `size` bytes, ends before the
        sizes of its lists, what it takes to hold them.
    """

    def read(layout: struct.Struct) -> tuple[Any, ...]:
        return layout.unpack(file.read(layout.size))

    needed = file.tell() + _SEARCH.size + _HEADER.size + _COUNT.size
    if needed > size:
        return needed
    read(_SEARCH)
    quantizer, *_, metric = read(_HEADER)
    if quantizer not in _FLAT_KINDS or metric > 1:
        return None
    centroid_bytes = _FLOAT.itemsize * int(*read(_COUNT))
    needed = file.tell() + centroid_bytes + _DIRECT_MAP.size + _LISTS.size
    if needed > size:
        return needed
    file.seek(centroid_bytes, os.SEEK_CUR)
    # A map that is not empty follows here, and then "ilar" does not.
    read(_DIRECT_MAP)
    kind, _, vector_bytes, form, n_numbers = read(_LISTS)
    if kind != b"ilar" or form not in (b"full", b"sprs"):
        return None
    needed = file.tell() + _COUNT.size * int(n_numbers)
    if needed > size:
        return needed
    numbers = np.frombuffer(file.read(needed - file.tell()), dtype="<u8")
    sizes = numbers if form == b"full" else numbers[1::2]
    # As Python's integers: a damaged file may hold any.
    return needed + sum(map(int, sizes)) * (int(vector_bytes) + _NUMBER.itemsize)


def map_index(path: Path) -> faiss.Index:
    """Open an index whose vectors, and numbers of vectors, stay in the file until they are needed.

    A search finds exactly what it finds in an index that is read whole, from several threads too.
    Adding to it ends the process, and a copy by faiss.clone_index must not outlive it. The size of
    the file must have been checked: reading beyond its end ends the process, too.

    Raises:
        RuntimeError: If faiss cannot read it.
    """
    # faiss's own memory maps read single pages (MADV_RANDOM), which is many times slower from a
    # disk; or they are written back as a reference to the file (OnDiskInvertedLists).
    mapped = np.memmap(path, mode="r", dtype=np.uint8)
    reader = faiss.ZeroCopyIOReader(  # type: ignore[attr-defined]
        faiss.swig_ptr(mapped), mapped.size
    )
    index: faiss.Index = faiss.read_index(reader)
    # Where faiss itself keeps what an index must not outlive.
    index.referenced_objects = [mapped]  # type: ignore[attr-defined]
    return index


def inverted_file_bytes(inverted_file: InvertedFile) -> int:
    """Size of the file, but for a few bytes."""
    n_lists, dimension = inverted_file.centroids.shape
    vector_bytes = _FLOAT.itemsize * dimension
    list_bytes = n_lists * (vector_bytes + _COUNT.size)
    return int(list_bytes + inverted_file.sizes.sum() * (vector_bytes + _NUMBER.itemsize))


def write_flat(
    file: BinaryIO, blocks: Iterable[NDArray[np.float32]], shape: tuple[int, int]
) -> None:
    """Write what faiss writes for an IndexFlatIP, from float32 blocks of a matrix of this shape."""
    n_rows, n_columns = shape
    file.write(_HEADER.pack(b"IxFI", n_columns, n_rows, _UNUSED, _UNUSED, True, _INNER_PRODUCT))
    file.write(_COUNT.pack(n_rows * n_columns))
    for block in blocks:
        write_rows(file, block, _FLOAT)


def write_inverted_file(file: BinaryIO, content: InvertedFile, name: str) -> None:
    """Write what faiss writes for an IndexIVFFlat of inner products over an IndexFlatIP.

    Args:
        file: Open for writing.
        content: Centroids, sizes and lists; one block is in memory at a time.
        name: What messages call the file.

    Raises:
        ValueError: If the blocks are not what the sizes announce.
    """
    n_lists, dimension = content.centroids.shape
    if content.sizes.shape != (n_lists,) or (content.sizes < 0).any():
        raise ValueError(
            f"{name}: got sizes of shape {content.sizes.shape}, smallest "
            f"{content.sizes.min(initial=0)}; expected {n_lists} sizes from 0"
        )
    # Where list i begins, in vectors, and list i - 1 ends.
    ends = np.concatenate([[0], np.cumsum(content.sizes, dtype=np.int64)])
    n_vectors = int(ends[-1])
    vector_bytes = _FLOAT.itemsize * dimension
    file.write(_HEADER.pack(b"IwFl", dimension, n_vectors, _UNUSED, _UNUSED, True, _INNER_PRODUCT))
    file.write(_SEARCH.pack(n_lists, content.n_probe))
    write_flat(file, [content.centroids], (n_lists, dimension))
    file.write(_DIRECT_MAP.pack(0, 0))
    filled = np.flatnonzero(content.sizes)
    if len(filled) > n_lists // 2:
        form, numbers = b"full", content.sizes
    else:
        form, numbers = b"sprs", np.column_stack([filled, content.sizes[filled]]).ravel()
    file.write(_LISTS.pack(b"ilar", n_lists, vector_bytes, form, len(numbers)))
    write_rows(file, numbers, _NUMBER)

    start = file.tell()
    filled = np.zeros(n_lists, np.int64)
    for block in content.make():
        _require_fitting(block, content.sizes - filled, dimension, name)
        for number, rows in block.parts():
            begin = start + int(ends[number]) * (vector_bytes + _NUMBER.itemsize)
            there, size = int(filled[number]), int(content.sizes[number])
            _seek(file, begin + there * vector_bytes)
            write_rows(file, block.vectors[rows], _FLOAT)
            _seek(file, begin + size * vector_bytes + there * _NUMBER.itemsize)
            write_rows(file, block.numbers[rows], _NUMBER)
        filled += block.counts
        # Or it would stay in memory while the next one is made.
        del block
    if (filled != content.sizes).any():
        raise ValueError(f"{name}: got lists of {filled.sum()} vectors; expected {n_vectors}")


def _seek(file: BinaryIO, place: int) -> None:
    # Seeking costs a call of the system and an empty buffer, even to the place one is at.
    if file.tell() != place:
        file.seek(place)


def _require_fitting(block: ListBlock, left: NDArray[np.int64], dimension: int, name: str) -> None:
    """Refuse a block whose parts do not agree, or that has more of a list than is left of it."""
    shapes = block.numbers.shape, block.vectors.shape, block.counts.shape
    n_rows = len(block.numbers)
    if shapes != ((n_rows,), (n_rows, dimension), left.shape):
        raise ValueError(
            f"{name}: a block has numbers of shape {shapes[0]}, vectors of shape {shapes[1]} and "
            f"counts of shape {shapes[2]}; expected as many numbers as vectors, of dimension "
            f"{dimension}, and {len(left)} counts"
        )
    if (block.counts < 0).any() or block.counts.sum() != n_rows:
        raise ValueError(
            f"{name}: a block of {n_rows} vectors has counts of {block.counts.sum()}, smallest "
            f"{block.counts.min(initial=n_rows)}; expected as many, from 0"
        )
    too_many = np.flatnonzero(block.counts > left)
    if len(too_many):
        number = int(too_many[0])
        raise ValueError(
            f"{name}: a block has {block.counts[number]} vectors of list {number}; expected at "
            f"most {left[number]} more"
        )
