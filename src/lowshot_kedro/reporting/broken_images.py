"""Which images could not be read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lowshot_kedro.blocks import FeatureMatrix

_BROKEN_IMAGES_LISTED = 100_000


def describe_broken_images(collections: Mapping[str, FeatureMatrix]) -> dict[str, Any]:
    """Which images could not be read, so that their features are those of a blank image.

    Args:
        collections: Features by name of the collection.

    Returns:
        For every name: n_images, n_broken (None where nobody has kept a list), and broken, a list
        of image (its number) and problem for the first 100 000; the complete lists are beside the
        features.
    """
    report = {}
    for name, features in collections.items():
        broken: list[dict[str, Any]] = []
        n_broken = 0
        problems = features.broken_images
        for image, problem in problems or ():
            n_broken += 1
            if n_broken <= _BROKEN_IMAGES_LISTED:
                broken.append({"picture": image, "problem": problem})
        report[name] = {
            "n_pictures": features.n_rows,
            "n_broken": None if problems is None else n_broken,
            "broken": broken,
        }
    return report
