"""Nodes of the baseline."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.blocks import FeatureMatrix
from lowshot_kedro.memory import peak_rss_bytes
from lowshot_kedro.methods import METHODS, ChosenImages, Options, Work
from lowshot_kedro.metrics import (
    GROUPS,
    EvaluationParameters,
    Scores,
    accuracies,
    build_metrics,
    telling_top_k,
)
from lowshot_kedro.parameters import field_names, in_section
from lowshot_kedro.project.parameters import read_parameters
from lowshot_kedro.protocol import ExperimentParameters, ImageSelection

logger = logging.getLogger(__name__)


def train_baseline(
    image_selection: ImageSelection,
    train_features: FeatureMatrix,
    test_features: FeatureMatrix,
    experiment: ExperimentParameters,
    evaluation: EvaluationParameters,
    parameters: dict[str, Any],
) -> tuple[dict[str, Any], dict[str, NDArray[Any]], dict[str, Any]]:
    """Train the method `baseline.method` on the full features.

    Returns:
        What it has learnt, the scores of the test images, and the metrics. In memory: the features
        of the labelled and of the test images.
    """
    sections = read_parameters(parameters)
    method = METHODS[sections["baseline"].method]
    own, grid = sections.get(method.name), sections["sweep"].grids.get(method.name)
    settings, places = method.single(own, grid, len(image_selection.labeled_positions))
    telling = telling_top_k(evaluation.top_k, image_selection.n_classes)
    latest: list[Any] = []

    def judge(_: int, place: Any, scores: NDArray[np.float32]) -> dict[str, Any]:
        latest[:] = [place, scores]
        entry = accuracies(
            scores, image_selection.test_classes, image_selection.is_novel, evaluation.top_k
        )
        names = [f"top{k}{group}" for group in GROUPS for k in telling]
        described = (f"{name} {entry[name]:.3f}" for name in names if entry[name] is not None)
        where = "" if method.axis is None else f"{method.axis.name} {place}: "
        logger.info("%s%s", where, ", ".join(described))
        return {"iteration": place or 0, **entry}

    work = Work(
        images=ChosenImages(image_selection, train_features, test_features, experiment.seed),
        settings=[settings],
        options=Options(grid if own is None else own, sections),
        judge=judge,
        names=[method.name],
        is_strict=True,
        **places,
    )
    (outcome,) = in_section(
        method.name,
        lambda: list(method.run(work)),
        () if own is None else field_names(type(own)),
    )
    place, last = latest
    scores = Scores.of_selection(last[None], [place or 0], image_selection)
    metrics = build_metrics(
        scores,
        outcome.entries,
        experiment={
            **asdict(experiment),
            method.name: settings if own is None else asdict(own),
        },
        n_nodes=None,
        seconds=outcome.seconds,
        peak_rss_bytes=peak_rss_bytes(),
    )
    return dict(outcome.state), scores.to_arrays(), {**metrics, "method": method.name}
