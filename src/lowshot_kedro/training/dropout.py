"""Dropout over the batch of all processes: Srivastava et al., JMLR 2014.

Each process has a part of the batch. What is dropped is drawn for the whole batch, of which each
process takes its rows, so that results do not depend on the number of processes.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor, nn

from lowshot_kedro.training.batches import seed_of
from lowshot_kedro.training.layers import with_layers_replaced

# Layers that keep or drop a number of each channel, or an image, as a whole.
_OF_CHANNELS = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


class RowsOfBatch:
    """Which rows of the batch a process has at the moment, and what the next draw follows from.

    Attributes:
        first: The number of this process's first row in the whole batch.
        n_rows: Rows of the whole batch; 0: nothing is trained, and layers draw as PyTorch's do.
    """

    def __init__(self) -> None:
        self.first = self.n_rows = 0
        self._position: tuple[int, ...] = ()
        self._n_draws = 0

    def move_to(self, first: int, n_rows: int, *position: int) -> None:
        """Say that the next forward pass is of another batch.

        Args:
            first: As the attribute.
            n_rows: As the attribute.
            position: Numbers that no other batch of the training has: what is drawn follows from
                these and from how often has been drawn.
        """
        self.first, self.n_rows = first, n_rows
        self._position, self._n_draws = position, 0

    def next_seed(self) -> int:
        """The seed of the next draw, the same in all processes."""
        self._n_draws += 1
        return seed_of(*self._position, self._n_draws)


def with_whole_batch_dropout(network: nn.Module, rows: RowsOfBatch) -> nn.Module:
    """Have a network drop what one process would drop, in any number of processes.

    Layers of dropout and of stochastic depth are replaced. Other layers that draw numbers, such as
    AlphaDropout, go on to draw their own.

    Args:
        network: Changed in place.
        rows: Those of this process; whoever trains keeps them up to date.

    Returns:
        The network, or the layer that takes its place if it is itself such a layer.
    """

    def replacement(layer: nn.Module) -> nn.Module | None:
        kind = _kind_of(layer)
        if kind is None:
            return None
        return WholeBatchDropout(*kind, rows).train(layer.training)

    return with_layers_replaced(network, replacement)


class WholeBatchDropout(nn.Module):
    """Dropout of which the mask is drawn for the rows of all processes.

    While a mask is drawn, a byte for each number of the whole batch is in memory. In evaluation it
    returns what it is given.

    Args:
        p: Probability that a number is dropped.
        n_axes: How many axes of the input, from the first on, have masks of their own; over those
            behind them a mask is the same. None: all have.
        is_scaled: Whether what is kept is divided by 1 - p, so that the mean stays.
        rows: Those of this process.
    """

    def __init__(self, p: float, n_axes: int | None, is_scaled: bool, rows: RowsOfBatch) -> None:
        super().__init__()
        self.p, self.n_axes, self.is_scaled = p, n_axes, is_scaled
        self._rows = rows

    def extra_repr(self) -> str:
        """What is shown of it."""
        return f"p={self.p}"

    def forward(self, input: Tensor) -> Tensor:
        """Drop numbers of this process's part of the batch, (n, …)."""
        if not self.training or self.p == 0:
            return input
        rows, generator = self._rows, None
        axes = input.shape[1 : self.n_axes]
        shape = (rows.n_rows or len(input), *axes, *(1 for _ in input.shape[1 + len(axes) :]))
        if rows.n_rows:
            generator = torch.Generator(input.device).manual_seed(rows.next_seed())
        kept = torch.empty(shape, dtype=torch.bool, device=input.device)
        kept.bernoulli_(1 - self.p, generator=generator)
        own = kept[rows.first : rows.first + len(input)].to(input.dtype)
        if self.is_scaled and self.p < 1:
            own /= 1 - self.p
        return input * own


def _kind_of(layer: nn.Module) -> tuple[float, int | None, bool] | None:
    """Probability, axes and scaling of a layer of dropout; None for any other layer."""
    found: Any = layer
    kind = type(layer)
    if kind is nn.Dropout:
        return found.p, None, True
    if kind in _OF_CHANNELS:
        return found.p, 2, True
    torchvision, timm = sys.modules.get("torchvision.ops"), sys.modules.get("timm.layers")
    # In its other mode a layer is kept or dropped for all images at once.
    if torchvision is not None and kind is torchvision.StochasticDepth and found.mode == "row":
        return found.p, 1, True
    if timm is not None and kind is timm.DropPath:
        return found.drop_prob or 0.0, 1, found.scale_by_keep
    return None
