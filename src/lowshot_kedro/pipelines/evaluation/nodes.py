"""Nodes of the comparison of methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lowshot_kedro import reporting
from lowshot_kedro.blocks import FeatureMatrix, KnnGraph
from lowshot_kedro.classifiers import weighted_averages
from lowshot_kedro.errors import InputError
from lowshot_kedro.images import ImageSource
from lowshot_kedro.memory import peak_rss_bytes
from lowshot_kedro.methods import method_of
from lowshot_kedro.methods.combined import CombinedMethod
from lowshot_kedro.metrics import (
    EvaluationParameters,
    Scores,
    accuracies_per_iteration,
    build_metrics,
    log_top_k_left_out,
)
from lowshot_kedro.progress import Stopwatch
from lowshot_kedro.protocol import ExperimentParameters, choose_images


def combine_methods(
    diffusion_scores: dict[str, NDArray[Any]],
    baseline_scores: dict[str, NDArray[Any]],
    diffusion_metrics: dict[str, Any],
    baseline_metrics: dict[str, Any],
    experiment: ExperimentParameters,
    evaluation: EvaluationParameters,
) -> dict[str, Any]:
    """Metrics of the weighted average of diffusion and baseline.

    Raises:
        ValueError: If the two were not run on the experiment that the parameters describe.
    """
    described = asdict(experiment)
    _require_experiment("diffusion", diffusion_metrics, described, evaluation.top_k)
    # The baseline has no unlabelled images.
    del described["unlabeled"]
    _require_experiment("baseline", baseline_metrics, described, evaluation.top_k)
    watch = Stopwatch()
    diffusion = Scores.from_arrays(diffusion_scores, "diffusion_scores")
    baseline = Scores.from_arrays(baseline_scores, "baseline_scores")
    if not np.array_equal(diffusion.test_classes, baseline.test_classes):
        raise InputError(
            "baseline_scores and diffusion_scores are of different test images; run both pipelines "
            "again on the same features"
        )
    (combined,) = weighted_averages(
        method_of(diffusion_metrics).probabilities(diffusion.scores),
        method_of(baseline_metrics).probabilities(baseline.scores),
        [evaluation.combination_weight],
    )
    scores = Scores(
        combined[None], diffusion.iterations[-1:], diffusion.test_classes, diffusion.classes,
        diffusion.is_novel,
    )  # fmt: skip
    metrics = build_metrics(
        scores,
        accuracies_per_iteration(scores, evaluation.top_k),
        experiment={
            **baseline_metrics["experiment"],
            **diffusion_metrics["experiment"],
            "evaluation": asdict(evaluation),
        },
        n_nodes=diffusion_metrics["n_nodes"],
        seconds={"combination": watch.seconds},
        peak_rss_bytes=peak_rss_bytes(),
    )
    return {**metrics, "method": CombinedMethod.name}


def _require_experiment(
    pipeline: str, metrics: Mapping[str, Any], expected: Mapping[str, Any], top_k: Sequence[int]
) -> None:
    experiment, final = metrics.get("experiment"), metrics.get("final")
    if not isinstance(experiment, Mapping) or not isinstance(final, Mapping):
        raise InputError(
            f"{pipeline}_metrics: found {', '.join(metrics) or 'nothing'}, expected experiment "
            "and final"
        )
    for name, value in expected.items():
        if experiment.get(name) != value:
            raise InputError(
                f"{pipeline}_metrics: made with experiment.{name} = {experiment.get(name)!r}, but "
                f"this run has {value!r}; run the {pipeline} pipeline with the same parameters "
                "first"
            )
    missing = [k for k in top_k if f"top{k}" not in final]
    if missing:
        raise InputError(
            f"{pipeline}_metrics: holds no top{missing[0]}; run the {pipeline} pipeline with the "
            f"same evaluation.top_k = {list(top_k)} first"
        )


def compare_methods(
    baseline_metrics: dict[str, Any],
    diffusion_metrics: dict[str, Any],
    combined_metrics: dict[str, Any],
    evaluation: EvaluationParameters,
) -> pd.DataFrame:
    """A table of the final accuracies of the methods."""
    log_top_k_left_out(evaluation.top_k, diffusion_metrics["n_classes"])
    return reporting.compare_methods(
        {
            method_of(metrics).title: metrics
            for metrics in (baseline_metrics, diffusion_metrics, combined_metrics)
        },
        evaluation.top_k,
    )


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
    """Final accuracies of the methods as bars."""
    return reporting.plot_methods(metrics_table, evaluation.top_k[0])


def plot_neighbors(
    class_split: dict[str, Any],
    train_features: FeatureMatrix,
    test_features: FeatureMatrix,
    test_neighbors: dict[str, NDArray[Any]],
    diffusion_scores: dict[str, NDArray[Any]],
    train_images: ImageSource,
    test_images: ImageSource,
    background_images: ImageSource,
    experiment: ExperimentParameters,
    evaluation: EvaluationParameters,
) -> Figure:
    """Some test images with their neighbours in the graph."""
    image_selection = choose_images(class_split, train_features, test_features, experiment)
    scores = Scores.from_arrays(diffusion_scores, "diffusion_scores")
    if not np.array_equal(scores.test_classes, image_selection.test_classes):
        raise InputError(
            "diffusion_scores: of other test images than the parameters select; run the diffusion "
            "pipeline with the same parameters first"
        )
    nodes = reporting.NodeImages(
        image_selection, train_images, background_images, experiment.unlabeled
    )
    shown = reporting.images_worth_showing(scores, evaluation.n_images)
    rows = reporting.neighbor_rows(
        shown, image_selection, scores, KnnGraph(**test_neighbors), test_images, nodes
    )
    return reporting.plot_neighbors(rows)
