"""A label for every image, and how sure it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.labeling.given_labels import GivenLabels


class HeldOutLabels(NamedTuple):
    """Given labels that were predicted from the others.

    Attributes:
        nodes: int32 (H,), increasing.
        probabilities: float32 (H, C), what was predicted, calibrated as the confidence is; rows
            sum to 1, or to 0 where nothing has reached them.
    """

    nodes: NDArray[np.int32]
    probabilities: NDArray[np.float32]


@dataclass(frozen=True)
class Labeling:
    """A label for every image.

    Attributes:
        given: The labels that people gave.
        labels: int32 (N,), the class of every image, 0..C-1: the one given, or the most probable
            one; -1 where no label has reached it.
        confidence: float32 (N,), the probability of that class; 1 where it was given, 0 where there
            is none.
        second: int32 (N,), the next probable class, -1 where there is none.
        margin: float32 (N,), the probability of the class without that of the second.
        n_steps: int32 (N,), over how many links the nearest label is away, 0 for a given one, -1
            where there is none.
        nearest_labeled: int32 (N,), the labelled image, other than itself, that is most similar;
            -1 where there is none.
        is_unknown: bool (N,), whether the confidence is below the threshold, and the label is to be
            written as unknown; never where one was given.
        held_out: Given labels that were predicted from the others.
        report: What was chosen and why, and what is known of the accuracy, as JSON holds it.
    """

    given: GivenLabels
    labels: NDArray[np.int32]
    confidence: NDArray[np.float32]
    second: NDArray[np.int32]
    margin: NDArray[np.float32]
    n_steps: NDArray[np.int32]
    nearest_labeled: NDArray[np.int32]
    is_unknown: NDArray[np.bool_]
    held_out: HeldOutLabels
    report: dict[str, Any]
