"""Nodes of the sweep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import faiss
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lowshot_kedro import reporting
from lowshot_kedro.blocks import FeatureMatrix, Runs
from lowshot_kedro.methods import METHODS
from lowshot_kedro.metrics import log_top_k_left_out, telling_top_k
from lowshot_kedro.pipelines.sweep.inputs import CatalogInputs
from lowshot_kedro.project.config import Project
from lowshot_kedro.project.parameters import read_parameters
from lowshot_kedro.sweep import choice, execution, frames, plan
from lowshot_kedro.sweep.choice import Hyperparameters, Metrics
from lowshot_kedro.sweep.execution import PreparedSweep
from lowshot_kedro.sweep.jobs import check_workers
from lowshot_kedro.sweep.parameters import SweepParameters
from lowshot_kedro.sweep.plan import SweepData, SweepSettings
from lowshot_kedro.sweep.preparation import (
    build_background_graph,
    describe_data,
    possible_sweep,
)
from lowshot_kedro.sweep.runs import Run
from lowshot_kedro.sweep.work import ScoreStore


def prepare_sweep(
    project: Project,
    class_split: dict[str, Any],
    train_features: FeatureMatrix,
    test_features: FeatureMatrix,
    pca_transform: faiss.VectorTransform,
    background_vectors: NDArray[np.float32],
    parameters: dict[str, Any],
) -> PreparedSweep:
    """See which runs are possible, and build the background graphs that are missing.

    All sections of parameters are read, for each method may have one.

    Raises:
        ValueError: If no run is possible, a stored graph does not fit, or there are no workers.
    """
    sections = read_parameters(parameters)
    sweep: SweepParameters = sections["sweep"]
    check_workers(execution.workers_of(sweep))
    inputs = CatalogInputs(project)
    sweep = possible_sweep(
        sweep, class_split, train_features, test_features, _background_size(inputs, sweep)
    )
    settings = SweepSettings({**sections, "sweep": sweep})
    sizes = () if list(sweep.unlabeled) == ["train"] else sweep.n_background
    backgrounds = {}
    for n_background in sizes:
        catalog = inputs.background_catalog(n_background, plan.largest_k(sweep))
        build_background_graph(catalog, settings.graph)
        inputs.claim_background(n_background, plan.largest_k(sweep))
        backgrounds[n_background] = inputs.background(n_background, plan.largest_k(sweep))
    data = describe_data(
        class_split, train_features, test_features, pca_transform, backgrounds, settings
    )
    return PreparedSweep(inputs, settings, data)


def _background_size(inputs: CatalogInputs, sweep: SweepParameters) -> int:
    """Images of the whole background; 0 where nobody asks for any."""
    if list(sweep.unlabeled) == ["train"]:
        return 0
    return len(inputs.background_catalog(None, plan.largest_k(sweep)).load("background_vectors"))


def validate_methods(prepared_sweep: PreparedSweep, run_scores: ScoreStore) -> Runs:
    """All runs of the grid on the validation classes."""
    return execution.validation_results(prepared_sweep, run_scores)


def choose_hyperparameters(
    validation_metrics: Metrics, prepared_sweep: PreparedSweep
) -> dict[str, Any]:
    """The best of the grid, for every method and number of labelled images."""
    sweep = prepared_sweep.settings.sweep
    runs = plan.validation_runs(sweep, prepared_sweep.data)
    return choice.choose(runs, validation_metrics, sweep.metric)


def validate_combination(
    prepared_sweep: PreparedSweep,
    best_hyperparameters: dict[str, Any],
    run_scores: ScoreStore,
) -> Runs:
    """Scores of the validation classes combined with all weights."""
    chosen = Hyperparameters(best_hyperparameters)
    return execution.combination_results("val", prepared_sweep, chosen, run_scores)


def choose_combination(
    best_hyperparameters: dict[str, Any],
    combination_metrics: Metrics,
    prepared_sweep: PreparedSweep,
) -> dict[str, Any]:
    """The hyper-parameters of all methods, the weight of the combination among them."""
    sweep = prepared_sweep.settings.sweep
    chosen = Hyperparameters(best_hyperparameters)
    runs = plan.combined_runs(sweep, prepared_sweep.data, "val", chosen)
    return {**best_hyperparameters, **choice.choose(runs, combination_metrics, sweep.metric)}


def test_methods(
    prepared_sweep: PreparedSweep, hyperparameters: dict[str, Any], run_scores: ScoreStore
) -> Runs:
    """All methods with the hyper-parameters chosen, on the test classes, over the seeds."""
    return execution.test_results(prepared_sweep, Hyperparameters(hyperparameters), run_scores)


def combine_tests(
    prepared_sweep: PreparedSweep,
    hyperparameters: dict[str, Any],
    test_metrics: Metrics,
    run_scores: ScoreStore,
) -> Runs:
    """Scores of the test classes combined with all weights.

    Args:
        prepared_sweep: Data and parameters.
        hyperparameters: What was chosen.
        test_metrics: Only to be sure that their runs, whose scores are combined, are done.
        run_scores: The scores.
    """
    chosen = Hyperparameters(hyperparameters)
    return execution.combination_results("test", prepared_sweep, chosen, run_scores)


def tabulate_runs(
    test_metrics: Metrics,
    combined_test_metrics: Metrics,
    hyperparameters: dict[str, Any],
    prepared_sweep: PreparedSweep,
) -> tuple[pd.DataFrame, str]:
    """The table of methods × labelled images, mean and deviation over the seeds."""
    chosen = Hyperparameters(hyperparameters)
    metrics = {**test_metrics, **combined_test_metrics}
    runs = _test_runs(prepared_sweep.settings, prepared_sweep.data, chosen)
    log_top_k_left_out(prepared_sweep.settings.evaluation.top_k, _n_test_classes(prepared_sweep))
    top_k = _telling_top_k(prepared_sweep)
    summary = reporting.summarize(frames.final_accuracies(runs, metrics, chosen), top_k)
    context = {"mode": "test", "seeds": list(prepared_sweep.settings.sweep.seeds)}
    return summary, reporting.to_markdown(summary, top_k, context)


def tabulate_resources(
    validation_metrics: Metrics,
    combination_metrics: Metrics,
    test_metrics: Metrics,
    combined_test_metrics: Metrics,
    hyperparameters: dict[str, Any],
    prepared_sweep: PreparedSweep,
) -> pd.DataFrame:
    """Time and memory of every run."""
    chosen = Hyperparameters(hyperparameters)
    sweep, data = prepared_sweep.settings.sweep, prepared_sweep.data
    validated = [
        *plan.validation_runs(sweep, data),
        *plan.combined_runs(sweep, data, "val", chosen),
    ]
    metrics = {
        **validation_metrics,
        **combination_metrics,
        **test_metrics,
        **combined_test_metrics,
    }
    runs = [
        *_present(validated, metrics),
        *_test_runs(prepared_sweep.settings, prepared_sweep.data, chosen),
    ]
    return reporting.run_resources(frames.resources(runs, metrics))


def _test_runs(settings: SweepSettings, data: SweepData, chosen: Hyperparameters) -> list[Run]:
    return [
        *plan.chosen_runs(settings.sweep, data, chosen),
        *plan.combined_runs(settings.sweep, data, "test", chosen),
    ]


def plot_accuracies(
    sweep_table: pd.DataFrame, prepared_sweep: PreparedSweep
) -> tuple[Figure, Figure]:
    """Accuracy against the number of labelled images, and against the size of the background."""
    k = _plotted_k(prepared_sweep)
    return (
        reporting.plot_accuracy_per_n_labeled(sweep_table, k),
        reporting.plot_accuracy_per_background(sweep_table, k),
    )


def plot_steps(
    test_metrics: Metrics,
    hyperparameters: dict[str, Any],
    prepared_sweep: PreparedSweep,
) -> Figure:
    """Accuracy against the number of steps."""
    chosen = Hyperparameters(hyperparameters)
    runs = plan.chosen_runs(prepared_sweep.settings.sweep, prepared_sweep.data, chosen)
    with_steps = [run for run in runs if METHODS[run.method].step_label is not None]
    steps = frames.accuracies_per_step(with_steps, test_metrics, chosen)
    return reporting.plot_accuracy_per_step_over_seeds(steps, _plotted_k(prepared_sweep))


def plot_validation_grid(
    validation_metrics: Metrics,
    hyperparameters: dict[str, Any],
    prepared_sweep: PreparedSweep,
) -> Figure:
    """The grid that was searched, as heat maps."""
    runs = _present(
        plan.validation_runs(prepared_sweep.settings.sweep, prepared_sweep.data), validation_metrics
    )
    grid = frames.validation_grid(runs, validation_metrics, prepared_sweep.settings.sweep.metric)
    chosen = frames.chosen_settings(runs, Hyperparameters(hyperparameters))
    return reporting.plot_validation_grid(grid, chosen)


def _present(runs: Sequence[Run], metrics: Metrics) -> list[Run]:
    """Runs that are there; hyper-parameters that a person has written down need no validation."""
    return [run for run in runs if run.key in metrics]


def _telling_top_k(prepared_sweep: PreparedSweep) -> tuple[int, ...]:
    """The values of k that are not always right on the test classes."""
    top_k = prepared_sweep.settings.evaluation.top_k
    return telling_top_k(top_k, _n_test_classes(prepared_sweep))


def _n_test_classes(prepared_sweep: PreparedSweep) -> int:
    counts = prepared_sweep.data.counts
    return max(counts[key].n_classes for key in counts if key[0] == "test")


def _plotted_k(prepared_sweep: PreparedSweep) -> int:
    """The k of the accuracy that hyper-parameters are chosen by, where it says something."""
    metric = prepared_sweep.settings.sweep.metric
    k = int(metric.removeprefix("top").partition("_")[0])
    telling = _telling_top_k(prepared_sweep)
    return k if k in telling else telling[0]
