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

# Parts of a path that are no name: relpath makes something else of them.
_UNUSUAL = re.compile(r"(^|/)(\.{0,2}(/|$))")


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
            named = getattr(source, "name", None)
            return str(named(row)) if callable(named) else f"image {number}"
        if self.base is None:
            return path.as_posix()
        return Path(os.path.relpath(path, self.base.absolute())).as_posix()

    def files(self) -> Iterator[str]:
        """The names of all images in order, as :meth:`file` has them; fast for millions."""
        first = 0
        for source in self.sources:
            root = _root(source)
            prefix = None
            if root is not None and self.base is not None:
                folder = Path(os.path.relpath(root.absolute(), self.base.absolute())).as_posix()
                # A path that leads out of the base may lead back again.
                if not folder.startswith(".."):
                    prefix = "" if folder == "." else f"{folder}/"
            for row in range(len(source)):
                name = "" if prefix is None else source.name(row)  # type: ignore[attr-defined]
                unusual = prefix is None or _UNUSUAL.search(name)
                yield self.file(first + row) if unusual else f"{prefix}{name}"
            first += len(source)

    def _place(self, number: int) -> tuple[ImageSource, int]:
        number = require_number(number, len(self), "images")
        part = bisect_right(self._ends, number)
        return self.sources[part], number - (self._ends[part - 1] if part else 0)


def _root(source: ImageSource) -> Path | None:
    """The folder of a collection whose images are files of their own."""
    from lowshot_kedro.images.image_files import ImageFiles

    return source.root if isinstance(source, ImageFiles) else None
