"""What a training follows from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lowshot_kedro.images.fingerprint import checksum_of_file

if TYPE_CHECKING:
    from lowshot_kedro.images import ImageSource
    from lowshot_kedro.training.parameters import TrainingParameters


def training_provenance(
    kind: str, images: ImageSource, parameters: TrainingParameters, weights: str
) -> dict[str, Any]:
    """All that a training follows from, as JSON holds it. Images and weights are looked at.

    Args:
        kind: What trains.
        images: The images that are learnt from.
        parameters: How the network is trained.
        weights: The parameter that says what it starts from. A file counts by what is in it.
    """
    facts = parameters.facts()
    path = Path(weights)
    if path.is_file():
        facts["weights"] = checksum_of_file(path)
    return {"kind": kind, "images": images.describe(), **facts}
