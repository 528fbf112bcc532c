"""The choice of images, which two pipelines begin with.

Each of them runs alone, so each has the node. Two nodes may not write the same dataset, so each
keeps its selection under its own name, such as `diffusion.image_selection`. Where they run together
the same images are chosen twice: from labels alone, in no time beside what follows.
"""

from __future__ import annotations

from kedro.pipeline import node
from kedro.pipeline.node import Node

from lowshot_kedro.experiment import choose_images


def select_images_node() -> Node:
    """Class split and labels → image_selection."""
    return node(
        choose_images,
        inputs=["class_split", "train_features", "test_features", "params:experiment"],
        outputs="image_selection",
        name="select_images",
    )
