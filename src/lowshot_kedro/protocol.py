"""The protocol of low-shot learning: class splits, and the choice of labelled and test images.

Few-shot learning calls them support and query images, and n labelled images of a class n-shot. This
is the protocol of Douze, Szlam, Hariharan and Jégou, "Low-shot learning with large-scale diffusion"
(CVPR 2018), whose base and novel classes come from Hariharan and Girshick, "Low-shot visual
recognition by shrinking and hallucinating features" (ICCV 2017): base classes keep all their
training images, novel classes a few, and the same seed chooses the same images as in the
published runs. Where people bring a few labels of their own, novel classes can keep all of theirs.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.errors import InputError, shown
from lowshot_kedro.parameters import require_integer, require_one_of

logger = logging.getLogger(__name__)

MODES = ("test", "val")
UNLABELED = ("background", "train", "both", "none")

_MAX_CLASSES_NAMED = 5

# 1-based, so that the label is one of int32.
_MAX_CLASS = 2**31

# The class split file numbers its sets: 1 are the classes for choosing hyper-parameters.
_SPLIT_NUMBER = {"val": 1, "test": 2}


@dataclass(frozen=True)
class ExperimentParameters:
    """Which classes, how many labelled images of the novel ones, and which unlabelled images.

    Section `experiment` of the parameters.
    """

    mode: str
    n_labeled: int | None
    seed: int
    unlabeled: str

    def __post_init__(self) -> None:
        require_one_of("mode", self.mode, MODES)
        require_integer("n_labeled", self.n_labeled, 1, null="all that are given")
        require_integer("seed", self.seed, 0)
        require_one_of("unlabeled", self.unlabeled, UNLABELED)


@dataclass(frozen=True)
class ClassSplit:
    """The classes of one mode.

    Attributes:
        base_classes: int64, 0-based labels whose training images are all labelled, increasing.
        novel_classes: int64, 0-based labels with few labelled images, increasing.
        class_names: A name for every label, by label; empty when the file has none.
    """

    base_classes: NDArray[np.int64]
    novel_classes: NDArray[np.int64]
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class ImageSelection:
    """The images that take part in a run. Classes have the numbers 0..C-1 here.

    Attributes:
        classes: int64 (C,), the original label of each class, increasing.
        class_names: Name of each class.
        is_novel: bool (C,).
        labeled_positions: int64 (L,), rows of the training set: all images of the base classes
            in class order, then the chosen images of the novel classes in class order.
        labeled_classes: int32 (L,), their class.
        unlabeled_positions: int64 (U,), the training images of novel classes that were not
            chosen, in class order; none if all are labelled.
        test_positions: int64 (T,), rows of the test set, increasing.
        test_classes: int32 (T,), their class.
    """

    classes: NDArray[np.int64]
    class_names: tuple[str, ...]
    is_novel: NDArray[np.bool_]
    labeled_positions: NDArray[np.int64]
    labeled_classes: NDArray[np.int32]
    unlabeled_positions: NDArray[np.int64]
    test_positions: NDArray[np.int64]
    test_classes: NDArray[np.int32]

    @property
    def n_classes(self) -> int:
        """Number of classes C."""
        return len(self.classes)


def read_class_split(content: Mapping[str, Any], mode: str) -> ClassSplit:
    """Base and novel classes of a mode.

    Args:
        content: The class split file (label_idx.json): 1-based lists base_classes_1,
            novel_classes_1 (mode val), base_classes_2, novel_classes_2 (mode test), and
            label_names.
        mode: `val` or `test`.

    Raises:
        ValueError: For a missing list, something that is not a label, or a class in both lists.
    """
    if not isinstance(content, Mapping):
        raise InputError(f"class_split: expected a JSON object, found {type(content).__name__}")
    names = tuple(
        _read_name(name) for name in _read_list({"label_names": [], **content}, "label_names")
    )
    base, novel = (
        _read_classes(content, f"{kind}_classes_{_SPLIT_NUMBER[mode]}", len(names))
        for kind in ("base", "novel")
    )
    both = np.intersect1d(base, novel)
    if len(both):
        raise InputError(
            f"class_split: class {both[0] + 1} is both base and novel in mode {mode}; "
            "expected disjoint lists"
        )
    if len(novel) == 0:
        raise InputError(
            f"class_split: no novel class in mode {mode} (novel_classes_{_SPLIT_NUMBER[mode]} is "
            "empty); expected at least one"
        )
    return ClassSplit(base, novel, names)


def _read_list(content: Mapping[str, Any], key: str) -> list[Any]:
    if key not in content:
        raise InputError(f"class_split: {key} is missing; found {', '.join(content) or 'nothing'}")
    values = content[key]
    if not isinstance(values, list):
        raise InputError(f"class_split: {key} is {shown(values)}; expected a list")
    return values


def _read_name(name: Any) -> str:
    if not isinstance(name, str | int | float):
        raise InputError(f"class_split: label_names holds {shown(name)}; expected names")
    return str(name)


def _read_classes(content: Mapping[str, Any], key: str, n_names: int) -> NDArray[np.int64]:
    values = _read_list(content, key)
    for value in values:
        valid = isinstance(value, int) and not isinstance(value, bool)
        if not valid or not 1 <= value <= (n_names or _MAX_CLASS):
            limit = f"to {n_names} (the number of label_names)" if n_names else f"to {_MAX_CLASS}"
            raise InputError(
                f"class_split: {key} holds {shown(value)}; expected 1-based labels, integers from "
                f"1 {limit}"
            )
    return np.unique(np.asarray(values, dtype=np.int64)) - 1


def select_images(
    split: ClassSplit,
    train_labels: NDArray[np.int32],
    test_labels: NDArray[np.int32],
    n_labeled: int | None,
    seed: int,
) -> ImageSelection:
    """Choose the labelled images of a run.

    With rs = RandomState(seed), for each class in increasing order: the positions of a novel
    class are shuffled with rs.shuffle and the first n_labeled kept, or all if there are no more;
    a base class keeps all of its positions and draws nothing, and so do novel classes where
    n_labeled is None.

    Args:
        split: Base and novel classes.
        train_labels: int32 (n,), 0-based labels of the training set.
        test_labels: int32 (m,), 0-based labels of the test set.
        n_labeled: Labelled images of every novel class, at most; None: all of them.
        seed: Seed of the choice.

    Raises:
        ValueError: For a label out of range, a class without training images, an n_labeled that no
            novel class has, or no test images at all.
    """
    _require_labels("train_features", train_labels, len(split.class_names))
    _require_labels("test_features", test_labels, len(split.class_names))
    classes = np.union1d(split.base_classes, split.novel_classes)
    is_novel = np.isin(classes, split.novel_classes)
    names = tuple(
        split.class_names[label] if split.class_names else str(label) for label in classes
    )

    random_state = np.random.RandomState(seed)
    base_positions, chosen_positions, left_positions = [], [], []
    labeled_classes: list[NDArray[np.int32]] = []
    sizes: dict[str, int] = {}
    for number, label in enumerate(classes):
        positions = np.flatnonzero(train_labels == label)
        if len(positions) == 0:
            raise InputError(
                f"train_features: no images of class {label} ({names[number]}), which class_split "
                "lists; expected at least one"
            )
        if not is_novel[number]:
            base_positions.append(positions)
            continue
        n_kept = sizes[f"class {label} ({names[number]})"] = len(positions)
        if n_labeled is not None:
            n_kept = n_labeled
            random_state.shuffle(positions)
        chosen_positions.append(positions[:n_kept])
        left_positions.append(positions[n_kept:])

    if n_labeled is not None:
        _require_as_many(n_labeled, sizes)

    order = np.concatenate([np.flatnonzero(~is_novel), np.flatnonzero(is_novel)])
    parts = base_positions + chosen_positions
    labeled_classes = [
        np.full(len(part), number, dtype=np.int32)
        for number, part in zip(order, parts, strict=True)
    ]
    test_positions = np.flatnonzero(np.isin(test_labels, classes))
    if len(test_positions) == 0:
        raise InputError("test_features: no images of the classes that class_split lists")
    return ImageSelection(
        classes=classes,
        class_names=names,
        is_novel=is_novel,
        labeled_positions=np.concatenate(parts),
        labeled_classes=np.concatenate(labeled_classes),
        unlabeled_positions=np.concatenate(left_positions),
        test_positions=test_positions,
        test_classes=np.searchsorted(classes, test_labels[test_positions]).astype(np.int32),
    )


def _require_as_many(n_labeled: int, sizes: dict[str, int]) -> None:
    """Refuse a number of labels that not even the largest novel class has."""
    largest = max(sizes, key=sizes.__getitem__)
    if n_labeled > sizes[largest]:
        raise InputError(
            f"but {largest} has only {sizes[largest]} training images, and no novel class more",
            parameter="n_labeled",
            found=n_labeled,
            expected="no more, or no number: all that are given",
        )


def _require_labels(name: str, labels: NDArray[np.int32], n_names: int) -> None:
    last = n_names - 1 if n_names else np.iinfo(np.int32).max
    bad = np.flatnonzero((labels < 0) | (labels > last))
    if len(bad):
        raise InputError(
            f"{name}: label {labels[bad[0]]} in row {bad[0]} is out of range; expected 0..{last}"
        )


class Labeled(Protocol):
    """A collection whose labels are known."""

    @property
    def labels(self) -> NDArray[np.int32]:
        """int32 (n,), 0-based."""
        ...


def choose_images(
    class_split: Mapping[str, Any],
    train: Labeled,
    test: Labeled,
    experiment: ExperimentParameters,
) -> ImageSelection:
    """The labelled, unlabelled and test images of an experiment.

    Args:
        class_split: Content of the class split file.
        train: The training set, features or images.
        test: The test set.
        experiment: Which classes and how many labelled images.

    Raises:
        ValueError: If classes and labels do not go together.
    """
    return select_images(
        read_class_split(class_split, experiment.mode),
        train.labels,
        test.labels,
        experiment.n_labeled,
        experiment.seed,
    )


def log_choice(selection: ImageSelection, n_train: int, experiment: ExperimentParameters) -> None:
    """Say in one line how many labelled images are used, how many are not, and why.

    A warning where novel classes have fewer than were asked for.

    Args:
        selection: The images of the experiment.
        n_train: Images of the training set.
        experiment: Which classes and how many labelled images.
    """
    counts = np.bincount(selection.labeled_classes, minlength=selection.n_classes)
    n_left = len(selection.unlabeled_positions)
    n_used = len(selection.labeled_positions)
    n_others = n_train - n_used - n_left
    n_labeled = experiment.n_labeled
    parts = [f"{n_used} of {n_train} labelled images are used, of {selection.n_classes} classes"]
    if n_left:
        fate = "without their labels" if experiment.unlabeled in ("train", "both") else "left out"
        parts.append(
            f"{n_left} {fate}, as n_labeled = {n_labeled} for every novel class (null: all)"
        )
    if n_others:
        parts.append(f"{n_others} of classes that mode {experiment.mode} does not have")
    few = selection.is_novel & (counts < (n_labeled or 0))
    if few.any():
        named = [
            f"{selection.class_names[number]} ({counts[number]})"
            for number in np.flatnonzero(few)[:_MAX_CLASSES_NAMED]
        ]
        n_more = int(few.sum()) - len(named)
        parts.append(
            f"fewer than n_labeled = {n_labeled} have {', '.join(named)}"
            + (f" and {n_more} more" if n_more else "")
        )
    logger.log(logging.WARNING if few.any() else logging.INFO, "%s", "; ".join(parts))
