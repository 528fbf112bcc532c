"""The curves of a sweep: accuracy against n_labeled, diffusion steps and background size."""

from __future__ import annotations

from itertools import zip_longest
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator
from numpy.typing import NDArray

from lowshot_kedro.methods import METHODS
from lowshot_kedro.methods.palette import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY_BLUE,
    VERMILLION,
)
from lowshot_kedro.reporting.names import (
    count_name,
    for_reading,
    labeled_name,
    method_name,
    method_rank,
    parse_unlabeled,
    unlabeled_rank,
    unlabeled_size,
)
from lowshot_kedro.reporting.style import GROUP_NAMES, empty_figure, groups_shown

_GROUPS = ("", "_novel")
# Colours of the values of n_labeled, in increasing order.
_NUMBER_COLORS = (SKY_BLUE, ORANGE, GREEN, BLUE, VERMILLION, PURPLE, GREY)
# Lines of the kinds of unlabelled images of a method, from the largest.
_LINE_STYLES = ("-", "--", ":", "-.")
_MAX_UNLABELED = 3
# Parts of the smallest gap between two values of the x axis: what the points of one value are
# spread over, and what is left free at the ends.
_SPREAD, _MARGIN = 0.3, 0.4
# The most letters of a title in an inch.
_LETTERS_PER_INCH = 14


def plot_accuracy_per_n_labeled(summary: pd.DataFrame, k: int) -> Figure:
    """Top-k accuracy of the methods against n_labeled, with deviations: all and novel classes.

    Points of one n_labeled stand a little beside each other, so that their bars can be seen. Of
    more than three choices of unlabelled images, the largest of each kind are drawn, and the runs
    without background.

    Args:
        summary: The table that :func:`lowshot_kedro.reporting.summarize` returns.
        k: One of its values of k.
    """
    if summary.empty:
        return empty_figure("No test runs")
    summary = for_reading(summary)
    curves = []
    for method, of_method in summary.groupby("method", sort=False):
        names = _drawn_unlabeled(of_method["unlabeled"].unique().tolist())
        from_largest = sorted(names, key=unlabeled_size, reverse=True)
        for name in names:
            line_style = _LINE_STYLES[from_largest.index(name)]
            curves.append((method, line_style, of_method[of_method["unlabeled"] == name]))
    places = _places(summary["n_labeled"].unique().tolist())
    gap = _smallest_gap(np.log10(list(places.values())))
    factors, margin = 10 ** _offsets(len(curves), gap), 10 ** (_MARGIN * gap)

    figure, panels = _panels(
        "Mean over the seeds and standard deviation", k, groups_shown(summary, k, "_mean")
    )
    for axes, group in panels:
        for (method, line_style, rows), factor in zip(curves, factors, strict=True):
            style = METHODS[method].style
            first = rows.iloc[0]
            _error_bars(
                axes, rows["n_labeled"].map(places) * factor, rows, f"top{k}{group}",
                color=style.color, marker=style.marker, linestyle=line_style, markersize=5,
                label=method_name(method, first["unlabeled"], first["n_background"]),
            )  # fmt: skip
        axes.set_xscale("log")
        names = [labeled_name(number).removeprefix("n=") for number in places]
        axes.set_xticks(list(places.values()), names)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlim(min(places.values()) / margin, max(places.values()) * margin)
        axes.set_xlabel("labelled images of every novel class (logarithmic)")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, ncols=3, loc="outside lower center")
    return figure


def plot_accuracy_per_step_over_seeds(steps: pd.DataFrame, k: int) -> Figure:
    """Top-k accuracy against the number of steps, with deviations: all and novel classes.

    With the largest background; the step that was chosen on the validation classes is marked.

    Args:
        steps: A row per test run of one method and iteration: method, unlabeled, n_background,
            n_labeled, seed, iteration, the accuracies, and chosen (bool): whether this is the
            number of steps that was chosen.
        k: One of its values of k.
    """
    if steps.empty:
        return empty_figure("No test runs with steps")
    steps = for_reading(steps)
    # Of several methods with steps the first is drawn.
    method = METHODS[min(steps["method"], key=method_rank)]
    steps = steps[steps["method"] == method.name]
    largest = max(steps["unlabeled"], key=unlabeled_size)
    steps = steps[steps["unlabeled"] == largest]
    name = method_name(method.name, largest, steps["n_background"].iloc[0])
    figure, panels = _panels(
        f"{name[:1].upper()}{name[1:]}: mean over the seeds; shaded: standard deviation; diamond: "
        "the step that was chosen on the validation classes",
        k,
        groups_shown(steps, k),
    )
    for axes, group in panels:
        for number, color in _colors(steps).items():
            rows = steps[steps["n_labeled"] == number]
            values = 100 * rows[f"top{k}{group}"].astype(float)
            of_step = values.groupby(rows["iteration"])
            mean, deviation = of_step.mean(), of_step.std(ddof=1)
            name = labeled_name(number)
            axes.plot(mean.index, mean, color=color, marker="o", markersize=3, label=name)
            axes.fill_between(
                mean.index, mean - deviation, mean + deviation, color=color, alpha=0.2, linewidth=0
            )
            chosen = mean[mean.index.isin(rows.loc[rows["chosen"].astype(bool), "iteration"])]
            axes.plot(
                chosen.index, chosen, color=color, marker="D", markersize=9, linestyle="none",
                markeredgecolor="black", label=f"{name}, chosen",
            )  # fmt: skip
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel(method.step_label or "step")
    _number_legend(figure, steps, [])
    return figure


def plot_accuracy_per_background(summary: pd.DataFrame, k: int) -> Figure:
    """Top-k accuracy against the number of background images, of methods that are drawn so.

    The sizes stand at equal distances. A method that uses none is a level.

    Args:
        summary: The table that :func:`lowshot_kedro.reporting.summarize` returns.
        k: One of its values of k.
    """
    summary = for_reading(summary)
    summary["kind"] = summary["unlabeled"].map(_kind)
    has_size = summary["kind"].isin(("background", "both"))
    lines: dict[str, Any] = {name: METHODS[name].style.line for name in summary["method"].unique()}
    drawn = summary["method"].map(lines).notna()
    uses_unlabeled = summary["method"].map(lambda name: METHODS[name].uses_unlabeled)
    curves = summary[has_size & drawn]
    if curves.empty:
        return empty_figure("No test runs with background images")
    levels = summary[drawn & ~uses_unlabeled.astype(bool)]
    sizes = sorted(curves["n_background"].unique())
    positions = {size: position for position, size in enumerate(sizes)}
    colors = _colors(pd.concat([curves, levels]))
    markers = {"background": "o", "both": "s"}
    groups = list(curves.groupby(["method", "kind", "n_labeled"], sort=False))
    offsets = _offsets(len(groups), 1)

    figure, panels = _panels(
        "Mean over the seeds and standard deviation", k, groups_shown(summary, k, "_mean")
    )
    for axes, group in panels:
        for ((method, kind, number), rows), offset in zip(groups, offsets, strict=True):
            rows = rows.sort_values("n_background")
            _error_bars(
                axes, rows["n_background"].map(positions) + offset, rows, f"top{k}{group}",
                color=colors[number], marker=markers[kind], linestyle=lines[method],
                markersize=5, label=f"{_curve_name(method, kind)}, {labeled_name(number)}",
            )  # fmt: skip
        for level in levels.itertuples():
            axes.axhline(
                100 * getattr(level, f"top{k}{group}_mean"), color=colors[level.n_labeled],
                linestyle=lines[level.method], linewidth=1,
                label=f"{METHODS[level.method].title}, {labeled_name(level.n_labeled)}",
            )  # fmt: skip
        axes.set_xticks(range(len(sizes)), [count_name(int(size)) for size in sizes])
        axes.set_xlim(-_MARGIN, len(sizes) - 1 + _MARGIN)
        axes.set_xlabel("background images")
    kinds_drawn = {(method, kind): None for (method, kind, _), _ in groups}
    handles = [
        Line2D(
            [], [], color="black", linestyle=lines[method], marker=markers[kind],
            markersize=5, label=_curve_name(method, kind),
        )
        for method, kind in kinds_drawn
    ]  # fmt: skip
    handles += [
        Line2D(
            [], [], color="black", linestyle=lines[method], linewidth=1,
            label=METHODS[method].title,
        )
        for method in levels["method"].unique()
    ]  # fmt: skip
    _number_legend(figure, pd.concat([curves, levels]), handles)
    return figure


def _panels(title: str, k: int, groups: list[str]) -> tuple[Figure, list[tuple[Axes, str]]]:
    """A figure with a panel for all and, unless all are novel, one for novel classes.

    Returns:
        The figure, and its panels with how the names of their columns end.
    """
    groups = [group for group in _GROUPS if group in groups]
    width = 11.0 if len(groups) > 1 else 8.5
    figure = Figure(figsize=(width, 5.5))
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.06)
    figure.suptitle(fill(title, int(width * _LETTERS_PER_INCH)), fontsize=9)
    panels = list(zip(figure.subplots(1, len(groups), squeeze=False)[0], groups, strict=True))
    for axes, group in panels:
        axes.set(title=GROUP_NAMES[group], ylabel=f"top-{k} accuracy (%)")
        axes.grid(alpha=0.3)
    return figure, panels


def _places(numbers: list[float]) -> dict[float, float]:
    """Places of the values of n_labeled on a logarithmic axis: `all` is a step behind the last."""
    finite = sorted(number for number in numbers if np.isfinite(number))
    places = {number: number for number in finite}
    if len(finite) < len(numbers):
        last = finite[-1] if finite else 1
        places[np.inf] = last * (last / finite[-2] if len(finite) > 1 else 2)
    return places


def _error_bars(axes: Axes, x: pd.Series, rows: pd.DataFrame, accuracy: str, **style: Any) -> None:
    """Mean in percent, and one deviation up and down where there is one."""
    mean, deviation = (
        100 * rows[f"{accuracy}_{part}"].astype(float).to_numpy() for part in ("mean", "std")
    )
    axes.errorbar(
        x.to_numpy(dtype=float), mean, yerr=deviation, capsize=2, elinewidth=1, linewidth=1.3,
        **style,
    )  # fmt: skip


def _smallest_gap(values: NDArray[np.float64]) -> float:
    return float(np.diff(values).min()) if len(values) > 1 else 1.0


def _offsets(n_curves: int, gap: float) -> NDArray[np.float64]:
    """How far each curve is moved to the side."""
    return (np.arange(n_curves) - (n_curves - 1) / 2) * _SPREAD * gap / max(n_curves - 1, 1)


def _colors(rows: pd.DataFrame) -> dict[float, str]:
    """A colour for every n_labeled."""
    numbers = sorted(rows["n_labeled"].unique().tolist())
    return {
        number: _NUMBER_COLORS[position % len(_NUMBER_COLORS)]
        for position, number in enumerate(numbers)
    }


def _number_legend(figure: Figure, rows: pd.DataFrame, others: list[Line2D]) -> None:
    """Below the panels: the colours of n_labeled, and what the lines and marks mean."""
    numbers = [
        Line2D([], [], color=color, linewidth=3, label=labeled_name(number))
        for number, color in _colors(rows).items()
    ]
    # A legend is filled column by column: n_labeled above, the rest below.
    blank = Line2D([], [], linestyle="none", label=" ")
    rows_drawn = [numbers, others] if others else [numbers]
    columns = list(zip_longest(*rows_drawn, fillvalue=blank))
    figure.legend(
        handles=[handle for column in columns for handle in column],
        fontsize=8, ncols=len(columns), loc="outside lower center",
    )  # fmt: skip


def _drawn_unlabeled(names: list[str]) -> list[str]:
    """Which of the unlabelled images of a method are drawn where there is no room for all."""
    if len(names) <= _MAX_UNLABELED:
        return names
    largest = {_kind(name): name for name in sorted(names, key=unlabeled_rank)}
    return [name for name in names if name in largest.values() or name == "nbg0"]


def _kind(unlabeled: str) -> str:
    images = parse_unlabeled(unlabeled)
    return "none" if images is None else images.kind


def _curve_name(method: str, kind: str) -> str:
    return METHODS[method].title + (" + training images" if kind == "both" else "")
