"""Datasets that show themselves as a table, in kedro-viz and in Jupyter."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, Generic, TypeVar

import numpy as np
import pandas as pd
from kedro.io import AbstractDataset
from kedro_datasets._typing import TablePreview
from numpy.typing import NDArray

from lowshot_kedro.datasets.previews import shown_path

Saved = TypeVar("Saved")
Loaded = TypeVar("Loaded")

PREVIEW_ROWS = 5
PREVIEW_COLUMNS = 10


class TableDataset(AbstractDataset[Saved, Loaded], Generic[Saved, Loaded]):
    """A dataset whose preview is a table of facts (shape, dtype, size on disk) and first rows.

    What kedro-viz and Jupyter show is made of the hooks below, of which subclasses give their own.
    """

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

    def _headings(self) -> Sequence[str]:
        """The headings of the first rows: what the columns are, then a name for each column."""
        return ["column", *map(str, range(PREVIEW_COLUMNS))]

    def _row_classes(self) -> Sequence[str]:
        """The classes of the first rows, where rows have one that is known."""
        return ()

    def _size(self) -> tuple[int, int] | None:
        """Rows and columns, where the dataset is one matrix above all and tells without reading."""
        return None

    @abc.abstractmethod
    def _n_bytes(self) -> int:
        """What the dataset takes on disk."""

    def statistics(self) -> dict[str, int]:
        """Rows and columns, where they are known, and size on disk, for kedro-viz."""
        size = self._size()
        counts = {} if size is None else {"rows": size[0], "columns": size[1]}
        return {**counts, "file_size": self._n_bytes()}

    def _table(self) -> pd.DataFrame:
        rows = [[name, value] for name, value in self._facts().items()]
        first_rows = [row[:PREVIEW_COLUMNS] for row in islice(self._first_rows(), PREVIEW_ROWS)]
        if first_rows:
            rows.append([*self._headings()][: 1 + max(map(len, first_rows))])
        classes = self._row_classes()
        for number, row in enumerate(first_rows):
            name = f"row {number}" + (f": {classes[number]}" if classes else "")
            rows.append([name, *map(_readable, row)])
        width = max(map(len, rows))
        padded = [row + [""] * (width - len(row)) for row in rows]
        # Facts and rows have nothing in common that could stand above them.
        return pd.DataFrame(padded, columns=[" " * column for column in range(width)])

    def preview(self) -> TablePreview:
        """Facts and first rows, for kedro-viz."""
        self.check()
        preview: TablePreview = TablePreview(self._table().to_dict(orient="split"))
        return preview

    def _title(self) -> str:
        return f"{type(self).__name__} {shown_path(self._describe()['filepath'])}"

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
