"""A network that learnt from images without labels, as one that turns images into features."""

from __future__ import annotations

from torch import nn

from lowshot_kedro.networks.extractor import Extractor
from lowshot_kedro.networks.network_file import require_trained_file
from lowshot_kedro.networks.unsupervised_file import (
    UnsupervisedDescription,
    read_unsupervised_network,
)
from lowshot_kedro.networks.vgg_weights import read_vgg
from lowshot_kedro.training.transforms import RECIPES

TRAINED_NETWORK = "data/06_models/deepercluster_network.safetensors"
_NAME = "deepercluster"


def deepercluster_extractor(weights: str, image_size: int | None) -> Extractor:
    """A network trained by DeeperCluster; its features are the outputs of its last linear layer.

    Images are resized and cropped as the file says; for released checkpoints, of which the shorter
    side is resized to 256/224 of the image size, as they were for clustering.

    Args:
        weights: The file of a trained network, or a released checkpoint of DeeperCluster,
            DeepCluster or RotNet.
        image_size: None, or the size that the network was trained at. Released checkpoints take
            all sizes that give as large a last map.

    Raises:
        FileNotFoundError: For a file that is not there.
        ValueError: For anything but a file, a file of another kind, or another size.
    """
    path = require_trained_file(weights, "DeeperCluster", TRAINED_NETWORK, _NAME)
    if path.suffix == ".safetensors":
        network, description = read_unsupervised_network(path)
        description.require_image_size(image_size, path)
        return extractor_of(network, description)
    released = read_vgg(path, image_size)
    preprocessing = RECIPES["imagenet"].preprocessing(released.image_size)
    return Extractor(_NAME, released.eval(), preprocessing, released.dimension)


def extractor_of(network: nn.Module, description: UnsupervisedDescription) -> Extractor:
    """A trained network that is in memory, as one that turns images into features.

    Args:
        network: The network, in evaluation mode.
        description: What it is.
    """
    return Extractor(_NAME, network, description.preprocessing(), description.dimension)
