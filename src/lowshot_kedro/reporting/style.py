"""Colours and words that the tables and plots have in common."""

from __future__ import annotations

import io

import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from lowshot_kedro.methods.palette import BLUE, GREEN, ORANGE

# The groups of test images that accuracies are computed for, as the names of columns end.
GROUP_NAMES = {"": "all classes", "_novel": "novel classes", "_base": "base classes"}
GROUP_COLORS = {"": BLUE, "_novel": ORANGE, "_base": GREEN}
# What stands in the place of an accuracy that there is not.
MISSING = "–"
# A width in letters that no table needs.
_ROOM = 10_000


def groups_shown(frame: pd.DataFrame, k: int, suffix: str = "") -> list[str]:
    """The groups of classes worth a column or a curve, by what names of their columns end with.

    They are the groups that test images belong to, or all classes alone if all are novel or all
    base, since the other group would say the same.

    Args:
        frame: With columns such as `top1_novel` and the suffix.
        k: k of the accuracy that is looked at.
        suffix: For instance `_mean`.
    """
    columns = {group: f"top{k}{group}{suffix}" for group in GROUP_NAMES}
    groups = [
        group
        for group, column in columns.items()
        if column in frame.columns and frame[column].notna().any()
    ]
    if len(groups) == 2 and frame[columns[groups[0]]].equals(frame[columns[groups[1]]]):
        return groups[:1]
    return groups or [""]


def empty_figure(message: str) -> Figure:
    """A figure that says why there is nothing to draw."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.axis("off")
    axes.text(0.5, 0.5, message, ha="center")
    return figure


def png_of(figure: Figure, dots_per_inch: int = 120) -> bytes:
    """A figure as the content of a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dots_per_inch)
    return file.getvalue()


def percent(mean: float | None, deviation: float | None) -> str:
    """An accuracy, a fraction, in percent, with its deviation if there is one."""
    if mean is None or pd.isna(mean):
        return MISSING
    if deviation is None or pd.isna(deviation):
        return f"{100 * mean:.1f}"
    return f"{100 * mean:.1f} ± {100 * deviation:.1f}"


def print_whole(table: Table) -> None:
    """Print a table to the terminal as wide as it is."""
    needed = Console(width=_ROOM).measure(table).maximum
    Console(width=max(Console().width, needed)).print(table)


def shortened(name: str, max_letters: int) -> str:
    """A name of at most so many letters, the last a … where some are left out."""
    return name if len(name) <= max_letters else f"{name[: max_letters - 1]}…"
