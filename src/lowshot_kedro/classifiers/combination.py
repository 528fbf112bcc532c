"""Late fusion: two classifiers' opinions in one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.errors import InputError


def weighted_averages(
    first: NDArray[np.floating[Any]],
    second: NDArray[np.floating[Any]],
    weights: Iterable[float],
) -> Iterator[NDArray[np.float32]]:
    """Weight · first + (1 - weight) · second, for several weights.

    Late fusion by weighted average as in Douze et al., CVPR 2018, section 4.

    Args:
        first: float (T, C), probabilities; a row of zeros says nothing.
        second: float (T, C), probabilities.
        weights: 0..1 each.

    Returns:
        For each weight, in the order given, float32 (T, C), made when it is asked for. In memory
        besides: one combination in double precision.

    Raises:
        ValueError: If the shapes differ.
    """
    if first.shape != second.shape:
        raise InputError(
            f"scores to combine: found shapes {first.shape} and {second.shape}, expected the same"
        )
    return ((weight * first + (1 - weight) * second).astype(np.float32) for weight in weights)
