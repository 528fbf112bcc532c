"""Transductive information maximization."""

from __future__ import annotations

from types import MappingProxyType

from lowshot_kedro.episodes.methods.easyfsl_method import UNIT_LENGTH, EasyFSLMethod


class TIMMethod(EasyFSLMethod):
    """Prototypes that maximise the mutual information of query images and their classes."""

    name = "tim"
    title = "TIM"
    is_transductive = True
    source = (
        "M. Boudiaf, I. M. Ziko, J. Rony, J. Dolz, P. Piantanida and I. Ben Ayed, "
        "Transductive Information Maximization for Few-Shot Learning, NeurIPS 2020; easyfsl"
    )
    notes = "Prefers classes that have as many query images as another."
    classifier = "TIM"
    settings = MappingProxyType(
        {
            **UNIT_LENGTH,
            "fine_tuning_steps": 50,
            "fine_tuning_lr": 0.001,
            "cross_entropy_weight": 1.0,
            "marginal_entropy_weight": 1.0,
            "conditional_entropy_weight": 0.5,
            "temperature": 10.0,
        }
    )
