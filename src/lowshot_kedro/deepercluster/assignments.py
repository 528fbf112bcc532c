"""A clustering of images on disk: who is in which cluster, and where the clusters are.

clustering-0/
    super_labels.npy     int32 (N,), the super-cluster of each image
    sub_labels.npy       int32 (N,), its cluster among those of the super-cluster
    distances.npy        float32 (N,), its distance from the centroid of that
    super_centroids.npy  float32 (m, d)
    centroids.npy        float32 (k, d), those of super-cluster 0 first
    offsets.npy          int64 (m + 1,): super-cluster s has centroids offsets[s]..offsets[s+1]-1
    whitening.npz        what makes of a feature the row that was clustered
    report.json          sizes, objectives, seconds
    clustering.json      what all this follows from
"""

from __future__ import annotations

import json
import os
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.deepercluster.whitening import Whitening
from lowshot_kedro.disk import whole_file
from lowshot_kedro.errors import InputError, shown_line
from lowshot_kedro.input_files import read_json
from lowshot_kedro.training.processes import Processes

SUPER_LABELS, SUB_LABELS, DISTANCES = "super_labels.npy", "sub_labels.npy", "distances.npy"
SUPER_CENTROIDS, CENTROIDS, OFFSETS = "super_centroids.npy", "centroids.npy", "offsets.npy"
WHITENING, REPORT, NOTE = "whitening.npz", "report.json", "clustering.json"
FILES = (
    SUPER_LABELS, SUB_LABELS, DISTANCES, SUPER_CENTROIDS, CENTROIDS, OFFSETS, WHITENING, REPORT,
    NOTE,
)  # fmt: skip

_OF_IMAGES = {SUPER_LABELS: np.int32, SUB_LABELS: np.int32, DISTANCES: np.float32}


class Clustering:
    """A finished clustering. Arrays are memmaps, opened when they are asked for.

    Args:
        folder: Its folder.

    Raises:
        InputError: If the folder is not there, or a file is missing in it. Later, if a file is
            damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        for name in FILES:
            if not (self.folder / name).is_file():
                expected = "expected a finished clustering"
                raise InputError(f"{self.folder}: found no {name} there, {expected}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.folder,)

    def __len__(self) -> int:
        """Images."""
        return int(self.report["n_images"])

    @cached_property
    def report(self) -> dict[str, Any]:
        """How large the clusters are and how they were found.

        - n_images, n_blank_images (those that could not be read), n_whitening_images (those that
          the whitening follows from);
        - super_clusters and clusters: their number as `n`, `n_empty`, and the `min`, `median` and
          `max` of their `sizes`, which are named for super-clusters alone;
        - objective: the mean squared distance of an image from its centroid;
        - stages: for each k-means its name, n_images, n_clusters, and of each pass `objectives`
          and `n_empty`, and seconds;
        - normalized_mutual_information: of the clusters with those of the round before, or None;
        - seconds: of each step.
        """
        path = self.folder / REPORT
        found = read_json(path)
        if not isinstance(found, dict) or not isinstance(found.get("n_images"), int):
            raise InputError(f"{path}: expected the report of a clustering")
        return found

    @cached_property
    def super_labels(self) -> NDArray[np.int32]:
        """int32 (N,), the super-cluster of each image."""
        found: NDArray[np.int32] = self._of_images(SUPER_LABELS)
        return found

    @cached_property
    def sub_labels(self) -> NDArray[np.int32]:
        """int32 (N,), the cluster of each image among those of its super-cluster."""
        found: NDArray[np.int32] = self._of_images(SUB_LABELS)
        return found

    @cached_property
    def distances(self) -> NDArray[np.float32]:
        """float32 (N,), the distance of each image from the centroid of its cluster."""
        found: NDArray[np.float32] = self._of_images(DISTANCES)
        return found

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """int64 (m + 1,): super-cluster s has centroids offsets[s]..offsets[s+1]-1."""
        return np.asarray(self._array(OFFSETS, np.int64, 1))

    @cached_property
    def super_centroids(self) -> NDArray[np.float32]:
        """float32 (m, d)."""
        found: NDArray[np.float32] = self._array(SUPER_CENTROIDS, np.float32, 2)
        return found

    @cached_property
    def centroids(self) -> NDArray[np.float32]:
        """float32 (k, d), of the clusters of all super-clusters, one after the other."""
        n_clusters = int(self.offsets[-1])
        found: NDArray[np.float32] = self._array(CENTROIDS, np.float32, 2, n_clusters)
        return found

    @cached_property
    def whitening(self) -> Whitening:
        """What makes of a feature the row that was clustered."""
        return Whitening.load(self.folder / WHITENING)

    def centroid_arrays(self) -> dict[str, NDArray[Any]]:
        """What other images are assigned by, as arrays by name.

        The row of a feature is (feature - mean) @ projection.T, divided by its length. Its
        super-cluster has the nearest of super_centroids, and its cluster the nearest of those
        centroids of which super_clusters says that they are of this super-cluster.

        Returns:
            mean float64 (F,), projection float64 (D, F), super_centroids float32 (m, D), centroids
            float32 (k, D), super_clusters int32 (k,). Centroids are memmaps.
        """
        sizes = np.diff(self.offsets)
        return {
            "centroids": self.centroids,
            "super_clusters": np.repeat(np.arange(len(sizes), dtype=np.int32), sizes),
            "super_centroids": self.super_centroids,
            "mean": self.whitening.mean,
            "projection": self.whitening.projection,
        }

    def labels(self, first: int = 0, last: int | None = None) -> NDArray[np.int64]:
        """The clusters of images first..last-1 by the numbers of their centroids, int64."""
        labels: NDArray[np.int64] = self.offsets[self.super_labels[first:last]]
        labels += self.sub_labels[first:last]
        return labels

    def _of_images(self, name: str) -> Any:
        return self._array(name, _OF_IMAGES[name], 1, len(self))

    def _array(self, name: str, dtype: Any, n_axes: int, n_rows: int | None = None) -> Any:
        path = self.folder / name
        try:
            found = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{path}: not readable ({shown_line(str(error))})") from error
        expected = f"{np.dtype(dtype)} numbers, {n_axes} axes"
        if n_rows is not None:
            expected += f", {n_rows} rows"
        if (
            found.dtype != dtype
            or found.ndim != n_axes
            or (n_rows is not None and len(found) != n_rows)
        ):
            raise InputError(f"{path}: found {found.dtype} {found.shape}, expected {expected}")
        return found


class AssignmentFiles:
    """The arrays of a clustering that is being made, of which each process writes its own images.

    They are written and not mapped: on a network file system what one process has mapped may
    overwrite what another one has written beside it.

    Args:
        folder: Where they are.
        own: The numbers of the images of this process.
        n_images: Images of all processes.
        processes: Those that work together.
    """

    def __init__(self, folder: Path, own: range, n_images: int, processes: Processes) -> None:
        self._folder, self._own, self._n_images = folder, own, n_images
        self._processes = processes

    def create(self) -> None:
        """Make the files that are not there. All processes call this."""
        if self._processes.is_first:
            for name, dtype in _OF_IMAGES.items():
                path = self._folder / name
                if not path.exists():
                    unfinished = path.with_name(f".partial-{name}")
                    np.lib.format.open_memmap(unfinished, "w+", dtype, (self._n_images,))
                    unfinished.replace(path)
        self._processes.barrier()

    def read(self, name: str) -> Any:
        """What is there of this process's images, (n,)."""
        with (self._folder / name).open("rb") as file:
            file.seek(self._begin(file.fileno()))
            result = np.fromfile(file, _OF_IMAGES[name], len(self._own))
        if len(result) != len(self._own):
            raise InputError(f"{self._folder / name}: found too few bytes; remove {self._folder}")
        return result

    def write(self, name: str, values: NDArray[Any]) -> None:
        """Write all of this process's images, (n,)."""
        with (self._folder / name).open("r+b") as file:
            file.seek(self._begin(file.fileno()))
            file.write(np.asarray(values, _OF_IMAGES[name]).tobytes())
            file.flush()
            os.fsync(file.fileno())

    def _begin(self, descriptor: int) -> int:
        """Where the values of this process begin: all of them are what the file ends with."""
        return os.fstat(descriptor).st_size - 4 * (self._n_images - self._own.start)


def write_json(path: Path, content: Any) -> None:
    """Write a file of JSON that is whole or not there."""
    with whole_file(path) as file:
        file.write(json.dumps(content, indent=2).encode())


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write a file of NumPy's (.npy) that is whole or not there."""
    with whole_file(path) as file:
        np.save(file, array)
