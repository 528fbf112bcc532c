"""Classifiers that are compared with the diffusion.

A new one is a file here with a class that follows :class:`Classifier`.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.classifiers.combination import combine_scores
from lowshot_kedro.classifiers.logistic_regression import LogisticRegression


class Classifier(Protocol):
    """Learns from labelled feature vectors and scores others."""

    def fit(self, features: NDArray[np.float32], classes: NDArray[np.int32]) -> None:
        """Learn from float32 (n, d) features and int32 (n,) classes 0..C-1."""
        ...

    def scores(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 (m, C) for float32 (m, d) features; larger is more likely."""
        ...


__all__ = ["Classifier", "LogisticRegression", "combine_scores"]
