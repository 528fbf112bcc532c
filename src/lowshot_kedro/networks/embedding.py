"""Networks that are trained to return embeddings of unit length, by name.

Names can be checked without PyTorch, which takes long to import.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from lowshot_kedro.errors import InputError, did_you_mean
from lowshot_kedro.extras import needed_by
from lowshot_kedro.parameters import require_integer

if TYPE_CHECKING:
    from lowshot_kedro.networks.embedding_module import EmbeddingNetwork

    Maker = Callable[[int, str, int | None], EmbeddingNetwork]

MAX_DIMENSION = 2**16


def _small(dimension: int, weights: str, image_size: int | None) -> EmbeddingNetwork:
    from lowshot_kedro.networks.small import small

    return small(dimension, weights)


def _cifar_resnet(
    depth: int, dimension: int, weights: str, image_size: int | None
) -> EmbeddingNetwork:
    from lowshot_kedro.networks.cifar_resnet import cifar_resnet

    return cifar_resnet(depth, dimension, weights)


def _timm(model: str, dimension: int, weights: str, image_size: int | None) -> EmbeddingNetwork:
    from lowshot_kedro.networks.timm_networks import timm_embedding

    return timm_embedding(model, dimension, weights, image_size)


def _torchvision(
    model: str, dimension: int, weights: str, image_size: int | None
) -> EmbeddingNetwork:
    from lowshot_kedro.networks.torchvision_networks import torchvision_embedding

    return torchvision_embedding(model, dimension, weights, image_size)


# Name → a function of (dimension, weights, image_size).
EMBEDDING_NETWORKS: dict[str, Maker] = {
    "small": _small,
    **{f"cifar_resnet{depth}": partial(_cifar_resnet, depth) for depth in (18, 34, 50, 101, 152)},
}

# The part of a name before the slash → a function of (model, dimension, weights, image_size).
EMBEDDING_LIBRARIES: dict[str, Callable[[str, int, str, int | None], EmbeddingNetwork]] = {
    "timm": _timm,
    "torchvision": _torchvision,
}


def require_embedding_network(name: object) -> None:
    """Check the name of a network as far as that takes no time.

    Whether a library has the model is found out when it is created.

    Args:
        name: A name in `EMBEDDING_NETWORKS`, or `library/model` with a library in
            `EMBEDDING_LIBRARIES`.

    Raises:
        InputError: If it is neither.
    """
    if name in tuple(EMBEDDING_NETWORKS):
        return
    text = name if isinstance(name, str) else ""
    library, _, model = text.partition("/")
    if library in EMBEDDING_LIBRARIES and model:
        return
    meant = {known: known for known in EMBEDDING_NETWORKS}
    if library == text and text.lower().startswith("resnet"):
        meant[text.lower()] = f"torchvision/{text.lower()}"
    hint = did_you_mean(name, meant, shown_as=meant.__getitem__)
    exact = ", ".join(EMBEDDING_NETWORKS)
    prefixed = " or ".join(f"{library}/NAME" for library in EMBEDDING_LIBRARIES)
    raise InputError(parameter="network", found=name, expected=f"one of: {exact}, {prefixed}{hint}")


def embedding_network(
    name: str, dimension: int, weights: str = "none", image_size: int | None = None
) -> EmbeddingNetwork:
    """A network whose output is an embedding of unit length.

    Its classifier is replaced by a linear layer to the embedding. Random weights, those of that
    layer among them, are drawn from PyTorch's current default generator.

    Args:
        name: A name in `EMBEDDING_NETWORKS`, or `library/model` with a library in
            `EMBEDDING_LIBRARIES`.
        dimension: Length of an embedding.
        weights: `none` (random), `download` (the library's own), `package:MODULE/FILE` or a file:
            a PyTorch checkpoint, also one of the original SNCA code, or a .safetensors, also one
            that this project has trained. The linear layer to the embedding is random in any case.
        image_size: Width and height of the images in pixels, for networks that are built for one
            size; None: the network's own.

    Returns:
        The network, in training mode.

    Raises:
        InputError: For an unknown network, an input size it does not take, a library that is not
            installed, a download that fails, or weights that do not fit it.
        FileNotFoundError: For a file of weights that is not there.
    """
    require_embedding_network(name)
    require_integer("dimension", dimension, 1, MAX_DIMENSION)
    with needed_by(parameter="network", found=name):
        if name in EMBEDDING_NETWORKS:
            return EMBEDDING_NETWORKS[name](dimension, weights, image_size)
        library, _, model = name.partition("/")
        try:
            return EMBEDDING_LIBRARIES[library](model, dimension, weights, image_size)
        except InputError as error:
            # As the libraries' extractors call it.
            raise (error.renamed("network") if error.parameter == "name" else error) from error
