"""The network with sixteen layers of weights that DeeperCluster, DeepCluster and RotNet train.

K. Simonyan and A. Zisserman, "Very deep convolutional networks for large-scale image recognition",
ICLR 2015, with batch normalisation, and with Sobel filters before it as in M. Caron, P. Bojanowski,
J. Mairal and A. Joulin, "Unsupervised Pre-Training of Image Features on Non-Curated Data", ICCV
2019. Tensors have the names that they have in the files of the latter.
"""

from __future__ import annotations

import math
from itertools import islice
from typing import Any

import torch
from torch import nn
from torch.nn.functional import pad

from lowshot_kedro.errors import InputError
from lowshot_kedro.networks.sobel import composed_kernel, sobel_filters
from lowshot_kedro.parameters import require_integer, truth_of

IMAGE_SIZE = 224
DIMENSION = 4096
N_CHANNELS = 64
DEPTH = 13

# Channels of each convolution, in units of those of the first; 0: width and height are halved.
_WIDTHS = (1, 1, 0, 2, 2, 0, 4, 4, 4, 0, 8, 8, 8, 0, 8, 8, 8, 0)
LAST_WIDTH = 8
# What five halvings make of a side.
_HALVED = 2**5
# Two pixels are put around an image; filters without a margin of their own take away as many.
_MARGIN = 2
MIN_IMAGE_SIZE = _HALVED - _MARGIN
_MAX_IMAGE_SIZE = 4096


class VGG16(nn.Module):
    """Thirteen convolutions and two linear layers: images in, features out.

    Random weights come from PyTorch's default generator.

    Args:
        sobel: Whether it begins with fixed Sobel filters of a grey image; otherwise it sees
            colours.
        image_size: Width and height of the images in pixels, 30 at least.
        dimension: Numbers of both linear layers, thus length of a feature.
        n_channels: Channels of the first convolution; the others have up to eight times as many.
        folded: Whether the first convolution takes the place of Sobel filters and a convolution:
            see :func:`fold_sobel`.

    Attributes:
        sobel: The filters, which do not learn; None: there are none.
        features: The convolutions, each with normalisation and ReLU, and the poolings.
        classifier: The linear layers.
        image_size: As given.
        dimension: As given.
        n_channels: As given.
        folded: As given.

    Raises:
        InputError: If an argument is of no use.
    """

    def __init__(
        self,
        sobel: bool,
        *,
        image_size: int = IMAGE_SIZE,
        dimension: int = DIMENSION,
        n_channels: int = N_CHANNELS,
        folded: bool = False,
    ) -> None:
        super().__init__()
        sobel, folded = truth_of("sobel", sobel), truth_of("folded", folded)
        require_integer("image_size", image_size, MIN_IMAGE_SIZE, _MAX_IMAGE_SIZE)
        require_integer("dimension", dimension, 1)
        require_integer("n_channels", n_channels, 1)
        if sobel and folded:
            raise InputError(parameter="folded", found=True, expected="false with sobel = true")
        self.image_size, self.dimension, self.n_channels = image_size, dimension, n_channels
        self.folded = folded
        self.sobel = sobel_filters() if sobel else None
        self.features = nn.Sequential(*_layers(2 if sobel else 3, n_channels, folded))
        n_values = LAST_WIDTH * n_channels * cells_of_side(image_size) ** 2
        self.classifier = nn.Sequential(
            nn.Linear(n_values, dimension),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Linear(dimension, dimension),
        )
        for layer in self.features:
            if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                n_taps = math.prod(layer.kernel_size)
                nn.init.normal_(layer.weight, 0, math.sqrt(2 / (n_taps * layer.out_channels)))
                nn.init.zeros_(layer.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The features of images: :meth:`embed`."""
        return self.embed(images)

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """The outputs of the last linear layer, which no ReLU follows.

        Args:
            images: float32 (n, 3, height, width), normalised.

        Returns:
            float32 (n, dimension).

        Raises:
            InputError: For images of a size that the linear layers do not fit.
        """
        height, width = images.shape[-2:]
        cells = cells_of_side(self.image_size)
        if (cells_of_side(height), cells_of_side(width)) != (cells, cells):
            raise InputError(
                parameter="images",
                found=f"{height} × {width} pixels",
                expected=f"{self.image_size} × {self.image_size}",
            )
        maps = self.features(self._front(images))
        features: torch.Tensor = self.classifier(torch.flatten(maps, 1))
        return features

    def forward_features(self, images: torch.Tensor, depth: int = DEPTH) -> torch.Tensor:
        """The maps after a convolution, its normalisation and its ReLU.

        Args:
            images: float32 (n, 3, height, width), of any size from 30 pixels.
            depth: The number of the convolution, from 1 to 13.

        Returns:
            float32 (n, channels, h, w). h is height + 2 up to depth 2, and is halved, rounded down,
            after depths 2, 4, 7 and 10.

        Raises:
            InputError: For another depth.
        """
        require_integer("depth", depth, 1, DEPTH)
        maps = self._front(images)
        for layer in islice(self.features, position_of(depth) + 3):
            maps = layer(maps)
        return maps

    def _front(self, images: torch.Tensor) -> torch.Tensor:
        margin = 2 if self.sobel is not None or self.folded else 1
        padded = pad(images, [margin] * 4)
        return padded if self.sobel is None else self.sobel(padded)


def _layers(n_in: int, n_channels: int, folded: bool) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for width in _WIDTHS:
        if not width:
            layers.append(nn.MaxPool2d(2))
            continue
        n_out = width * n_channels
        # The larger kernel keeps the margin of 1, so that maps have the size that filters and
        # convolution give.
        side = 5 if folded and not layers else 3
        layers += [
            nn.Conv2d(n_in, n_out, side, padding=1),
            nn.BatchNorm2d(n_out),
            nn.ReLU(inplace=True),
        ]
        n_in = n_out
    return layers


def position_of(depth: int) -> int:
    """The place of a convolution in `features`.

    Args:
        depth: Its number, from 1.
    """
    positions, position = [], 0
    for width in _WIDTHS:
        if width:
            positions.append(position)
        position += 3 if width else 1
    return positions[depth - 1]


def cells_of_side(image_size: int) -> int:
    """Width and height of the last map, after all poolings, for images of that many pixels."""
    return (image_size + _MARGIN) // _HALVED


def sizes_of_cells(n_cells: int) -> tuple[int, int]:
    """The smallest and the largest image size with that width of the last map."""
    smallest = n_cells * _HALVED - _MARGIN
    return smallest, smallest + _HALVED - 1


def fold_sobel(vgg: VGG16) -> VGG16:
    """The same network without Sobel filters: its first convolution does their work too.

    That convolution has 5×5 taps for each of the three colours and learns like the others. The
    zeros that two pixels of margin give are what makes it exact at the border too.

    Args:
        vgg: A network with Sobel filters. It is left as it is.

    Returns:
        A network of its own with the same outputs, to rounding, in the same mode and on the same
        device.

    Raises:
        InputError: If there are no Sobel filters.
    """
    if vgg.sobel is None:
        raise InputError(
            parameter="vgg", found="a network without Sobel filters", expected="VGG16(sobel=True)"
        )
    # Without memory, since all of it is replaced.
    with torch.device("meta"):
        folded = VGG16(
            False,
            image_size=vgg.image_size,
            dimension=vgg.dimension,
            n_channels=vgg.n_channels,
            folded=True,
        )
    tensors: dict[str, Any] = {
        name: tensor.detach().clone()
        for name, tensor in vgg.state_dict().items()
        if not name.startswith("sobel.")
    }
    first = "features.0.weight"
    tensors[first] = composed_kernel(tensors[first], vgg.sobel)
    folded.load_state_dict(tensors, assign=True)
    return folded.train(vgg.training)
