"""Prototypes that are tuned to support and query images."""

from __future__ import annotations

from types import MappingProxyType

from lowshot_kedro.episodes.methods.easyfsl_method import UNIT_LENGTH, EasyFSLMethod


class TransductiveFinetuningMethod(EasyFSLMethod):
    """Prototypes after some steps of Adam on cross-entropy and entropy of the query images.

    The paper trains the whole network; easyfsl moves the prototypes alone.
    """

    name = "transductive_finetuning"
    title = "transductive fine-tuning"
    is_transductive = True
    source = (
        "G. S. Dhillon, P. Chaudhari, A. Ravichandran and S. Soatto, A Baseline for Few-Shot "
        "Image Classification, ICLR 2020; easyfsl"
    )
    notes = "Moves prototypes, not the network."
    classifier = "TransductiveFinetuning"
    settings = MappingProxyType(
        {
            **UNIT_LENGTH,
            "fine_tuning_steps": 10,
            "fine_tuning_lr": 0.0001,
            "temperature": 10.0,
        }
    )
