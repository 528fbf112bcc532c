"""Prototypical networks, on the features of any network."""

from __future__ import annotations

from types import MappingProxyType

from lowshot_kedro.episodes.methods.easyfsl_method import EasyFSLMethod


class PrototypicalNetworksMethod(EasyFSLMethod):
    """Minus the Euclidean distance to the mean of each class, features as they are."""

    name = "prototypical_networks"
    title = "prototypical networks"
    source = (
        "J. Snell, K. Swersky and R. S. Zemel, Prototypical Networks for Few-Shot Learning, "
        "NIPS 2017; easyfsl"
    )
    notes = "Features as they are, of a network that need not have been trained in episodes."
    classifier = "PrototypicalNetworks"
    settings = MappingProxyType({})
