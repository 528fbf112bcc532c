"""The residual networks of the published features, which load the published checkpoints.

They are the networks of K. He, X. Zhang, S. Ren and J. Sun, "Deep Residual Learning for Image
Recognition", CVPR 2016, with a bias in two convolutions of a bottleneck and none of the batch norms
on its shortcuts. B. Hariharan and R. Girshick, "Low-shot Visual Recognition by Shrinking and
Hallucinating Features", ICCV 2017, trained them.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn.functional import relu

from lowshot_kedro.networks.extractor import Extractor
from lowshot_kedro.networks.preprocessing import Preprocessing, resize_and_crop
from lowshot_kedro.networks.weights import State, load_weights, same_random_weights

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_CLASSIFIER = ("classifier.weight", "classifier.bias")


class SimpleBlock(nn.Module):
    """Two 3×3 convolutions around which the input is passed on.

    Args:
        n_in: Channels of the input.
        n_out: Channels of the output.
        stride: By how much the first convolution divides width and height.
    """

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.C1 = nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False)
        self.BN1 = nn.BatchNorm2d(n_out)
        self.C2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.BN2 = nn.BatchNorm2d(n_out)
        self.changes_width = n_in != n_out
        if self.changes_width:
            self.shortcut = nn.Conv2d(n_in, n_out, 1, stride=stride, bias=False)
            self.BNshortcut = nn.BatchNorm2d(n_out)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map float32 (n, n_in, h, w) to float32 (n, n_out, h / stride, w / stride)."""
        residual = self.BN2(self.C2(relu(self.BN1(self.C1(maps)))))
        shortcut = self.BNshortcut(self.shortcut(maps)) if self.changes_width else maps
        return relu(residual + shortcut)


class BottleneckBlock(nn.Module):
    """A 3×3 convolution on a quarter of the channels, around which the input is passed on.

    Args:
        n_in: Channels of the input.
        n_out: Channels of the output.
        stride: By how much the 3×3 convolution divides width and height.
    """

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        width = n_out // 4
        self.C1 = nn.Conv2d(n_in, width, 1, bias=False)
        self.BN1 = nn.BatchNorm2d(width)
        self.C2 = nn.Conv2d(width, width, 3, stride=stride, padding=1)
        self.BN2 = nn.BatchNorm2d(width)
        self.C3 = nn.Conv2d(width, n_out, 1)
        self.BN3 = nn.BatchNorm2d(n_out)
        self.changes_width = n_in != n_out
        if self.changes_width:
            self.shortcut = nn.Conv2d(n_in, n_out, 1, stride=stride, bias=False)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map float32 (n, n_in, h, w) to float32 (n, n_out, h / stride, w / stride)."""
        narrow = relu(self.BN1(self.C1(maps)))
        narrow = relu(self.BN2(self.C2(narrow)))
        residual = self.BN3(self.C3(narrow))
        shortcut = self.shortcut(maps) if self.changes_width else maps
        return relu(residual + shortcut)


_SIMPLE = (SimpleBlock, (64, 128, 256, 512))
_BOTTLENECK = (BottleneckBlock, (256, 512, 1024, 2048))

# Depth → kind of block, channels of the four stages, blocks in each.
_NETWORKS: dict[
    int, tuple[tuple[type[SimpleBlock | BottleneckBlock], tuple[int, ...]], tuple[int, ...]]
] = {
    10: (_SIMPLE, (1, 1, 1, 1)),
    18: (_SIMPLE, (2, 2, 2, 2)),
    34: (_SIMPLE, (3, 4, 6, 3)),
    50: (_BOTTLENECK, (3, 4, 6, 3)),
    101: (_BOTTLENECK, (3, 4, 23, 3)),
}


class ResNet(nn.Module):
    """A residual network without its classifier.

    Args:
        depth: 10, 18, 34, 50 or 101.

    Attributes:
        dimension: Length of a feature vector.
    """

    def __init__(self, depth: int) -> None:
        super().__init__()
        (block, widths), repeats = _NETWORKS[depth]
        self.dimension = widths[-1]
        blocks = []
        for stage, ((n_in, n_out), n_blocks) in enumerate(
            zip(pairwise((64, *widths)), repeats, strict=True)
        ):
            blocks.append(block(n_in, n_out, stride=1 if stage == 0 else 2))
            blocks.extend(block(n_out, n_out, stride=1) for _ in range(n_blocks - 1))
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
            *blocks,
        )

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        """Map float32 (n, 3, height, width) to float32 (n, dimension, height / 32, width / 32)."""
        maps: torch.Tensor = self.trunk(images)
        return maps

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map float32 (n, 3, height, width) to float32 (n, dimension)."""
        # The mean over all positions: at 224 pixels those are the published 7×7.
        return self.forward_features(images).mean((2, 3))


def resnet(depth: int, weights: str, image_size: int | None) -> Extractor:
    """A residual network of the published features, without its classifier.

    Images are resized until their shorter side is 256 pixels, and the central 224×224 are taken.

    Args:
        depth: 10, 18, 34, 50 or 101.
        weights: `none` (random), `package:MODULE/FILE` or a file, see
            :func:`~lowshot_kedro.networks.weights.load_weights`.
        image_size: Input size instead of 224; both sizes change in proportion.

    Raises:
        FileNotFoundError: For a file of weights that is not there.
        ValueError: For other weights, or weights that do not fit.
    """
    name = f"ResNet{depth}"
    with same_random_weights():
        network = ResNet(depth)
    load_weights(network, weights, name, classifier=_CLASSIFIER, convert=_with_zero_bias)
    crop = image_size or 224
    preprocess = Preprocessing(
        resize_and_crop(round(crop * 256 / 224), crop, "bilinear"), IMAGENET_MEAN, IMAGENET_STD
    )
    return Extractor(name, network.eval(), preprocess, network.dimension)


def _with_zero_bias(found: State) -> State:
    # Some of the published files lack this bias, because a batch norm follows that undoes it.
    absent = {
        name.replace(".C3.weight", ".C3.bias"): torch.zeros(len(tensor))
        for name, tensor in found.items()
        if name.endswith(".C3.weight") and tensor.ndim
    }
    return {**absent, **found}
