"""Checksums by which sources describe their images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PIECE_BYTES = 2**20


def checksum(parts: Iterable[bytes]) -> str:
    """BLAKE2b of some pieces of data and of where one ends and the next begins, 32 hex digits."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def numbers_as_bytes(numbers: Sequence[int] | NDArray[np.integer[Any]]) -> bytes:
    """Integers as little-endian int64, the same on every machine."""
    return np.asarray(numbers, dtype="<i8").tobytes()


def file_size(path: Path) -> int:
    """Size of a file in bytes, -1 if it is not there or cannot be looked at."""
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return -1


def checksum_of_file(path: Path) -> str:
    """The checksum of what is in a file, which is read in pieces."""
    with path.open("rb") as file:
        return checksum(iter(lambda: file.read(_PIECE_BYTES), b""))
