"""Prototypes that are tuned to the support images."""

from __future__ import annotations

from types import MappingProxyType

from lowshot_kedro.episodes.methods.easyfsl_method import UNIT_LENGTH, EasyFSLMethod


class FinetuneMethod(EasyFSLMethod):
    """Prototypes after some steps of Adam on the cross-entropy of the support images.

    The paper trains a linear layer; easyfsl begins with the means of the classes.
    """

    name = "finetune"
    title = "fine-tuning of prototypes"
    source = (
        "W.-Y. Chen, Y.-C. Liu, Z. Kira, Y.-C. F. Wang and J.-B. Huang, A Closer Look at "
        "Few-Shot Classification, ICLR 2019; easyfsl"
    )
    classifier = "Finetune"
    settings = MappingProxyType(
        {
            **UNIT_LENGTH,
            "fine_tuning_steps": 50,
            "fine_tuning_lr": 0.0001,
            "temperature": 10.0,
        }
    )
