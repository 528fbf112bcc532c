"""Images that a person should look at: what the functions that find them return."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class NextImages(NamedTuple):
    """Unlabelled images whose labels would help most, the best first.

    Attributes:
        nodes: int32 (m,).
        rule: What chose them, with its source, in one sentence.
    """

    nodes: NDArray[np.int32]
    rule: str


class SuspiciousLabels(NamedTuple):
    """Given labels that their neighbours contradict, most suspicious first.

    Attributes:
        nodes: int32 (S,), labelled images whose label is probably wrong.
        suspicion: float32 (S,), 0..1, decreasing.
        suggested: int32 (S,), the class that the neighbours speak for.
        rule: How they were found, in one sentence.
    """

    nodes: NDArray[np.int32]
    suspicion: NDArray[np.float32]
    suggested: NDArray[np.int32]
    rule: str


class Duplicates(NamedTuple):
    """Images that look the same, in groups, the group with the most similar images first.

    Attributes:
        nodes: int32 (m,), group after group, each by node number.
        groups: int32 (m,), the number of the group, from 0.
        similarity: float32 (m,), the cosine with the most similar other image of the group.
    """

    nodes: NDArray[np.int32]
    groups: NDArray[np.int32]
    similarity: NDArray[np.float32]
