"""Matching networks without the encoders that would have to be trained."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from lowshot_kedro.episodes.methods.easyfsl_method import UNIT_LENGTH, EasyFSLMethod


class MatchingNetworksMethod(EasyFSLMethod):
    """Every support image votes by the softmax of cosines: the paper's equation 1.

    easyfsl refines features by two LSTM networks, full context embeddings, with random weights
    unless somebody has trained them. Here they add nothing, as in the paper's basic form.
    """

    name = "matching_networks"
    title = "matching networks"
    source = (
        "O. Vinyals, C. Blundell, T. Lillicrap, K. Kavukcuoglu and D. Wierstra, Matching Networks "
        "for One Shot Learning, NIPS 2016; easyfsl"
    )
    notes = "Without full context embeddings, which would have to be trained."
    classifier = "MatchingNetworks"
    settings = MappingProxyType(UNIT_LENGTH)

    def make(self, n_columns: int) -> Any:
        """The classifier with encoders that add zeros."""
        import torch

        class NoContext(torch.nn.Module):
            def forward(self, features: torch.Tensor) -> tuple[torch.Tensor]:
                return (features.new_zeros(*features.shape[:-1], 2 * n_columns),)

        class NoReading(torch.nn.Module):
            def forward(
                self, features: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor]
            ) -> tuple[torch.Tensor, torch.Tensor]:
                return torch.zeros_like(state[0]), state[1]

        return self._class(
            feature_dimension=n_columns,
            support_encoder=NoContext(),
            query_encoder=NoReading(),
            **self.settings,
        )

    def parameters(self) -> Mapping[str, Any]:
        """The keyword arguments, and what stands in the place of the encoders."""
        return {**self.settings, "full_context_embeddings": False}
