"""Nodes of the logistic regression baseline."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.blocks import FeatureMatrix, take_rows
from lowshot_kedro.classifiers import LogisticRegression
from lowshot_kedro.devices import choose_device
from lowshot_kedro.memory import peak_rss_bytes
from lowshot_kedro.metrics import GROUPS, Scores, accuracies, build_metrics, telling_top_k
from lowshot_kedro.parameters import (
    EvaluationParameters,
    ExperimentParameters,
    LogisticRegressionParameters,
)
from lowshot_kedro.progress import Stopwatch
from lowshot_kedro.protocol import ImageSelection

logger = logging.getLogger(__name__)


def train_logistic_regression(
    image_selection: ImageSelection,
    train_features: FeatureMatrix,
    test_features: FeatureMatrix,
    experiment: ExperimentParameters,
    logistic_regression: LogisticRegressionParameters,
    evaluation: EvaluationParameters,
) -> tuple[dict[str, Any], dict[str, NDArray[Any]], dict[str, Any]]:
    """Train on the full features; the state, the scores of the test images, and the metrics.

    In memory: the features of the labelled and of the test images.
    """
    parameters = asdict(logistic_regression)
    eval_every = parameters.pop("eval_every")
    reading = Stopwatch()
    labeled = take_rows(train_features, image_selection.labeled_positions)
    test = take_rows(test_features, image_selection.test_positions)
    seconds = {"reading": reading.seconds}

    classifier = LogisticRegression(
        image_selection.n_classes,
        seed=experiment.seed,
        device=choose_device("auto"),
        **parameters,
    )
    per_iteration: list[dict[str, Any]] = []
    latest: list[NDArray[np.float32]] = []

    telling = telling_top_k(evaluation.top_k, image_selection.n_classes)

    def evaluate(iteration: int) -> None:
        latest[:] = [classifier.scores(test)]
        entry = accuracies(
            latest[0], image_selection.test_classes, image_selection.is_novel, evaluation.top_k
        )
        per_iteration.append({"iteration": iteration, **entry})
        logger.info(
            "iteration %d: %s",
            iteration,
            ", ".join(
                f"{name} {entry[name]:.3f}"
                for name in (f"top{k}{group}" for group in GROUPS for k in telling)
                if entry[name] is not None
            ),
        )

    training = Stopwatch()
    classifier.fit(labeled, image_selection.labeled_classes, evaluate, eval_every)
    seconds["training"] = training.seconds
    scores = Scores.of_selection(
        latest[0][None], [logistic_regression.max_iterations], image_selection
    )
    metrics = build_metrics(
        scores,
        per_iteration,
        experiment={**asdict(experiment), "logistic_regression": asdict(logistic_regression)},
        n_nodes=None,
        seconds=seconds,
        peak_rss_bytes=peak_rss_bytes(),
    )
    return classifier.state_dict(), scores.to_arrays(), metrics
