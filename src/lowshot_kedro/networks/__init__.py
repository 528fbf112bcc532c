"""Networks that turn images into features: fixed embeddings of a network trained before.

A new network enters through `EXTRACTORS`: a function of (weights, image_size) that returns an
:class:`~lowshot_kedro.networks.extractor.Extractor`. A library of networks enters through
`LIBRARIES`: a function of (model, weights, image_size) for all names `library/model`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from lowshot_kedro.errors import InputError, did_you_mean
from lowshot_kedro.extras import lazy_names, needed_by

if TYPE_CHECKING:
    from lowshot_kedro.networks.dense import DenseExtractor
    from lowshot_kedro.networks.extractor import Extractor, extract_features
    from lowshot_kedro.networks.preprocessing import Preprocessing
    from lowshot_kedro.networks.resnet12 import ResNet12
    from lowshot_kedro.networks.vgg import VGG16, fold_sobel

PRECISIONS = ("auto", "float32", "bfloat16")


# PyTorch takes long to import, and not everyone has it: names can be checked without it.
def _efficientnet_lite0(weights: str, image_size: int | None) -> Extractor:
    from lowshot_kedro.networks.efficientnet_lite0 import efficientnet_lite0

    return efficientnet_lite0(weights, image_size)


def _resnet(depth: int, weights: str, image_size: int | None) -> Extractor:
    from lowshot_kedro.networks.resnet import resnet

    return resnet(depth, weights, image_size)


def _resnet12(weights: str, image_size: int | None) -> Extractor:
    from lowshot_kedro.networks.resnet12 import COLORS, resnet12

    return resnet12("ResNet12", COLORS, weights, image_size)


def _resnet12_cifar_fs(weights: str, image_size: int | None) -> Extractor:
    from lowshot_kedro.networks.resnet12 import CIFAR_FS_COLORS, resnet12

    return resnet12("ResNet12_cifar_fs", CIFAR_FS_COLORS, weights, image_size)


def _deepercluster(weights: str, image_size: int | None) -> Extractor:
    from lowshot_kedro.deepercluster.extractor import deepercluster_extractor

    return deepercluster_extractor(weights, image_size)


def _snca(weights: str, image_size: int | None) -> Extractor:
    from lowshot_kedro.snca.extractor import snca_extractor

    return snca_extractor(weights, image_size)


def _timm_network(model: str, weights: str, image_size: int | None) -> Extractor:
    from lowshot_kedro.networks.timm_networks import timm_network

    return timm_network(model, weights, image_size)


def _torchvision_network(model: str, weights: str, image_size: int | None) -> Extractor:
    from lowshot_kedro.networks.torchvision_networks import torchvision_network

    return torchvision_network(model, weights, image_size)


EXTRACTORS: dict[str, Callable[[str, int | None], Extractor]] = {
    "efficientnet_lite0": _efficientnet_lite0,
    **{f"ResNet{depth}": partial(_resnet, depth) for depth in (10, 18, 34, 50, 101)},
    # One network; CIFAR-FS has other means and standard deviations of colours.
    "ResNet12": _resnet12,
    "ResNet12_cifar_fs": _resnet12_cifar_fs,
    "snca": _snca,
    "deepercluster": _deepercluster,
}

LIBRARIES: dict[str, Callable[[str, str, int | None], Extractor]] = {
    "timm": _timm_network,
    "torchvision": _torchvision_network,
}


__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "DenseExtractor": "dense",
        "Extractor": "extractor",
        "Preprocessing": "preprocessing",
        "ResNet12": "resnet12",
        "VGG16": "vgg",
        "extract_features": "extractor",
        "fold_sobel": "vgg",
    },
)


def require_extractor(name: object) -> None:
    """Check the name of a network as far as that takes no time.

    Whether a library has the model is found out when it is created.

    Args:
        name: A name in `EXTRACTORS`, or `library/model` with a library in `LIBRARIES`.

    Raises:
        ValueError: If it is neither.
    """
    if name in tuple(EXTRACTORS):
        return
    text = name if isinstance(name, str) else ""
    library, _, model = text.partition("/")
    if library in LIBRARIES and model:
        return
    hint = did_you_mean(name, EXTRACTORS)
    exact = ", ".join(EXTRACTORS)
    prefixed = " or ".join(f"{library}/NAME" for library in LIBRARIES)
    raise InputError(parameter="name", found=name, expected=f"one of: {exact}, {prefixed}{hint}")


def create_extractor(name: str, weights: str, image_size: int | None) -> Extractor:
    """A network by its name, in evaluation mode, with the preprocessing that belongs to it.

    Args:
        name: A name in `EXTRACTORS`, or `library/model` with a library in `LIBRARIES`.
        weights: `none` (random, always the same), `download` (the library's own), `package` (a
            Python package made for this network), `package:MODULE/FILE` (a file that any installed
            package carries), or a file: a PyTorch checkpoint or .safetensors. `snca` and
            `deepercluster` need a file.
        image_size: Width and height of the network's input in pixels; None: the network's own.

    Raises:
        ValueError: For an unknown network, an input size it does not take, a library that is not
            installed, a download that fails, or weights that do not fit it.
        FileNotFoundError: For a file of weights that is not there.
    """
    require_extractor(name)
    with needed_by(parameter="name", found=name):
        if name in EXTRACTORS:
            return EXTRACTORS[name](weights, image_size)
        library, _, model = name.partition("/")
        return LIBRARIES[library](model, weights, image_size)


def create_dense_network(name: str, weights: str, image_size: int | None) -> DenseExtractor:
    """A network by its name, without the pooling that turns its maps into one vector.

    Where a network ends in the mean over all positions, the mean of its map is the feature of
    :func:`create_extractor`. Class and register tokens of transformers are left out. The network of
    an `snca` file gives the map that its embedding is made of; a VGG16 of a `deepercluster` file
    that after its last convolution, before the last pooling.

    Args:
        name: As for :func:`create_extractor`. `ResNet12` is that of DeepEMD, `ResNet12_cifar_fs`
            the same for colours as CIFAR-FS has them.
        weights: As for :func:`create_extractor`.
        image_size: Width and height of the network's input in pixels; None: the network's own.

    Returns:
        The network, whose rows are flattened maps.

    Raises:
        ValueError: As :func:`create_extractor`, and for a network that has no such map.
        FileNotFoundError: For a file of weights that is not there.
    """
    require_extractor(name)
    with needed_by(parameter="name", found=name):
        from lowshot_kedro.networks.dense import dense_extractor

    return dense_extractor(create_extractor(name, weights, image_size))


__all__ = [
    "EXTRACTORS",
    "PRECISIONS",
    "VGG16",
    "DenseExtractor",
    "Extractor",
    "Preprocessing",
    "ResNet12",
    "create_dense_network",
    "create_extractor",
    "extract_features",
    "fold_sobel",
    "require_extractor",
]
