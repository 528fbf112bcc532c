"""The file of a network that learnt from images without labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from safetensors.torch import load_file
from torch import nn

from lowshot_kedro.networks.network_file import NetworkDescription
from lowshot_kedro.networks.unsupervised import (
    VGG_NETWORKS,
    require_unsupervised_network,
    unsupervised_network,
)
from lowshot_kedro.networks.vgg_weights import vgg_from_tensors
from lowshot_kedro.networks.weights import fit_weights, same_random_weights


@dataclass(frozen=True)
class UnsupervisedDescription(NetworkDescription):
    """What a network is that returns features of any length.

    Attributes:
        network: Its name, as for
            :func:`~lowshot_kedro.networks.unsupervised.unsupervised_network`.
        dimension: Length of a feature.
        sobel: Whether it begins with Sobel filters. One whose filters are folded into its first
            convolution does not; its tensors show that.
    """

    format: ClassVar[str] = "lowshot-kedro unsupervised network"

    sobel: bool = field(kw_only=True)

    def require_network(self) -> None:
        """Check the name of the network, and whether it can begin with Sobel filters.

        Raises:
            InputError: If no network has that name, or it cannot.
        """
        require_unsupervised_network(self.network, self.sobel)


def read_unsupervised_network(path: str | Path) -> tuple[nn.Module, UnsupervisedDescription]:
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
    description = UnsupervisedDescription.read(path)
    return unsupervised_from_tensors(description, load_file(path), path), description


def unsupervised_from_tensors(
    description: UnsupervisedDescription, tensors: dict[str, Any], source: str | Path
) -> nn.Module:
    """A trained network from its tensors.

    Args:
        description: What it is.
        tensors: Name → tensor: all that the network has.
        source: Where they come from, for messages.

    Returns:
        The network in evaluation mode.

    Raises:
        InputError: If a tensor is missing, unexpected, or of another shape.
    """
    name, sobel, dimension = description.network, description.sobel, description.dimension
    size = description.image_size
    with same_random_weights():
        if name in VGG_NETWORKS:
            return vgg_from_tensors(
                tensors, source, name, sobel=sobel, dimension=dimension, image_size=size
            ).eval()
        network = unsupervised_network(name, sobel, dimension, image_size=size)
    fit_weights(network, tensors, source, name, ())
    return network.eval()
