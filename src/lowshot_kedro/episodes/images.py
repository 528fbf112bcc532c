"""The images that episodes are drawn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.episodes.episode import RegionFeatures, View
from lowshot_kedro.errors import InputError
from lowshot_kedro.images import FewShotImages, ImageSource, ImageSubset
from lowshot_kedro.protocol import ClassSplit


@dataclass(frozen=True)
class EpisodeImages:
    """Labelled images, or features of images that are not at hand.

    Attributes:
        labels: int32 (N,), 0-based.
        class_names: What a label is called, by label; others are called by their number.
        images: The images; None where only their features are at hand.
        views: Features that are at hand already.
    """

    labels: NDArray[np.int32]
    class_names: Sequence[str]
    images: ImageSource | None
    views: Mapping[View, RegionFeatures] = field(default_factory=dict)

    def class_name(self, label: int) -> str:
        """What a class is called."""
        return self.class_names[label] if label < len(self.class_names) else str(label)


def images_of_classes(images: ImageSource, split: ClassSplit, classes: str) -> EpisodeImages:
    """The images of some classes of a class split.

    Args:
        images: All images.
        split: Base and novel classes.
        classes: all: every image, whatever the split; base, novel: those of these classes.

    Raises:
        InputError: If there are no such images.
    """
    if classes != "all":
        chosen = split.base_classes if classes == "base" else split.novel_classes
        positions = np.flatnonzero(np.isin(images.labels, chosen))
        images = ImageSubset(images, positions)
    if len(images) == 0:
        raise InputError(parameter="classes", found=classes, expected="classes that have images")
    return EpisodeImages(images.labels, split.class_names, images)


def given_images(given: FewShotImages | RegionFeatures) -> EpisodeImages:
    """The images of a data set, or features of images that are not at hand."""
    if isinstance(given, RegionFeatures):
        return EpisodeImages(given.labels, (), None, {"map": given})
    return EpisodeImages(given.labels, given.class_names, given)
