"""The file of labels that people gave."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from lowshot_kedro.datasets.file_dataset import FileDataset
from lowshot_kedro.datasets.table_dataset import PREVIEW_ROWS
from lowshot_kedro.errors import InputError
from lowshot_kedro.images.label_files import LabelTable, read_label_file


class LabelFileDataset(FileDataset[Any, "LabelTable | None"]):
    """A file of labels that people gave: a CSV file, or an export of Label Studio. Read only.

    :func:`~lowshot_kedro.images.label_files.read_label_file` says what is read.

    Args:
        filepath: The file.
        optional: Whether the file may be absent: None is loaded then.
        metadata: For Kedro plugins.

    Example:
        .. code-block:: yaml

            given_labels_file:
              type: lowshot_kedro.datasets.LabelFileDataset
              filepath: data/01_raw/labels.csv
              optional: true
    """

    def __init__(
        self, *, filepath: str, optional: bool = False, metadata: dict[str, Any] | None = None
    ) -> None:
        super().__init__(filepath=filepath, metadata=metadata)
        self._optional = optional

    def files_in_use(self) -> list[Path]:
        """No files, since no run writes them."""
        return []

    def _read(self) -> LabelTable | None:
        if self._optional and not self._filepath.exists():
            return None
        return read_label_file(self._filepath)

    def _write(self, path: Path, data: Any) -> None:
        raise InputError(f"{self._filepath}: a file of labels is written by people, never by a run")

    def _exists(self) -> bool:
        return self._optional or self._filepath.exists()

    def _n_bytes(self) -> int:
        return self._filepath.stat().st_size if self._filepath.exists() else 0

    def _facts(self) -> dict[str, str]:
        table = self._read()
        if table is None:
            return {"rows": "0, for there is no file"}
        named = {label for label in table.labels if label is not None}
        facts = {"rows": str(len(table)), "classes": str(len(named))}
        if table.groups is not None:
            facts["groups"] = str(len({group for group in table.groups if group is not None}))
        if table.checked is not None:
            facts["checked labels"] = str(sum(table.checked))
        return facts

    def _headings(self) -> list[str]:
        return ["", "file", "label", "group"]

    def _first_rows(self) -> Iterator[list[str]]:
        table = self._read()
        if table is None:
            return
        columns = [table.files, table.labels] + ([] if table.groups is None else [table.groups])
        for row in islice(zip(*columns, strict=True), PREVIEW_ROWS):
            yield [value or "" for value in row]

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath), "optional": self._optional}
