"""Tables in GitHub's Markdown."""

from __future__ import annotations

import pandas as pd


def markdown_table(cells: pd.DataFrame, n_text_columns: int = 1) -> str:
    """A table whose columns are aligned in the source too.

    Args:
        cells: Texts, without a vertical line in them.
        n_text_columns: How many columns, from the first on, are aligned to the left.
    """
    lines = [list(cells.columns), *cells.to_numpy().tolist()]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = [
        "-" * width if place < n_text_columns else "-" * (width - 1) + ":"
        for place, width in enumerate(widths)
    ]
    aligned = [
        [
            text.ljust(width) if place < n_text_columns else text.rjust(width)
            for place, (text, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in lines
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in [aligned[0], rule, *aligned[1:]])
