"""Keys by which files of images are known again, wherever they lie and whatever they are called."""

from __future__ import annotations

import os
from hashlib import blake2b
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.images.decoding import ImageSource, open_image

KEY_BYTES = 16

# A file of up to this size is read whole, of a larger one as much in pieces, first and last byte
# included. A photograph of one megabyte takes no more reading than its name and time do.
_READ_BYTES = 65_536
_N_PIECES = 8


@runtime_checkable
class KeyedImages(ImageSource, Protocol):
    """A collection whose images can be known again in another collection."""

    def file_keys(self, first: int, last: int) -> NDArray[np.uint8]:
        """Keys of images first..last-1, uint8 (last - first, 16); all 0 for one without a key."""
        ...


def file_keys(paths: list[Path]) -> NDArray[np.uint8]:
    """Keys of files, uint8 (n, 16); all 0 for a file that cannot be read."""
    keys = b"".join(map(_key, paths))
    return np.frombuffer(keys, np.uint8).reshape(len(paths), KEY_BYTES)


def _key(path: Path) -> bytes:
    """BLAKE2b of size, time of modification and 64 KiB of a file.

    Name and folder do not count, so that a file which is moved or renamed stays known. Size and
    time alone would not do: archives give their files the same time, and uncompressed images have
    one size.
    """
    try:
        with open_image(path) as file:
            descriptor = file.fileno()
            status = os.fstat(descriptor)
            digest = blake2b(digest_size=KEY_BYTES)
            digest.update(status.st_size.to_bytes(8, "little"))
            digest.update(status.st_mtime_ns.to_bytes(16, "little", signed=True))
            n_pieces = 1 if status.st_size <= _READ_BYTES else _N_PIECES
            length = _READ_BYTES // n_pieces
            for number in range(n_pieces):
                start = number * max(0, status.st_size - length) // max(1, n_pieces - 1)
                digest.update(os.pread(descriptor, length, start))
    except (OSError, ValueError):
        return bytes(KEY_BYTES)
    return digest.digest()
