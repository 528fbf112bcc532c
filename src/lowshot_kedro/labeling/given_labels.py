"""The labels that people gave."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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
    """

    classes: tuple[str, ...]
    labels: NDArray[np.int32]
    groups: NDArray[np.int32] | None = None
    group_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def n_classes(self) -> int:
        """Number of classes C."""
        return len(self.classes)

    @property
    def nodes(self) -> NDArray[np.int32]:
        """int32 (L,), which images have a label, increasing."""
        return np.flatnonzero(self.labels >= 0).astype(np.int32)
