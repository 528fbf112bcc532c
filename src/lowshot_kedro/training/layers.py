"""Layers of a network that others take the place of."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn


def with_layers_replaced(
    network: nn.Module, replacement: Callable[[nn.Module], nn.Module | None]
) -> nn.Module:
    """Put other layers in the place of some of a network's.

    Args:
        network: Changed in place.
        replacement: For a layer the one that takes its place, which is left as it is then; None:
            it stays, and what is in it is looked at.

    Returns:
        The network, or what takes its place if it is itself such a layer.
    """
    other = replacement(network)
    if other is not None:
        return other
    for name, child in network.named_children():
        network.add_module(name, with_layers_replaced(child, replacement))
    return network
