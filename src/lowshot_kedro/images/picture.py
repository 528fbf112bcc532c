"""One picture of a collection, and what every collection offers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

import numpy as np
from PIL import Image

BLANK_SIZE = (256, 256)


class Picture(NamedTuple):
    """A picture as the networks see it.

    Attributes:
        image: RGB; black 256×256 where there is none.
        label: 0-based label, 0 in collections without labels.
        problem: Why the picture is blank, None where it is not.
    """

    image: Image.Image
    label: int
    problem: str | None


class ImageSource(Protocol):
    """A collection of numbered pictures. Sources are cheap to make and safe to send to workers."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> Picture: ...


class AbsentPictures:
    """Stands for a collection whose pictures are not at hand, only their features.

    It is empty, and yet has a blank picture for every number.

    Args:
        path: Where the collection would be.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __len__(self) -> int:
        return 0

    def __getitem__(self, number: int) -> Picture:
        return Picture(Image.new("RGB", BLANK_SIZE), 0, f"{self.path} is not there")

    def __repr__(self) -> str:
        return f"AbsentPictures({str(self.path)!r})"


def read_picture(open_file: Callable[[], BinaryIO], label: int) -> Picture:
    """Decode a picture, or say why that is impossible.

    Args:
        open_file: Opens the encoded picture.
        label: Passed on.
    """
    # Whatever is wrong with one of a hundred million files found on the web (absent, cut off, a
    # bomb, a format PIL chokes on in its own way), the answer is the same: a blank picture, so
    # that row numbers stay picture numbers.
    try:
        with open_file() as file:
            return Picture(_to_rgb(Image.open(file)), label, None)
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
        return Picture(Image.new("RGB", BLANK_SIZE), label, problem)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        # PIL would cut 16-bit values off at 255, which makes nearly everything white.
        values = np.asarray(image, dtype=np.uint16)
        image = Image.fromarray((values // 257).astype(np.uint8))
    return image.convert("RGB")


def require_number(number: int, n_pictures: int, source: str) -> int:
    """Resolve a sequence index.

    Raises:
        IndexError: For a number outside the collection.
    """
    if not -n_pictures <= number < n_pictures:
        raise IndexError(f"{source}: picture {number} of {n_pictures}")
    return number % n_pictures
