"""Small copies of images for a page, of which a second run makes only those that are new."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lowshot_kedro.images import LoadedImage
from lowshot_kedro.images.decoding import decode, open_image, read_image
from lowshot_kedro.images.fingerprint import checksum
from lowshot_kedro.images.joined import JoinedImages
from lowshot_kedro.progress import Progress
from lowshot_kedro.threads import map_in_threads

UNFINISHED = ".partial-"
# 24 hex digits: among a hundred million images no two have the same.
_DIGITS = 24
# An image of at most so many pixels loses nothing on the disk: it is shown enlarged.
_MAX_LOSSLESS = 64
_QUALITY = 82
_AT_ONCE = 32


class Thumbnails(NamedTuple):
    """What a page knows of the small copies.

    Attributes:
        names: The file of an image below the folder, with a slash; none for one that is broken.
        problems: What is wrong with an image that could not be read.
    """

    names: dict[int, str]
    problems: dict[int, str]


class _Work(NamedTuple):
    """An image to be made small: a file, or one that is decoded already."""

    key: str
    name: str
    path: Path | None
    loaded: LoadedImage | None


def write_thumbnails(
    images: JoinedImages, numbers: NDArray[np.integer], folder: Path, size: int
) -> Thumbnails:
    """Write small copies of images as JPEG files, and very small images as PNG files.

    A copy is named by a checksum of the image's name, size and time of change, and of its own size;
    for an image that is no file, by what its collection says of itself, and its number. What is
    there already is not made again. A copy appears under its name when it is complete.

    Args:
        images: The images.
        numbers: int (m,), which of them.
        folder: Where the copies are, in folders of their own by the first two digits.
        size: Pixels of the longer side, at most; smaller images stay as they are.

    Returns:
        The files, and what could not be read. In memory are the names of these files, and some
        images.
    """
    there = _found(folder)
    keys = _keys(images, numbers, size)
    missing: dict[str, int] = {}
    for number, key in keys.items():
        if key not in there:
            missing.setdefault(key, number)
    problems: dict[str, str] = {}
    for start in sorted({key[:2] for key in missing}):
        (folder / start).mkdir(parents=True, exist_ok=True)

    def make(batch: list[_Work]) -> list[tuple[str, str, str | None]]:
        return [_make(work, folder, size) for work in batch]

    if missing:
        with Progress(len(missing), "thumbnails", unit="image") as progress:
            for made in map_in_threads(make, _batches(_work(images, missing))):
                for key, suffix, problem in made:
                    if problem is None:
                        there[key] = suffix
                    else:
                        problems[key] = problem
                progress.update(len(made))
    return Thumbnails(
        {n: f"{key[:2]}/{key}{there[key]}" for n, key in keys.items() if key in there},
        {n: problems[key] for n, key in keys.items() if key in problems},
    )


def remove_other_thumbnails(folder: Path, names: Iterable[str]) -> None:
    """Remove the copies that no page needs any more, and what killed runs have left.

    Args:
        folder: As for :func:`write_thumbnails`.
        names: The files that are still needed.
    """
    needed = set(names)
    if not folder.is_dir():
        return
    for part in [entry for entry in os.scandir(folder) if entry.is_dir()]:
        kept = 0
        for entry in list(os.scandir(part.path)):
            if f"{part.name}/{entry.name}" in needed:
                kept += 1
            else:
                Path(entry.path).unlink()
        if not kept:
            Path(part.path).rmdir()


def _found(folder: Path) -> dict[str, str]:
    """Suffixes of the copies that are there, by their key."""
    found: dict[str, str] = {}
    if folder.is_dir():
        for part in os.scandir(folder):
            for entry in os.scandir(part.path) if part.is_dir() else ():
                # An empty file is what a machine without power leaves.
                if not entry.name.startswith(UNFINISHED) and entry.stat().st_size:
                    key, suffix = os.path.splitext(entry.name)  # noqa: PTH122 - a hundred thousand
                    found[key] = suffix
    return found


def _keys(images: JoinedImages, numbers: NDArray[np.integer], size: int) -> dict[int, str]:
    facts: dict[int, str] = {}
    keys = {}
    for number in map(int, numbers):
        path = images.path(number)
        if path is None:
            # Which collection it is of makes no difference: all of them are told.
            if not facts:
                facts[0] = repr([source.describe() for source in images.sources])
            parts = (facts[0], str(number))
        else:
            try:
                status = path.stat()
                parts = (images.file(number), f"{status.st_size} {status.st_mtime_ns}")
            except (OSError, ValueError):
                parts = (images.file(number), "")
        encoded = [part.encode("utf-8", "surrogatepass") for part in (*parts, str(size))]
        keys[number] = checksum(encoded)[:_DIGITS]
    return keys


def _work(images: JoinedImages, missing: dict[str, int]) -> Iterator[_Work]:
    for key, number in missing.items():
        path = images.path(number)
        # Only files of their own can be read by several threads at a time: zip files cannot.
        loaded = images[number] if path is None else None
        yield _Work(key, images.file(number), path, loaded)


def _batches(work: Iterable[_Work]) -> Iterator[list[_Work]]:
    batch: list[_Work] = []
    for each in work:
        batch.append(each)
        if len(batch) == _AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _make(work: _Work, folder: Path, size: int) -> tuple[str, str, str | None]:
    """Write a copy; its key, its suffix, and what is wrong with the image, if anything."""
    path = work.path
    if work.loaded is not None:
        loaded = work.loaded
    else:
        assert path is not None
        # Twice the size leaves the filter enough to be as sharp as from all pixels.
        loaded = read_image(
            lambda: decode(open_image(path), min_side=2 * size), work.name.split("/")[-1], 0
        )
    if loaded.problem is not None:
        return work.key, "", loaded.problem
    image = loaded.image
    is_lossless = max(image.size) <= min(_MAX_LOSSLESS, size)
    image.thumbnail((size, size), Image.Resampling.BICUBIC, reducing_gap=3.0)
    suffix = ".png" if is_lossless else ".jpg"
    target = folder / work.key[:2] / f"{work.key}{suffix}"
    partial = target.with_name(UNFINISHED + target.name)
    # What the camera has noted has been heeded, and takes more bytes than the pixels.
    image.info.clear()
    if is_lossless:
        image.save(partial, "PNG")
    else:
        image.save(partial, "JPEG", quality=_QUALITY)
    partial.replace(target)
    return work.key, suffix, None
