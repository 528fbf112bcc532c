"""Which images SNCA learns from, and under which numbers their classes go."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.errors import InputError
from lowshot_kedro.protocol import ClassSplit


class TrainedClasses(NamedTuple):
    """The classes that a network is trained on.

    Attributes:
        labels: int64 (C,), their labels, increasing; their position is the class 0..C-1.
        positions: int64 (N,), the training images of these classes, increasing.
        classes: int64 (N,), the class of each.
    """

    labels: NDArray[np.int64]
    positions: NDArray[np.int64]
    classes: NDArray[np.int64]

    def of(self, labels: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Positions of the images of these classes in another collection, and their classes."""
        positions = np.flatnonzero(np.isin(labels, self.labels))
        return positions, np.searchsorted(self.labels, labels[positions]).astype(np.int64)


def trained_classes(train_labels: NDArray[np.int32], split: ClassSplit | None) -> TrainedClasses:
    """The classes that a network is trained on, and their images.

    Args:
        train_labels: int32 (n,), 0-based labels of the training set.
        split: The base classes are meant; None: all classes that there are.

    Raises:
        InputError: If there is no base class, or no training image of one.
    """
    if split is None:
        labels = np.unique(train_labels).astype(np.int64)
    else:
        labels = split.base_classes
        if len(labels) == 0:
            raise InputError(
                "but the class split has no base class in this mode",
                parameter="classes",
                found="base",
                expected="all",
            )
        absent = np.setdiff1d(labels, train_labels)
        if len(absent):
            raise InputError(
                f"train_images: no images of class {absent[0]}, which class_split lists as a base "
                "class; expected at least one"
            )
    empty = np.empty(0, np.int64)
    positions, classes = TrainedClasses(labels, empty, empty).of(train_labels)
    return TrainedClasses(labels, positions, classes)
