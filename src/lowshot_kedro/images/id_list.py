"""A list of image numbers in a .npy file, such as flickr_unique_ids.npy of YFCC100M."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.blocks import row_ranges
from lowshot_kedro.errors import InputError, in_one_line
from lowshot_kedro.images.fingerprint import checksum, numbers_as_bytes
from lowshot_kedro.input_files import require_file

_BLOCK_ROWS = 2**20
_LISTS_REMEMBERED = 8


class ListFacts(NamedTuple):
    """What a part of a list says, found by reading all of it.

    Attributes:
        checksum: Of the numbers in order, whatever integers they are stored as.
        groups: int64, in which groups of consecutive numbers any of them are, increasing.
    """

    checksum: str
    groups: NDArray[np.int64]


class ImageIds:
    """Numbers of images in a one-dimensional .npy file of integers.

    The file is mapped: a hundred million numbers take no memory, and a worker to which the list is
    sent maps the file itself.

    Args:
        path: The file.
        max_id: The largest number that an image can have.

    Raises:
        FileNotFoundError: If the file is not there.
        InputError: If it is no such file, is cut off, or holds no number.
    """

    def __init__(self, path: str | Path, max_id: int) -> None:
        self.path = Path(path)
        self.max_id = max_id
        self._ids: np.memmap[Any, Any] | None = _mapped(self.path)
        self._n_ids = len(self._ids)

    def __len__(self) -> int:
        return self._n_ids

    def __getitem__(self, position: int) -> int:
        return int(self._mapped()[position])

    def facts(self, first: int, last: int, group_size: int) -> ListFacts:
        """What numbers first..last-1 of the list are; a process reads an unchanged file once.

        Raises:
            InputError: If one of them is no number of an image.
        """
        status = self.path.stat()
        of_file = (str(self.path), status.st_mtime_ns, status.st_size, status.st_ino)
        return _facts(of_file, first, last, self.max_id, group_size)

    def _mapped(self) -> np.memmap[Any, Any]:
        if self._ids is None:
            self._ids = _mapped(self.path)
        return self._ids

    def __getstate__(self) -> dict[str, Any]:
        # A memmap would be sent with all its numbers.
        return {**self.__dict__, "_ids": None}


def _mapped(path: Path) -> np.memmap[Any, Any]:
    require_file(path)
    expected = "a .npy file with a list of integers"
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, EOFError, ValueError, SyntaxError) as error:
        raise InputError(
            f"{path}: cannot be read as a list of image numbers ({in_one_line(error)}); is it "
            f"cut off? Expected {expected}"
        ) from error
    if not isinstance(found, np.memmap):
        found.close()
        raise InputError(f"{path}: is an archive of arrays, expected {expected}")
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise InputError(f"{path}: is {found.dtype} of shape {found.shape}, expected {expected}")
    if not len(found):
        raise InputError(f"{path}: holds no number, expected {expected}")
    return found


@functools.lru_cache(maxsize=_LISTS_REMEMBERED)
def _facts(
    of_file: tuple[str, int, int, int], first: int, last: int, max_id: int, group_size: int
) -> ListFacts:
    has_any = np.zeros(max_id // group_size + 1, np.bool_)

    def numbers() -> Iterator[bytes]:
        for block in _checked_blocks(Path(of_file[0]), first, last, max_id):
            has_any[block // group_size] = True
            yield numbers_as_bytes(block)

    found = checksum(numbers())
    return ListFacts(found, np.flatnonzero(has_any))


def _checked_blocks(path: Path, first: int, last: int, max_id: int) -> Iterator[NDArray[np.int64]]:
    ids = _mapped(path)
    # Read, not mapped: mapped pages would count as memory of the process, all of them.
    with path.open("rb") as file:
        file.seek(ids.offset + first * ids.itemsize)
        for begin, end in row_ranges(last - first, _BLOCK_ROWS):
            block = np.frombuffer(file.read((end - begin) * ids.itemsize), ids.dtype)
            if block.min() < 0 or block.max() > max_id:
                bad = int(np.argmax((block < 0) | (block > max_id)))
                raise InputError(
                    f"{path}: entry {first + begin + bad} is {block[bad]}, expected a number of "
                    f"an image, 0..{max_id}"
                )
            yield block.astype(np.int64)
