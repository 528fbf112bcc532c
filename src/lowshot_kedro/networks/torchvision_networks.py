"""The classification networks of torchvision, by name."""

from __future__ import annotations

import re
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
from lowshot_kedro.networks.preprocessing import Preprocessing, resize_and_crop
from lowshot_kedro.networks.weights import (
    State,
    downloading,
    fit_weights,
    load_weights,
    same_random_weights,
)

# Classifiers inside a network that only its training uses.
_AUXILIARY = ("aux1", "aux2", "AuxLogits")


def torchvision_network(model: str, weights: str, image_size: int | None) -> Extractor:
    """A classification network of torchvision without its last layer.

    The preprocessing is that of the weights that torchvision calls DEFAULT.

    Args:
        model: Its name for torchvision.models.get_model, such as `resnet50`.
        weights: `none` (random), `download` (those called DEFAULT), `package:MODULE/FILE` or a
            file, see :func:`~lowshot_kedro.networks.weights.load_weights`.
        image_size: Input size instead of the network's own; the size to which images are resized
            before the crop changes in proportion.

    Raises:
        FileNotFoundError: For a file of weights that is not there.
        ValueError: For an unknown model or one that does not classify images, an input size it
            does not take, or weights that are not to be had or do not fit.
    """
    from torchvision import models

    _require_model(model)
    name = f"torchvision/{model}"
    default = models.get_model_weights(model).DEFAULT
    transforms = default.transforms()
    (own_crop,), (own_resize,) = transforms.crop_size, transforms.resize_size
    crop = image_size or own_crop

    with same_random_weights(), requiring_size(name, image_size):
        network = models.get_model(model, weights=None, **_arguments(model, crop))
    _load(network, weights, name, default, _cut_classifier(network))
    resize = resize_and_crop(
        round(crop * own_resize / own_crop), crop, transforms.interpolation.value
    )
    return Extractor(
        name,
        network.eval(),
        Preprocessing(resize, tuple(transforms.mean), tuple(transforms.std)),
        feature_dimension(network, name, (own_crop, own_crop), image_size),
    )


def torchvision_embedding(
    model: str, dimension: int, weights: str, image_size: int | None
) -> EmbeddingNetwork:
    """A classification network of torchvision with an embedding in place of the classes.

    Random weights come from PyTorch's current default generator, as torchvision draws them.

    Args:
        model: Its name for torchvision.models.get_model, such as `resnet50`.
        dimension: Length of an embedding.
        weights: As for :func:`torchvision_network`. The new layer is random in any case.
        image_size: Width and height of the images in pixels; None: the network's own.

    Raises:
        FileNotFoundError: For a file of weights that is not there.
        ValueError: As for :func:`torchvision_network`, and for a network whose last layer is no
            linear one.
    """
    from torchvision import models

    _require_model(model)
    name = f"torchvision/{model}"
    default = models.get_model_weights(model).DEFAULT
    (own_size,) = default.transforms().crop_size
    size = image_size or own_size
    with requiring_size(name, image_size):
        network = models.get_model(model, weights=None, **_arguments(model, size, is_trained=True))
    layer = _classifier_layer(network)
    classifier = network.get_submodule(layer)
    if not isinstance(classifier, nn.Linear):
        raise InputError(
            f"{name} has no linear classifier that an embedding could replace",
            parameter="network",
            expected="another network, such as torchvision/resnet18",
        )
    _load(network, weights, name, default, _cut_classifier(network))
    network.set_submodule(layer, nn.Linear(classifier.in_features, dimension))
    require_dimension(network, name, dimension, (size, size), image_size)
    return EmbeddingNetwork(network, dimension)


def _load(network: nn.Module, weights: str, name: str, default: Any, classifier: set[str]) -> None:
    """Load weights into a network without its classifier.

    Args:
        network: The network. Changed in place.
        weights: As for :func:`torchvision_network`.
        name: Name of the network, for messages.
        default: The weights that torchvision calls DEFAULT.
        classifier: Names of the tensors that have been cut off.
    """
    if weights == "download":
        # A checksum that is another one is a RuntimeError.
        with downloading(name, RuntimeError):
            found = default.get_state_dict(progress=True, check_hash=True, weights_only=True)
        fit_weights(network, _current_names(found), default.url, name, classifier)
    else:
        load_weights(network, weights, name, classifier=classifier, convert=_current_names)


def _require_model(model: str) -> None:
    from torchvision import models

    # The other ones live in packages below this one.
    classification = models.list_models(module=models)
    if model in classification:
        return
    if model in models.list_models():
        raise InputError(
            f"torchvision/{model} is quantized or made for something else than classifying images",
            parameter="name",
            expected="a classification model, such as torchvision/resnet50",
        )
    raise unknown_model("torchvision", model, classification)


def _arguments(model: str, image_size: int, is_trained: bool = False) -> dict[str, Any]:
    from torchvision import models

    family = models.get_model_builder(model).__module__.rpartition(".")[2]
    if family == "vision_transformer":
        return {"image_size": image_size}
    if family == "maxvit":
        return {"input_size": (image_size, image_size)}
    if family in ("googlenet", "inception"):
        # As torchvision builds them around weights: these expect another scale of colours than the
        # preprocessing returns. The slow initialisation is only for training.
        return {"transform_input": True, "init_weights": is_trained}
    return {}


def _classifier_layer(network: nn.Module) -> str:
    """Name of the layer that returns classes.

    It is the last linear layer, or the last convolution of a network without any (SqueezeNet).
    """
    layers: dict[type, list[str]] = {
        kind: [layer for layer, module in network.named_modules() if isinstance(module, kind)]
        for kind in (nn.Linear, nn.Conv2d)
    }
    return (layers[nn.Linear] or layers[nn.Conv2d])[-1]


def _cut_classifier(network: nn.Module) -> set[str]:
    """Remove the layer that returns classes, and return the names of its tensors."""
    names = set(network.state_dict())
    network.set_submodule(_classifier_layer(network), nn.Identity())
    for auxiliary in _AUXILIARY:
        if hasattr(network, auxiliary):
            setattr(network, auxiliary, None)
            vars(network)["aux_logits"] = False
    return names - set(network.state_dict())


def _current_names(found: State) -> State:
    # Changed in place, because the version of the file is an attribute of the dictionary.
    for name in list(found):
        # The weights published for DenseNet have names from before points were forbidden in them.
        current = re.sub(r"(\.denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", name)
        found[current] = found.pop(name)
    return found
