"""Images as they lie in folders: a folder for every class, or any folder without labels."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from PIL import Image

from lowshot_kedro.errors import InputError
from lowshot_kedro.images.image_files import ImageFiles

logger = logging.getLogger(__name__)

# The page that a labelling writes, and the folder of what belongs to it, copies of images too.
RESULTS = ("labels.html", "labels_files")
# What a run writes before its plots and its page: whether it has come to its end or not.
_FIRST_RESULT = "labels_report.json"

_MAX_NAMED = 5


class ClassFolders(ImageFiles):
    """The images of a folder that has a folder for every class, with images at any depth.

    They stand in the order of the classes, then of their relative paths, on any file system. Files
    count by a suffix that PIL can read; hidden files and folders do not, nor folders that hold
    results of a labelling.

    Args:
        root: The folder of the class folders.
        classes: Names of class folders: the position of a name is its label. Other folders are
            left out. None: all folders, sorted by name.
        every_class: Whether each of `classes` needs an image; without, those that have none are
            named in the log.
        may_be_empty: Whether it is right that there is no class, or no image.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If there is no image, unless that is right, a class listed twice, or, if every
            class needs them, without a folder or without an image.
    """

    def __init__(
        self,
        root: str | Path,
        classes: Sequence[str] | None = None,
        every_class: bool = True,
        may_be_empty: bool = False,
    ) -> None:
        root = require_folder(root)
        found = folders_in(root)
        self.classes = tuple(found if classes is None else classes)
        if self.classes or not may_be_empty:
            _require_classes(root, self.classes, found, every_class)
        names: list[str] = []
        labels: list[int] = []
        empty: list[str] = []
        for label, class_name in enumerate(self.classes):
            of_class = sorted(images_below(root, class_name)) if class_name in found else []
            names += of_class
            labels += [label] * len(of_class)
            if not of_class:
                empty.append(class_name)
        if not names and not may_be_empty:
            raise InputError(f"{root}: found no image in a folder of a class, expected some")
        if empty and classes is not None and every_class:
            raise InputError(f"{root}: found no image of class {some_of(empty)}, expected some")
        if empty:
            # Who allows it names them where it matters, and opens the folder many times.
            level = logging.INFO if may_be_empty else logging.WARNING
            logger.log(level, "%s: no image of class %s", root, some_of(empty))
        left_out = sorted(set(found) - set(self.classes))
        if left_out and self.classes:
            logger.info(
                "%s: folders that are not in the list of classes: %s", root, some_of(left_out)
            )
        super().__init__("class folders", root, root, names, labels)


class ImageFolder(ImageFiles):
    """All images anywhere below a folder, without labels, sorted by relative path.

    Files count by a suffix that PIL can read; hidden files and folders do not, nor folders that
    hold results of a labelling.

    Args:
        root: The folder.
        without: Names of folders in it that are left out.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If there is no image.
    """

    def __init__(self, root: str | Path, without: Sequence[str] = ()) -> None:
        root = require_folder(root)
        names = sorted(images_below(root, without=without))
        if not names:
            raise InputError(f"{root}: found no image, expected some")
        super().__init__("picture folder", root, root, names, [0] * len(names))


def require_folder(root: str | Path) -> Path:
    """The path of a folder.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it is a file.
    """
    root = Path(root)
    if root.is_file():
        raise InputError(f"{root}: is a file, expected a folder of images")
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder")
    return root


def folders_in(root: Path) -> list[str]:
    """Names of the folders in a folder, sorted, without hidden ones and results of a labelling."""
    found = [
        entry.name for entry in root.iterdir() if entry.is_dir() and not _is_hidden(entry.name)
    ]
    if _holds_results(root):
        found.remove(RESULTS[1])
    return sorted(
        name
        for name in found
        if not _holds_results(root / name) and not (root / name / _FIRST_RESULT).is_file()
    )


def _require_classes(
    root: Path, classes: Sequence[str], found: Sequence[str], every_class: bool
) -> None:
    if not classes:
        raise InputError(f"{root}: found no folder, expected one for each class")
    repeated = [name for name, times in Counter(classes).items() if times > 1]
    if repeated:
        raise InputError(f"{root}: class {some_of(repeated)} is listed twice, expected once")
    folders = set(found)
    absent = [name for name in classes if name not in folders]
    if absent and every_class:
        raise InputError(
            f"{root}: no folder for class {some_of(absent)}; found {some_of(found) or 'no folder'}"
        )


def some_of(names: Sequence[str]) -> str:
    """Names for a message, not too many."""
    more = len(names) - _MAX_NAMED
    return ", ".join(names[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def image_suffixes() -> frozenset[str]:
    """Suffixes of files that PIL can read, in lower case."""
    kinds = Image.registered_extensions()
    return frozenset(suffix for suffix, kind in kinds.items() if kind in Image.OPEN)


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


def _holds_results(folder: Path) -> bool:
    page, files = RESULTS
    return (folder / page).is_file() and (folder / files).is_dir()


def images_below(root: Path, folder: str = "", without: Sequence[str] = ()) -> Iterator[str]:
    """Relative paths of the images below root/folder, found one after the other.

    Args:
        root: What paths are relative to.
        folder: Where in it to look; "" is the root itself.
        without: Names of folders in root/folder that are left out.
    """
    suffixes = image_suffixes()
    seen = {_identity(parent) for parent in (root / folder).resolve().parents}

    def look_into(folder: str, without: frozenset[str], is_first: bool) -> Iterator[str]:
        path = root / folder
        itself = _identity(path)
        if itself in seen:
            # Of links to folders that they lie in, or that hold further links, there is no end.
            logger.warning("%s: leads to a folder that is looked into already: left out", path)
            return
        seen.add(itself)
        with os.scandir(path) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        names = {entry.name for entry in entries}
        if not is_first and ({*RESULTS} <= names or _FIRST_RESULT in names):
            logger.info("%s: holds results of a labelling: left out", path)
            return
        if {*RESULTS} <= names:
            without |= {RESULTS[1]}
        for entry in entries:
            if _is_hidden(entry.name):
                continue
            name = f"{folder}/{entry.name}" if folder else entry.name
            if _is_folder(entry):
                if entry.name not in without:
                    yield from look_into(name, frozenset(), False)
            elif PurePosixPath(entry.name).suffix.lower() in suffixes:
                # Whatever it is: what is no image is a blank one, and is said to be.
                yield name

    return look_into(folder, frozenset(without), True)


def _identity(folder: Path) -> tuple[int, int]:
    """What tells a folder from others, under any name."""
    status = folder.stat()
    return status.st_dev, status.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # A link that leads in a circle, or behind a folder that may not be read.
        return False
