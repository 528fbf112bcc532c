"""The networks of timm, by name."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from torch import nn

from lowshot_kedro.errors import InputError
from lowshot_kedro.networks.embedding_module import EmbeddingNetwork
from lowshot_kedro.networks.extractor import Extractor
from lowshot_kedro.networks.library_networks import (
    feature_dimension,
    require_dimension,
    requiring_size,
    unknown_model,
)
from lowshot_kedro.networks.preprocessing import Preprocessing
from lowshot_kedro.networks.weights import (
    State,
    downloading,
    load_weights,
    no_download,
    same_random_weights,
)


def timm_network(model: str, weights: str, image_size: int | None) -> Extractor:
    """A network of timm without its classifier, with the preprocessing that timm states for it.

    Args:
        model: Its name for timm.create_model, such as `resnet50` or `resnet50.a1_in1k`. What
            follows the dot chooses among several weights, and among their preprocessing.
        weights: `none` (random), `download`, `package:MODULE/FILE` or a file, see
            :func:`~lowshot_kedro.networks.weights.load_weights`. A file is converted as timm
            converts what it downloads for this network.
        image_size: Input size instead of the network's own. Networks that know their size are
            changed to it after the weights are loaded, where timm can do that.

    Raises:
        FileNotFoundError: For a file of weights that is not there.
        ValueError: For an unknown model, one that does not turn images into vectors, an input
            size it does not take, or weights that are not to be had or do not fit.
    """
    from timm.data.config import resolve_model_data_config
    from timm.data.transforms import MaybePILToTensor
    from timm.data.transforms_factory import create_transform

    name = f"timm/{model}"
    with same_random_weights():
        network = _without_classifier(model, weights)
    config = resolve_model_data_config(network)  # type: ignore[no-untyped-call]
    own_size = config["input_size"][1:]
    if image_size is not None and own_size != (image_size, image_size):
        config["input_size"] = (3, image_size, image_size)
        _set_input_size(network, name, image_size)
    transform = create_transform(**config, is_training=False, normalize=False)
    transform.transforms = [
        step for step in transform.transforms if not isinstance(step, MaybePILToTensor)
    ]
    return Extractor(
        name,
        network.eval(),
        Preprocessing(transform, tuple(config["mean"]), tuple(config["std"])),
        feature_dimension(network, name, own_size, image_size),
    )


def timm_embedding(
    model: str, dimension: int, weights: str, image_size: int | None
) -> EmbeddingNetwork:
    """A network of timm with an embedding in place of the classes.

    Random weights come from PyTorch's current default generator, as timm draws them.

    Args:
        model: As for :func:`timm_network`.
        dimension: Length of an embedding.
        weights: As for :func:`timm_network`. The new layer is random in any case.
        image_size: Width and height of the images in pixels; None: the network's own.

    Raises:
        FileNotFoundError: For a file of weights that is not there.
        ValueError: As for :func:`timm_network`.
    """
    name = f"timm/{model}"
    network = _without_classifier(model, weights)
    network.reset_classifier(dimension)
    own_size = network.pretrained_cfg["input_size"][1:]
    if image_size is not None and own_size != (image_size, image_size):
        _set_input_size(network, name, image_size)
    require_dimension(network, name, dimension, own_size, image_size)
    return EmbeddingNetwork(network, dimension)


def _without_classifier(model: str, weights: str) -> Any:
    """A network without its classifier, with its weights."""
    import timm

    _require_model(model)
    name = f"timm/{model}"
    if weights == "download":
        published = timm.get_pretrained_cfg(model)
        if published is None or not published.has_weights:
            raise no_download(name)
        with downloading(name):
            network: Any = timm.create_model(model, pretrained=True)
    else:
        network = timm.create_model(model, pretrained=False)
    classifier = _cut_classifier(network, name)
    if weights != "download":
        load_weights(
            network, weights, name, classifier=classifier, convert=partial(_converted, network)
        )
    return network


def _set_input_size(network: Any, name: str, image_size: int) -> None:
    # Networks with an embedding or a table of positions; others take any size, or say so.
    if hasattr(network, "set_input_size"):
        with requiring_size(name, image_size):
            network.set_input_size(img_size=(image_size, image_size))


def _require_model(model: str) -> None:
    import timm

    architecture, dot, _ = model.partition(".")
    # Without weights to choose among, the choice of one is left to timm, which has a default.
    known = timm.list_pretrained(f"{architecture}.*") if dot else timm.list_models(architecture)
    if model not in known:
        raise unknown_model("timm", model, [*timm.list_models(), *timm.list_pretrained()])


def _cut_classifier(network: Any, name: str) -> set[str]:
    """Remove the classifier and return the names of its tensors, also those of a larger one."""
    if not hasattr(network, "reset_classifier"):
        raise InputError(
            f"{name} has no classifier to cut off",
            parameter="name",
            expected="a network that classifies images",
        )
    names = set(network.state_dict())
    network.reset_classifier(0)
    layers = network.pretrained_cfg.get("classifier") or ()
    layers = (layers,) if isinstance(layers, str) else layers
    stated = {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    return (names | stated) - set(network.state_dict())


def _converted(network: nn.Module, found: State) -> State:
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return found
    try:
        converted: State = convert(dict(found), network)
    # Made for the checkpoints its author knew. What does not fit is said by the comparison of names
    # that follows.
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
    ):
        return found
    return converted
