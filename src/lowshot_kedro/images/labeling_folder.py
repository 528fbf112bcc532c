"""The folder of somebody who wants labels: which images have one, and which want one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from lowshot_kedro.errors import InputError
from lowshot_kedro.images.folders import (
    ClassFolders,
    ImageFolder,
    folders_in,
    images_below,
    require_folder,
    some_of,
)

LABELS_FILE = "labels.csv"

_TRAIN, _TEST, _BACKGROUND = "train", "test", "background"
_LABELED = (_TRAIN, "labeled", "labelled")
_UNLABELED = (_BACKGROUND, "unlabeled", "unlabelled")
_MAX_COUNTED = 1000

_EXPECTED = (
    "one of: a folder for each class, and images without a label beside these folders or in a "
    f"folder {_BACKGROUND}; {_TRAIN} with a folder for each class, and the other images anywhere "
    f"else, or in {_BACKGROUND}; images anywhere, and a file {LABELS_FILE} with the columns file "
    "and label"
)


@dataclass(frozen=True)
class Layout:
    """Where in a folder labelled and unlabelled images are.

    Attributes:
        root: The folder.
        labeled_root: The folder of the class folders; None where no folder is a class.
        class_folders: Their names, sorted, also of those without an image.
        unlabeled_root: The folder of the images without a label.
        left_out: Names of folders in it whose images are not among them.
        has_labels_file: Whether a file gives labels too.
        sentence: All this in words.
    """

    root: Path
    labeled_root: Path | None
    class_folders: tuple[str, ...]
    unlabeled_root: Path
    left_out: tuple[str, ...]
    has_labels_file: bool
    sentence: str


def find_layout(
    root: str | Path,
    labels_file_exists: bool,
    labeled_files: Callable[[], Collection[str]] = tuple,
) -> Layout:
    """Find out which images of a folder have a label by their folder, and which have none.

    The first of these that fits counts; names of special folders may be in any case:

    1. In the folder `train`, `labeled` or `labelled` there are folders: these are classes. Without
       a label are the images of `background`, or, where that is missing, all others but those of
       `test`.
    2. There is a folder `background`, `unlabeled` or `unlabelled`: the folders beside it, all but
       `test`, are classes. Without a label are the images in it, and those beside it.
    3. There is no file of labels, or one that names most images of all these folders, with other
       images beside them, as it is after labels of such a folder have been corrected: all folders
       but `test` are classes. Without a label are the images beside them.
    4. There is one: no folder is a class, and all images are without a label until the file is
       read.

    Nothing is read but the names in a few folders.

    Args:
        root: The folder.
        labels_file_exists: Whether a file gives labels.
        labeled_files: Finds the files that it names, relative to the folder, where that decides.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If there is no file of labels, and no folders of classes or no images beside
            them.
    """
    root = require_folder(root)
    folders = folders_in(root)
    test = [name for name in folders if name.lower() == _TEST]
    train = next(filter(None, (_first_named(folders, name) for name in _LABELED)), None)
    # Without folders in it, `train` may well be what is seen on some of the images.
    of_train = folders_in(root / train) if train is not None else []
    if train is not None and of_train:
        background = _first_named(folders, _BACKGROUND)
        unlabeled = "all others" if background is None else f"those in {background}"
        return Layout(
            root,
            root / train,
            tuple(of_train),
            root if background is None else root / background,
            (train, *test) if background is None else (),
            labels_file_exists,
            _in_words(root, f"in the folders of {train}", unlabeled, test, labels_file_exists),
        )
    of_unlabeled = [name for name in folders if name.lower() in _UNLABELED]
    classes = [name for name in folders if name not in (*of_unlabeled, *test)]
    if labels_file_exists and not of_unlabeled and not _are_listed(root, classes, labeled_files):
        sentence = f"{root}: no folder is a class; the file says which images have a label"
        if classes and any(True for _ in images_below(root, without=folders)):
            # Without the file this would be a folder of classes.
            sentence += (
                f" (were {some_of(classes)} meant to be classes, move the images beside them into "
                f"a folder {_BACKGROUND})"
            )
        return Layout(root, None, (), root, (), True, sentence)
    left_out = (*classes, *test)
    if not labels_file_exists:
        _require_classes_and_others(root, classes, left_out)
    unlabeled = f"those in {some_of(of_unlabeled)} and " if of_unlabeled else "those "
    return Layout(
        root,
        root,
        tuple(classes),
        root,
        left_out,
        labels_file_exists,
        _in_words(
            root,
            f"in {some_of(classes) or 'folders'}",
            f"{unlabeled}beside these folders",
            test,
            labels_file_exists,
        ),
    )


def labeled_images(layout: Layout, classes: Sequence[str] | None = None) -> ClassFolders:
    """The images that have a label by their folder.

    Args:
        layout: What :func:`find_layout` has found.
        classes: Names of class folders in the order of their labels, the others being left out,
            each with an image, if no file gives labels. None: all, sorted by name, with or without.

    Returns:
        The images; none where no folder is a class.

    Raises:
        ValueError: If there is no file of labels, and fewer than two classes have images.
    """
    root = layout.root if layout.labeled_root is None else layout.labeled_root
    if layout.labeled_root is None:
        classes = ()
    elif classes is None:
        classes = layout.class_folders
    # A list of classes is right, or its mistake is said, unless a file may give them images.
    is_listed = layout.labeled_root is not None and classes != layout.class_folders
    every_class = is_listed and not layout.has_labels_file
    source = ClassFolders(root, classes, every_class=every_class, may_be_empty=True)
    n_found = len(np.unique(source.labels))
    if n_found < 2 and not layout.has_labels_file:
        found = "no class folder with an image"
        if n_found:
            name = source.classes[int(source.labels[0])]
            found = f"images of one class only, {name}"
        hint = f" (of the {len(classes)} classes listed)" if classes != layout.class_folders else ""
        raise InputError(f"{root}: found {found}{hint}; expected two classes at least; {_EXPECTED}")
    return source


def unlabeled_images(layout: Layout) -> ImageFolder:
    """The images that have no label by their folder.

    Args:
        layout: What :func:`find_layout` has found.

    Raises:
        ValueError: If there is none.
    """
    root = layout.unlabeled_root
    # Looked for beforehand: that there is none is said in words for this folder.
    if not any(True for _ in images_below(root, without=layout.left_out)):
        where = f" but those in {some_of(layout.left_out)}" if layout.left_out else ""
        raise InputError(f"{root}: found no image{where}; expected {_EXPECTED}")
    return ImageFolder(root, layout.left_out)


def _are_listed(
    root: Path, classes: Sequence[str], labeled_files: Callable[[], Collection[str]]
) -> bool:
    """Whether a file of labels names most images of some folders, and others lie beside these."""
    if not classes or not any(True for _ in images_below(root, without=folders_in(root))):
        return False
    named = set(labeled_files())
    are_named = [name in named for folder in classes for name in images_below(root, folder)]
    return 2 * sum(are_named) > len(are_named) > 0


def _require_classes_and_others(
    root: Path, classes: Sequence[str], left_out: Sequence[str]
) -> None:
    with_images = [name for name in classes if any(True for _ in images_below(root, name))]
    others = list(islice(images_below(root, without=left_out), _MAX_COUNTED + 1))
    if with_images and others:
        return
    n_others = f"more than {_MAX_COUNTED}" if len(others) > _MAX_COUNTED else str(len(others))
    raise InputError(
        f"{root}: found {'images in ' + some_of(with_images) if with_images else 'no class'} and "
        f"{n_others if others else 'no'} images without a label; expected {_EXPECTED}"
    )


def _in_words(
    root: Path, labeled: str, unlabeled: str, test: Sequence[str], labels_file_exists: bool
) -> str:
    text = f"{root}: images {labeled} have the name of their folder as label, {unlabeled} have none"
    if test:
        text += f", those in {some_of(test)} are left out"
    return text + ("; labels of the file go before these" if labels_file_exists else "")


def _first_named(folders: Sequence[str], name: str) -> str | None:
    """The folder of a name, rather in this case than in another one."""
    if name in folders:
        return name
    return next((folder for folder in folders if folder.lower() == name), None)
