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

from lowshot_kedro.methods import METHODS, Method
from lowshot_kedro.methods.method import PlacesMap, SettingsMap
from lowshot_kedro.methods.palette import VERMILLION
from lowshot_kedro.reporting.names import (
    for_reading,
    labeled_name,
    method_rank,
    unlabeled_name,
    unlabeled_rank,
)
from lowshot_kedro.reporting.style import empty_figure

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
# Other lengths in inches.
_PANEL_MARGIN, _LABEL_WIDTH, _COLORBAR_HEIGHT, _COLORBAR_THICKNESS = 0.62, 1.6, 0.8, 0.15
_NARROWEST, _WIDEST, _TITLE_WIDTH = 8.0, 18.0, 2.4


@dataclass(frozen=True)
class _Panel:
    """One heat map.

    Attributes:
        title: Title above it.
        values: float64 (rows, columns), percent, NaN where nothing was measured.
        texts: What is written into the cells, by (row, column).
        row_names: Name of every row.
        column_names: Name of every column.
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

    As each method says (:class:`~lowshot_kedro.methods.Method.heat_map`): for every n_labeled one
    setting against another, a cell holding the best accuracy along the axis, and the place; or all
    runs against the places of the axis. All share their colours; what was chosen has a frame.

    Args:
        validation: A row per run and entry of its metrics: method, unlabeled, n_labeled, seed, all
            settings and axes (NaN where one does not apply), metric (fraction) and metric_name.
        chosen: What was chosen: method, unlabeled, n_labeled and the same settings.
    """
    if validation.empty or validation["metric"].isna().all():
        return empty_figure("No validation runs")
    validation = for_reading(validation).dropna(subset="metric")
    chosen = pd.DataFrame(columns=validation.columns) if chosen.empty else for_reading(chosen)
    rows: list[list[_Panel]] = []
    for name in sorted(validation["method"].unique(), key=method_rank):
        method = METHODS[name]
        heat_map, of_method = method.heat_map, _of_method(name, validation, chosen)
        if heat_map is None or method.axis is None:
            continue
        if isinstance(heat_map, PlacesMap):
            rows += [[panel] for panel in _panels_of_places(method, heat_map, *of_method)]
        else:
            rows += _panels_of_settings(method, heat_map, *of_method)
    if not rows:
        return empty_figure("No validation runs that are drawn")

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


def _panels_of_settings(
    method: Method, heat_map: SettingsMap, validation: pd.DataFrame, chosen: pd.DataFrame
) -> list[list[_Panel]]:
    """A row for every n_labeled, in it a panel for every value; one row if there is one value."""
    assert method.axis is not None
    place, names = method.axis.name, (heat_map.rows, heat_map.columns, heat_map.panels)
    cell = ["n_labeled", *names]
    means = validation.groupby([*cell, place], as_index=False)["metric"].mean()
    # The first of equal ones, so the least iterations.
    best = means.loc[means.groupby(cell)["metric"].idxmax()]
    downwards, to_the_right, panels = (sorted(validation[name].unique()) for name in names)
    rows: list[list[_Panel]] = []
    for n_labeled in sorted(validation["n_labeled"].unique()):
        rows.append([])
        for value in panels:
            which = {"n_labeled": n_labeled, heat_map.panels: value}
            values = np.full((len(downwards), len(to_the_right)), np.nan)
            texts: dict[tuple[int, ...], str] = {}
            for entry in _where(best, **which).to_dict("records"):
                at = (
                    downwards.index(entry[heat_map.rows]),
                    to_the_right.index(entry[heat_map.columns]),
                )
                values[at] = 100 * entry["metric"]
                texts[at] = f"{values[at]:.1f}\nafter {entry[place]:.0f}"
            framed = [
                (
                    downwards.index(entry[heat_map.rows]),
                    to_the_right.index(entry[heat_map.columns]),
                )
                for entry in _where(chosen, **which).to_dict("records")
                if entry[heat_map.rows] in downwards and entry[heat_map.columns] in to_the_right
            ]
            rows[-1].append(
                _Panel(
                    f"{method.title}, {labeled_name(n_labeled)}, "
                    f"{heat_map.panel_label} {value:.0f}",
                    values,
                    texts,
                    [f"{number:g}" for number in downwards],
                    [f"{number:g}" for number in to_the_right],
                    heat_map.row_label,
                    heat_map.column_label,
                    framed,
                    _SETTING_CELL,
                )
            )
    if len(panels) == 1:
        return [[panel for row in rows for panel in row]]
    return rows


def _panels_of_places(
    method: Method, heat_map: PlacesMap, validation: pd.DataFrame, chosen: pd.DataFrame
) -> list[_Panel]:
    """A panel for every n_labeled: unlabelled images and settings against the place.

    Not everything need be possible with every n_labeled.
    """
    assert method.axis is not None
    place, setting = method.axis.name, ["unlabeled", *method.settings]
    names = _run_names(method, list(validation[setting].drop_duplicates().itertuples(False, None)))
    places = sorted(validation[place].unique())
    panels = []
    for n_labeled in sorted(validation["n_labeled"].unique()):
        of_number = _where(validation, n_labeled=n_labeled)
        runs = sorted(
            of_number[setting].drop_duplicates().itertuples(index=False, name=None),
            key=lambda run: (unlabeled_rank(run[0]), *run[1:]),
        )
        values = np.full((len(runs), len(places)), np.nan)
        for (*run, at), metric in of_number.groupby([*setting, place])["metric"]:
            values[runs.index(tuple(run)), places.index(at)] = 100 * metric.mean()
        written = len(places) <= _MAX_COLUMNS_WRITTEN
        texts = {
            at: f"{value:.1f}"
            for at, value in np.ndenumerate(values)
            if written and not np.isnan(value)
        }
        of_chosen = _where(chosen, n_labeled=n_labeled)[[*setting, place]]
        framed = [
            (runs.index(tuple(run)), places.index(at))
            for *run, at in of_chosen.itertuples(index=False, name=None)
            if tuple(run) in runs and at in places
        ]
        panels.append(
            _Panel(
                f"{method.title}, {labeled_name(n_labeled)}",
                values,
                texts,
                [names[run] for run in runs],
                [f"{at:.0f}" for at in places],
                "",
                heat_map.column_label,
                framed,
                _STEP_CELL,
            )
        )
    return panels


def _run_names(method: Method, runs: list[tuple[Any, ...]]) -> dict[tuple[Any, ...], str]:
    """What tells the runs of a method from each other, in all panels."""
    columns = [[unlabeled_name(run[0]) for run in runs]]
    for number, setting in enumerate(method.settings.values(), start=1):
        columns.append([_setting_name(setting.short, run[number]) for run in runs])
    different = [column for column in columns if len(set(column)) > 1] or columns[:1]
    names = [", ".join(parts) for parts in zip(*different, strict=True)]
    return dict(zip(runs, names, strict=True))


def _setting_name(short: str, value: Any) -> str:
    """`k=30`, `locally scaled`."""
    text = value.replace("_", " ") if isinstance(value, str) else f"{value:g}"
    return f"{short}={text}" if short else text


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
