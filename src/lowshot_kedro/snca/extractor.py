"""A network trained by SNCA, as one that turns images into features."""

from __future__ import annotations

from lowshot_kedro.networks.embedding_file import EmbeddingDescription, read_embedding_network
from lowshot_kedro.networks.embedding_module import EmbeddingNetwork
from lowshot_kedro.networks.extractor import Extractor
from lowshot_kedro.networks.network_file import require_trained_file
from lowshot_kedro.snca.original_checkpoints import read_original_checkpoint

TRAINED_NETWORK = "data/06_models/snca_network.safetensors"


def snca_extractor(weights: str, image_size: int | None) -> Extractor:
    """A network trained by SNCA; its features are embeddings of unit length.

    Images are resized and cropped as the file says.

    Args:
        weights: The file of a trained network, or a checkpoint of the original code.
        image_size: None, or the size that the network was trained at.

    Raises:
        FileNotFoundError: For a file that is not there.
        ValueError: For anything but a file, a file of another kind, or another size.
    """
    path = require_trained_file(weights, "SNCA", TRAINED_NETWORK, "snca")
    if path.suffix == ".safetensors":
        network, description = read_embedding_network(path)
    else:
        checkpoint = read_original_checkpoint(path)
        network, description = checkpoint.embedding_network(), checkpoint.description()
    description.require_image_size(image_size, path)
    return extractor_of(network, description)


def extractor_of(network: EmbeddingNetwork, description: EmbeddingDescription) -> Extractor:
    """A trained network that is in memory, as one that turns images into features.

    Args:
        network: The network, in evaluation mode.
        description: What it is.
    """
    return Extractor("snca", network, description.preprocessing(), description.dimension)
