"""Nodes of the demonstration's images."""

from __future__ import annotations

from typing import Any

from PIL import Image

from lowshot_kedro.errors import InputError
from lowshot_kedro.images.demonstration import digits
from lowshot_kedro.images.parameters import DemonstrationParameters

LabeledImages = list[tuple[Image.Image, int]]


def write_digits(
    demonstration: DemonstrationParameters,
) -> tuple[LabeledImages, LabeledImages, list[Image.Image], dict[str, Any]]:
    """Handwritten digits as training, test and background images, and their class split.

    Raises:
        ValueError: If the demonstration is not enabled: it would overwrite other images.
    """
    if not demonstration.enabled:
        raise InputError(
            "demonstration.enabled: got false, so this environment brings its own images; "
            "expected true to write digits in their place"
        )
    return tuple(digits(demonstration.seed, demonstration.image_size))  # type: ignore[return-value]
