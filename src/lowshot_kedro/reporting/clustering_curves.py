"""How a training went that clusters its images every few epochs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import cycle

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lowshot_kedro.methods.palette import BLUE, GREEN, GREY, ORANGE, PURPLE
from lowshot_kedro.reporting.training_curves import (
    accuracies_of,
    draw_curve,
    draw_training,
    for_reading,
    plot_training_curves,
    show_epochs,
    trained_epochs,
)

_NMI, _EMPTY = "normalized_mutual_information", "n_empty_clusters"
# Columns whose names begin so: of all clusters together, and of single stages.
_OBJECTIVE = "mean_squared_distance"
_SIZES = {
    "largest_cluster": ("largest", BLUE),
    "median_cluster": ("median", GREEN),
    "smallest_cluster": ("smallest", ORANGE),
}
_COLORS = (BLUE, ORANGE, GREEN, PURPLE)
# More lines would hide the curves.
_MAX_MARKED = 20
# Sizes so many times as large as others are drawn by their logarithms.
_FAR = 10


def plot_clustering_curves(table: pd.DataFrame) -> Figure:
    """Losses and accuracies per epoch, and what the clusterings between epochs were like.

    Args:
        table: As for :func:`~lowshot_kedro.reporting.plot_training_curves`, and besides, in rows
            of epochs before which images were clustered, as far as they are known:
            normalized_mutual_information (with the clusters of the round before),
            mean_squared_distance (from the centroid; other columns whose names begin so are drawn
            beside it), n_empty_clusters, and images of the largest_cluster, median_cluster and
            smallest_cluster. A row without a loss is about a clustering alone.

    Without a clustering this is :func:`~lowshot_kedro.reporting.plot_training_curves`.
    """
    objectives = [str(name) for name in table.columns if str(name).startswith(_OBJECTIVE)]
    known = [name for name in (_NMI, _EMPTY, *_SIZES, *objectives) if name in table.columns]
    clusterings = table[table[known].notna().any(axis=1)] if known else table[:0]
    if clusterings.empty:
        return plot_training_curves(table)
    epochs = trained_epochs(table)
    figure = Figure(figsize=(13, 8.5), layout="constrained")
    panels = figure.subplot_mosaic("AAABBB;CCDDEE")
    if epochs.empty:
        for name in "AB":
            panels[name].axis("off")
        _say(panels["A"], "no epoch is done yet")
    else:
        accuracies = panels["B"] if accuracies_of(epochs) else None
        draw_training(panels["A"], accuracies, epochs)
        if accuracies is None:
            panels["B"].axis("off")
        for axes in (panels["A"], panels["B"]):
            _mark_clusterings(axes, clusterings)
    _draw_agreement(panels["C"], clusterings)
    _draw_objectives(panels["D"], clusterings, objectives)
    _draw_sizes(panels["E"], clusterings)
    for name in "CDE":
        show_epochs(panels[name], clusterings["epoch"])
        panels[name].set_xlim(clusterings["epoch"].min() - 1, clusterings["epoch"].max() + 1)
        panels[name].set_xlabel("clustering before epoch")
    return figure


def _mark_clusterings(axes: Axes, clusterings: pd.DataFrame) -> None:
    """Lines where clusters were made anew: between the last epoch before and the first after."""
    if len(clusterings) > _MAX_MARKED:
        return
    for number, epoch in enumerate(clusterings["epoch"]):
        axes.axvline(
            float(epoch) - 0.5, color="0.45", linewidth=0.9, linestyle=":", zorder=1,
            label="clusters made anew" if number == 0 else None,
        )  # fmt: skip
    axes.legend(fontsize=8)


def _draw_agreement(axes: Axes, clusterings: pd.DataFrame) -> None:
    axes.set(title="Clusters of one round and the next", ylim=(0, 1.02))
    axes.set_ylabel("normalised mutual information")
    if _NMI in clusterings.columns and clusterings[_NMI].notna().any():
        draw_curve(axes, clusterings["epoch"], clusterings[_NMI], PURPLE, "of all images")
    else:
        _say(axes, "there is one round alone")


def _draw_objectives(axes: Axes, clusterings: pd.DataFrame, names: Sequence[str]) -> None:
    axes.set(title="Distance from the centroid", ylabel="mean squared distance")
    for name, color in zip(names, cycle(_COLORS), strict=False):
        what = name.removeprefix(_OBJECTIVE).removeprefix("_")
        draw_curve(
            axes, clusterings["epoch"], clusterings[name], color, for_reading(what) or "clusters"
        )
    if len(names) > 1:
        axes.legend(fontsize=8)
    if not names:
        _say(axes, "not known")


def _draw_sizes(axes: Axes, clusterings: pd.DataFrame) -> None:
    axes.set(title="Sizes of clusters", ylabel="images")
    largest, least = 0.0, math.inf
    for name, (what, color) in _SIZES.items():
        if name in clusterings.columns:
            # The smallest may be empty, which has no place among logarithms.
            sizes = clusterings[name].where(clusterings[name] > 0)
            draw_curve(axes, clusterings["epoch"], sizes, color, what)
            largest, least = max(largest, sizes.max()), min(least, sizes.min())
    if largest > _FAR * least:
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, 1.1 * largest if largest else 1)
    if _EMPTY in clusterings.columns:
        empty = axes.twinx()
        width = 0.4 * clusterings["epoch"].diff().min() if len(clusterings) > 1 else 0.2
        empty.bar(
            clusterings["epoch"], clusterings[_EMPTY], color=GREY, alpha=0.35, width=width,
            label="empty clusters",
        )  # fmt: skip
        empty.set_ylim(0, max(4, 3 * clusterings[_EMPTY].max()))
        empty.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        empty.set_ylabel("empty clusters", color="0.4")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center", color="0.4", transform=axes.transAxes)
