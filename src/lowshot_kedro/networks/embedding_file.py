"""The file of a network that was trained for embeddings of unit length."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from safetensors.torch import load_file

from lowshot_kedro.networks.embedding import embedding_network, require_embedding_network
from lowshot_kedro.networks.embedding_module import EmbeddingNetwork
from lowshot_kedro.networks.network_file import NetworkDescription
from lowshot_kedro.networks.weights import fit_weights, same_random_weights


@dataclass(frozen=True)
class EmbeddingDescription(NetworkDescription):
    """What a network is that returns embeddings of unit length.

    Attributes:
        network: Its name, as for :func:`~lowshot_kedro.networks.embedding.embedding_network`.
        dimension: Length of an embedding.
    """

    format: ClassVar[str] = "lowshot-kedro embedding network"

    def require_network(self) -> None:
        """Check the name of the network.

        Raises:
            InputError: If none has it.
        """
        require_embedding_network(self.network)


def read_embedding_network(path: str | Path) -> tuple[EmbeddingNetwork, EmbeddingDescription]:
    """A trained network from its file.

    Args:
        path: A .safetensors file as this project writes it.

    Returns:
        The network in evaluation mode, on the CPU, and what it is. All tensors are in memory twice
        while they are copied.

    Raises:
        FileNotFoundError: If it is not there.
        InputError: If it is another kind of file, or its tensors are not those of the network that
            its header names.
    """
    path = Path(path)
    description = EmbeddingDescription.read(path)
    network = embedding_from_tensors(description, load_file(path), path)
    return network, description


def embedding_from_tensors(
    description: EmbeddingDescription, tensors: dict[str, Any], source: str | Path
) -> EmbeddingNetwork:
    """A trained network from its tensors.

    Args:
        description: What it is.
        tensors: Name → tensor: all that the network has.
        source: Where they come from, for messages.

    Raises:
        InputError: If a tensor is missing, unexpected, or of another shape.
    """
    with same_random_weights():
        network = embedding_network(
            description.network, description.dimension, image_size=description.image_size
        )
    fit_weights(network.network, tensors, source, description.network, ())
    return network.eval()
