"""The module around a network that gives its output unit length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.functional import normalize


class EmbeddingNetwork(nn.Module):
    """A network with its output brought to unit length.

    Tensors have the names that they have in the network itself, such as `fc.weight`, when they are
    saved and loaded, so that files go to and from other programs as they are.

    Args:
        network: Maps float32 (n, 3, height, width) to (n, dimension).
        dimension: Length of an embedding.

    Attributes:
        network: The network as given.
        dimension: As given.
    """

    def __init__(self, network: nn.Module, dimension: int) -> None:
        super().__init__()
        self.network = network
        self.dimension = dimension

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map float32 (n, 3, height, width) to unit rows, float32 (n, dimension)."""
        output = self.network(images)
        # Under autocast too: the bank that rows are compared with has single precision.
        return normalize(output.to(torch.promote_types(output.dtype, torch.float32)))

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The tensors of the network, under its own names."""
        return self.network.state_dict(*args, **kwargs)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load tensors under the network's own names."""
        return self.network.load_state_dict(state_dict, strict, assign)
