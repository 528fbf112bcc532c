"""Which images SNCA learns from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.errors import InputError
from lowshot_kedro.protocol import ClassSplit


def trained_positions(
    train_labels: NDArray[np.int32], split: ClassSplit | None
) -> NDArray[np.int64]:
    """The training images that a network is trained on.

    Args:
        train_labels: int32 (n,), 0-based labels of the training set.
        split: Those of the base classes are meant; None: all.

    Returns:
        int64 (N,), their positions, increasing.

    Raises:
        InputError: If there is no base class, or no training image of one.
    """
    if split is None:
        return np.arange(len(train_labels), dtype=np.int64)
    if len(split.base_classes) == 0:
        raise InputError(
            "but the class split has no base class in this mode",
            parameter="classes",
            found="base",
            expected="all",
        )
    absent = np.setdiff1d(split.base_classes, train_labels)
    if len(absent):
        raise InputError(
            f"train_images: no images of class {absent[0]}, which class_split lists as a base "
            "class; expected at least one"
        )
    return np.flatnonzero(np.isin(train_labels, split.base_classes))
