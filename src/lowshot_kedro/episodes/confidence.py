"""Mean accuracy of episodes with its confidence interval."""

from __future__ import annotations

from numpy.typing import ArrayLike


def confidence_interval(accuracies: ArrayLike) -> tuple[float, float]:
    """Mean and half width of the 95 % confidence interval, in the unit of the accuracies."""
    raise NotImplementedError
