"""Results of many runs, a file for each: metrics to compare, scores to combine."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from kedro.io import AbstractDataset
from kedro_datasets._typing import TablePreview
from kedro_datasets.json import JSONDataset
from kedro_datasets.partitions import PartitionedDataset
from numpy.typing import NDArray

from lowshot_kedro.blocks import Runs
from lowshot_kedro.datasets.files import UNFINISHED, written_whole
from lowshot_kedro.datasets.hdf5_files import find_dataset, open_hdf5, require_stored
from lowshot_kedro.datasets.previews import table_cell
from lowshot_kedro.disk import require_space
from lowshot_kedro.errors import InputError
from lowshot_kedro.input_files import read_json
from lowshot_kedro.locks import SECONDS_TO_WAIT, written_by_one

logger = logging.getLogger(__name__)

_SUFFIX = ".json"
_PREVIEW_ROWS = 100
# Not there, damaged, no file, or of somebody else.
_UNREADABLE = (OSError, InputError, TypeError)


class RunMetricsDataset(PartitionedDataset):  # type: ignore[misc]
    """Metrics of runs as a folder of JSON files, whose paths are the names of the runs.

    Each file appears whole as soon as its run is done, so that a sweep that was stopped continues.
    Each also says what its run was made from: a run whose file says the same is not repeated.

    Loading gives, like Kedro's PartitionedDataset, a function for every name that reads it.

    Args:
        path: The folder.
        keys: Pattern of the names that belong to this dataset, for instance `*/val/*`.
        metadata: For Kedro plugins.

    Example:
        .. code-block:: yaml

            test_metrics:
              type: lowshot_kedro.datasets.RunMetricsDataset
              path: data/08_reporting/sweep/metrics
              keys: "*/test/*"

        >>> metrics = RunMetricsDataset(path="metrics").load()
        >>> metrics["diffusion/test/nl2/nbg1000000/k30/seed1"]()["final"]["top5"]
        0.678
    """

    def __init__(
        self, *, path: str, keys: str = "*", metadata: dict[str, Any] | None = None
    ) -> None:
        super().__init__(path=path, dataset=JSONDataset, filename_suffix=_SUFFIX, metadata=metadata)
        self._folder = Path(path)
        self._keys = keys

    def _list_partitions(self) -> list[str]:
        return [
            path
            for path in super()._list_partitions()
            if not Path(path).name.startswith(UNFINISHED)
            and fnmatchcase(self._path_to_partition(path), self._keys)
        ]

    def load(self) -> dict[str, Callable[[], Any]]:
        """A function for every run that reads its metrics; none where there is no run yet."""
        self._invalidate_caches()
        return {
            self._path_to_partition(path): partial(_read_metrics, Path(path))
            for path in self._list_partitions()
        }

    def save(self, data: Runs) -> None:
        """Compute the runs that are not there yet, and write each as soon as it is done.

        Raises:
            ValueError: If a result is not one of those announced, or one of them does not come.
                And whatever the computation raises, when the others are written.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with written_by_one(self._folder):
            self._write_missing(data)

    def _write_missing(self, data: Runs) -> None:
        wanted = {key: json.loads(json.dumps(value)) for key, value in data.provenance.items()}
        for key in wanted:
            if not fnmatchcase(key, self._keys):
                raise ValueError(f"{self._path}: run {key} does not match {self._keys}")
        missing = [key for key in wanted if self._provenance(key) != wanted[key]]
        logger.info(
            "%s: %d runs, %d of them are there already", self._path, len(wanted),
            len(wanted) - len(missing),
        )  # fmt: skip
        awaited = set(missing)
        for key, content in data.compute(missing):
            if key not in wanted:
                raise ValueError(f"{self._path}: got run {key}, which was not announced")
            self._write(key, {**content, "made_from": wanted[key]})
            awaited.discard(key)
        self._invalidate_caches()
        if awaited:
            raise ValueError(f"{self._path}: no result of {', '.join(sorted(awaited)[:3])}")

    def files_in_use(self) -> list[Path]:
        """The folder of all runs: nobody else may write it while a run uses this dataset."""
        return [self._folder]

    def _exists(self) -> bool:
        """Whether there was a sweep; it may have had no run of this kind."""
        return self._folder.is_dir()

    def statistics(self) -> dict[str, int]:
        """The number of runs, for kedro-viz."""
        return {"rows": len(self._list_partitions())}

    def preview(self) -> TablePreview:
        """Names and final accuracies of the first runs, for kedro-viz."""
        rows = []
        for key, read in sorted(self.load().items())[:_PREVIEW_ROWS]:
            final = read().get("final", {})
            accuracies = {name: value for name, value in final.items() if name.startswith("top")}
            rows.append({"run": key, **accuracies})
        table = pd.DataFrame(rows).astype(object).map(table_cell)
        preview: TablePreview = TablePreview(table.to_dict("split"))
        return preview

    def _describe(self) -> dict[str, Any]:
        # Under this name other datasets tell where they are.
        return {**super()._describe(), "filepath": self._path, "keys": self._keys}

    def _provenance(self, key: str) -> Any:
        """What a file was made from; None if it is not there, or damaged."""
        try:
            return _read_metrics(self._file(key)).get("made_from")
        except (OSError, ValueError):
            return None

    def _write(self, key: str, content: Mapping[str, Any]) -> None:
        with written_whole(self._file(key)) as (path,):
            path.write_text(json.dumps(content, indent=2) + "\n")

    def _file(self, key: str) -> Path:
        return self._folder / f"{key}{_SUFFIX}"


def _read_metrics(path: Path) -> dict[str, Any]:
    """Metrics of a run.

    Raises:
        ValueError: If the file holds something else.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


class RunScores:
    """Scores of runs in a folder, an HDF5 file for each. It can be sent to other processes.

    Args:
        folder: The folder, which all processes see under the same path.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, key: str, provenance: Mapping[str, Any]) -> NDArray[np.float32] | None:
        """The scores of a run; None if there are none that were made from the same.

        Args:
            key: Name of the run.
            provenance: All that they follow from, as JSON holds it.

        Returns:
            float32 (T, C).
        """
        try:
            with open_hdf5(self._file(key)) as file:
                found = _scores_of(file, provenance)
                return None if found is None else found[()].astype(np.float32, copy=False)
        except _UNREADABLE:
            return None

    def has(self, key: str, provenance: Mapping[str, Any]) -> bool:
        """Whether there are scores of a run that were made from the same."""
        try:
            with open_hdf5(self._file(key)) as file:
                return _scores_of(file, provenance) is not None
        except _UNREADABLE:
            return False

    def write(self, key: str, provenance: Mapping[str, Any], scores: NDArray[np.float32]) -> None:
        """Keep the scores of a run.

        Raises:
            DiskFullError: If there is no room.
        """
        path = self._file(key)
        require_space(path, scores.nbytes)
        with written_whole(path) as (unfinished,), h5py.File(unfinished, "w") as file:
            file["scores"] = scores
            file.attrs["made_from"] = _as_text(provenance)

    @contextmanager
    def unfinished(self, key: str) -> Iterator[Path]:
        """A file for what a run has done so far; whoever writes it removes it.

        A worker that an earlier sweep has left may still be at it, for some seconds.

        Raises:
            ResultInUseError: If another process has it for longer.
        """
        path = self.folder / f"{key}.unfinished"
        with written_by_one(path, seconds_to_wait=SECONDS_TO_WAIT):
            yield path

    def keys(self) -> list[str]:
        """Names of the runs of which there are scores, in alphabetical order."""
        files = self.folder.rglob("*.hdf5")
        return sorted(
            path.relative_to(self.folder).with_suffix("").as_posix()
            for path in files
            if not path.name.startswith(UNFINISHED)
        )

    def _file(self, key: str) -> Path:
        # A setting such as 0.001 is no suffix.
        return self.folder / f"{key}.hdf5"


def _scores_of(file: h5py.File, provenance: Mapping[str, Any]) -> h5py.Dataset | None:
    """The scores in a file; None if they were made from something else, or are none."""
    text = file.attrs.get("made_from")
    if not isinstance(text, str) or text != _as_text(provenance):
        return None
    scores = find_dataset(file, "scores")
    require_stored(scores, f"{file.filename}: scores")
    return scores if scores.ndim == 2 and scores.dtype.kind == "f" else None


def _as_text(provenance: Mapping[str, Any]) -> str:
    return json.dumps(provenance, sort_keys=True)


class RunScoresDataset(AbstractDataset[RunScores, RunScores]):
    """The folder of :class:`RunScores`. Runs write to it, so it is there even while it is empty.

    Args:
        filepath: The folder.
        metadata: For Kedro plugins.

    Example:
        .. code-block:: yaml

            run_scores:
              type: lowshot_kedro.datasets.RunScoresDataset
              filepath: data/07_model_output/sweep
    """

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> RunScores:
        """Open the folder; nothing is read yet."""
        return RunScores(self._filepath.absolute())

    def save(self, data: RunScores) -> None:
        """Refuse to save: nothing else can take the place of the folder.

        Raises:
            ValueError: Always.
        """
        raise InputError(f"{self._filepath}: runs write their scores themselves")

    def preview(self) -> TablePreview:
        """Names of the first runs, for kedro-viz."""
        rows = [[key] for key in self.load().keys()[:_PREVIEW_ROWS]]
        preview: TablePreview = TablePreview(pd.DataFrame(rows, columns=["run"]).to_dict("split"))
        return preview

    def _exists(self) -> bool:
        return True

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}
