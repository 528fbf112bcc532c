"""The choice of images, which two pipelines begin with.

Each of them runs alone, so each has the node. Two nodes may not write the same dataset, so each
keeps its selection under its own name, such as `diffusion.image_selection`. Where they run together
the same images are chosen twice: from labels alone, in no time beside what follows.
"""

from __future__ import annotations

from typing import Any

from kedro.pipeline import node
from kedro.pipeline.node import Node

from lowshot_kedro.blocks import FeatureMatrix
from lowshot_kedro.protocol import (
    ExperimentParameters,
    ImageSelection,
    choose_images,
    log_choice,
)


def select_images(
    class_split: dict[str, Any],
    train_features: FeatureMatrix,
    test_features: FeatureMatrix,
    experiment: ExperimentParameters,
) -> ImageSelection:
    """The labelled, unlabelled and test images of a run, and a line in the log about them."""
    selection = choose_images(class_split, train_features, test_features, experiment)
    log_choice(selection, train_features.n_rows, experiment)
    return selection


def select_images_node() -> Node:
    """Class split and labels → image_selection."""
    return node(
        select_images,
        inputs=["class_split", "train_features", "test_features", "params:experiment"],
        outputs="image_selection",
        name="select_images",
    )
