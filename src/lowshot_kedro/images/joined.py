"""Several collections of images as one, with the names that people know their files by."""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.images.decoding import ImageSource, LoadedImage, require_number
from lowshot_kedro.images.image_files import ImageFiles

# Names of which nothing is to be worked out: no part of them is empty, "." or "..".
_PLAIN_NAME = re.compile(r"(?:(?!\.{1,2}(?:/|$))[^/]+)(?:/(?!\.{1,2}(?:/|$))[^/]+)*", re.DOTALL)


class JoinedImages:
    """Several collections as one, in this order.

    Args:
        sources: The collections.
        base: The folder that names of files are relative to; None: the one that all lie in.
    """

    def __init__(self, sources: Sequence[ImageSource], base: Path | None = None) -> None:
        self.sources = tuple(sources)
        self._ends = list(accumulate(len(source) for source in sources))
        roots = [root for root in map(_root, sources) if root is not None]
        if base is None and roots:
            base = Path(os.path.commonpath([root.absolute() for root in roots]))
        self.base = base

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, number: int) -> LoadedImage:
        source, row = self._place(number)
        return source[row]

    @property
    def labels(self) -> NDArray[np.int32]:
        """int32 (N,), those of the collections."""
        return np.concatenate([source.labels for source in self.sources])

    @property
    def class_names(self) -> Sequence[str] | None:
        """Names of the classes of the first collection, by label; None if it has none."""
        for name in ("classes", "class_names"):
            found: Sequence[str] | None = getattr(self.sources[0], name, None)
            if found:
                return found
        return None

    def describe(self) -> dict[str, Any]:
        """What each collection says of itself."""
        return {
            "kind": "joined",
            "n_pictures": len(self),
            "of": [source.describe() for source in self.sources],
        }

    def path(self, number: int) -> Path | None:
        """The file of an image, absolute; None for one that is no file of its own."""
        source, row = self._place(number)
        root = _root(source)
        return None if root is None else root.absolute() / source.name(row)  # type: ignore[attr-defined]

    def file(self, number: int) -> str:
        """The name that people know an image by: its file, relative to `base`, with slashes.

        An image that is no file of its own is called by its collection and number.
        """
        path = self.path(number)
        if path is None:
            source, row = self._place(number)
            # A collection in an archive or a library may have a name for it.
            named = getattr(source, "file_name", None)
            return f"image {number}" if named is None else str(named(row))
        if self.base is None:
            return path.as_posix()
        return _relative(path, self.base.absolute())

    def files(self) -> Iterator[str]:
        """What :meth:`file` says of every image, in order, a million in seconds."""
        for source, end in zip(self.sources, self._ends, strict=True):
            root = _root(source)
            if root is None or self.base is None:
                yield from map(self.file, range(end - len(source), end))
                continue
            base = self.base.absolute()
            folder = Path(os.path.relpath(root.absolute(), base)).as_posix()
            prefix = "" if folder == "." else f"{folder}/"
            for row in range(len(source)):
                name = source.name(row)  # type: ignore[attr-defined]
                is_plain = _PLAIN_NAME.fullmatch(name) and not folder.startswith("..")
                yield prefix + name if is_plain else _relative(root.absolute() / name, base)

    def _place(self, number: int) -> tuple[ImageSource, int]:
        number = require_number(number, len(self), "images")
        part = bisect_right(self._ends, number)
        return self.sources[part], number - (self._ends[part - 1] if part else 0)


def _relative(path: Path, base: Path) -> str:
    return Path(os.path.relpath(path, base)).as_posix()


def _root(source: ImageSource) -> Path | None:
    """The folder of a collection whose images are files of their own."""
    return source.root if isinstance(source, ImageFiles) else None
