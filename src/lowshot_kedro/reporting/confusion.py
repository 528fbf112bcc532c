"""Which classes are taken for which others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lowshot_kedro.fonts import drawable, font_families
from lowshot_kedro.methods.palette import BLUE
from lowshot_kedro.reporting.style import empty_figure, shortened

_MAX_CLASSES = 30
_MAX_WRITTEN = 20
_MAX_NAME = 24
_WHITE_TO_BLUE = LinearSegmentedColormap.from_list("white to blue", ["white", BLUE])


def plot_confusion(report: Mapping[str, Any]) -> Figure:
    """Which classes held-out labels are taken for: a row for each class, in percent of its labels.

    Of more than 30 classes those are drawn that are most often taken for one another.

    Args:
        report: The report of a labelling.

    Returns:
        The figure; one that says why, where no labels were held out.
    """
    names = [entry["name"] for entry in report.get("classes") or ()]
    confusion = report.get("confusion")
    counts = np.asarray([] if confusion is None else confusion, dtype=np.int64)
    if not counts.sum():
        return empty_figure("too few labels to hold any out")
    shown = most_confused(counts, _MAX_CLASSES)
    counts_shown = counts[np.ix_(shown, shown)]
    parts = 100 * counts_shown / np.maximum(counts.sum(axis=1)[shown, None], 1)
    side = 2.6 + 0.36 * max(len(shown), 5)
    figure = Figure(figsize=(side + 0.9, side), layout="constrained")
    axes = figure.subplots()
    drawn = axes.imshow(parts, cmap=_WHITE_TO_BLUE, vmin=0, vmax=100)
    if len(shown) <= _MAX_WRITTEN:
        for row, column in zip(*np.nonzero(counts_shown), strict=True):
            axes.text(
                column, row, str(counts_shown[row, column]), ha="center", va="center", fontsize=7,
                color="white" if parts[row, column] > 50 else "black",
            )  # fmt: skip
    labels = [drawable(shortened(names[number], _MAX_NAME)) for number in shown]
    style: dict[str, Any] = {"fontsize": 8, "parse_math": False, "family": font_families(labels)}
    places = range(len(shown))
    axes.set_xticks(places, labels, rotation=90, **style)
    axes.set_yticks(places, labels, **style)
    axes.tick_params(length=0)
    axes.set(xlabel="found when it was held out", ylabel="label that was given")
    axes.set_title(_title(counts, len(shown)), fontsize=10)
    figure.colorbar(drawn, ax=axes, shrink=0.7, label="% of the held-out labels of the class")
    return figure


def most_confused(counts: NDArray[np.int64], n_classes: int) -> NDArray[np.int64]:
    """The classes that are most often taken for one another, in their order.

    Args:
        counts: int64 (C, C), how often a class, a row, was taken for another, a column.
        n_classes: How many are wanted; they come in pairs, the most frequent pair first.

    Returns:
        int64 (at most n_classes,), increasing; all classes, if they are no more.
    """
    if len(counts) <= n_classes:
        return np.arange(len(counts))
    mistakes = counts + counts.T
    rows, columns = np.triu_indices(len(counts), 1)
    order = np.argsort(-mistakes[rows, columns], kind="stable")
    in_pairs = np.column_stack([rows[order], columns[order]]).ravel()
    _, first = np.unique(in_pairs, return_index=True)
    return np.sort(in_pairs[np.sort(first)[:n_classes]])


def _title(counts: NDArray[np.int64], n_shown: int) -> str:
    n_right, n_all = int(np.trace(counts)), int(counts.sum())
    title = f"{n_right} of {n_all} held-out labels are found again"
    if n_shown < len(counts):
        title += f"\nthe {n_shown} classes of {len(counts)} most often taken for one another"
    return title
