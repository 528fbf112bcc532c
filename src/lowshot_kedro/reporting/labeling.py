"""What a labelling has found, in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lowshot_kedro.reporting.style import percent, print_whole, shortened

_MAX_CLASSES = 20
_MAX_NAME = 40
_SENTENCES = ("reason", "calibration_sentence", "threshold_sentence")


def _to_look_at(report: Mapping[str, Any]) -> list[str]:
    """What a person should look at, a line each."""
    lines = []
    if n_suspicious := report.get("n_suspicious"):
        lines.append(
            f"Given labels that look wrong: {n_suspicious}. Look at them first: wrong ones make "
            "others look less certain."
        )
    if n_duplicates := report.get("n_duplicates"):
        lines.append(f"Images that look like another one: {n_duplicates}.")
    if n_next := report.get("n_next"):
        lines.append(f"Images whose labels would help most: the page lists {n_next}.")
    return lines


def print_labeling(report: Mapping[str, Any], page: str | Path | None = None) -> None:
    """Print how many images have got which label, and how far that can be trusted.

    Of more than 20 classes those with the most labels are listed.

    Args:
        report: The report of a labelling.
        page: Where the page is; None: there is none.
    """
    classes = sorted(report["classes"], key=lambda entry: -entry["n_labels"])
    hidden = len(classes) - _MAX_CLASSES
    lines = [str(report[name]) for name in _SENTENCES if report.get(name)]
    lines += [f"Note: {note}" for note in report.get("notes") or ()]
    lines += _to_look_at(report)
    if page is not None:
        lines.append(f"To look at, and to correct: {page}")
    title = f"{report['n_images']} images, labels given for {report['n_labeled']}"
    printed = Table(title=title, min_width=len(title))
    has_recall = any(entry.get("recall") is not None for entry in classes)
    printed.add_column("class", no_wrap=True)
    printed.add_column("given", justify="right")
    printed.add_column("labelled", justify="right")
    if has_recall:
        printed.add_column("found again when held out (%)", justify="right")
    for entry in classes[:_MAX_CLASSES]:
        name = escape(shortened(" ".join(entry["name"].split()), _MAX_NAME))
        cells = [name, str(entry["n_given"]), str(entry["n_labels"])]
        printed.add_row(*cells, *([percent(entry.get("recall"), None)] if has_recall else []))
    if hidden > 0:
        others = classes[_MAX_CLASSES:]
        cells = [f"{hidden} other classes"]
        cells += [str(sum(entry[what] for entry in others)) for what in ("n_given", "n_labels")]
        printed.add_row(*cells)
    printed.add_section()
    others_of = {"unknown": "n_unknown", "not reached": "n_unreached", "cannot be read": "n_broken"}
    for name, what in others_of.items():
        if report.get(what):
            printed.add_row(name, "", str(report[what]))
    print_whole(printed)
    # As a caption they would be as narrow as a table of short names.
    console = Console()
    for line in lines:
        console.print(escape(line), highlight=False)
