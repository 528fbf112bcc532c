"""Nodes of the comparison of methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from lowshot_kedro import reporting
from lowshot_kedro.classifiers import combine_scores
from lowshot_kedro.images import ImageSource
from lowshot_kedro.metrics import Scores, accuracies_per_iteration, build_metrics, top_k_hits
from lowshot_kedro.parameters import EvaluationParameters, ExperimentParameters
from lowshot_kedro.protocol import ImageSelection
from lowshot_kedro.resources import Stopwatch, peak_rss_bytes

_NEIGHBORS_SHOWN = 8


def combine_methods(
    diffusion_scores: dict[str, NDArray[Any]],
    baseline_scores: dict[str, NDArray[Any]],
    diffusion_metrics: dict[str, Any],
    baseline_metrics: dict[str, Any],
    experiment: ExperimentParameters,
    evaluation: EvaluationParameters,
) -> dict[str, Any]:
    """Metrics of the weighted average of diffusion and logistic regression.

    Raises:
        ValueError: If the two were not run on the experiment that the parameters describe.
    """
    _require_experiment("diffusion", diffusion_metrics, asdict(experiment))
    described = {name: value for name, value in asdict(experiment).items() if name != "unlabeled"}
    _require_experiment("baseline", baseline_metrics, described)
    watch = Stopwatch()
    diffusion = Scores.from_arrays(diffusion_scores)
    baseline = Scores.from_arrays(baseline_scores)
    if not np.array_equal(diffusion.test_classes, baseline.test_classes):
        raise ValueError(
            "baseline_scores and diffusion_scores are of different test images; run both pipelines "
            "again on the same features"
        )
    combined = combine_scores(diffusion.scores, baseline.scores, evaluation.combination_weight)
    scores = Scores(
        combined[None], diffusion.iterations[-1:], diffusion.test_classes, diffusion.classes,
        diffusion.is_novel,
    )  # fmt: skip
    return build_metrics(
        scores,
        accuracies_per_iteration(scores, evaluation.top_k),
        experiment={**asdict(experiment), "evaluation": asdict(evaluation)},
        n_nodes=diffusion_metrics["n_nodes"],
        seconds={"combination": watch.seconds},
        peak_rss_bytes=peak_rss_bytes(),
    )


def _require_experiment(
    pipeline: str, metrics: Mapping[str, Any], expected: Mapping[str, Any]
) -> None:
    for name, value in expected.items():
        found = metrics["experiment"].get(name)
        if found != value:
            raise ValueError(
                f"{pipeline}_metrics: made with experiment.{name} = {found!r}, but this run has "
                f"{value!r}; run the {pipeline} pipeline with the same parameters first"
            )


def compare_methods(
    baseline_metrics: dict[str, Any],
    diffusion_metrics: dict[str, Any],
    combined_metrics: dict[str, Any],
    experiment: ExperimentParameters,
    evaluation: EvaluationParameters,
) -> pd.DataFrame:
    """The table of methods, which is also printed."""
    metrics = {
        "logistic regression": baseline_metrics,
        "diffusion": diffusion_metrics,
        "combined": combined_metrics,
    }
    table = reporting.compare_methods(metrics, evaluation.top_k)
    reporting.print_comparison(table, asdict(experiment))
    return table


def plot_accuracy_per_step(
    diffusion_metrics: dict[str, Any],
    baseline_metrics: dict[str, Any],
    evaluation: EvaluationParameters,
) -> Figure:
    """Accuracy after each diffusion step."""
    return reporting.plot_accuracy_per_step(
        diffusion_metrics, baseline_metrics, evaluation.top_k[0]
    )


def plot_methods(metrics_table: pd.DataFrame, evaluation: EvaluationParameters) -> Figure:
    """Methods side by side."""
    return reporting.plot_methods(metrics_table, evaluation.top_k[0])


def plot_neighbors(
    image_selection: ImageSelection,
    test_neighbors: dict[str, NDArray[Any]],
    diffusion_scores: dict[str, NDArray[Any]],
    train_images: ImageSource,
    test_images: ImageSource,
    background_images: ImageSource,
    experiment: ExperimentParameters,
    evaluation: EvaluationParameters,
) -> Figure:
    """Some test pictures with their neighbours in the graph."""
    scores = Scores.from_arrays(diffusion_scores)
    names, true_classes = image_selection.class_names, image_selection.test_classes
    if not np.array_equal(scores.test_classes, true_classes):
        raise ValueError(
            "diffusion_scores: of other test images than the parameters select; run the diffusion "
            "pipeline with the same parameters first"
        )
    n_labeled = len(image_selection.labeled_positions)

    def neighbor(node: int, similarity: float, true_class: int) -> tuple[Image.Image, str, str]:
        if node < n_labeled:
            image = train_images[int(image_selection.labeled_positions[node])].image
            node_class = int(image_selection.labeled_classes[node])
            color = reporting.frame_color(node_class, true_class)
            return image, f"{names[node_class]} {similarity:.2f}", color
        number = node - n_labeled
        if experiment.unlabeled == "train":
            image = train_images[int(image_selection.unlabeled_positions[number])].image
        else:
            image = background_images[number].image
        return image, f"{similarity:.2f}", reporting.frame_color(None, true_class)

    shown = reporting.pictures_worth_showing(
        top_k_hits(scores.scores, true_classes, 1), true_classes, evaluation.n_pictures
    )
    rows = []
    for point in shown:
        true_class = int(true_classes[point])
        guess = names[int(scores.scores[point].argmax())]
        links = zip(
            test_neighbors["indices"][point, :_NEIGHBORS_SHOWN].tolist(),
            test_neighbors["similarities"][point, :_NEIGHBORS_SHOWN].tolist(),
            strict=True,
        )
        rows.append(
            reporting.NeighborPanelRow(
                test_images[int(image_selection.test_positions[point])].image,
                f"{names[true_class]}\n→ {guess}",
                [neighbor(node, similarity, true_class) for node, similarity in links if node >= 0],
            )
        )
    return reporting.plot_neighbors(rows)
