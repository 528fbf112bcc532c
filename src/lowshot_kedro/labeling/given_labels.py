"""The labels that people gave."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.errors import InputError, shown, shown_line
from lowshot_kedro.estimators.labels import looks_like_none
from lowshot_kedro.images.decoding import ImageSource
from lowshot_kedro.images.fingerprint import checksum_of_file, file_size
from lowshot_kedro.images.folders import some_of
from lowshot_kedro.images.joined import JoinedImages
from lowshot_kedro.images.label_files import LabelRow, LabelTable
from lowshot_kedro.labeling.matching import match_files
from lowshot_kedro.progress import Progress

_MAX_NAMED = 5
# Files of one size that are not the same begin alike more often than they end alike.
_END_BYTES = 4096


@dataclass(frozen=True)
class GivenLabels:
    """Which images people have labelled, and as what.

    Attributes:
        classes: (C,), names of the classes, sorted, each with an image at least.
        labels: int32 (N,), a class 0..C-1 for every image, -1 for none.
        groups: int32 (N,), the group of every image, numbered from 0, whose images stay together
            when labels are held out; -1 for an image that is a group of its own. None: all are.
        group_names: Names of the groups.
        notes: What people should know about these labels, a line each: a class with one image, a
            folder without any, an image in two classes, a label of a file that is not there.
        checked: bool (N,), which labels somebody has looked at again, and found right; False where
            there is no label. None: no label was checked.
        missing: Rows of the file of labels about files that are not there, such as those of a disk
            that is not mounted, as they stand in it; of any classes.
    """

    classes: tuple[str, ...]
    labels: NDArray[np.int32]
    groups: NDArray[np.int32] | None = None
    group_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    checked: NDArray[np.bool_] | None = None
    missing: tuple[LabelRow, ...] = ()

    @property
    def n_classes(self) -> int:
        """Number of classes C."""
        return len(self.classes)

    @property
    def nodes(self) -> NDArray[np.int32]:
        """int32 (L,), which images have a label, increasing."""
        return np.flatnonzero(self.labels >= 0).astype(np.int32)


def collect_labels(
    images: JoinedImages, class_names: Sequence[str] | None, table: LabelTable | None
) -> GivenLabels:
    """The labels that people gave: those of folders, and before them those of a file.

    Space around labels does not count, upper and lower case do. :func:`match_files` says which
    image a file of the table is.

    In memory are the names of all images, if there is a table, and its rows. Of labelled files of
    one size that have different labels the ends are read, and where these are the same, all of
    them.

    Args:
        images: All images; those of the first source have a label of their own.
        class_names: Names of these labels; None: `classes` of the first source, or the numbers.
        table: Labels of a file; an empty one takes a label away. None: there is no file.

    Raises:
        ValueError: If there are fewer than two classes; if no file of the table is there; if an
            image has two labels in the table, or a file of the table may be several images.
    """
    classes = _Classes()
    labels = np.full(len(images), -1, np.int32)
    labels[: len(images.sources[0])] = classes.of_source(images.sources[0], class_names)
    notes: list[str] = []
    groups: NDArray[np.int32] | None = None
    group_names: tuple[str, ...] = ()
    checked: NDArray[np.bool_] | None = None
    missing: tuple[LabelRow, ...] = ()
    if table is not None:
        numbers, of_matching, files = match_files(images, table)
        notes += of_matching
        missing = _missing_rows(table, numbers, files)
        _require_one_row_each(table, numbers)
        notes += _take_labels(images, table, numbers, classes, labels)
        if table.groups is not None:
            group_names, groups = _groups(len(images), table, numbers)
        if table.checked is not None:
            checked = np.zeros(len(images), np.bool_)
            checked[numbers[(numbers >= 0) & np.array(table.checked)]] = True
            checked &= labels >= 0
    names, labels = _sorted_classes(classes, labels)
    _require_two_classes(names, labels, table)
    notes += _odd_classes(names, labels, classes)
    notes += _same_images(images, names, labels)
    return GivenLabels(names, labels, groups, group_names, tuple(notes), checked, missing)


def table_of(images: JoinedImages, given: GivenLabels) -> Iterator[LabelRow]:
    """The rows of a file of labels that gives these labels, for `write_label_file`.

    Args:
        images: The images.
        given: Their labels.

    Returns:
        A row of every image that has a label or a group, or whose label was taken away, in order;
        then those of files that are not there.
    """
    n_first = len(images.sources[0])
    for number, file in enumerate(images.files()):
        label = int(given.labels[number])
        group = -1 if given.groups is None else int(given.groups[number])
        if label >= 0 or group >= 0 or number < n_first:
            yield LabelRow(
                file,
                given.classes[label] if label >= 0 else None,
                given.group_names[group] if group >= 0 else None,
                given.checked is not None and bool(given.checked[number]),
            )
    yield from given.missing


class _Classes:
    """Names of classes, numbered as they come."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._numbers: dict[str, int] = {}

    def number(self, name: str) -> int:
        """The number of a class, which is a new one if need be."""
        number = self._numbers.setdefault(name, len(self.names))
        if number == len(self.names):
            self.names.append(name)
        return number

    def of_source(
        self, source: ImageSource, class_names: Sequence[str] | None
    ) -> NDArray[np.int32]:
        """int32 (n,), the classes of a source, by name."""
        if class_names is None:
            class_names = getattr(source, "classes", ())
        labels = np.asarray(source.labels)
        n_known = max(len(class_names), int(labels.max(initial=-1)) + 1)
        names = [*class_names, *map(str, range(len(class_names), n_known))]
        numbers = np.array([self.number(name.strip()) for name in names], np.int32)
        return numbers[labels]


def _require_one_row_each(table: LabelTable, numbers: NDArray[np.int64]) -> None:
    """Refuse rows about one image, under any of its names, that say different things."""
    order = np.argsort(numbers, kind="stable")
    ordered = numbers[order]
    for place in np.flatnonzero((ordered[1:] == ordered[:-1]) & (ordered[1:] >= 0)):
        table.require_same(int(order[place]), int(order[place + 1]))


def _missing_rows(
    table: LabelTable, numbers: NDArray[np.int64], files: Sequence[str]
) -> tuple[LabelRow, ...]:
    """The rows about files that are not there, one for each."""
    row_of: dict[str, int] = {}
    is_checked: dict[str, bool] = {}
    for row in np.flatnonzero(numbers < 0).tolist():
        file = files[row]
        table.require_same(row_of.setdefault(file, row), row)
        checked = table.checked is not None and table.checked[row]
        is_checked[file] = checked or is_checked.get(file, False)
    return tuple(
        LabelRow(
            file,
            table.labels[row],
            None if table.groups is None else table.groups[row],
            is_checked[file],
        )
        for file, row in row_of.items()
    )


def _take_labels(
    images: JoinedImages,
    table: LabelTable,
    numbers: NDArray[np.int64],
    classes: _Classes,
    labels: NDArray[np.int32],
) -> Iterator[str]:
    """Put the labels of a table in place, and say which differ from those that were there."""
    changed: dict[int, tuple[int, int]] = {}
    for number, label in zip(numbers.tolist(), table.labels, strict=True):
        if number < 0:
            continue
        new = -1 if label is None else classes.number(label)
        old = int(labels[number])
        if old >= 0 and new != old:
            changed[number] = old, new
        labels[number] = new
    for what, is_taken in (
        ("labels differ from those of folders, and go before them", False),
        ("labels of folders are taken away", True),
    ):
        of_kind = [(each, *two) for each, two in changed.items() if (two[1] < 0) is is_taken]
        if not of_kind:
            continue
        texts = [
            f"{shown_line(images.file(number))} ({classes.names[old]}"
            + (")" if is_taken else f" → {classes.names[new]})")
            for number, old, new in of_kind[:_MAX_NAMED]
        ]
        more = len(of_kind) - len(texts)
        yield (
            f"{table.path}: {len(of_kind)} {what}: {', '.join(texts)}"
            + (f" and {more} more" if more else "")
        )


def _groups(
    n_images: int, table: LabelTable, numbers: NDArray[np.int64]
) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """Names of groups, sorted, and int32 (N,), the group of every image."""
    assert table.groups is not None
    given = [
        (number, group)
        for number, group in zip(numbers.tolist(), table.groups, strict=True)
        if number >= 0 and group is not None
    ]
    names = tuple(sorted({group for _, group in given}))
    number_of = {name: number for number, name in enumerate(names)}
    groups = np.full(n_images, -1, np.int32)
    for number, group in given:
        groups[number] = number_of[group]
    return names, groups


def _sorted_classes(
    classes: _Classes, labels: NDArray[np.int32]
) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """Names of the classes that have an image, sorted, and labels that are places in them."""
    counts = np.bincount(labels[labels >= 0], minlength=len(classes.names))
    present = sorted(np.flatnonzero(counts).tolist(), key=lambda number: classes.names[number])
    # The last place is what -1 leads to.
    places = np.full(len(classes.names) + 1, -1, np.int32)
    places[present] = np.arange(len(present))
    return tuple(classes.names[number] for number in present), places[labels]


def _require_two_classes(
    names: Sequence[str], labels: NDArray[np.int32], table: LabelTable | None
) -> None:
    if len(names) > 1:
        return
    n_labeled = int((labels >= 0).sum())
    found = f"labels of one class only, {names[0]} ({n_labeled} images)," if names else "no label"
    where = "" if table is None else f"{table.path}: "
    raise InputError(
        f"{where}found {found} among {len(labels)} images; expected labels of two classes at "
        "least: a folder of images for each class, or a file with the columns file and label"
    )


def _odd_classes(
    names: Sequence[str], labels: NDArray[np.int32], classes: _Classes
) -> Iterator[str]:
    """What people may not have meant."""
    counts = np.bincount(labels[labels >= 0], minlength=len(names)).tolist()
    empty = sorted(set(classes.names) - set(names))
    if empty:
        yield f"no labelled image, so that nothing gets this label: {some_of(empty)}"
    single = [name for name, count in zip(names, counts, strict=True) if count == 1]
    if single:
        yield f"one labelled image only, so that none can be held out, of {some_of(single)}"
    n_images = dict(zip(names, counts, strict=True))
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        alike[name.casefold()].append(f"{name} ({n_images[name]} images)")
    for variants in alike.values():
        if len(variants) > 1:
            yield f"classes that differ only in upper and lower case: {some_of(variants)}"
    doubtful = [
        f"{shown(name)} ({n_images[name]} images)" for name in names if looks_like_none(name, True)
    ]
    if doubtful:
        yield (
            f"labels that count as classes, but look as if they meant none: {some_of(doubtful)}; "
            "no label is written as nothing"
        )


def _same_images(
    images: JoinedImages, names: Sequence[str], labels: NDArray[np.int32]
) -> Iterator[str]:
    """Files that are the same, byte for byte, and have different labels."""

    def size_of(number: int) -> int:
        path = images.path(number)
        return -1 if path is None else file_size(path)

    labeled = np.flatnonzero(labels >= 0).tolist()
    candidates = _in_conflict([labeled], labels, size_of)
    # What is empty, cannot be looked at or is no file of its own is no image that is there twice.
    candidates = [group for group in candidates if size_of(group[0]) > 0]
    n_files = sum(map(len, candidates))
    with Progress(n_files, "images with two labels", unit="file") as progress:

        def end_of(number: int) -> bytes | str:
            progress.update(1)
            return _end_of_file(_file(images, number))

        candidates = _in_conflict(candidates, labels, end_of)
    same = _in_conflict(candidates, labels, lambda number: _checksum(_file(images, number)))
    if not same:
        return
    texts = []
    for group in same[:_MAX_NAMED]:
        first = group[0]
        other = next(number for number in group if labels[number] != labels[first])
        texts.append(
            " and ".join(
                f"{shown_line(images.file(number))} ({names[labels[number]]})"
                for number in (first, other)
            )
        )
    more = len(same) - len(texts)
    yield (
        f"the same image has two labels: {'; '.join(texts)}"
        + (f"; and {more} more such images" if more else "")
    )


def _in_conflict(
    groups: Iterable[list[int]], labels: NDArray[np.int32], key: Callable[[int], Hashable]
) -> list[list[int]]:
    """Images of a group that have the same key, where not all have the same label."""
    found = []
    for group in groups:
        by_key: defaultdict[Hashable, list[int]] = defaultdict(list)
        for number in group:
            by_key[key(number)].append(number)
        found += [part for part in by_key.values() if len({int(labels[i]) for i in part}) > 1]
    return found


def _file(images: JoinedImages, number: int) -> Path:
    path = images.path(number)
    assert path is not None
    return path


def _end_of_file(path: Path) -> bytes | str:
    try:
        with path.open("rb") as file:
            file.seek(-min(_END_BYTES, file_size(path)), os.SEEK_END)
            return file.read(_END_BYTES)
    except OSError:
        return str(path)


def _checksum(path: Path) -> str:
    try:
        return checksum_of_file(path)
    except OSError:
        return str(path)
