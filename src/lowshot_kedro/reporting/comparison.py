"""The methods of one run side by side: a table, bars, and accuracy per diffusion step."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.console import Console
from rich.table import Table

from lowshot_kedro.methods import method_of
from lowshot_kedro.metrics import telling_top_k
from lowshot_kedro.reporting.style import GROUP_COLORS, GROUP_NAMES, groups_shown

_NUMBER_WIDTH = 5


def compare_methods(metrics: Mapping[str, Mapping[str, Any]], top_k: Sequence[int]) -> pd.DataFrame:
    """Final accuracies of several methods side by side.

    Args:
        metrics: Content of a metrics file by name of the method.
        top_k: Values of k; those that are not below the number of classes are left out.

    Returns:
        A row per method: method, iteration, top1, top1_novel, top1_base, top5, … (fractions),
        without groups that no test image belongs to.
    """
    n_classes = max(content["n_classes"] for content in metrics.values())
    columns = [f"top{k}{group}" for k in telling_top_k(top_k, n_classes) for group in GROUP_NAMES]
    rows = [
        {
            "method": method,
            "iteration": content["final"]["iteration"],
            **{column: content["final"][column] for column in columns},
        }
        for method, content in metrics.items()
    ]
    table = pd.DataFrame(rows, columns=["method", "iteration", *columns])
    return table.drop(columns=[column for column in columns if table[column].isna().all()])


def print_comparison(table: pd.DataFrame, experiment: Mapping[str, Any]) -> None:
    """Print the table of :func:`compare_methods` to the terminal."""
    n_labeled = experiment["n_labeled"]
    labels = "all labelled images"
    if n_labeled is not None:
        labels = f"{n_labeled} labelled image{'' if n_labeled == 1 else 's'} per novel class"
    title = f"Accuracy, mode {experiment['mode']}, {labels}, seed {experiment['seed']}"
    printed = Table()
    accuracy = table[["method", *_columns_shown(table)]]
    for column in accuracy.columns:
        name = str(column).replace("_", " ").replace("top", "top-")
        if column == "method":
            printed.add_column(name, no_wrap=True)
        else:
            printed.add_column(name, justify="right", min_width=_NUMBER_WIDTH)
    for row in accuracy.itertuples(index=False):
        printed.add_row(*(_cell(value) for value in row))
    # A terminal that is too narrow wraps lines; numbers are never cut.
    n_numbers = len(accuracy.columns) - 1
    narrowest = max(map(len, accuracy["method"])) + 4 + n_numbers * (_NUMBER_WIDTH + 3)
    console = Console(width=max(Console().width, narrowest))
    # As the title of a narrow table it would be broken into many lines.
    console.print(title, style="italic", highlight=False)
    console.print(printed)


def _columns_shown(table: pd.DataFrame) -> list[str]:
    """Accuracies, without those of groups that repeat all classes."""
    ks = [int(name[3:]) for name in table.columns if re.fullmatch(r"top\d+", name)]
    return [f"top{k}{group}" for k in ks for group in groups_shown(table, k)]


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "–" if np.isnan(value) else f"{value:.3f}"
    return "–" if value is None else str(value)


def plot_accuracy_per_step(
    diffusion_metrics: Mapping[str, Any],
    baseline_metrics: Mapping[str, Any],
    k: int,
) -> Figure:
    """Top-k accuracy after each diffusion step, with the baseline as dashed lines.

    Args:
        diffusion_metrics: Content of the metrics file of the diffusion.
        baseline_metrics: Content of the metrics file of the method that it is compared with.
        k: k of the accuracy.

    Where all classes are novel, there is one curve for all of them. Where neighbours or steps were
    chosen by the data, a vertical line marks the choice, and with top-1 a grey one shows the
    accuracy for held-out labels, also after steps that were not taken.
    """
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    title, baseline_title = (
        method_of(metrics).title for metrics in (diffusion_metrics, baseline_metrics)
    )
    entries = diffusion_metrics["per_iteration"]
    steps = [entry["iteration"] for entry in entries]
    for group in groups_shown(pd.DataFrame(entries), k):
        key, color, name = f"top{k}{group}", GROUP_COLORS[group], GROUP_NAMES[group]
        values = [np.nan if entry[key] is None else 100 * entry[key] for entry in entries]
        axes.plot(steps, values, marker="o", color=color, label=f"{title}, {name}")
        baseline = baseline_metrics["final"][key]
        if baseline is not None:
            axes.axhline(
                100 * baseline, color=color, linestyle="--", linewidth=1,
                label=f"{baseline_title}, {name}",
            )  # fmt: skip
    _mark_choice(axes, diffusion_metrics.get("chosen", {}), k, title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel=f"{title} step", ylabel=f"top-{k} accuracy (%)", title="Accuracy per step")
    axes.grid(alpha=0.3)
    figure.legend(fontsize=8, ncols=3, loc="outside lower center")
    return figure


def _mark_choice(axes: Axes, chosen: Mapping[str, Any], k: int, title: str) -> None:
    if not chosen.get("validation_accuracy_per_k"):
        return
    n_steps = chosen["n_iterations"]
    name = f"chosen: {n_steps} step{'' if n_steps == 1 else 's'}, k = {chosen['k']}"
    axes.axvline(n_steps, color="0.3", linewidth=1, label=name)
    held_out = chosen["validation_accuracy"]
    if held_out is not None and k == 1:
        axes.plot(
            range(len(held_out)), 100 * np.array(held_out), color="0.55", linestyle=":",
            label=f"{title}, held-out labels",
        )  # fmt: skip


def plot_methods(table: pd.DataFrame, k: int) -> Figure:
    """Final top-k accuracies of the methods as bars: all, novel and base classes, as there are."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    positions = np.arange(len(table))
    width = 0.26
    groups = groups_shown(table, k)
    for number, group in enumerate(groups):
        values = 100 * table[f"top{k}{group}"].astype(float).to_numpy()
        offset = (number - (len(groups) - 1) / 2) * width
        bars = axes.bar(
            positions + offset, values, width, color=GROUP_COLORS[group], label=GROUP_NAMES[group]
        )
        axes.bar_label(bars, fmt="%.1f", fontsize=8)
    axes.set_xticks(positions, table["method"])
    axes.set(ylabel=f"top-{k} accuracy (%)", title="Methods side by side", ylim=(0, 112))
    axes.legend(fontsize=8, ncols=3, loc="upper center")
    return figure
