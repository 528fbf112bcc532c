"""Networks that turn pictures into vectors.

A new network enters through `EXTRACTORS`: a function of (weights, image_size) that returns an
:class:`~lowshot_kedro.extractors.extractor.Extractor`.
"""

from __future__ import annotations

from collections.abc import Callable

from lowshot_kedro.errors import InputError
from lowshot_kedro.extractors.efficientnet_lite0 import efficientnet_lite0
from lowshot_kedro.extractors.extractor import (
    PRECISIONS,
    Extractor,
    extract_features,
)

EXTRACTORS: dict[str, Callable[[str, int], Extractor]] = {
    "efficientnet_lite0": efficientnet_lite0,
}


def create_extractor(name: str, weights: str, image_size: int) -> Extractor:
    """A network by its name in `EXTRACTORS`.

    Args:
        name: Name of the network.
        weights: `package` (a Python package that carries them), `none` (random), or a file.
        image_size: Width and height of the network's input in pixels.

    Raises:
        ValueError: For an unknown network, or weights that do not fit it.
        FileNotFoundError: For a file of weights that is not there.
    """
    if name not in EXTRACTORS:
        known = ", ".join(EXTRACTORS)
        raise InputError(f"features.extractor: got {name!r}, expected one of: {known}")
    return EXTRACTORS[name](weights, image_size)


__all__ = [
    "EXTRACTORS",
    "PRECISIONS",
    "Extractor",
    "create_extractor",
    "extract_features",
]
