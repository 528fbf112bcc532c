"""How a training went: loss and accuracies per epoch."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lowshot_kedro.methods.palette import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY_BLUE,
    VERMILLION,
)
from lowshot_kedro.reporting.style import empty_figure

_ACCURACY = re.compile(r"(?:^|_)top\d+(?:_|$)")
# Columns whose steps are marked, and what they are called.
_SCHEDULES = {"learning_rate": "learning rate", "bank_momentum": "bank momentum"}
_COLORS = (ORANGE, GREEN, PURPLE, VERMILLION, SKY_BLUE)
_LINES = ("-", "--", ":", "-.")
# A learning rate that takes more values than this is drawn as a curve.
_MAX_STEPS = 6
# Points of more epochs would run into each other.
_MAX_POINTS = 40


def plot_training_curves(table: pd.DataFrame) -> Figure:
    """The loss per epoch with the steps of the learning rate, and beside it the accuracies.

    Args:
        table: A row per epoch with epoch, learning_rate, loss (the mean over an epoch), and as many
            accuracies as there are (fractions, NaN in epochs where none was measured), whose names
            hold top1, top5 and so on, such as bank_top1. Other columns are not drawn, but steps of
            bank_momentum are named with those of the learning rate.

    Without an accuracy there is the loss alone.
    """
    if table.empty:
        return empty_figure("no epoch is done yet")
    accuracies = [
        str(name)
        for name in table.columns
        if _ACCURACY.search(str(name)) and table[name].notna().any()
    ]
    n_panels = 1 + bool(accuracies)
    figure = Figure(figsize=(6 * n_panels, 4.5), layout="constrained")
    panels = figure.subplots(1, n_panels, squeeze=False, sharex=True)[0]
    marker = "o" if len(table) <= _MAX_POINTS else None
    panels[0].plot(
        table["epoch"], table["loss"], color=BLUE, marker=marker, markersize=4, label="loss"
    )
    panels[0].set(ylabel="loss, mean over the epoch", title="Loss")
    for number, name in enumerate(accuracies):
        measured = table[table[name].notna()]
        panels[1].plot(
            measured["epoch"],
            100 * measured[name].astype(float),
            color=_COLORS[number % len(_COLORS)],
            linestyle=_LINES[number // len(_COLORS) % len(_LINES)],
            marker="o" if len(measured) <= _MAX_POINTS else None,
            markersize=4,
            label=_for_reading(name),
        )
    for axes in panels:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        if len(table) == 1:
            epoch = float(table["epoch"].iloc[0])
            axes.set_xlim(epoch - 1, epoch + 1)
    if accuracies:
        panels[1].set(ylabel="accuracy (%)", title="Accuracy of test images")
        panels[1].legend(fontsize=8)
    _draw_schedule(panels, table)
    return figure


def _for_reading(name: str) -> str:
    return name.replace("_", " ").replace("top", "top-")


def _draw_schedule(panels: Sequence[Axes], table: pd.DataFrame) -> None:
    """Lines where the learning rate or the momentum of the bank takes a step, or a curve."""
    stepwise = {
        name: word
        for name, word in _SCHEDULES.items()
        if name in table.columns and table[name].nunique() <= _MAX_STEPS
    }
    if "learning_rate" in stepwise:
        panels[0].set_title(f"Loss; learning rate at first {table['learning_rate'].iloc[0]:g}")
    else:
        axes = panels[0].twinx()
        axes.plot(table["epoch"], table["learning_rate"], color=GREY, linewidth=1)
        axes.set_ylabel("learning rate", color="0.4")
        axes.set_ylim(0, 1.05 * table["learning_rate"].max())
    for row in range(1, len(table)):
        values, before = table.iloc[row], table.iloc[row - 1]
        steps = [f"{word} {values[n]:g}" for n, word in stepwise.items() if values[n] != before[n]]
        if not steps:
            continue
        # Between the last epoch with the old value and the first with the new one.
        place = (float(before["epoch"]) + float(values["epoch"])) / 2
        for axes in panels:
            axes.axvline(place, color=GREY, linestyle="--", linewidth=1)
        panels[0].annotate(
            ", ".join(steps), (place, 1), (3, -4), xycoords=panels[0].get_xaxis_transform(),
            textcoords="offset points", rotation=90, fontsize=7, color="0.35", va="top",
        )  # fmt: skip
