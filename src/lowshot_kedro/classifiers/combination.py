"""Late fusion: two classifiers' opinions in one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.errors import InputError


def combine_scores(
    diffusion_scores: NDArray[np.float32],
    log_probabilities: NDArray[np.float32],
    weight: float,
) -> NDArray[np.float32]:
    """Weight · diffusion + (1 - weight) · logistic regression, as probabilities.

    Late fusion by weighted average as in Douze et al., CVPR 2018, section 4. Diffusion scores are
    made probabilities by scaling each row to sum 1; a point that no label reached keeps zeros.

    Args:
        diffusion_scores: float32 (T, C), non-negative.
        log_probabilities: float32 (T, C), natural logarithms.
        weight: 0..1.

    Returns:
        float32 (T, C).

    Raises:
        ValueError: If the shapes differ.
    """
    return next(combined_at_weights(diffusion_scores, log_probabilities, [weight]))


def combined_at_weights(
    diffusion_scores: NDArray[np.float32],
    log_probabilities: NDArray[np.float32],
    weights: Iterable[float],
) -> Iterator[NDArray[np.float32]]:
    """The :func:`combine_scores` of several weights.

    Args:
        diffusion_scores: float32 (T, C), non-negative.
        log_probabilities: float32 (T, C), natural logarithms.
        weights: 0..1 each.

    Returns:
        For each weight, in the order given, float32 (T, C), made when it is asked for. In memory:
        the scores of both as probabilities, one combination in double precision.

    Raises:
        ValueError: If the shapes differ.
    """
    if diffusion_scores.shape != log_probabilities.shape:
        raise InputError(
            f"scores to combine: diffusion has shape {diffusion_scores.shape}, logistic regression "
            f"{log_probabilities.shape}; expected the same"
        )
    sums = diffusion_scores.sum(axis=1, keepdims=True, dtype=np.float64)
    diffusion = diffusion_scores / np.where(sums == 0, 1, sums)
    probabilities = np.exp(log_probabilities)
    return (
        (weight * diffusion + (1 - weight) * probabilities).astype(np.float32) for weight in weights
    )
