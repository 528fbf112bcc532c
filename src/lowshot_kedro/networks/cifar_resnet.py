"""Residual networks for images of 32 pixels.

The first convolution keeps the size of the image, and no pooling follows it: section 4.2 of K. He,
X. Zhang, S. Ren and J. Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, with the
four stages and the widths of its ImageNet networks. Tensors have the names that they have in
checkpoints of the code of Z. Wu, A. Efros and S. Yu, "Improving Generalization via Scalable
Neighborhood Component Analysis", ECCV 2018.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import relu

from lowshot_kedro.networks.embedding_module import EmbeddingNetwork
from lowshot_kedro.networks.weights import load_all_but_head

_WIDTHS = (64, 128, 256, 512)


def _shortcut(n_in: int, n_out: int, stride: int) -> nn.Sequential:
    if stride == 1 and n_in == n_out:
        return nn.Sequential()
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, 1, stride=stride, bias=False), nn.BatchNorm2d(n_out)
    )


class SimpleBlock(nn.Module):
    """Two 3×3 convolutions around which the input is passed on.

    Args:
        n_in: Channels of the input.
        width: Channels of the output.
        stride: By how much the first convolution divides width and height.
    """

    expansion = 1

    def __init__(self, n_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = _shortcut(n_in, width, stride)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map float32 (n, n_in, h, w) to float32 (n, width, h / stride, w / stride)."""
        residual = self.bn2(self.conv2(relu(self.bn1(self.conv1(maps)))))
        return relu(residual + self.shortcut(maps))


class BottleneckBlock(nn.Module):
    """A 3×3 convolution between two of 1×1, around which the input is passed on.

    Args:
        n_in: Channels of the input.
        width: A quarter of the channels of the output.
        stride: By how much the 3×3 convolution divides width and height.
    """

    expansion = 4

    def __init__(self, n_in: int, width: int, stride: int) -> None:
        super().__init__()
        n_out = self.expansion * width
        self.conv1 = nn.Conv2d(n_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, n_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(n_out)
        self.shortcut = _shortcut(n_in, n_out, stride)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map float32 (n, n_in, h, w) to float32 (n, 4 · width, h / stride, w / stride)."""
        narrow = relu(self.bn1(self.conv1(maps)))
        narrow = relu(self.bn2(self.conv2(narrow)))
        residual = self.bn3(self.conv3(narrow))
        return relu(residual + self.shortcut(maps))


# Depth → kind of block, and how many of them are in each stage.
_NETWORKS: dict[int, tuple[type[SimpleBlock | BottleneckBlock], tuple[int, ...]]] = {
    18: (SimpleBlock, (2, 2, 2, 2)),
    34: (SimpleBlock, (3, 4, 6, 3)),
    50: (BottleneckBlock, (3, 4, 6, 3)),
    101: (BottleneckBlock, (3, 4, 23, 3)),
    152: (BottleneckBlock, (3, 8, 36, 3)),
}


class CifarResNet(nn.Module):
    """A residual network for small images, with PyTorch's default initialisation.

    Args:
        depth: 18, 34, 50, 101 or 152.
        dimension: Length of the output.
    """

    def __init__(self, depth: int, dimension: int) -> None:
        super().__init__()
        block, repeats = _NETWORKS[depth]
        n_channels = 64
        self.conv1 = nn.Conv2d(3, n_channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_channels)
        for stage, (width, n_blocks) in enumerate(zip(_WIDTHS, repeats, strict=True), start=1):
            blocks = []
            for number in range(n_blocks):
                stride = 2 if stage > 1 and number == 0 else 1
                blocks.append(block(n_channels, width, stride))
                n_channels = block.expansion * width
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        self.linear = nn.Linear(n_channels, dimension)

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        """Map float32 (n, 3, height, width) to float32 (n, channels, height / 8, width / 8)."""
        maps = relu(self.bn1(self.conv1(images)))
        for stage in range(1, len(_WIDTHS) + 1):
            maps = self.get_submodule(f"layer{stage}")(maps)
        return maps

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map float32 (n, 3, height, width) to float32 (n, dimension)."""
        # The mean over all positions: at 32 pixels those are the 4×4 of the published network.
        output: torch.Tensor = self.linear(self.forward_features(images).mean((2, 3)))
        return output


def cifar_resnet(depth: int, dimension: int, weights: str) -> EmbeddingNetwork:
    """A residual network for small images with an embedding of unit length.

    Args:
        depth: 18, 34, 50, 101 or 152.
        dimension: Length of an embedding.
        weights: `none` (random), `package:MODULE/FILE` or a file, see
            :func:`~lowshot_kedro.networks.weights.load_weights`.

    Raises:
        FileNotFoundError: For a file of weights that is not there.
        ValueError: For other weights, or weights that do not fit.
    """
    network = CifarResNet(depth, dimension)
    load_all_but_head(network, weights, f"cifar_resnet{depth}", "linear")
    return EmbeddingNetwork(network, dimension)
