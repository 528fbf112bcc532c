"""How a training went: losses and accuracies per epoch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

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

# Of test images, and of those that are trained on.
_TEST_ACCURACY = re.compile(r"(?:^|_)top\d+(?:_|$)")
_TRAINING_ACCURACY = re.compile(r"accuracy(?:_|$)")
_PART_OF_LOSS = re.compile(r"loss_")
# Columns whose steps are marked, and what they are called.
_SCHEDULES = {"learning_rate": "learning rate", "bank_momentum": "bank momentum"}
_COLORS = (ORANGE, GREEN, PURPLE, VERMILLION, SKY_BLUE)
_LINES = ("-", "--", ":", "-.")
_ALL_RIGHT = "accuracy"
_WORDS = {
    _ALL_RIGHT: "both right",
    "accuracy_super_class": "super-class",
    "accuracy_sub_class": "cluster",
    "loss_super_class": "of super-classes",
    "loss_sub_class": "of clusters",
}
# A learning rate that takes more values than this is drawn as a curve.
_MAX_STEPS = 6
# Points of more epochs would run into each other.
_MAX_POINTS = 40


def plot_training_curves(table: pd.DataFrame) -> Figure:
    """The loss per epoch with the steps of the learning rate, and beside it the accuracies.

    Args:
        table: A row per epoch with epoch, learning_rate, loss (the mean over an epoch); parts of
            the loss, whose names begin with loss_; and as many accuracies as there are (fractions,
            NaN in epochs where none was measured): of test images, whose names hold top1, top5 and
            so on, such as bank_top1, or of images that are trained on, whose names begin with
            accuracy. Other columns are not drawn, but steps of bank_momentum are named with those
            of the learning rate.

    Without an accuracy there is the loss alone.
    """
    epochs = trained_epochs(table)
    if epochs.empty:
        return empty_figure("no epoch is done yet")
    has_accuracy = bool(accuracies_of(epochs))
    n_panels = 1 + has_accuracy
    figure = Figure(figsize=(6 * n_panels, 4.5), layout="constrained")
    panels = figure.subplots(1, n_panels, squeeze=False, sharex=True)[0]
    draw_training(panels[0], panels[1] if has_accuracy else None, epochs)
    return figure


def trained_epochs(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table that are about an epoch of training."""
    return table[table["loss"].notna()] if len(table) else table


def accuracies_of(table: pd.DataFrame) -> list[str]:
    """The columns of accuracies: of test images, or else of images that are trained on."""
    measured = [str(name) for name in table.columns if table[name].notna().any()]
    of_test = [name for name in measured if _TEST_ACCURACY.search(name)]
    if of_test:
        return of_test
    of_heads = [n for n in measured if _TRAINING_ACCURACY.match(n) and n != _ALL_RIGHT]
    # A head of one class is always right.
    learnt = [n for n in of_heads if table.get(n.replace("accuracy", "loss"), table["loss"]).any()]
    # Of one head alone both say the same.
    return _different(table, [*learnt, *(n for n in measured if n == _ALL_RIGHT)])


def draw_training(losses: Axes, accuracies: Axes | None, table: pd.DataFrame) -> None:
    """Draw losses with the steps of the learning rate, and accuracies.

    Args:
        losses: Where the losses are drawn.
        accuracies: Where the accuracies are drawn, if there are any.
        table: As for :func:`plot_training_curves`; every row has a loss.
    """
    panels = [losses] if accuracies is None else [losses, accuracies]
    draw_curve(losses, table["epoch"], table["loss"], BLUE, "loss")
    parts = [str(name) for name in table.columns if _PART_OF_LOSS.match(str(name))]
    shown = _different(table, ["loss", *(name for name in parts if table[name].any())])[1:]
    for number, name in enumerate(shown):
        draw_curve(losses, table["epoch"], table[name], *_look(number), for_reading(name))
    if shown:
        losses.legend(fontsize=8)
    losses.set(ylabel="loss, mean over the epoch", title="Loss")
    if accuracies is not None:
        names = accuracies_of(table)
        for number, name in enumerate(names):
            values = 100 * table[name].astype(float)
            draw_curve(accuracies, table["epoch"], values, *_look(number), for_reading(name))
        of_test = any(_TEST_ACCURACY.search(name) for name in names)
        whose = "test images" if of_test else "the images trained on"
        accuracies.set(ylabel="accuracy (%)", title=f"Accuracy of {whose}")
        accuracies.legend(fontsize=8)
    for axes in panels:
        show_epochs(axes, table["epoch"])
    _draw_schedule(panels, table)


def draw_curve(
    axes: Axes, epochs: pd.Series[Any], values: pd.Series[Any], color: str, *look: str
) -> None:
    """Draw a curve through the epochs that have a value.

    Args:
        axes: Where.
        epochs: The number of each epoch.
        values: As many, or NaN.
        color: Its colour.
        look: A style of lines, unless it is the usual one, and what the curve is called.
    """
    *style, label = look
    has_value = values.notna()
    axes.plot(
        epochs[has_value],
        values[has_value],
        color=color,
        linestyle=style[0] if style else "-",
        marker="o" if has_value.sum() <= _MAX_POINTS else None,
        markersize=4,
        label=label,
    )


def show_epochs(axes: Axes, epochs: pd.Series[Any]) -> None:
    """Let the horizontal axis be one of epochs."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.grid(alpha=0.3)
    if len(epochs) == 1:
        epoch = float(epochs.iloc[0])
        axes.set_xlim(epoch - 1, epoch + 1)


def for_reading(name: str) -> str:
    """What a curve is called that is a column of a table."""
    words = _WORDS.get(name)
    return name.replace("_", " ").replace("top", "top-") if words is None else words


def _look(number: int) -> tuple[str, str]:
    """A colour and a style of lines."""
    return _COLORS[number % len(_COLORS)], _LINES[number // len(_COLORS) % len(_LINES)]


def _different(table: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Those of some columns that are unlike all before them."""
    return list(table[list(names)].T.drop_duplicates().index)


def _draw_schedule(panels: Sequence[Axes], table: pd.DataFrame) -> None:
    """Lines where the learning rate or the momentum of the bank takes a step, or a curve."""
    stepwise = {
        name: word
        for name, word in _SCHEDULES.items()
        if name in table.columns and table[name].nunique() <= _MAX_STEPS
    }
    if "learning_rate" in stepwise:
        at_first = " at first" if table["learning_rate"].nunique() > 1 else ""
        rate = table["learning_rate"].iloc[0]
        panels[0].set_title(f"Loss; learning rate{at_first} {rate:g}")
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
