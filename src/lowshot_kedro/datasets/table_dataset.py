"""Datasets that show themselves as a table, in kedro-viz and in Jupyter."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import pandas as pd
from kedro.io import AbstractDataset
from kedro_datasets._typing import TablePreview
from numpy.typing import NDArray

Saved = TypeVar("Saved")
Loaded = TypeVar("Loaded")

PREVIEW_ROWS = 5
PREVIEW_COLUMNS = 8


class TableDataset(AbstractDataset[Saved, Loaded], Generic[Saved, Loaded]):
    """A dataset whose preview is a table of facts (shape, dtype, size on disk) and first rows."""

    @abc.abstractmethod
    def check(self) -> None:
        """Look at the files without reading them through.

        Raises:
            FileNotFoundError: If a file is not there.
            ValueError: If a file is not what the catalog says.
        """

    @abc.abstractmethod
    def _facts(self) -> dict[str, str]:
        """What a person wants to know first."""

    @abc.abstractmethod
    def _first_rows(self) -> Iterable[Sequence[Any] | NDArray[Any]]:
        """Rows to show; only the first few and their first few entries will be."""

    def _table(self) -> pd.DataFrame:
        columns = ["", *(str(column) for column in range(PREVIEW_COLUMNS))]
        rows = [[name, value] for name, value in self._facts().items()]
        for number, row in zip(range(PREVIEW_ROWS), self._first_rows(), strict=False):
            rows.append([f"row {number}", *(_readable(value) for value in row[:PREVIEW_COLUMNS])])
        width = max(map(len, rows))
        padded = [row + [""] * (width - len(row)) for row in rows]
        return pd.DataFrame(padded, columns=columns[:width])

    def preview(self) -> TablePreview:
        """Facts and first rows, for kedro-viz."""
        self.check()
        preview: TablePreview = TablePreview(self._table().to_dict(orient="split"))
        return preview

    def _title(self) -> str:
        return f"{type(self).__name__} {self._describe()['filepath']}"

    def _repr_html_(self) -> str:
        """What Jupyter shows."""
        if not self.exists():
            return f"<p>{self._title()} is not there yet</p>"
        return f"<p>{self._title()}</p>{self._table().to_html(index=False, header=False)}"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """What IPython prints in a terminal."""
        if cycle or not self.exists():
            printer.text(f"{self._title()} is not there yet")
            return
        facts = ", ".join(f"{name} {value}" for name, value in self._facts().items())
        printer.text(f"{self._title()} ({facts})")


def _readable(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)
