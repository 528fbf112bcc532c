"""The validation runs of a sweep as heat maps, with what was chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from lowshot_kedro.reporting.names import (
    for_reading,
    labeled_name,
    unlabeled_name,
    unlabeled_rank,
)
from lowshot_kedro.reporting.style import VERMILLION, empty_figure

_COLORS = colormaps["cividis"].with_extremes(bad="#DDDDDD")
# Numbers on colours darker than this are white. Brightness: how red, green and blue count
# (ITU-R BT.709).
_DARK = 0.45
_BRIGHTNESS = (0.2126, 0.7152, 0.0722)
# More columns than these have no numbers in their cells, which nobody could read, and not all of
# their names.
_MAX_COLUMNS_WRITTEN = 60
# Width and height of a cell in inches.
_SETTING_CELL = (0.95, 0.42)
_STEP_CELL = (0.31, 0.28)
# Inches, too.
_PANEL_MARGIN, _LABEL_WIDTH, _COLORBAR_HEIGHT, _COLORBAR_THICKNESS = 0.62, 1.6, 0.8, 0.15
_NARROWEST, _WIDEST, _TITLE_WIDTH = 8.0, 18.0, 2.4


@dataclass(frozen=True)
class _Panel:
    """One heat map.

    Attributes:
        title: Above it.
        values: float64 (rows, columns), percent, NaN where nothing was measured.
        texts: What is written into the cells, by (row, column).
        row_names: Of every row.
        column_names: Of every column.
        row_label: What the rows are.
        column_label: What the columns are.
        framed: (row, column) of the cells that were chosen.
        cell: Width and height of a cell in inches.
    """

    title: str
    values: NDArray[np.float64]
    texts: dict[tuple[int, ...], str]
    row_names: list[str]
    column_names: list[str]
    row_label: str
    column_label: str
    framed: list[tuple[int, int]]
    cell: tuple[float, float]

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the cells together, in inches."""
        return self.cell[0] * len(self.column_names), self.cell[1] * len(self.row_names)


def plot_validation_grid(validation: pd.DataFrame, chosen: pd.DataFrame) -> Figure:
    """Accuracies on the validation classes, mean over the seeds, as heat maps.

    Logistic regression: for every n_labeled and batch size, learning rate against weight decay; a
    cell holds the best accuracy over the iterations, and the iteration. Diffusion: for every
    n_labeled, unlabelled images, k and edge weight against the step. All share their colours;
    what was chosen has a frame. Other methods are not drawn.

    Args:
        validation: A row per run and entry of its metrics: method, unlabeled, n_labeled, seed, lr,
            weight_decay, batch_size, k, edge_weight, iteration (NaN where it does not apply),
            metric (fraction) and metric_name.
        chosen: What was chosen: method, unlabeled, n_labeled and the same settings.
    """
    if validation.empty or validation["metric"].isna().all():
        return empty_figure("No validation runs")
    validation = for_reading(validation).dropna(subset="metric")
    chosen = pd.DataFrame(columns=validation.columns) if chosen.empty else for_reading(chosen)
    regression = _regression_panels(*_of_method("logistic_regression", validation, chosen))
    diffusion = _diffusion_panels(*_of_method("diffusion", validation, chosen))
    rows = [*regression, *([panel] for panel in diffusion)]
    if not rows:
        return empty_figure("No validation runs of logistic regression or diffusion")

    heights = [row[0].size[1] + _PANEL_MARGIN for row in rows]
    widths = [[max(panel.size[0], _TITLE_WIDTH) for panel in row] for row in rows]
    width = max(map(sum, widths)) + _LABEL_WIDTH
    figure = Figure(
        figsize=(float(np.clip(width, _NARROWEST, _WIDEST)), sum(heights) + _COLORBAR_HEIGHT),
    )
    figure.set_layout_engine("constrained", w_pad=0.1)
    grid = GridSpec(len(rows) + 1, 1, figure=figure, height_ratios=[*heights, _COLORBAR_THICKNESS])
    values = np.concatenate([panel.values.ravel() for row in rows for panel in row])
    norm = Normalize(np.nanmin(values), np.nanmax(values))
    for number, row in enumerate(rows):
        places = grid[number].subgridspec(1, len(row))
        for column, panel in enumerate(row):
            _draw(figure.add_subplot(places[column]), panel, norm)
    name = str(validation["metric_name"].iloc[0]).replace("_", " ").replace("top", "top-")
    colorbar = figure.colorbar(
        ScalarMappable(norm, _COLORS),
        cax=figure.add_subplot(grid[len(rows)]),
        orientation="horizontal",
    )
    colorbar.ax.tick_params(labelsize=7)
    colorbar.set_label(
        f"{name}, validation classes (%), mean over the seeds; after so many iterations; framed: "
        "chosen",
        fontsize=8,
    )
    return figure


def _of_method(method: str, *frames: pd.DataFrame) -> list[pd.DataFrame]:
    return [frame[frame["method"] == method] for frame in frames]


def _regression_panels(validation: pd.DataFrame, chosen: pd.DataFrame) -> list[list[_Panel]]:
    """A row for every n_labeled, in it a panel for every batch size; one row if there is one."""
    cell = ["n_labeled", "batch_size", "lr", "weight_decay"]
    means = validation.groupby([*cell, "iteration"], as_index=False)["metric"].mean()
    # The first of equal ones, so the least iterations.
    best = means.loc[means.groupby(cell)["metric"].idxmax()]
    rates, decays, sizes = (
        sorted(validation[name].unique()) for name in ("lr", "weight_decay", "batch_size")
    )
    rows: list[list[_Panel]] = []
    for n_labeled in sorted(validation["n_labeled"].unique()):
        rows.append([])
        for batch_size in sizes:
            values = np.full((len(rates), len(decays)), np.nan)
            texts: dict[tuple[int, ...], str] = {}
            for entry in _where(best, n_labeled=n_labeled, batch_size=batch_size).itertuples():
                place = (rates.index(entry.lr), decays.index(entry.weight_decay))
                values[place] = 100 * entry.metric
                texts[place] = f"{values[place]:.1f}\nafter {entry.iteration:.0f}"
            framed = [
                (rates.index(entry.lr), decays.index(entry.weight_decay))
                for entry in _where(chosen, n_labeled=n_labeled, batch_size=batch_size).itertuples()
                if entry.lr in rates and entry.weight_decay in decays
            ]
            rows[-1].append(
                _Panel(
                    f"logistic regression, {labeled_name(n_labeled)}, batch {batch_size:.0f}",
                    values,
                    texts,
                    [f"{rate:g}" for rate in rates],
                    [f"{decay:g}" for decay in decays],
                    "learning rate",
                    "weight decay",
                    framed,
                    _SETTING_CELL,
                )
            )
    if len(sizes) == 1:
        return [[panel for row in rows for panel in row]]
    return rows


def _diffusion_panels(validation: pd.DataFrame, chosen: pd.DataFrame) -> list[_Panel]:
    """A panel for every n_labeled: unlabelled images, k and edge weight against the step.

    Not everything need be possible with every n_labeled.
    """
    setting = ["unlabeled", "k", "edge_weight"]
    names = _run_names(list(validation[setting].drop_duplicates().itertuples(False, None)))
    steps = sorted(validation["iteration"].unique())
    panels = []
    for n_labeled in sorted(validation["n_labeled"].unique()):
        of_number = _where(validation, n_labeled=n_labeled)
        runs = sorted(
            of_number[setting].drop_duplicates().itertuples(index=False, name=None),
            key=lambda run: (unlabeled_rank(run[0]), *run[1:]),
        )
        values = np.full((len(runs), len(steps)), np.nan)
        for (*run, step), metric in of_number.groupby([*setting, "iteration"])["metric"]:
            values[runs.index(tuple(run)), steps.index(step)] = 100 * metric.mean()
        written = len(steps) <= _MAX_COLUMNS_WRITTEN
        texts = {
            place: f"{value:.1f}"
            for place, value in np.ndenumerate(values)
            if written and not np.isnan(value)
        }
        places = _where(chosen, n_labeled=n_labeled)[[*setting, "iteration"]]
        framed = [
            (runs.index(tuple(run)), steps.index(step))
            for *run, step in places.itertuples(index=False, name=None)
            if tuple(run) in runs and step in steps
        ]
        panels.append(
            _Panel(
                f"diffusion, {labeled_name(n_labeled)}",
                values,
                texts,
                [names[run] for run in runs],
                [f"{step:.0f}" for step in steps],
                "",
                "diffusion step",
                framed,
                _STEP_CELL,
            )
        )
    return panels


def _run_names(runs: list[tuple[str, float, str]]) -> dict[tuple[str, float, str], str]:
    """What tells the runs of the diffusion from each other, in all panels."""
    columns = [
        [unlabeled_name(unlabeled) for unlabeled, _, _ in runs],
        [f"k={k:.0f}" for _, k, _ in runs],
        [edge_weight.replace("_", " ") for _, _, edge_weight in runs],
    ]
    different = [column for column in columns if len(set(column)) > 1] or columns[:1]
    names = [", ".join(parts) for parts in zip(*different, strict=True)]
    return dict(zip(runs, names, strict=True))


def _where(rows: pd.DataFrame, **settings: Any) -> pd.DataFrame:
    """The rows that have these settings."""
    for name, value in settings.items():
        rows = rows[rows[name] == value]
    return rows


def _draw(axes: Axes, panel: _Panel, norm: Normalize) -> None:
    axes.imshow(panel.values, cmap=_COLORS, norm=norm, aspect="auto")
    for (row, column), text in panel.texts.items():
        background = _COLORS(norm(panel.values[row, column]))
        axes.text(
            column, row, text, ha="center", va="center", fontsize=6.5, in_layout=False,
            color="white" if np.dot(background[:3], _BRIGHTNESS) < _DARK else "black",
        )  # fmt: skip
    for row, column in panel.framed:
        axes.add_patch(
            Rectangle(
                (column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=VERMILLION, linewidth=2.5,
                zorder=3, clip_on=False,
            )
        )  # fmt: skip
    axes.set_title(panel.title, fontsize=8)
    every = -(-len(panel.column_names) // _MAX_COLUMNS_WRITTEN)
    axes.set_xticks(
        range(0, len(panel.column_names), every), panel.column_names[::every], fontsize=7
    )
    axes.set_yticks(range(len(panel.row_names)), panel.row_names, fontsize=7)
    axes.set_xlabel(panel.column_label, fontsize=7)
    axes.set_ylabel(panel.row_label, fontsize=7)
