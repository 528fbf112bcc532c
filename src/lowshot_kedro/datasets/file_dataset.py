"""What the datasets of one file have in common."""

from __future__ import annotations

import abc
from pathlib import Path
from typing import Any, Generic

from lowshot_kedro.datasets.files import written_whole
from lowshot_kedro.datasets.table_dataset import Loaded, Saved, TableDataset
from lowshot_kedro.memory import format_bytes


class FileDataset(TableDataset[Saved, Loaded], Generic[Saved, Loaded]):
    """A dataset that is one file: a subclass says how it is checked, read, written and shown.

    Args:
        filepath: The file.
        metadata: For Kedro plugins, for instance the layer that kedro-viz shows.
    """

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = Path(filepath)
        self.metadata = metadata

    @abc.abstractmethod
    def _read(self) -> Loaded:
        """Check the file and open it."""

    @abc.abstractmethod
    def _write(self, path: Path, data: Saved) -> None:
        """Write to a path that is not the final name."""

    def check(self) -> None:
        """Open the file, which takes no time; subclasses whose files take time look at less.

        Raises:
            FileNotFoundError: If it is not there.
            ValueError: If it is not what the catalog says.
        """
        self._read()

    def files_in_use(self) -> list[Path]:
        """The files that nobody else may write while a run uses this dataset."""
        return [self._filepath]

    def load(self) -> Loaded:
        """Check the file and open it."""
        return self._read()

    def save(self, data: Saved) -> None:
        """Write the file whole or not at all."""
        with written_whole(self._filepath) as (path,):
            self._write(path, data)

    def _exists(self) -> bool:
        return self._filepath.exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}

    def _n_bytes(self) -> int:
        return self._filepath.stat().st_size

    def _size_on_disk(self) -> str:
        return format_bytes(self._n_bytes())
