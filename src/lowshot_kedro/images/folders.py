"""Images as they lie in folders: a folder for every class, or any folder without labels."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from PIL import Image

from lowshot_kedro.errors import InputError
from lowshot_kedro.images.image_files import ImageFiles

logger = logging.getLogger(__name__)

_MAX_NAMED = 5


class ClassFolders(ImageFiles):
    """The images of a folder that has a folder for every class, with images at any depth.

    They stand in the order of the classes, then of their relative paths, on any file system. Files
    count by a suffix that PIL can read; hidden files and folders do not.

    Args:
        root: The folder of the class folders.
        classes: Names of class folders: the position of a name is its label. Other folders are
            left out. None: all folders, sorted by name.
        every_class: Whether each of `classes` needs an image; without, those that have none are
            named in the log.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If there is no image, a class listed twice, or, if every class needs them,
            without a folder or without an image.
    """

    def __init__(
        self,
        root: str | Path,
        classes: Sequence[str] | None = None,
        every_class: bool = True,
    ) -> None:
        root = _require_folder(root)
        suffixes = _suffixes()
        found = sorted(
            entry.name for entry in root.iterdir() if entry.is_dir() and not _is_hidden(entry.name)
        )
        self.classes = tuple(found if classes is None else classes)
        _require_classes(root, self.classes, found, every_class)
        names: list[str] = []
        labels: list[int] = []
        empty: list[str] = []
        for label, class_name in enumerate(self.classes):
            of_class = _images_below(root, class_name, suffixes) if class_name in found else []
            names += of_class
            labels += [label] * len(of_class)
            if not of_class:
                empty.append(class_name)
        if not names:
            raise InputError(f"{root}: found no image in a folder of a class, expected some")
        if empty and classes is not None and every_class:
            raise InputError(f"{root}: found no image of class {_some(empty)}, expected some")
        if empty:
            logger.warning("%s: no image of class %s", root, _some(empty))
        left_out = sorted(set(found) - set(self.classes))
        if left_out:
            logger.info(
                "%s: folders that are not in the list of classes: %s", root, _some(left_out)
            )
        super().__init__("class folders", root, root, names, labels)


class ImageFolder(ImageFiles):
    """All images anywhere below a folder, without labels, sorted by relative path.

    Files count by a suffix that PIL can read; hidden files and folders do not.

    Args:
        root: The folder.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If there is no image.
    """

    def __init__(self, root: str | Path) -> None:
        root = _require_folder(root)
        names = _images_below(root, "", _suffixes())
        if not names:
            raise InputError(f"{root}: found no image, expected some")
        super().__init__("picture folder", root, root, names, [0] * len(names))


def _require_folder(root: str | Path) -> Path:
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder")
    return root


def _require_classes(
    root: Path, classes: Sequence[str], found: Sequence[str], every_class: bool
) -> None:
    if not classes:
        raise InputError(f"{root}: found no folder, expected one for each class")
    repeated = [name for name, times in Counter(classes).items() if times > 1]
    if repeated:
        raise InputError(f"{root}: class {_some(repeated)} is listed twice, expected once")
    folders = set(found)
    absent = [name for name in classes if name not in folders]
    if absent and every_class:
        raise InputError(
            f"{root}: no folder for class {_some(absent)}; found {_some(found) or 'no folder'}"
        )


def _some(names: Sequence[str]) -> str:
    """Names for a message, not too many."""
    more = len(names) - _MAX_NAMED
    return ", ".join(names[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def _suffixes() -> frozenset[str]:
    """Suffixes of files that PIL can read, in lower case."""
    kinds = Image.registered_extensions()
    return frozenset(suffix for suffix, kind in kinds.items() if kind in Image.OPEN)


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


def _images_below(root: Path, folder: str, suffixes: frozenset[str]) -> list[str]:
    """Relative paths of the images below root/folder, sorted; "" is the root itself."""
    names: list[str] = []
    seen = {_identity(parent) for parent in (root / folder).resolve().parents}

    def look_into(folder: str) -> None:
        path = root / folder
        itself = _identity(path)
        if itself in seen:
            # Of links to folders that they lie in, or that hold further links, there is no end.
            logger.warning("%s: leads to a folder that is looked into already: left out", path)
            return
        seen.add(itself)
        with os.scandir(path) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if _is_hidden(entry.name):
                    continue
                name = f"{folder}/{entry.name}" if folder else entry.name
                if _is_folder(entry):
                    look_into(name)
                elif PurePosixPath(entry.name).suffix.lower() in suffixes:
                    # Whatever it is: what is no image is a blank one, and is said to be.
                    names.append(name)

    look_into(folder)
    return sorted(names)


def _identity(folder: Path) -> tuple[int, int]:
    """What tells a folder from others, under any name."""
    status = folder.stat()
    return status.st_dev, status.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # A link that leads in a circle, or behind a folder that may not be read.
        return False
