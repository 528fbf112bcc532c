"""Files of images below a folder, known by name: what labelled lists and folders share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.blocks import spread_rows
from lowshot_kedro.images.decoding import (
    LoadedImage,
    decode,
    open_image,
    read_image,
    require_number,
)
from lowshot_kedro.images.file_keys import file_keys
from lowshot_kedro.images.fingerprint import (
    checksum,
    file_size,
    numbers_as_bytes,
)

_MAX_SIZES_LOOKED_AT = 100_000


class Names:
    """Many strings in one piece of memory.

    A forked worker that looks at Python strings one after the other ends up with a copy of each,
    for it counts references in them. This is never written to.

    Args:
        names: Any strings, also file names that are no text.
    """

    def __init__(self, names: Iterable[str]) -> None:
        encoded = [name.encode("utf-8", "surrogatepass") for name in names]
        self.ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
        self.content = b"".join(encoded)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, position: int) -> str:
        first = self.ends[position - 1] if position else 0
        return self.content[first : self.ends[position]].decode("utf-8", "surrogatepass")


class ImageFiles:
    """Images in files of their own, below one folder.

    A file that is missing or broken is a blank image. In memory are the names and labels.

    Args:
        kind: What :meth:`describe` calls the collection.
        path: Its name for people: a list, or the folder itself.
        root: The folder that the names are relative to.
        names: One for each image.
        labels: 0-based, one for each image.
    """

    def __init__(
        self, kind: str, path: Path, root: Path, names: Sequence[str], labels: Sequence[int]
    ) -> None:
        self.path = path
        self.root = root
        self._kind = kind
        self._names = Names(names)
        self._labels = np.array(labels, dtype=np.int32)
        self._labels.flags.writeable = False

    @property
    def labels(self) -> NDArray[np.int32]:
        """int32 (n,), 0-based, read-only."""
        return self._labels

    def name(self, number: int) -> str:
        """The file of an image, relative to the root."""
        return self._names[number]

    def describe(self) -> dict[str, Any]:
        """Kind, number of images, and a checksum of names, labels and file sizes in order.

        Of more than 100 000 files only so many, evenly spread, are asked for their size.
        """
        looked_at = spread_rows(len(self), _MAX_SIZES_LOOKED_AT)
        sizes = [file_size(self.root / self.name(int(number))) for number in looked_at]
        parts = (
            self._names.content,
            numbers_as_bytes(self._names.ends),
            numbers_as_bytes(self._labels),
            numbers_as_bytes(sizes),
        )
        return {"kind": self._kind, "n_pictures": len(self), "checksum": checksum(parts)}

    def file_keys(self, first: int, last: int) -> NDArray[np.uint8]:
        """Keys of images first..last-1, uint8 (last - first, 16), which moved files keep.

        All 0 stands for a file that cannot be read.
        """
        return file_keys([self.root / self.name(number) for number in range(first, last)])

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, number: int) -> LoadedImage:
        number = require_number(number, len(self), str(self.path))
        name = self.name(number)
        path = self.root / name
        short = "/".join(Path(name).parts[-2:]) if Path(name).is_absolute() else name
        return read_image(lambda: decode(open_image(path)), short, int(self._labels[number]))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r}, {len(self)} images)"
