"""Networks that learn from images without labels, by name.

Names can be checked without PyTorch, which takes long to import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lowshot_kedro.errors import InputError, did_you_mean
from lowshot_kedro.extras import needed_by
from lowshot_kedro.networks.embedding import (
    MAX_DIMENSION,
    embedding_network,
    require_embedding_network,
)
from lowshot_kedro.parameters import refuse, require_integer

if TYPE_CHECKING:
    from torch import nn

# Networks that can begin with Sobel filters → channels of their first convolution.
VGG_NETWORKS = {"vgg16": 64, "small_vgg16": 8}


def require_unsupervised_network(name: object, sobel: bool) -> None:
    """Check the name of a network as far as that takes no time.

    Args:
        name: One of `VGG_NETWORKS`, or a name for
            :func:`~lowshot_kedro.networks.embedding.embedding_network`.
        sobel: Whether it is to begin with Sobel filters.

    Raises:
        InputError: If it is neither, or has no place for Sobel filters.
    """
    if name in tuple(VGG_NETWORKS):
        return
    try:
        require_embedding_network(name)
    except InputError as error:
        hint = did_you_mean(name, VGG_NETWORKS)
        expected = (
            f"one of: {', '.join(VGG_NETWORKS)}, {(error.expected or '').removeprefix('one of: ')}"
        )
        raise InputError(parameter="name", found=name, expected=f"{expected}{hint}") from error
    if sobel:
        raise refuse("sobel", True, f"false, or network = {' or '.join(VGG_NETWORKS)}")


def unsupervised_network(
    name: str,
    sobel: bool,
    dimension: int,
    weights: str = "none",
    image_size: int | None = None,
) -> nn.Module:
    """A network whose output is a feature of any length.

    Random weights are drawn from PyTorch's current default generator.

    Args:
        name: One of `VGG_NETWORKS`, or a name for
            :func:`~lowshot_kedro.networks.embedding.embedding_network`: that network without the
            unit length.
        sobel: Whether it begins with fixed Sobel filters; only `VGG_NETWORKS` can.
        dimension: Length of a feature.
        weights: `none` (random), `package:MODULE/FILE` or a file. For `VGG_NETWORKS` one that this
            project has trained, or a released checkpoint of DeeperCluster, DeepCluster or RotNet;
            a head in it is left out. For the others as for `embedding_network`, where the last
            layer is random in any case.
        image_size: Width and height of the images in pixels; None: 224, or the network's own.

    Returns:
        Maps float32 (n, 3, height, width) to float32 (n, dimension); in training mode.

    Raises:
        InputError: For an unknown network, an input size it does not take, a library that is not
            installed, or weights that do not fit it.
        FileNotFoundError: For a file of weights that is not there.
    """
    require_unsupervised_network(name, sobel)
    require_integer("dimension", dimension, 1, MAX_DIMENSION)
    if name not in VGG_NETWORKS:
        return embedding_network(name, dimension, weights, image_size).network
    with needed_by(parameter="network", found=name):
        from lowshot_kedro.networks.vgg import IMAGE_SIZE, VGG16
        from lowshot_kedro.networks.vgg_weights import vgg_from_tensors
        from lowshot_kedro.networks.weights import find_weights, read_weights
    size = IMAGE_SIZE if image_size is None else image_size
    if weights == "none":
        n_channels = VGG_NETWORKS[name]
        return VGG16(sobel, image_size=size, dimension=dimension, n_channels=n_channels)
    path = find_weights(weights, name)
    return vgg_from_tensors(
        read_weights(path), path, name, sobel=sobel, dimension=dimension, image_size=size
    )
