"""Metrics of many runs as tables with a row for each, from which reports are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lowshot_kedro.extras import needed_by
from lowshot_kedro.methods import METHODS
from lowshot_kedro.sweep.choice import (
    Hyperparameters,
    Metrics,
    accuracies_of,
    entries_of,
    entry_at,
    metrics_of,
)
from lowshot_kedro.sweep.runs import Run

with needed_by(__name__):
    import pandas as pd


def final_accuracies(
    runs: Sequence[Run], metrics: Metrics, chosen: Hyperparameters
) -> pd.DataFrame:
    """One row per run: its accuracies with the hyper-parameters chosen, time and memory.

    Args:
        runs: Those to be reported.
        metrics: A function for every run that reads its metrics.
        chosen: Hyper-parameters.

    Returns:
        Columns method, mode, unlabeled (name, "" for methods without), n_background (rows, NaN for
        methods without), n_labeled ("all" for all that are given), seed, top1, top1_novel, …,
        seconds, peak_rss_bytes, key.

    Raises:
        ValueError: If a run is missing, or was not run with what was chosen.
    """
    rows = []
    for run in runs:
        content = metrics_of(run, metrics)
        rows.append(
            {
                **_of_run(run, content),
                **_accuracies(entry_at(run, content, chosen)),
                **_resources(content),
                "key": run.key,
            }
        )
    return pd.DataFrame(rows)


def accuracies_per_step(
    runs: Sequence[Run], metrics: Metrics, chosen: Hyperparameters
) -> pd.DataFrame:
    """One row per run and step (`iteration`); `chosen` marks the number of steps chosen."""
    rows = []
    for run in runs:
        content = metrics_of(run, metrics)
        axis = METHODS[run.method].axis
        assert axis is not None
        best = entry_at(run, content, chosen)[axis.name]
        for entry in entries_of(run, content):
            rows.append(
                {
                    **_of_run(run, content),
                    "iteration": entry[axis.name],
                    **_accuracies(entry),
                    "chosen": entry[axis.name] == best,
                }
            )
    return pd.DataFrame(rows)


def validation_grid(runs: Sequence[Run], metrics: Metrics, metric: str) -> pd.DataFrame:
    """One row per validation run and entry: its settings, and the accuracy that is maximised.

    Returns:
        Columns method, mode, unlabeled, n_background, n_labeled, seed, the settings and axes of all
        methods (lr, k, iteration, …; None where one does not apply), metric (a fraction),
        metric_name.
    """
    rows = []
    for run in runs:
        content = metrics_of(run, metrics)
        of_run = _of_run(run, content)
        for settings, accuracy in accuracies_of(run, content, metric):
            rows.append({**of_run, **_settings(run, settings), "metric": accuracy})
    frame = pd.DataFrame(rows)
    frame["metric_name"] = metric
    return frame


def chosen_settings(runs: Sequence[Run], chosen: Hyperparameters) -> pd.DataFrame:
    """One row per method, number of labelled and kind of unlabelled images: what was chosen.

    Args:
        runs: Those that were validated.
        chosen: Hyper-parameters.
    """
    rows = {}
    for run in runs:
        name = "" if run.unlabeled is None else run.unlabeled.name
        values = chosen.of(run.method, run.n_labeled, run.unlabeled)
        rows[run.method, name, run.n_labeled] = {
            "method": run.method,
            "unlabeled": name,
            "n_labeled": _labeled(run),
            **_settings(run, values),
        }
    return pd.DataFrame(list(rows.values()))


def resources(runs: Sequence[Run], metrics: Metrics) -> pd.DataFrame:
    """One row per run: key, method, mode, seconds, peak_rss_bytes."""
    return pd.DataFrame(
        [
            {
                "key": run.key,
                "method": run.method,
                "mode": run.mode,
                **_resources(metrics_of(run, metrics)),
            }
            for run in runs
        ]
    )


def _labeled(run: Run) -> int | str:
    return "all" if run.n_labeled is None else run.n_labeled


def _of_run(run: Run, content: Mapping[str, Any]) -> dict[str, Any]:
    n_background = content["experiment"].get("n_background")
    return {
        "method": run.method,
        "mode": run.mode,
        "unlabeled": "" if run.unlabeled is None else run.unlabeled.name,
        "n_background": float("nan") if n_background is None else float(n_background),
        "n_labeled": _labeled(run),
        "seed": run.seed,
    }


def _accuracies(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name.startswith("top")}


def _resources(content: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "seconds": sum(content["seconds"].values()),
        "peak_rss_bytes": content["peak_rss_bytes"],
    }


def _settings(run: Run, settings: Mapping[str, Any]) -> dict[str, Any]:
    """A value or None for every setting and axis that a method has; places by name of the axis."""
    axis = METHODS[run.method].axis
    named = dict(settings)
    if axis is not None and axis.parameter in named:
        named[axis.name] = named.pop(axis.parameter)
    columns = [name for method in METHODS.values() for name in method.settings]
    columns += [method.axis.name for method in METHODS.values() if method.axis is not None]
    return {name: named.get(name) for name in dict.fromkeys(columns)}
