"""Any one-file dataset of Kedro's, written whole or not at all."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset, DatasetError
from kedro_datasets.pandas import CSVDataset
from yaml import YAMLError

from lowshot_kedro.datasets.files import partial_path, written_whole
from lowshot_kedro.datasets.previews import RoundedPreview
from lowshot_kedro.errors import InputError, in_one_line
from lowshot_kedro.input_files import require_file

logger = logging.getLogger(__name__)

# What readers of tables and settings raise for a file; anything else is a defect.
_UNREADABLE = (
    OSError, EOFError, ImportError, LookupError, RecursionError, ValueError, YAMLError,
)  # fmt: skip


class WholeFileDataset(AbstractDataset[Any, Any]):
    """Lets another dataset write under a temporary name and renames the file when it is complete.

    Loading and previews are the other dataset's.

    Args:
        dataset: Configuration of the other dataset, with a local filepath.
        metadata: For Kedro plugins.

    Example:
        .. code-block:: yaml

            metrics_table:
              type: lowshot_kedro.datasets.WholeFileDataset
              dataset:
                type: pandas.CSVDataset
                filepath: data/08_reporting/metrics_table.csv
    """

    def __init__(self, *, dataset: dict[str, Any], metadata: dict[str, Any] | None = None) -> None:
        self.metadata = metadata
        self._filepath = Path(dataset["filepath"])
        unfinished = {**dataset, "filepath": str(partial_path(self._filepath))}
        self._final: AbstractDataset[Any, Any] = AbstractDataset.from_config("final", dataset)
        self._unfinished: AbstractDataset[Any, Any] = AbstractDataset.from_config(
            "unfinished", unfinished
        )
        # Without one of the wrapped dataset there is none here.
        if hasattr(self._final, "preview"):
            self.preview: Callable[..., Any] = RoundedPreview(self._final.preview)

    def check(self) -> None:
        """See that the file is there."""
        require_file(self._filepath)

    def files_in_use(self) -> list[Path]:
        """The files that nobody else may write while a run uses this dataset."""
        return [self._filepath]

    def load(self) -> Any:
        """What the other dataset loads.

        Raises:
            FileNotFoundError: If the file is not there.
            ValueError: If the other dataset cannot read it.
        """
        self.check()
        try:
            return self._final.load()
        except DatasetError as error:
            if not isinstance(error.__cause__ or error, (*_UNREADABLE, DatasetError)):
                raise
            kind = type(self._final).__name__
            # Parsers show the place in several lines.
            reason = in_one_line(error.__cause__ or error)
            raise InputError(f"{self._filepath}: {kind} cannot read it ({reason})") from error

    def save(self, data: Any) -> None:
        """Write the file whole or not at all."""
        with written_whole(self._filepath):
            self._unfinished.save(data)

    def statistics(self) -> dict[str, int]:
        """Size on disk, and rows and columns of a table, for kedro-viz."""
        size = {"file_size": self._filepath.stat().st_size}
        if not isinstance(self._final, CSVDataset):
            return size
        n_rows, n_columns = self.load().shape
        return {"rows": n_rows, "columns": n_columns, **size}

    def _exists(self) -> bool:
        return self._filepath.exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath), "dataset": type(self._final).__name__}


class EditableFileDataset(WholeFileDataset):
    """A file that people may change: what they have changed is not overwritten.

    A checksum beside the file tells what was written last; two of them, while one file takes the
    place of another. To have the file written anew, remove it.

    Args:
        dataset: As for :class:`WholeFileDataset`.
        metadata: For Kedro plugins.

    Example:
        .. code-block:: yaml

            hyperparameters:
              type: lowshot_kedro.datasets.EditableFileDataset
              dataset:
                type: yaml.YAMLDataset
                filepath: data/08_reporting/sweep/hyperparameters.yml
    """

    def save(self, data: Any) -> None:
        """Write the file whole or not at all, unless somebody has changed it."""
        note = self._filepath.with_name(f"{self._filepath.name}.checksum")
        written = note.read_text().split() if note.is_file() else []
        if self._exists() and _checksum(self._filepath) not in written:
            logger.warning("%s was changed by hand: kept; remove it to have it written anew",
                           self._filepath)  # fmt: skip
            return
        with written_whole(self._filepath) as (unfinished,):
            self._unfinished.save(data)
            new = _checksum(unfinished)
            # Whoever is killed before or after the file gets its name has not changed it by hand.
            _write_note(note, [*written, new])
        _write_note(note, [new])


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write_note(note: Path, checksums: Sequence[str]) -> None:
    with written_whole(note) as (path,):
        path.write_text("\n".join(checksums) + "\n")
