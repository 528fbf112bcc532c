"""Files in the idx format of MNIST and Fashion-MNIST."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SIDE = 28
IMAGES, CLASSES = "images-idx3", "labels-idx1"

# What a file holds and its sizes, as big-endian integers.
_HEADER = np.dtype(">i4")
_KINDS = {IMAGES: 0x803, CLASSES: 0x801}


def find_idx(folder: Path, part: str, what: str) -> Path | None:
    """The file of a part (train or t10k), plain or compressed, if it is there.

    Args:
        folder: Where it may be.
        part: `train` or `t10k`.
        what: :data:`IMAGES` or :data:`CLASSES`.
    """
    found = (folder / f"{part}-{what}-ubyte{suffix}" for suffix in ("", ".gz"))
    return next((path for path in found if path.is_file()), None)


def read_idx(path: Path, what: str) -> NDArray[np.uint8]:
    """What a file holds, which may be compressed.

    Args:
        path: Of the file.
        what: :data:`IMAGES` or :data:`CLASSES`.

    Returns:
        uint8 (m, 784) or (m,).

    Raises:
        ValueError: If it is of something else.
    """
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    sides = [SIDE, SIDE] if what == IMAGES else []
    header = np.frombuffer(content[: 8 + 4 * len(sides)], _HEADER)
    n_bytes = header.nbytes + int(np.prod(header[1:], dtype=np.int64))
    if header[0] != _KINDS[what] or header[2:].tolist() != sides or len(content) != n_bytes:
        expected = f"images of {SIDE} × {SIDE} bytes" if sides else "classes"
        raise ValueError(f"{path}: no idx file of {expected}")
    found = np.frombuffer(content, np.uint8, offset=header.nbytes)
    return found.reshape(-1, SIDE * SIDE) if sides else found
