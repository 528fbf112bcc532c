"""A small convolutional network, for small images and machines without a GPU."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from lowshot_kedro.networks.embedding_module import EmbeddingNetwork
from lowshot_kedro.networks.weights import load_all_but_head

_CHANNELS = (3, 16, 32, 64, 128)


class SmallNetwork(nn.Module):
    """Four convolutions that halve the sides of the image, then the mean over all positions.

    Args:
        dimension: Length of the output.
    """

    def __init__(self, dimension: int) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        for n_in, n_out in pairwise(_CHANNELS):
            stages += [
                nn.Conv2d(n_in, n_out, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(n_out),
                nn.ReLU(),
            ]
        self.stages = nn.Sequential(*stages)
        self.linear = nn.Linear(_CHANNELS[-1], dimension)

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        """Map float32 (n, 3, height, width) to float32 (n, 128, height / 16, width / 16)."""
        maps: torch.Tensor = self.stages(images)
        return maps

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map float32 (n, 3, height, width) to float32 (n, dimension)."""
        output: torch.Tensor = self.linear(self.forward_features(images).mean((2, 3)))
        return output


def small(dimension: int, weights: str) -> EmbeddingNetwork:
    """The small network with an embedding of unit length; for images of 32 pixels.

    Args:
        dimension: Length of an embedding.
        weights: `none` (random), `package:MODULE/FILE` or a file, see
            :func:`~lowshot_kedro.networks.weights.load_weights`.

    Raises:
        FileNotFoundError: For a file of weights that is not there.
        ValueError: For other weights, or weights that do not fit.
    """
    network = SmallNetwork(dimension)
    load_all_but_head(network, weights, "small", "linear")
    return EmbeddingNetwork(network, dimension)
