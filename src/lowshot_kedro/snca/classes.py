"""Which images SNCA learns from, and under which numbers their classes go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.errors import InputError
from lowshot_kedro.protocol import read_class_split


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


def trained_classes(
    train_labels: NDArray[np.int32],
    class_split: Mapping[str, Any] | None,
    mode: str,
) -> TrainedClasses:
    """The classes that a network is trained on, and their images.

    Args:
        train_labels: int32 (n,), 0-based labels of the training set.
        class_split: Content of the class split file, whose base classes of the mode are meant;
            None: all classes that there are.
        mode: `val` or `test`.

    Raises:
        InputError: If there is no training image of a base class.
    """
    if class_split is None:
        labels = np.unique(train_labels).astype(np.int64)
    else:
        labels = read_class_split(class_split, mode).base_classes
        absent = np.setdiff1d(labels, train_labels)
        if len(absent):
            raise InputError(
                f"train_images: no images of class {absent[0]}, which class_split lists as a base "
                f"class of mode {mode}; expected at least one"
            )
    empty = np.empty(0, np.int64)
    positions, classes = TrainedClasses(labels, empty, empty).of(train_labels)
    return TrainedClasses(labels, positions, classes)
