"""Fixed filters that a network can begin with: the edges of a grey image in place of colours."""

from __future__ import annotations

import torch
from torch import nn

# Edges between left and right, and between top and bottom.
_FILTERS = (((1, 0, -1), (2, 0, -2), (1, 0, -1)), ((1, 2, 1), (0, 0, 0), (-1, -2, -1)))


def sobel_filters() -> nn.Sequential:
    """Two convolutions that do not learn: the mean of three colours, then two Sobel filters.

    No random number is drawn for them.

    Returns:
        Maps float32 (n, 3, h, w) to float32 (n, 2, h - 2, w - 2): differences from right to left
        and from bottom to top.
    """
    grey = torch.full((1, 3, 1, 1), 1 / 3)
    edges = torch.tensor(_FILTERS, dtype=torch.float32)[:, None]
    return nn.Sequential(_fixed_convolution(grey), _fixed_convolution(edges))


def _fixed_convolution(weight: torch.Tensor) -> nn.Conv2d:
    n_out, n_in, side, _ = weight.shape
    with torch.device("meta"):
        convolution = nn.Conv2d(n_in, n_out, side)
    convolution.weight = nn.Parameter(weight, requires_grad=False)
    convolution.bias = nn.Parameter(torch.zeros(n_out), requires_grad=False)
    return convolution


def composed_kernel(weight: torch.Tensor, filters: nn.Sequential) -> torch.Tensor:
    """The kernel of one convolution in place of the filters and a convolution after them.

    Args:
        weight: float32 (n_out, 2, k, k), that of the convolution after them.
        filters: What :func:`sobel_filters` returns.

    Returns:
        float32 (n_out, 3, k + 2, k + 2), rounded once.
    """
    grey, edges = (filters.get_parameter(f"{number}.weight").double() for number in (0, 1))
    kernel = nn.functional.conv_transpose2d(weight.double(), edges)
    return (kernel * grey).to(weight.dtype)
