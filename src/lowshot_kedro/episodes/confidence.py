"""Mean accuracy of episodes with its confidence interval."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from lowshot_kedro.errors import InputError
from lowshot_kedro.parameters import refuse

# Standard deviations between which 95 % of a normal distribution lie, to either side of its mean.
_DEVIATIONS = 1.96
_EXPECTED = "the accuracy of every episode: one row of numbers, at least one, none of them NaN"


def confidence_interval(accuracies: ArrayLike) -> tuple[float, float]:
    """Mean and half width of the 95 % confidence interval, in the unit of the accuracies.

    The half width is 1.96 · σ / √n with the population's σ (divided by n, not n - 1), as the
    original and most papers have it. One episode alone has the half width 0.

    Args:
        accuracies: (n,), the accuracy of every episode, as fractions or in per cent.

    Raises:
        InputError: If there is no accuracy, or one that is no finite number.
    """
    try:
        values = np.asarray(accuracies, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise refuse("accuracies", accuracies, _EXPECTED) from error
    if values.ndim != 1 or not values.size:
        raise InputError(
            f"of shape {values.shape}", parameter="accuracies", found=accuracies, expected=_EXPECTED
        )
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        found = f"{values[bad[0]]} as number {bad[0]}, {len(bad)} such values"
        raise InputError(f"found {found}", parameter="accuracies", expected=_EXPECTED)
    return float(values.mean()), _half_width(float(values.std()), len(values))


class RunningConfidence:
    """Mean and interval of accuracies that arrive one after the other.

    It holds three numbers. After any number of episodes it agrees with
    :func:`confidence_interval` to rounding (Welford, Technometrics 4, 1962).

    Attributes:
        n_episodes: Accuracies so far.
        mean: Their mean; NaN before the first.
    """

    def __init__(self) -> None:
        self.n_episodes = 0
        self.mean = math.nan
        self._squares = 0.0

    def update(self, accuracy: float) -> None:
        """Take in the accuracy of one more episode.

        Raises:
            InputError: If it is no finite number.
        """
        value = float(accuracy)
        if not math.isfinite(value):
            raise refuse("accuracy", accuracy, "a finite number")
        self.n_episodes += 1
        mean = value if self.n_episodes == 1 else self.mean
        self.mean = mean + (value - mean) / self.n_episodes
        self._squares += (value - mean) * (value - self.mean)

    @property
    def half_width(self) -> float:
        """Half width of the 95 % confidence interval; NaN before the first accuracy."""
        if not self.n_episodes:
            return math.nan
        return _half_width(math.sqrt(self._squares / self.n_episodes), self.n_episodes)

    def __str__(self) -> str:
        """Mean and half width in per cent, for accuracies that are fractions: `66.50 ± 0.28 %`."""
        return f"{100 * self.mean:.2f} ± {100 * self.half_width:.2f} %"


def _half_width(deviation: float, n_episodes: int) -> float:
    return _DEVIATIONS * deviation / math.sqrt(n_episodes)
