"""Features of the regions of images: a file for every form in which the regions are at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.blocks import VIEWS, LabeledBlock, RegionFeatures, Resumable, RowBlocks, View
from lowshot_kedro.datasets.features_file import Shape, open_regions
from lowshot_kedro.datasets.files import partial_path
from lowshot_kedro.datasets.hdf5_features import HDF5FeaturesDataset, bytes_to_write
from lowshot_kedro.datasets.resumable import Facts, ResumableDataset, ResumableFiles
from lowshot_kedro.datasets.table_dataset import PREVIEW_COLUMNS, PREVIEW_ROWS, TableDataset
from lowshot_kedro.disk import require_space
from lowshot_kedro.memory import format_bytes

RegionContent: TypeAlias = Mapping[View, tuple[Resumable[RowBlocks[LabeledBlock]], Shape]]

_SUFFIX = ".hdf5"


class _ViewDataset(HDF5FeaturesDataset):
    """The file of one view."""

    def __init__(self, filepath: Path, shape: Shape) -> None:
        super().__init__(filepath=str(filepath))
        self._row_shape = shape


class RegionFeaturesDataset(
    TableDataset[RegionContent, dict[View, RegionFeatures]],
    ResumableDataset,
):
    """Regions of all images of a collection, a feature file in one folder for every view.

    The files are map.hdf5, grid.hdf5 and sampling.hdf5, as
    :class:`~lowshot_kedro.datasets.HDF5FeaturesDataset` writes them: rows are flattened from
    (C, H, W), which an attribute of the file says. Loading opens those that are there. Saving
    gets some views and leaves the files of the others alone: whoever loads takes the views that
    were saved. A view that was made from the same is kept, one that was stopped is continued, and
    one made by another network, of other images or with other parameters is computed anew.

    Args:
        filepath: The folder.
        metadata: For Kedro plugins.

    Example:
        .. code-block:: yaml

            episode_regions:
              type: lowshot_kedro.datasets.RegionFeaturesDataset
              filepath: data/04_feature/episodes

        >>> views = RegionFeaturesDataset(filepath="episodes").load()
        >>> views["map"].shape
        (640, 5, 5)
    """

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> dict[View, RegionFeatures]:
        """The regions of every view that is there.

        Nothing is read but headers, and labels and 64 rows of files without a note.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If a file is damaged or in another format.
        """
        return self._open()

    def _open(self) -> dict[View, RegionFeatures]:
        views = self._views()
        # Saving no view leaves an empty folder.
        if not views and not self._filepath.is_dir():
            names = ", ".join(self._path(view).name for view in VIEWS)
            raise FileNotFoundError(f"{self._filepath}: no features of regions; looked for {names}")
        return {view: open_regions(self._path(view)) for view in views}

    def save(self, data: RegionContent) -> None:
        """Write the views that are given, or what is missing of them, one after the other.

        Args:
            data: For each view a Resumable, whose `provenance` says n_rows and n_columns, and the
                shape (C, H, W) that its rows are flattened from.

        Raises:
            DiskFullError: Naming the file.
            ResultInUseError: If another process writes or reads a file.
            ValueError: If a view is unknown, or rows are not what was announced.
        """
        for view, (content, shape) in data.items():
            n_columns = content.provenance["n_columns"]
            if view not in VIEWS or prod(shape) != n_columns:
                raise ValueError(f"{view}: rows of {n_columns} numbers of shape {shape}")
        self._filepath.mkdir(parents=True, exist_ok=True)
        contents = {
            view: Resumable({**content.provenance, "shape": list(shape)}, content.begin)
            for view, (content, shape) in data.items()
        }
        self._require_space(contents)
        for view, content in contents.items():
            _ViewDataset(self._path(view), data[view][1]).save(content)

    def _require_space(self, contents: Mapping[View, Resumable[RowBlocks[LabeledBlock]]]) -> None:
        """Refuse to begin the first view if the disk has no room for the last."""
        n_bytes = 0
        for view, content in contents.items():
            if not self._files_of(view).are_kept(content.provenance):
                facts, begun = content.provenance, partial_path(self._path(view))
                n_bytes += bytes_to_write(facts["n_rows"], facts["n_columns"], [begun])
        require_space(self._path("map"), n_bytes)

    def check(self) -> None:
        """Open the files and compare them with the format.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If one is damaged or in another format.
        """
        self._open()

    def provenance(self) -> Facts | None:
        """What the note beside the file of each view says; None without any."""
        notes: Facts = {view: self._files_of(view).provenance() for view in self._views()}
        return {view: note for view, note in notes.items() if note is not None} or None

    def files_in_use(self) -> list[Path]:
        """The files that nobody else may write while a run uses this dataset."""
        return [self._path(view) for view in VIEWS]

    def are_of_others(self) -> bool:
        """Whether a file is there without a note: such a file is used as it is."""
        return any(self._files_of(view).are_of_others() for view in VIEWS)

    def _path(self, view: str) -> Path:
        return self._filepath / f"{view}{_SUFFIX}"

    def _files_of(self, view: str) -> ResumableFiles:
        return ResumableFiles(self._path(view), self._path(view))

    def _views(self) -> list[View]:
        return [view for view in VIEWS if self._path(view).exists()]

    def _exists(self) -> bool:
        return self._filepath.is_dir()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}

    def _n_bytes(self) -> int:
        return sum(self._path(view).stat().st_size for view in self._views())

    def _facts(self) -> dict[str, str]:
        facts: dict[str, str] = {}
        for view, regions in self.load().items():
            facts[view] = f"{regions.features.n_rows} images, {regions.shape}"
            facts |= {
                f"{view} {name}": value for name, value in self._files_of(view).facts().items()
            }
        return {**facts, "dtype": "float32", "size on disk": format_bytes(self._n_bytes())}

    def _first_rows(self) -> Sequence[NDArray[np.float32]]:
        features = next(iter(self.load().values())).features
        return list(features.read(0, min(features.n_rows, PREVIEW_ROWS))[:, :PREVIEW_COLUMNS])
