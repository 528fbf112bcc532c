"""Accuracies of the nearest neighbours of embeddings, for base and novel classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from lowshot_kedro.reporting.style import percent, print_whole

_GALLERIES = {"bank": "bank", "fresh": "training images, afresh"}


def knn_accuracy_rows(metrics: Mapping[str, Any]) -> list[dict[str, str]]:
    """Accuracies for reading, in percent.

    Args:
        metrics: What :func:`lowshot_kedro.snca.evaluation.evaluate` returns.

    Returns:
        For every set of classes, gallery and number of neighbours the cells `classes`,
        `compared with`, `k`, `top-1`, `top-5`: text such as `66.8 ± 0.6`, `66.8` without seeds, `–`
        for what says nothing. Without `top-5` where that is so everywhere.
    """
    base, novel = metrics["base"], metrics["novel"]
    rows = [
        {
            "classes": f"{base['n_classes']} base classes",
            "compared with": words,
            "k": str(entry["k"]),
            **{f"top-{n}": percent(entry[f"top{n}"], None) for n in (1, 5)},
        }
        for gallery, words in _GALLERIES.items()
        for entry in base[gallery]
    ]
    for entry in novel["results"] if novel is not None else []:
        n_labeled = entry["n_labeled"]
        accuracies = {
            f"top-{n}": percent(entry[f"top{n}_mean"], entry[f"top{n}_std"]) for n in (1, 5)
        }
        rows.append(
            {
                "classes": f"{novel['n_classes']} novel classes",
                "compared with": f"{n_labeled} labelled image{'s' * (n_labeled > 1)} a class",
                "k": str(entry["k"]),
                **accuracies,
            }
        )
    if all(row["top-5"] == percent(None, None) for row in rows):
        for row in rows:
            del row["top-5"]
    return rows


def print_knn_accuracies(metrics: Mapping[str, Any]) -> None:
    """Print the table of :func:`knn_accuracy_rows` to the terminal."""
    novel = metrics["novel"]
    seeds = novel["results"][0]["seeds"] if novel is not None else []
    caption = f"Percent of the test images. Ties: {metrics['ties']}."
    if len(seeds) > 1:
        caption += f" ±: sample standard deviation over {len(seeds)} choices of labelled images."
    printed = Table(
        title=f"k nearest neighbours, temperature {metrics['temperature']:g}",
        caption=caption,
        caption_justify="left",
    )
    rows = knn_accuracy_rows(metrics)
    for column in rows[0]:
        is_text = column in ("classes", "compared with")
        printed.add_column(column, justify="left" if is_text else "right", no_wrap=True)
    before = None
    for row in rows:
        place = (row["classes"], row["compared with"])
        if before is not None and place != before:
            printed.add_section()
        shown = ["", ""] if place == before else list(place)
        printed.add_row(*shown, *list(row.values())[2:])
        before = place
    print_whole(printed)
