"""Which cluster each image is in, as a CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from kedro_datasets._typing import TablePreview

from lowshot_kedro.blocks import TableBlocks
from lowshot_kedro.datasets.file_dataset import FileDataset
from lowshot_kedro.datasets.previews import table_cell
from lowshot_kedro.datasets.table_dataset import PREVIEW_ROWS
from lowshot_kedro.errors import InputError, in_one_line
from lowshot_kedro.input_files import require_file
from lowshot_kedro.progress import Progress

# What each column holds when it is loaded.
_TYPES = {
    "image": np.int32,
    "file": object,
    "super_cluster": np.int32,
    "cluster": np.int32,
    "distance": np.float32,
}
_COLUMNS = tuple(_TYPES)
_HEADER = ",".join(_COLUMNS)
_TAIL_BYTES = 2**16


class ClusterAssignmentsDataset(FileDataset[TableBlocks, pd.DataFrame]):
    """A CSV file with a row for each image: image, file, super_cluster, cluster, distance.

    image is the number of the image in its collection, file the name that people know it by (empty
    where it has none), cluster its cluster in the super-cluster, and distance how far it is from
    the centroid. Any program reads the file: UTF-8, a line with the names, numbers with a point.

    What is saved arrives in blocks, of which one is in memory. What is loaded is a DataFrame: 16
    bytes for each image, and some 100 for the name of its file; `columns` leaves it out.

    Args:
        filepath: The CSV file.
        columns: Load only these columns; None: all.
        metadata: For Kedro plugins.

    Example:
        .. code-block:: yaml

            cluster_assignments:
              type: lowshot_kedro.datasets.ClusterAssignmentsDataset
              filepath: data/07_model_output/cluster_assignments.csv

        >>> assignments = catalog.load("cluster_assignments")
        >>> assignments.query("super_cluster == 3 and cluster == 17").nsmallest(10, "distance")
    """

    def __init__(
        self,
        *,
        filepath: str,
        columns: Sequence[str] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(filepath=filepath, metadata=metadata)
        self._columns = _COLUMNS if columns is None else tuple(columns)
        unknown = [name for name in self._columns if name not in _COLUMNS]
        if unknown:
            raise InputError(
                parameter="columns",
                found=unknown[0],
                expected=f"some of: {', '.join(_COLUMNS)}",
                where=filepath,
            )

    def check(self) -> None:
        """Look at the beginning and the end of the file.

        Raises:
            FileNotFoundError: If it is not there.
            InputError: If it is no such file, or cut off.
        """
        require_file(self._filepath)
        with self._filepath.open("rb") as file:
            header = file.readline(_TAIL_BYTES).decode("utf-8-sig", "replace").rstrip("\r\n")
        names = header.split(",")
        if set(names) != set(_COLUMNS) or len(names) != len(_COLUMNS):
            raise InputError(f"{self._filepath}: begins with {header!r}, expected {_HEADER!r}")
        if not self._tail().endswith("\n"):
            raise InputError(f"{self._filepath}: its last line has no end; is it cut off?")

    def _read(self) -> pd.DataFrame:
        self.check()
        return self._frame(self._columns)

    def _frame(self, columns: Sequence[str], n_rows: int | None = None) -> pd.DataFrame:
        try:
            found = pd.read_csv(
                self._filepath,
                # Fields too many are an error only where all are read.
                usecols=None if set(columns) == set(_COLUMNS) else list(columns),
                dtype=cast("Any", {name: _TYPES[name] for name in columns}),
                nrows=n_rows,
                # A file may be called NA.
                keep_default_na=False,
                encoding="utf-8-sig",
            )
        except (ValueError, ArithmeticError) as error:
            raise InputError(
                f"{self._filepath}: cannot be read as a table of {', '.join(_COLUMNS)} "
                f"({in_one_line(error)})"
            ) from error
        return found[list(columns)]

    def _write(self, path: Path, data: TableBlocks) -> None:
        if data.columns != _COLUMNS:
            raise ValueError(
                f"{self._filepath}: got columns {', '.join(data.columns)}; expected "
                f"{', '.join(_COLUMNS)}"
            )
        description = f"writing {self._filepath.name}"
        with (
            # Names of files may hold bytes that are no text.
            path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
            Progress(data.n_rows, description, unit="image") as progress,
        ):
            file.write(f"{_HEADER}\n")
            for block in data.checked(str(self._filepath)):
                # float32 gets as many digits as tell it from others.
                frame = pd.DataFrame({name: block[name] for name in _COLUMNS})
                # Of itself it quotes a name that holds the end of a line, but not half of one.
                has_return = any("\r" in name for name in block["file"])
                frame.to_csv(
                    file,
                    header=False,
                    index=False,
                    lineterminator="\n",
                    quoting=csv.QUOTE_NONNUMERIC if has_return else csv.QUOTE_MINIMAL,
                )
                progress.update(len(frame))

    def preview(self, nrows: int = 40) -> TablePreview:
        """The first rows, for kedro-viz; no more is read."""
        self.check()
        head = self._frame(_COLUMNS, nrows)
        rows = [[table_cell(value) for value in row] for row in head.itertuples(index=False)]
        shown = {"index": list(range(len(rows))), "columns": list(_COLUMNS), "data": rows}
        return TablePreview(shown)

    def _facts(self) -> dict[str, str]:
        n_rows = self._n_rows()
        rows = {} if n_rows is None else {"images": str(n_rows)}
        return {**rows, "size on disk": self._size_on_disk()}

    def _headings(self) -> list[str]:
        return ["", *_COLUMNS]

    def _first_rows(self) -> Iterator[Sequence[Any]]:
        yield from self._frame(_COLUMNS, PREVIEW_ROWS).itertuples(index=False)

    def _size(self) -> tuple[int, int] | None:
        n_rows = self._n_rows()
        return None if n_rows is None else (n_rows, len(_COLUMNS))

    def _n_rows(self) -> int | None:
        """How many rows there are, from the number of the last image; None where it is odd."""
        last_line = self._tail().rstrip("\n").rpartition("\n")[2]
        if last_line == _HEADER:
            return 0
        fields = next(csv.reader(io.StringIO(last_line)), [])
        is_row = len(fields) == len(_COLUMNS) and fields[0].isdecimal()
        return int(fields[0]) + 1 if is_row else None

    def _tail(self) -> str:
        with self._filepath.open("rb") as file:
            size = file.seek(0, io.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            return file.read().decode("utf-8", "replace")
