"""Nodes of feature extraction."""

from __future__ import annotations

from typing import Any

from lowshot_kedro import networks
from lowshot_kedro.blocks import FeatureMatrix, LabeledBlock, Resumable, RowBlocks
from lowshot_kedro.images import ImageSource
from lowshot_kedro.networks.parameters import FeaturesParameters
from lowshot_kedro.reporting import describe_broken_images


def extract_features(
    images: ImageSource, features: FeaturesParameters
) -> Resumable[RowBlocks[LabeledBlock]]:
    """Features of a collection, computed while they are saved."""
    extractor = networks.create_extractor(features.extractor, features.weights, features.image_size)
    return networks.extract_features(
        extractor,
        images,
        batch_size=features.batch_size,
        num_workers=None if features.num_workers == "auto" else int(features.num_workers),
        device=features.device,
        precision=features.precision,
        compiled=None if features.compile == "auto" else bool(features.compile),
    )


def list_broken_images(
    train_features: FeatureMatrix, test_features: FeatureMatrix, background_features: FeatureMatrix
) -> dict[str, Any]:
    """Which images of the three collections are blank ones, and why."""
    return describe_broken_images(
        {"train": train_features, "test": test_features, "background": background_features}
    )
