"""Accuracies of methods over few-shot episodes: a table to calculate with, and others to read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd
from rich.markup import escape
from rich.table import Table

from lowshot_kedro.episodes import confidence_interval
from lowshot_kedro.episodes.methods import METHODS
from lowshot_kedro.episodes.parameters import EpisodesParameters
from lowshot_kedro.reporting.markdown import markdown_table
from lowshot_kedro.reporting.style import MISSING, print_whole

_DIGITS = 12
# In the order of tables.
SETTINGS = ("inductive", "transductive")
_OF_ACCURACIES = (
    "Per cent of the query images; ±: 95 % confidence interval of the mean over episodes."
)
_OF_DIFFERENCES = (
    "Beside it the difference to the best method of the same setting, over the same episodes."
)
_OF_SETTINGS = (
    "Inductive methods classify every query image by itself, transductive ones look at all of an "
    "episode together."
)


def episodes_table(
    accuracies: pd.DataFrame, seconds_per_episode: Mapping[str, float] | None = None
) -> pd.DataFrame:
    """Mean accuracies with their intervals, and the differences to the best method.

    Args:
        accuracies: A row for every episode: `episode`, then a column for every method (fractions).
        seconds_per_episode: Seconds that each method takes for an episode; None: not known.

    Returns:
        A row for every method, inductive ones first, each from the best on: method, title, setting
        (`inductive` or `transductive`), accuracy, half_width (of the 95 % interval), difference
        (to the best of the same setting, the mean over the episodes; at most 0),
        difference_half_width, n_episodes, seconds_per_episode. Fractions; NaN for what is not
        known: half widths of one episode, and the difference of the best to itself.
    """
    names = [str(name) for name in accuracies.columns if name != "episode"]
    rows = []
    for setting in SETTINGS:
        means = {
            name: confidence_interval(accuracies[name])
            for name in names
            if _setting(name) == setting
        }
        # Rounded: of equally good ones the first of METHODS comes first.
        order = sorted(means, key=lambda name: (-round(means[name][0], _DIGITS), _place(name)))
        for name in order:
            difference = (math.nan, math.nan)
            if name != order[0]:
                difference = confidence_interval(accuracies[name] - accuracies[order[0]])
            rows.append(
                {
                    "method": name,
                    "title": _title(name),
                    "setting": setting,
                    "accuracy": means[name][0],
                    "half_width": means[name][1],
                    "difference": difference[0],
                    "difference_half_width": difference[1],
                    "n_episodes": len(accuracies),
                    "seconds_per_episode": (seconds_per_episode or {}).get(name, math.nan),
                }
            )
    table = pd.DataFrame(rows)
    if len(accuracies) == 1:
        table[["half_width", "difference_half_width"]] = math.nan
    return table


def describe_episodes(parameters: EpisodesParameters) -> str:
    """What episodes were made of, in a line: `5-way 1-shot, 15 query images a class, …`."""
    images = {
        "environment": f"{parameters.classes} classes of the test images",
        "folder": f"the images in {parameters.data_path}",
        "features": f"the features in {parameters.data_path}",
    }.get(parameters.dataset, f"{parameters.dataset}, {parameters.split} classes")
    backbone = "" if parameters.dataset == "features" else f", {_backbone(parameters)}"
    n_query = parameters.n_query
    order = "" if parameters.order == "direct" else f" in the order of {parameters.order}"
    return (
        f"{parameters.n_way}-way {parameters.n_shot}-shot, {n_query} query "
        f"image{'s' * (n_query > 1)} a class, seed {parameters.seed}{order}: {images}{backbone}"
    )


def episodes_to_markdown(table: pd.DataFrame, caption: str) -> str:
    """The table as a Markdown document.

    Args:
        table: What :func:`episodes_table` returns.
        caption: What the episodes were made of, for instance from :func:`describe_episodes`.
    """
    cells = pd.DataFrame([row for _, row in _cells(table)])
    notes = [f"- {title}: {note}" for title, note in _notes(table).items()]
    parts = [
        "# Accuracy over few-shot episodes",
        f"{caption}. {_n_episodes(table)}.",
        _explanation(table),
        markdown_table(cells, n_text_columns=2),
        *(["\n".join(notes)] if notes else []),
    ]
    return "\n\n".join(parts) + "\n"


def print_episodes(table: pd.DataFrame, caption: str) -> None:
    """Print the table to the terminal. A narrow terminal wraps lines; numbers are never cut.

    Args:
        table: What :func:`episodes_table` returns.
        caption: As for :func:`episodes_to_markdown`.
    """
    notes = "".join(f"\n{title}: {note}" for title, note in _notes(table).items())
    printed = Table(
        title=escape(f"{caption}. {_n_episodes(table)}."),
        caption=escape(_explanation(table) + notes),
        caption_justify="left",
    )
    rows = list(_cells(table))
    for place, column in enumerate(rows[0][1]):
        printed.add_column(column, justify="left" if place < 2 else "right", no_wrap=True)
    before = None
    for setting, row in rows:
        if before not in (None, setting):
            printed.add_section()
        is_best = setting != before
        before = setting
        printed.add_row(*map(escape, row.values()), style="bold" if is_best else None)
    print_whole(printed)


def _cells(table: pd.DataFrame) -> Iterator[tuple[str, dict[str, str]]]:
    """The setting of every row, and its cells."""
    has_seconds = table["seconds_per_episode"].notna().any()
    has_differences = _has_differences(table)
    for row in table.itertuples():
        cells = {
            "method": str(row.title),
            "setting": str(row.setting),
            "accuracy": _per_cent(row.accuracy, row.half_width),
        }
        if has_differences:
            cells["to the best"] = _per_cent(row.difference, row.difference_half_width)
        if has_seconds:
            seconds = float(row.seconds_per_episode)
            cells["ms an episode"] = MISSING if math.isnan(seconds) else f"{1000 * seconds:.3g}"
        yield str(row.setting), cells


def _has_differences(table: pd.DataFrame) -> bool:
    return bool(table["difference"].notna().any())


def _explanation(table: pd.DataFrame) -> str:
    differences = [_OF_DIFFERENCES] if _has_differences(table) else []
    return " ".join([_OF_ACCURACIES, *differences, _OF_SETTINGS])


def _per_cent(mean: Any, half_width: Any) -> str:
    """Two decimals, as papers have them; `–` for what is not known."""
    if math.isnan(mean):
        return MISSING
    # Zero has no sign.
    text = f"{round(100 * mean, 2) + 0.0:.2f}".replace("-", "−")
    return text if math.isnan(half_width) else f"{text} ± {100 * half_width:.2f}"


def _notes(table: pd.DataFrame) -> dict[str, str]:
    """What readers should know of methods in the table, by title."""
    return {
        METHODS[name].title: METHODS[name].notes
        for name in table["method"]
        if name in METHODS and METHODS[name].notes
    }


def _n_episodes(table: pd.DataFrame) -> str:
    number = int(table["n_episodes"].iloc[0])
    return f"{number} episode{'s' * (number > 1)}"


def _backbone(parameters: EpisodesParameters) -> str:
    """The network, its weights where they are not those of its library, and its input size."""
    weights, size = parameters.weights, parameters.image_size
    text = parameters.backbone
    if weights not in ("download", "package"):
        text += f" with {'random weights' if weights == 'none' else weights}"
    return text if size is None else f"{text} at {size} pixels"


def _place(name: str) -> int:
    return list(METHODS).index(name) if name in METHODS else len(METHODS)


def _title(name: str) -> str:
    return METHODS[name].title if name in METHODS else name


def _setting(name: str) -> str:
    return SETTINGS[name in METHODS and METHODS[name].is_transductive]
