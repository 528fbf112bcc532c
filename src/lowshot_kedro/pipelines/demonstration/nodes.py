"""Nodes of the demonstration's pictures."""

from __future__ import annotations

from typing import Any

from PIL import Image

from lowshot_kedro.errors import InputError
from lowshot_kedro.images.demonstration import digits
from lowshot_kedro.parameters import DemonstrationParameters

LabeledPictures = list[tuple[Image.Image, int]]


def write_digits(
    demonstration: DemonstrationParameters,
) -> tuple[LabeledPictures, LabeledPictures, list[Image.Image], dict[str, Any]]:
    """Handwritten digits as training, test and background pictures, and their class split.

    Raises:
        ValueError: Where the demonstration is not enabled: it would overwrite other pictures.
    """
    if not demonstration.enabled:
        raise InputError(
            "demonstration.enabled: got false, so this environment brings its own pictures; "
            "expected true to write digits in their place"
        )
    return tuple(digits(demonstration.seed, demonstration.picture_size))  # type: ignore[return-value]
