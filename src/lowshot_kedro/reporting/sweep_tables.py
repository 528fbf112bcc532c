"""The tables of a sweep: accuracies over seeds, and what the runs took."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich.table import Table

from lowshot_kedro.errors import InputError
from lowshot_kedro.memory import format_bytes
from lowshot_kedro.methods import METHODS
from lowshot_kedro.reporting.markdown import markdown_table
from lowshot_kedro.reporting.names import (
    ALL_LABELED,
    for_reading,
    labeled_name,
    method_name,
    method_rank,
)
from lowshot_kedro.reporting.style import (
    GROUP_NAMES,
    MISSING,
    groups_shown,
    percent,
    print_whole,
)

_MIB = 2**20
_PARTS = ("mean", "std")
# Headings of the columns of a group. Base classes have a column in table.csv alone.
_GROUPS = {"": "all", "_novel": "novel"}


def summarize(finals: pd.DataFrame, top_k: Sequence[int]) -> pd.DataFrame:
    """Mean and deviation of the final accuracies over the seeds.

    The deviation is that of a sample (divided by n - 1), and NaN for a single seed.

    Args:
        finals: A row per test run: method, unlabeled (name of the unlabelled images, "" for
            none), n_background, n_labeled ("all" for all), seed, key, top1, top1_novel, top1_base,
            … (fractions).
        top_k: Values of k.

    Returns:
        A row per method, unlabeled and n_labeled, in this order: these, n_background, n_seeds,
        top1_mean, top1_std, top1_novel_mean, … (fractions), without groups that no test image
        belongs to.

    Raises:
        ValueError: For two runs that differ in nothing that the table shows, seed included.
    """
    accuracies = [f"top{k}{group}" for k in top_k for group in GROUP_NAMES]
    columns = ["method", "unlabeled", "n_background", "n_labeled", "n_seeds"]
    columns += [f"{accuracy}_{part}" for accuracy in accuracies for part in _PARTS]
    if finals.empty:
        return pd.DataFrame(columns=columns)
    finals = for_reading(finals)
    row_of = ["method", "unlabeled", "n_labeled"]
    twice = finals[finals.duplicated([*row_of, "seed"], keep=False)].sort_values([*row_of, "seed"])
    if len(twice):
        raise InputError(
            f"runs {twice['key'].iloc[0]} and {twice['key'].iloc[1]}: two of the same method, "
            "unlabelled images, n_labeled and seed; expected one"
        )
    rows = []
    for (method, unlabeled, n_labeled), runs in finals.groupby(row_of, sort=False):
        row = {
            "method": method,
            "unlabeled": unlabeled,
            "n_background": float(runs["n_background"].iloc[0]),
            "n_labeled": n_labeled,
            "n_seeds": len(runs),
        }
        for accuracy in accuracies:
            values = runs[accuracy].astype(float)
            row[f"{accuracy}_mean"], row[f"{accuracy}_std"] = values.mean(), values.std(ddof=1)
        rows.append(row)
    rows.sort(key=lambda row: (method_rank(row["method"], row["unlabeled"]), row["n_labeled"]))
    table = pd.DataFrame(rows, columns=columns)
    table["n_labeled"] = [ALL_LABELED if math.isinf(n) else int(n) for n in table["n_labeled"]]
    means = [accuracy for accuracy in accuracies if table[f"{accuracy}_mean"].isna().all()]
    return table.drop(columns=[f"{accuracy}_{part}" for accuracy in means for part in _PARTS])


def comparison_table(summary: pd.DataFrame, k: int) -> pd.DataFrame:
    """The summary for reading: top-k accuracies in percent, a row per method.

    Args:
        summary: The table that :func:`summarize` returns.
        k: One of its values of k.

    Returns:
        Columns method, `all n=1`, `all n=2`, …, `novel n=1`, … unless all are novel; text such as
        `66.8 ± 0.6`, `66.8` for a single seed, `–` for what was not measured.
    """
    cells = {group: _cells(summary, k, group) for group in _groups(summary, k)}
    return pd.concat(
        [
            cells[""][["method"]],
            *(
                of_group.drop(columns="method").add_prefix(f"{_GROUPS[group]} ")
                for group, of_group in cells.items()
            ),
        ],
        axis=1,
    )


def to_markdown(summary: pd.DataFrame, top_k: Sequence[int], context: Mapping[str, Any]) -> str:
    """The summary as a Markdown document: a table for all and one for novel classes, for each k.

    Where all classes are novel, one table says both.

    Args:
        summary: The table that :func:`summarize` returns.
        top_k: Values of k.
        context: mode, and seeds: the list of seeds that were asked for.
    """
    parts = ["# Accuracy over seeds", "\n".join(_notes(summary, context))]
    for k in top_k:
        for group in _groups(summary, k):
            parts += [
                f"## Top-{k}, {GROUP_NAMES[group]}",
                markdown_table(_cells(summary, k, group)),
            ]
    return "\n\n".join(parts) + "\n"


def print_summary(summary: pd.DataFrame, k: int, context: Mapping[str, Any]) -> None:
    """Print the summary to the terminal. A narrow terminal wraps lines; numbers are never cut.

    Args:
        summary: The table that :func:`summarize` returns.
        k: One of its values of k.
        context: As for :func:`to_markdown`.
    """
    printed = Table(
        title=f"Top-{k} accuracy over seeds", caption="\n".join(_notes(summary, context))
    )
    sections = {group: _cells(summary, k, group) for group in _groups(summary, k)}
    for column in sections[""].columns:
        justify = "left" if column == "method" else "right"
        printed.add_column(column, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for group, cells in sections.items():
        printed.add_row(GROUP_NAMES[group], style="bold")
        for row in cells.itertuples(index=False):
            printed.add_row(*row)
        printed.add_section()
    print_whole(printed)


def run_resources(runs: pd.DataFrame) -> pd.DataFrame:
    """Time and memory of every run.

    Args:
        runs: A row per run: key, method, mode, seconds, peak_rss_bytes.

    Returns:
        key, method, mode, seconds, peak_mib (largest resident memory in MiB), sorted by key.
    """
    columns = ["key", "method", "mode", "seconds", "peak_mib"]
    if runs.empty:
        return pd.DataFrame(columns=columns)
    table = runs.assign(peak_mib=runs["peak_rss_bytes"] / _MIB)[columns]
    return table.sort_values("key", ignore_index=True)


def print_resources(resources: pd.DataFrame) -> None:
    """Print the table of :func:`run_resources` to the terminal, a row per method."""
    printed = Table(title="Time and memory of the runs")
    printed.add_column("method", no_wrap=True)
    for column in ("runs", "seconds", "largest peak"):
        printed.add_column(column, justify="right", no_wrap=True)
    for method in sorted(resources["method"].unique(), key=method_rank):
        runs = resources[resources["method"] == method]
        peak = format_bytes(runs["peak_mib"].max() * _MIB)
        printed.add_row(METHODS[method].title, str(len(runs)), f"{runs['seconds'].sum():.1f}", peak)
    print_whole(printed)


def _groups(summary: pd.DataFrame, k: int) -> list[str]:
    return [group for group in groups_shown(summary, k, "_mean") if group in _GROUPS]


def _cells(summary: pd.DataFrame, k: int, group: str) -> pd.DataFrame:
    """A row per method, a column per n_labeled: `n=1`, `n=2`, …."""
    summary = for_reading(summary)
    numbers = sorted(summary["n_labeled"].unique())
    table = []
    for (method, unlabeled), rows in summary.groupby(["method", "unlabeled"], sort=False):
        line = {"method": method_name(method, unlabeled, rows["n_background"].iloc[0])}
        line |= {labeled_name(n): MISSING for n in numbers}
        for n, mean, deviation in zip(
            rows["n_labeled"], rows[f"top{k}{group}_mean"], rows[f"top{k}{group}_std"], strict=True
        ):
            line[labeled_name(n)] = percent(mean, deviation)
        table.append(line)
    return pd.DataFrame(table, columns=["method", *map(labeled_name, numbers)])


def _notes(summary: pd.DataFrame, context: Mapping[str, Any]) -> list[str]:
    """What the numbers are."""
    seeds = list(context["seeds"])
    notes = [
        f"Mode {context['mode']}, {'seeds' if len(seeds) > 1 else 'seed'} "
        f"{', '.join(map(str, seeds))}. Percent of the test images"
        + ("; ± is the sample standard deviation over the seeds." if len(seeds) > 1 else "."),
        "n: labelled images of every novel class"
        + (
            "; all: as many as there are, the same for every seed."
            if (summary["n_labeled"] == ALL_LABELED).any()
            else "."
        ),
    ]
    if summary.empty:
        return [*notes, "No test runs."]
    fewer = [
        f"{method_name(row.method, row.unlabeled, row.n_background)}, "
        f"{labeled_name(row.n_labeled)}: "
        f"{row.n_seeds} of {len(seeds)}"
        for row in for_reading(summary).itertuples()
        if row.n_seeds < len(seeds)
    ]
    return [*notes, f"Seeds are missing: {'; '.join(fewer)}."] if fewer else notes
