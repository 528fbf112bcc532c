"""The choice of images, which three pipelines begin with.

Each of them runs alone, so each has the node; where they run together it runs once.
"""

from __future__ import annotations

from typing import Any

from kedro.pipeline import node
from kedro.pipeline.node import Node

from lowshot_kedro.matrices import FeatureMatrix
from lowshot_kedro.parameters import ExperimentParameters
from lowshot_kedro.protocol import ImageSelection, read_class_split, select_images


def _select_images(
    class_split: dict[str, Any],
    train_features: FeatureMatrix,
    test_features: FeatureMatrix,
    experiment: ExperimentParameters,
) -> ImageSelection:
    """The labelled and test images of this experiment."""
    return select_images(
        read_class_split(class_split, experiment.mode),
        train_features.labels,
        test_features.labels,
        experiment.n_labeled,
        experiment.seed,
    )


def select_images_node() -> Node:
    """Class split and labels → image_selection."""
    return node(
        _select_images,
        inputs=["class_split", "train_features", "test_features", "params:experiment"],
        outputs="image_selection",
        name="select_images",
    )
