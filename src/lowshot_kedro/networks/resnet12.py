"""The residual network of twelve layers that few-shot learning uses, without pooling at its end.

B. Oreshkin, P. Rodríguez López and A. Lacoste, "TADAM: Task dependent adaptive metric for improved
few-shot learning", NeurIPS 2018; tensors have the names that they have in the files of C. Zhang,
Y. Cai, G. Lin and C. Shen, "DeepEMD", CVPR 2020.
"""

from __future__ import annotations

import logging
from functools import partial
from itertools import pairwise

import torch
from PIL import Image
from torch import nn
from torch.nn.functional import leaky_relu, max_pool2d

from lowshot_kedro.networks.extractor import Extractor
from lowshot_kedro.networks.preprocessing import Colors, Preprocessing
from lowshot_kedro.networks.weights import State, load_weights, same_random_weights
from lowshot_kedro.parameters import require_integer

logger = logging.getLogger(__name__)

WIDTHS = (64, 160, 320, 640)
IMAGE_SIZE = 84

# Mean and standard deviation of red, green and blue. The first are those of all data sets of the
# original but CIFAR-FS.
COLORS: tuple[Colors, Colors] = (
    (125.3 / 255, 123.0 / 255, 113.9 / 255),
    (63.0 / 255, 62.1 / 255, 66.7 / 255),
)
CIFAR_FS_COLORS: tuple[Colors, Colors] = ((0.5071, 0.4866, 0.4409), (0.2009, 0.1984, 0.2023))

_SLOPE = 0.1
# Four times the sides of the map are halved.
_MIN_SIZE = 16
# Pre-training has a classifier, which is left out.
_CLASSIFIER = ("fc.weight", "fc.bias")
_PREFIXES = ("module.", "encoder.")


class _Block(nn.Module):
    """Three 3×3 convolutions with a 1×1 convolution around them; then width and height are halved.

    Args:
        n_in: Channels of the input.
        n_out: Channels of the output.
        shortcut: What leads around the three convolutions.
    """

    def __init__(self, n_in: int, n_out: int, shortcut: nn.Module) -> None:
        super().__init__()
        self.conv1 = _convolution(n_in, n_out)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = _convolution(n_out, n_out)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.conv3 = _convolution(n_out, n_out)
        self.bn3 = nn.BatchNorm2d(n_out)
        self.downsample = shortcut

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map float32 (n, n_in, h, w) to float32 (n, n_out, h // 2, w // 2)."""
        residual = leaky_relu(self.bn1(self.conv1(maps)), _SLOPE)
        residual = leaky_relu(self.bn2(self.conv2(residual)), _SLOPE)
        residual = self.bn3(self.conv3(residual))
        return max_pool2d(leaky_relu(residual + self.downsample(maps), _SLOPE), 2)


def _convolution(n_in: int, n_out: int) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, 3, padding=1, bias=False)


class ResNet12(nn.Module):
    """The network without pooling and classifier: images in, dense maps out.

    Random weights come from PyTorch's default generator, tensor by tensor as in the original, so
    that a seed gives the weights that it gives there.
    """

    def __init__(self) -> None:
        super().__init__()
        for number, (n_in, n_out) in enumerate(pairwise((3, *WIDTHS)), start=1):
            # Made before the block, as the original does: the order decides what is drawn.
            shortcut = nn.Sequential(nn.Conv2d(n_in, n_out, 1, bias=False), nn.BatchNorm2d(n_out))
            self.add_module(f"layer{number}", nn.Sequential(_Block(n_in, n_out, shortcut)))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # A slope of 0, not that of the network: the original names none.
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="leaky_relu")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map float32 (n, 3, height, width) to float32 (n, 640, height // 16, width // 16)."""
        maps = images
        for number in range(1, len(WIDTHS) + 1):
            maps = self.get_submodule(f"layer{number}")(maps)
        return maps


class _PooledResNet12(nn.Module):
    """The network with the mean over all positions at its end."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = ResNet12()

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        """Map float32 (n, 3, height, width) to float32 (n, 640, height // 16, width // 16)."""
        maps: torch.Tensor = self.encoder(images)
        return maps

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map float32 (n, 3, height, width) to float32 (n, 640)."""
        return self.forward_features(images).mean((2, 3))


def resnet12(
    name: str, colors: tuple[Colors, Colors], weights: str, image_size: int | None
) -> Extractor:
    """The residual network of twelve layers with mean-pooled features, as DeepEMD trains it.

    Images are resized to 92×92 pixels, whatever their shape, and the central 84×84 are taken.

    Args:
        name: Name of the network, for messages.
        colors: Mean and standard deviation of red, green and blue, in units of the full scale 0..1:
            `COLORS`, or `CIFAR_FS_COLORS` for networks that were trained on CIFAR-FS.
        weights: `none` (random), `package:MODULE/FILE` or a file, see
            :func:`~lowshot_kedro.networks.weights.load_weights`: one of the original's, from
            pre-training or meta-training, or the tensors under their plain names. A classifier in
            it is left out.
        image_size: Input size instead of 84; both sizes change in proportion.

    Raises:
        FileNotFoundError: For a file of weights that is not there.
        ValueError: For other weights, weights that do not fit, or an input size below 16.
    """
    require_integer("image_size", image_size, _MIN_SIZE, null=f"{IMAGE_SIZE} pixels")
    with same_random_weights():
        network = _PooledResNet12()
    load_weights(
        network.encoder, weights, name, classifier=_CLASSIFIER, convert=partial(_plain_names, name)
    )
    size = image_size or IMAGE_SIZE
    resize = partial(_squash_and_crop, round(size * 92 / 84), size)
    return Extractor(name, network.eval(), Preprocessing(resize, *colors), WIDTHS[-1])


def _squash_and_crop(side: int, crop: int, image: Image.Image) -> Image.Image:
    margin = round((side - crop) / 2)
    resized = image.resize((side, side), Image.Resampling.BILINEAR)
    return resized.crop((margin, margin, margin + crop, margin + crop))


def _plain_names(name: str, found: State) -> State:
    """Tensors without what stands in front of their names in files of the original."""
    plain: State = {}
    for key, tensor in found.items():
        short = key
        for prefix in _PREFIXES:
            short = short.removeprefix(prefix)
        # Two tensors of one name would be one too many, so that both are named as they are.
        plain[key if short in plain or (short != key and short in found) else short] = tensor
    left_out = [key for key in _CLASSIFIER if key in plain]
    if left_out:
        logger.info("%s: the classifier of the file is left out (%s)", name, ", ".join(left_out))
    return plain


def advance_generator(generator: torch.Generator) -> None:
    """Let a generator draw what building the network draws.

    The original seeds PyTorch, builds the network, and then draws episodes: what it draws after the
    seed follows only after this.

    Args:
        generator: A generator of the CPU. PyTorch's default one is left alone, unless it is this
            one.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.set_state(generator.get_state())
        ResNet12()
        after = torch.default_generator.get_state()
    generator.set_state(after)
