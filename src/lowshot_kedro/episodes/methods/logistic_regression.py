"""Logistic regression on vectors of length 1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.classifiers.vectors import unit_vectors
from lowshot_kedro.episodes.episode import Episode
from lowshot_kedro.episodes.methods.method import EpisodeMethod, MethodOptions


class LogisticRegressionMethod(EpisodeMethod):
    """Multinomial logistic regression of scikit-learn, as Tian et al. train it for each episode.

    Features are scaled to length 1, and weights have the L2 penalty of `C`.

    Args:
        options: What all methods follow.
        C: Inverse strength of the penalty.
        max_iterations: Iterations of L-BFGS at most.
    """

    name = "logistic_regression"
    title = "logistic regression"
    source = (
        "Y. Tian, Y. Wang, D. Krishnan, J. B. Tenenbaum and P. Isola, Rethinking Few-Shot Image "
        "Classification: A Good Embedding Is All You Need?, ECCV 2020; scikit-learn"
    )

    def __init__(self, options: MethodOptions, C: float = 1.0, max_iterations: int = 1000) -> None:
        super().__init__(options)
        self.C, self.max_iterations = C, max_iterations

    def scores(self, episode: Episode) -> NDArray[np.floating[Any]]:
        """Probabilities of the classes."""
        # It takes a second to import.
        from sklearn.linear_model import LogisticRegression

        support, query = (
            unit_vectors(vectors, name)
            for vectors, name in zip(
                episode.vectors, ("support features", "query features"), strict=True
            )
        )
        classifier = LogisticRegression(C=self.C, max_iter=self.max_iterations)
        classifier.fit(support, episode.support_classes)
        probabilities: NDArray[np.floating[Any]] = classifier.predict_proba(query)
        return probabilities

    def parameters(self) -> Mapping[str, Any]:
        """Penalty and iterations."""
        return {"C": self.C, "max_iterations": self.max_iterations}
