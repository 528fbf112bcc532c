"""The methods of one run side by side: a table, bars, and accuracy per diffusion step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.console import Console
from rich.table import Table

from lowshot_kedro.reporting.style import GROUP_COLORS, GROUP_NAMES

_NUMBER_WIDTH = 5


def compare_methods(metrics: Mapping[str, Mapping[str, Any]], top_k: Sequence[int]) -> pd.DataFrame:
    """Final accuracies of several methods side by side.

    Args:
        metrics: Content of a metrics file by name of the method.
        top_k: Values of k.

    Returns:
        A row per method: method, iteration, top1, top1_novel, top1_base, top5, … (fractions).
    """
    columns = [f"top{k}{group}" for k in top_k for group in GROUP_NAMES]
    rows = [
        {
            "method": method,
            "iteration": content["final"]["iteration"],
            **{column: content["final"][column] for column in columns},
        }
        for method, content in metrics.items()
    ]
    return pd.DataFrame(rows, columns=["method", "iteration", *columns])


def print_comparison(table: pd.DataFrame, experiment: Mapping[str, Any]) -> None:
    """Print the table of :func:`compare_methods` to the terminal."""
    title = (
        f"Accuracy, mode {experiment['mode']}, {experiment['n_labeled']} labelled images per novel "
        f"class, seed {experiment['seed']}"
    )
    printed = Table(title=title)
    accuracy = table.drop(columns="iteration")
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
    Console(width=max(Console().width, narrowest)).print(printed)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "–" if np.isnan(value) else f"{value:.3f}"
    return "–" if value is None else str(value)


def plot_accuracy_per_step(
    diffusion_metrics: Mapping[str, Any], baseline_metrics: Mapping[str, Any], k: int
) -> Figure:
    """Top-k accuracy after each diffusion step, with the baseline as dashed lines.

    Where neighbours or steps were chosen by the data, a vertical line marks the choice, and with
    top-1 a grey one shows the accuracy for held-out labels, also after steps that were not taken.
    """
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    entries = diffusion_metrics["per_iteration"]
    steps = [entry["iteration"] for entry in entries]
    for group, name in GROUP_NAMES.items():
        key, color = f"top{k}{group}", GROUP_COLORS[group]
        values = [np.nan if entry[key] is None else 100 * entry[key] for entry in entries]
        axes.plot(steps, values, marker="o", color=color, label=f"diffusion, {name}")
        baseline = baseline_metrics["final"][key]
        if baseline is not None:
            axes.axhline(
                100 * baseline, color=color, linestyle="--", linewidth=1,
                label=f"logistic regression, {name}",
            )  # fmt: skip
    _mark_choice(axes, diffusion_metrics.get("chosen", {}), k)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="diffusion step", ylabel=f"top-{k} accuracy (%)", title="Accuracy per step")
    axes.grid(alpha=0.3)
    figure.legend(fontsize=8, ncols=3, loc="outside lower center")
    return figure


def _mark_choice(axes: Axes, chosen: Mapping[str, Any], k: int) -> None:
    if not chosen.get("validation_accuracy_per_k"):
        return
    n_steps = chosen["n_iterations"]
    name = f"chosen: {n_steps} step{'' if n_steps == 1 else 's'}, k = {chosen['k']}"
    axes.axvline(n_steps, color="0.3", linewidth=1, label=name)
    held_out = chosen["validation_accuracy"]
    if held_out is not None and k == 1:
        axes.plot(
            range(len(held_out)), 100 * np.array(held_out), color="0.55", linestyle=":",
            label="diffusion, held-out labels",
        )  # fmt: skip


def plot_methods(table: pd.DataFrame, k: int) -> Figure:
    """Final top-k accuracies of the methods as bars: all, novel and base classes."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    positions = np.arange(len(table))
    width = 0.26
    for offset, (group, name) in enumerate(GROUP_NAMES.items()):
        values = 100 * table[f"top{k}{group}"].astype(float).to_numpy()
        bars = axes.bar(
            positions + (offset - 1) * width, values, width, color=GROUP_COLORS[group], label=name
        )
        axes.bar_label(bars, fmt="%.1f", fontsize=8)
    axes.set_xticks(positions, table["method"])
    axes.set(ylabel=f"top-{k} accuracy (%)", title="Methods side by side", ylim=(0, 112))
    axes.legend(fontsize=8, ncols=3, loc="upper center")
    return figure
