"""A folder for each label, with links to its images or copies of them."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from lowshot_kedro.errors import InputError
from lowshot_kedro.images.joined import JoinedImages
from lowshot_kedro.input_files import read_json
from lowshot_kedro.labeling.exports.table import UNKNOWN, label_names
from lowshot_kedro.labeling.labels import Labeling
from lowshot_kedro.locks import SECONDS_TO_WAIT, written_by_one
from lowshot_kedro.parameters import require_one_of
from lowshot_kedro.progress import Progress

logger = logging.getLogger(__name__)

KINDS = ("links", "copies")
# It says that a tree may be replaced.
MARKER = ".lowshot-labels.json"

# File systems allow 255; a number, and what others put behind it, need room.
_MAX_BYTES, _MAX_SUFFIX = 180, 20
# Neither Windows nor the file systems of memory cards allow these.
_NOT_IN_NAMES = re.compile(r'[\x00-\x1f\x7f/\\<>:"|?*\ud800-\udfff]')
_DEVICES = re.compile(r"(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(?:\..*)?", re.IGNORECASE)


class FolderTree(NamedTuple):
    """What has been written.

    Attributes:
        n_files: Links or copies.
        n_without_label: Images that no label has reached.
        n_without_file: Images that cannot be linked to, since they are no files.
        n_missing: Images whose file is not there.
    """

    n_files: int
    n_without_label: int
    n_without_file: int
    n_missing: int


def write_folder_tree(
    folder: Path,
    images: JoinedImages,
    labeling: Labeling,
    kind: str = "links",
    unknown: str = UNKNOWN,
) -> FolderTree:
    """Write a folder for each label, and in it a link to, or a copy of, each of its images.

    Images that are less sure than the threshold are in a folder of their own; those that no label
    has reached are left out. Names are made such that every file system takes them and no two are
    the same, whatever it thinks of upper and lower case. The tree appears whole, and takes the
    place of an earlier one that nobody has put anything into.

    Args:
        folder: Where the tree is to be.
        images: The images.
        labeling: Their labels.
        kind: links, which are relative and take no space, or copies. Images that are no files are
            written as PNG among copies, and left out among links.
        unknown: The folder of images that are less sure than the threshold.

    Returns:
        How many files there are, and how many images are left out.

    Raises:
        InputError: If something else is at this place, if the images are in it, if files were put
            into an earlier tree, or if no links are possible there.
    """
    require_one_of("kind", kind, KINDS)
    folder = folder.absolute()
    labels = label_names(labeling, unknown)
    folders = _folder_names([*labeling.given.classes, unknown])
    with written_by_one(folder, seconds_to_wait=SECONDS_TO_WAIT):
        require_replaceable(folder)
        unfinished = folder.with_name(f".partial-{folder.name}")
        _remove(unfinished)
        try:
            unfinished.mkdir(parents=True)
            tree = _Tree(folder, unfinished, kind)
            with Progress(len(images), f"{kind} by label", unit="image") as bar:
                for number in range(len(images)):
                    tree.add(images, number, folders.get(labels[number]))
                    bar.update(1)
            tree.finish(folders)
            _swap(unfinished, folder)
        finally:
            _remove(unfinished)
    found = tree.found()
    for count, why in (
        (found.n_without_file, "they are no files"),
        (found.n_missing, "their file is not there"),
    ):
        if count:
            logger.warning("%s: %d images are left out: %s", folder, count, why)
    return found


class _Tree:
    """A tree that is being written."""

    def __init__(self, folder: Path, unfinished: Path, kind: str) -> None:
        self._folder, self._unfinished, self._kind = folder, unfinished, kind
        # Links are followed from where the tree really is.
        self._real = Path(os.path.realpath(folder.parent)) / folder.name
        self._names: dict[str, _UniqueNames] = {}
        self._counts: Counter[str] = Counter()

    def add(self, images: JoinedImages, number: int, name: str | None) -> None:
        """Put an image into the folder of this name; None: it has no label."""
        if name is None:
            self._counts["n_without_label"] += 1
            return
        path = images.path(number)
        if path is None and self._kind == "links":
            self._counts["n_without_file"] += 1
            return
        if path is not None and path.is_relative_to(self._folder):
            raise InputError(
                f"which the image {path} is in; a tree is written anew every time",
                parameter="folder", found=str(self._folder), expected="another folder",
            )  # fmt: skip
        if path is not None and not path.is_file():
            self._counts["n_missing"] += 1
            return
        if name not in self._names:
            self._names[name] = _UniqueNames()
            (self._unfinished / name).mkdir()
        wanted = (f"image {number}", ".png") if path is None else (path.stem, path.suffix)
        file = self._unfinished / name / self._names[name].take(*wanted)
        if path is None:
            images[number].image.save(file, "PNG")
        elif self._kind == "links":
            self._link(path, file, name)
        else:
            shutil.copyfile(path, file)
        self._counts["n_files"] += 1

    def _link(self, path: Path, file: Path, name: str) -> None:
        real = Path(os.path.realpath(path.parent)) / path.name
        try:
            file.symlink_to(os.path.relpath(real, self._real / name))
        except (OSError, NotImplementedError) as error:
            if self._counts["n_files"]:
                raise
            raise InputError(
                f"no links are possible in {self._folder.parent} ({error})",
                parameter="kind", found=self._kind, expected="copies",
            ) from error  # fmt: skip

    def finish(self, folders: dict[str, str]) -> None:
        """Write down what is in the tree."""
        labels = {name: label for label, name in folders.items() if name in self._names}
        content = {"kind": self._kind, "n_files": self._counts["n_files"], "labels": labels}
        text = json.dumps(content, indent=2)
        (self._unfinished / MARKER).write_text(text, encoding="utf-8")

    def found(self) -> FolderTree:
        """What has been written."""
        return FolderTree(**{name: self._counts[name] for name in FolderTree._fields})


class _UniqueNames:
    """Names of files in one folder, no two of which are the same in any case of letters."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._next: Counter[str] = Counter()

    def take(self, stem: str, suffix: str = "") -> str:
        """The name that these make, or one with a number between them if it is taken."""
        stem, suffix = _cut(stem), suffix if len(os.fsencode(suffix)) < _MAX_SUFFIX else ""
        candidate = first = stem + suffix
        while _folded(candidate) in self._taken:
            self._next[_folded(first)] += 1
            candidate = f"{stem}_{self._next[_folded(first)] + 1}{suffix}"
        self._taken.add(_folded(candidate))
        return candidate


def _folder_names(labels: Iterable[str]) -> dict[str, str]:
    """A name that every file system takes for each label, no two of them the same."""
    names = _UniqueNames()
    found = {}
    for label in labels:
        name = _NOT_IN_NAMES.sub("_", unicodedata.normalize("NFC", label)).rstrip(" .").lstrip(" ")
        # What begins with a dot is hidden, and what ends so is cut by Windows.
        if name.startswith("."):
            name = f"_{name[1:]}"
        if not name or _DEVICES.fullmatch(name):
            name = f"_{name}"
        found[label] = names.take(name)
    return found


def _cut(name: str) -> str:
    """As much of a name as there is room for, without a part of a letter at its end."""
    encoded = os.fsencode(name)
    if len(encoded) <= _MAX_BYTES:
        return name
    return encoded[:_MAX_BYTES].decode("utf-8", "ignore").rstrip(" .")


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def require_replaceable(folder: Path) -> None:
    """Refuse to replace anything but a tree that is as it was written.

    Raises:
        InputError: Naming what is there.
    """
    expected = "a folder that is not there yet, or such a tree of an earlier run"

    def refuse(why: str) -> InputError:
        return InputError(why, parameter="folder", found=str(folder), expected=expected)

    if not os.path.lexists(folder):
        return
    if folder.is_symlink() or not folder.is_dir():
        raise refuse("which is no folder")
    marker = folder / MARKER
    if not marker.is_file():
        if any(folder.iterdir()):
            raise refuse("which has other files in it")
        return
    written: Any = read_json(marker)
    is_known = isinstance(written, dict) and written.get("kind") in KINDS
    if not is_known or _count_files(folder, written["kind"]) != written.get("n_files"):
        raise refuse("into which, or out of which, somebody has put files")


def _count_files(folder: Path, kind: str) -> int:
    """Files of a tree, or more than there can be if any is no link where all are links."""
    n_files = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name == MARKER:
                continue
            if not entry.is_dir(follow_symlinks=False):
                return -1
            with os.scandir(entry.path) as files:
                for file in files:
                    if file.is_symlink() != (kind == "links"):
                        return -1
                    n_files += 1
    return n_files


def _swap(unfinished: Path, folder: Path) -> None:
    """Give a finished tree its name, and remove the earlier one."""
    earlier = folder.with_name(f".partial-{folder.name}.earlier")
    _remove(earlier)
    if folder.exists():
        folder.rename(earlier)
    try:
        unfinished.rename(folder)
    except BaseException:
        if earlier.exists() and not folder.exists():
            earlier.rename(folder)
        raise
    _remove(earlier)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
