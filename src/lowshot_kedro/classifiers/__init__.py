"""Classifiers of fixed embeddings: they learn from few labelled vectors and score others.

Some are inductive baselines of few-shot learning, which use the labelled images alone: logistic
regression, nearest neighbours, and the nearest class mean, whose means are called prototypes.
Label spreading is semi-supervised: it uses unlabelled images as well.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.classifiers.combination import weighted_averages
from lowshot_kedro.classifiers.label_spreading import LabelSpreading
from lowshot_kedro.classifiers.logistic_regression import (
    LogisticRegression,
    LogisticRegressions,
)
from lowshot_kedro.classifiers.nearest_class_mean import NearestClassMean
from lowshot_kedro.classifiers.nearest_neighbors import NearestNeighbors, nearest_vectors


class Classifier(Protocol):
    """Learns from labelled feature vectors and scores others.

    A classifier gets its settings, and unlabelled vectors if it uses them, when it is made.
    """

    def fit(self, features: NDArray[np.float32], classes: NDArray[np.int32]) -> None:
        """Learn from float32 (n, d) features and int32 (n,) classes 0..C-1."""
        ...

    def scores(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 (m, C) for float32 (m, d) features; larger is more likely."""
        ...


__all__ = [
    "Classifier",
    "LabelSpreading",
    "LogisticRegression",
    "LogisticRegressions",
    "NearestClassMean",
    "NearestNeighbors",
    "nearest_vectors",
    "weighted_averages",
]
