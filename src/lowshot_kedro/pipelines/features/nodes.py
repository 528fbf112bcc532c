"""Nodes of feature extraction."""

from __future__ import annotations

from lowshot_kedro.extractors import create_extractor
from lowshot_kedro.extractors import extract_features as extract
from lowshot_kedro.images import ImageSource
from lowshot_kedro.matrices import Blocks, LabeledBlock
from lowshot_kedro.parameters import FeaturesParameters


def extract_features(images: ImageSource, features: FeaturesParameters) -> Blocks[LabeledBlock]:
    """Features of a collection, computed while they are saved."""
    extractor = create_extractor(features.extractor, features.weights, features.image_size)
    return extract(
        extractor,
        images,
        batch_size=features.batch_size,
        num_workers=features.num_workers,
        device=features.device,
        precision=features.precision,
    )
