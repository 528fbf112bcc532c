"""Tables for people on standard output, progress on standard error, one line of JSON at the end."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

WIDTH_OF_A_FILE = 100


def note(text: str) -> None:
    """Say what is going on."""
    print(text, file=sys.stderr, flush=True)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; the first column is text, the others are numbers."""
    table = Table()
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=not number)
    for row in rows:
        table.add_row(*row)
    console = Console(width=None if sys.stdout.isatty() else WIDTH_OF_A_FILE)
    # As the title of a narrow table it would be broken into many lines.
    console.print(title, style="italic", highlight=False, soft_wrap=True)
    console.print(table)


def print_ratios(
    ratios: Mapping[str, float], of_medians: Mapping[str, float], wanted: Mapping[str, float]
) -> None:
    """Print ratios beside what they should be at least, without those of the numbering given."""
    rows = [
        [
            name,
            f"{found:.2f}",
            f"{of_medians[name]:.2f}",
            f"≥ {wanted[name]:g}" if name in wanted else "",
        ]
        for name, found in ratios.items()
        if "_given" not in name
    ]
    columns = ("how many times faster", "shortest", "median", "wanted")
    print_table("Ratios", columns, rows)


def print_json(content: Mapping[str, Any]) -> None:
    """Print which kernels ran, and the machine-readable line last."""
    print(f"kernels of native loops: {content['machine']['kernels']} (LOWSHOT_KERNELS chooses)")
    sys.stdout.flush()
    print(json.dumps(content), flush=True)


def ratio(numerator: float, denominator: float) -> float:
    """Rounded to four digits that count."""
    return float(f"{numerator / denominator:.4g}")
