"""Photographs for measuring: crops of the two that scikit-learn carries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

from lowshot_kedro.images import write_zip_shards

_PHOTOGRAPHS = ("china.jpg", "flower.jpg")
_SMALLEST_CROP = 0.6


def crops(count: int, width: int, height: int, seed: int) -> Iterator[Image.Image]:
    """Parts of photographs at random places and of random size, brought to one size.

    Args:
        count: How many.
        width: Of each, in pixels.
        height: Of each.
        seed: The same crops for the same seed.
    """
    random = np.random.default_rng(seed)
    photographs = [Image.fromarray(load_sample_image(name)) for name in _PHOTOGRAPHS]
    for _ in range(count):
        photograph = photographs[random.integers(len(photographs))]
        largest = min(photograph.width / width, photograph.height / height)
        scale = largest * random.uniform(_SMALLEST_CROP, 1)
        size = int(width * scale), int(height * scale)
        left = int(random.integers(photograph.width - size[0] + 1))
        top = int(random.integers(photograph.height - size[1] + 1))
        box = (left, top, left + size[0], top + size[1])
        yield photograph.crop(box).resize((width, height), Image.Resampling.BICUBIC)


def write_crops(root: Path, count: int, width: int, height: int, seed: int) -> None:
    """Write crops as JPEG files into numbered zip shards."""
    write_zip_shards(root, crops(count, width, height, seed))
