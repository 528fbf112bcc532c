"""Classifiers that are compared with the diffusion.

A new one enters through `CLASSIFIERS`: a class that follows :class:`Classifier`.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.classifiers.combination import combine_scores, combined_at_weights
from lowshot_kedro.classifiers.label_spreading import LabelSpreading
from lowshot_kedro.classifiers.logistic_regression import (
    LogisticRegression,
    LogisticRegressions,
)
from lowshot_kedro.classifiers.nearest_class_mean import NearestClassMean
from lowshot_kedro.classifiers.nearest_neighbors import NearestNeighbors
from lowshot_kedro.errors import InputError


class Classifier(Protocol):
    """Learns from labelled feature vectors and scores others.

    What a method needs besides, its settings or unlabelled vectors, it gets when it is made.
    """

    def fit(self, features: NDArray[np.float32], classes: NDArray[np.int32]) -> None:
        """Learn from float32 (n, d) features and int32 (n,) classes 0..C-1."""
        ...

    def scores(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 (m, C) for float32 (m, d) features; larger is more likely."""
        ...


CLASSIFIERS: dict[str, Callable[..., Classifier]] = {
    "nearest_class_mean": NearestClassMean,
    "nearest_neighbors": NearestNeighbors,
    "label_spreading": LabelSpreading,
    "logistic_regression": LogisticRegression,
}


def create_classifier(name: str, n_classes: int, **settings: Any) -> Classifier:
    """A classifier by its name.

    Args:
        name: A name in `CLASSIFIERS`.
        n_classes: Number of classes C.
        settings: The other arguments of that classifier, by name.

    Raises:
        ValueError: For an unknown name.
    """
    if name not in CLASSIFIERS:
        near = get_close_matches(str(name).lower(), CLASSIFIERS, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise InputError(
            f"classifier: got {name!r}, expected one of: {', '.join(CLASSIFIERS)}{hint}"
        )
    return CLASSIFIERS[name](n_classes, **settings)


__all__ = [
    "CLASSIFIERS",
    "Classifier",
    "LabelSpreading",
    "LogisticRegression",
    "LogisticRegressions",
    "NearestClassMean",
    "NearestNeighbors",
    "combine_scores",
    "combined_at_weights",
    "create_classifier",
]
