"""The names that people know images by."""

from __future__ import annotations

from collections.abc import Callable

from lowshot_kedro.images.decoding import ImageSource
from lowshot_kedro.images.image_files import ImageFiles
from lowshot_kedro.images.joined import JoinedImages
from lowshot_kedro.images.subset import ImageSubset


def file_namer(source: ImageSource) -> Callable[[int], str] | None:
    """What tells the file of an image by its number, or where it is in an archive.

    Args:
        source: Any images.

    Returns:
        A function of the number, or None where images have no names.
    """
    if isinstance(source, ImageFiles):
        return source.name
    if isinstance(source, JoinedImages):
        return source.file
    if isinstance(source, ImageSubset):
        of_all, positions = file_namer(source.source), source.positions
        return None if of_all is None else lambda number: of_all(int(positions[number]))
    namer: Callable[[int], str] | None = getattr(source, "file_name", None)
    return namer
