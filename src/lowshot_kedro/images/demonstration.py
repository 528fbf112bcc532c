"""Real images that ship with a dependency: scikit-learn's handwritten digits.

1797 scans of 8×8 pixels from the test part of "Optical Recognition of Handwritten Digits"
(E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, 1998).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from PIL import Image

_LARGEST_VALUE = 16.0
_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class Demonstration(NamedTuple):
    """The demonstration's raw data.

    Attributes:
        train: (image, label) pairs.
        test: (image, label) pairs.
        background: Images without labels.
        class_split: Content of a class split file.
    """

    train: list[tuple[Image.Image, int]]
    test: list[tuple[Image.Image, int]]
    background: list[Image.Image]
    class_split: dict[str, Any]


def digits(seed: int, image_size: int) -> Demonstration:
    """The digits, shuffled and dealt in thirds to training, test and background.

    Ten classes leave no room for disjoint sets: base and novel classes of mode test are the novel
    and base classes of mode val.

    Args:
        seed: Seed of the shuffle.
        image_size: Width and height in pixels that the 8×8 scans are enlarged to.
    """
    # It takes a second to import, and most commands have other images or none.
    from sklearn.datasets import load_digits

    scans = load_digits()
    order = np.random.default_rng(seed).permutation(len(scans.images))
    images = [_enlarge(scans.images[number], image_size) for number in order]
    labels = [int(scans.target[number]) for number in order]
    train, test, background = (slice(part, None, 3) for part in range(3))
    low, high = [1, 2, 3, 4, 5], [6, 7, 8, 9, 10]
    return Demonstration(
        train=list(zip(images[train], labels[train], strict=True)),
        test=list(zip(images[test], labels[test], strict=True)),
        background=images[background],
        class_split={
            "base_classes_1": high,
            "novel_classes_1": low,
            "base_classes_2": low,
            "novel_classes_2": high,
            "label_names": list(_NAMES),
        },
    )


def _enlarge(scan: np.ndarray[Any, Any], size: int) -> Image.Image:
    pixels = np.round(scan * (255 / _LARGEST_VALUE)).astype(np.uint8)
    return Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC)
