"""Checksums by which sources describe their pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


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


def evenly_spread(n_items: int, at_most: int) -> NDArray[np.int64]:
    """Positions of some items of a sequence, the first one among them, increasing.

    Args:
        n_items: Length of the sequence.
        at_most: How many positions are wanted; all if there are not so many.

    Returns:
        int64 (min(n_items, at_most),).
    """
    n_wanted = min(n_items, at_most)
    return np.arange(n_wanted, dtype=np.int64) * n_items // max(n_wanted, 1)


def file_size(path: Path) -> int:
    """Size of a file in bytes, -1 if it is not there or cannot be looked at."""
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return -1
