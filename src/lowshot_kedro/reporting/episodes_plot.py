"""Accuracies of methods over few-shot episodes, as points with intervals."""

from __future__ import annotations

from textwrap import fill

import pandas as pd
from matplotlib.figure import Figure

from lowshot_kedro.methods.palette import BLUE, ORANGE
from lowshot_kedro.reporting.episodes_table import SETTINGS

# Told apart by shape as well as by colour.
_STYLES = dict(zip(SETTINGS, ((BLUE, "o"), (ORANGE, "D")), strict=True))
_INCHES_PER_ROW = 0.32
_CAPTION_LETTERS = 90


def plot_episodes(table: pd.DataFrame, caption: str) -> Figure:
    """A row for every method, with the 95 % interval of its mean accuracy.

    Inductive methods come first, each setting from the best on: they do not belong in one ranking.

    Args:
        table: What :func:`~lowshot_kedro.reporting.episodes_table.episodes_table` returns.
        caption: What the episodes were made of, for the title.
    """
    table = table.reset_index(drop=True)
    figure = Figure(figsize=(8, 1.7 + _INCHES_PER_ROW * len(table)), layout="constrained")
    axes = figure.subplots()
    for setting, rows in table.groupby("setting", sort=False):
        color, marker = _STYLES[str(setting)]
        axes.errorbar(
            100 * rows["accuracy"],
            rows.index,
            xerr=100 * rows["half_width"].fillna(0),
            fmt=marker,
            color=color,
            markersize=6,
            capsize=3,
            label=setting,
        )
    for row in table.itertuples():
        # Numbers stand in a column of their own, where no point is.
        axes.annotate(
            f"{100 * row.accuracy:.1f}", (1, row.Index), (6, 0), fontsize=9, va="center",
            xycoords=axes.get_yaxis_transform(), textcoords="offset points",
        )  # fmt: skip
    for row in range(1, len(table)):
        if table["setting"][row] != table["setting"][row - 1]:
            axes.axhline(row - 0.5, color="0.7", linewidth=0.8)
    axes.set_yticks(table.index, table["title"])
    axes.set_ylim(len(table) - 0.5, -0.5)
    axes.margins(x=0.06)
    axes.set_xlabel("accuracy (%), mean over the episodes with 95 % confidence interval")
    n_episodes = int(table["n_episodes"].iloc[0])
    title = f"{caption}; {n_episodes} episode{'s' * (n_episodes > 1)}"
    axes.set_title(fill(title, _CAPTION_LETTERS), fontsize=10)
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower right", ncols=len(SETTINGS), fontsize=9)
    return figure
