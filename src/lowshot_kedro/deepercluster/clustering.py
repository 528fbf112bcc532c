"""From a network and images to a clustering on disk.

All that takes long is kept in the folder of the clustering under its unfinished name: rows of
images batch by batch, the whitening, each k-means and its passes. So a work that is stopped loses a
pass, or a minute of passes, and goes on in any number of processes. While it lasts, the disk has
the features of the images that the whitening follows from and the whitened ones of all:
4 · (n · F + N · D) bytes for n of N images, features of F numbers and D components.
"""

from __future__ import annotations

import json
import logging
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from lowshot_kedro.deepercluster.assignments import (
    CENTROIDS,
    DISTANCES,
    NOTE,
    OFFSETS,
    REPORT,
    SUB_LABELS,
    SUPER_CENTROIDS,
    SUPER_LABELS,
    WHITENING,
    AssignmentFiles,
    Clustering,
    write_array,
    write_json,
)
from lowshot_kedro.deepercluster.features import WhitenedFeatures
from lowshot_kedro.deepercluster.kept_passes import PATTERN
from lowshot_kedro.deepercluster.lloyd import KMeansSettings, ShareKMeans
from lowshot_kedro.deepercluster.parameters import DeeperClusterParameters
from lowshot_kedro.deepercluster.rows import Share
from lowshot_kedro.deepercluster.two_level import first_level, numbers_of_clusters, second_level
from lowshot_kedro.deepercluster.whitening import aligned_rows
from lowshot_kedro.disk import require_space
from lowshot_kedro.errors import InputError
from lowshot_kedro.images import ImageSource
from lowshot_kedro.input_files import read_json
from lowshot_kedro.parameters import bytes_of, refuse
from lowshot_kedro.progress import Stopwatch, logged_step
from lowshot_kedro.training import stopping
from lowshot_kedro.training.processes import Processes

logger = logging.getLogger(__name__)

_UNFINISHED = ".partial-"
_STAGE, _STAGE_CENTROIDS = "stage-", "centroids-"
_SUPER = "super"


def cluster_images(
    network: nn.Module,
    images: ImageSource,
    parameters: DeeperClusterParameters,
    processes: Processes,
    folder: Path,
    previous: Clustering | None,
    seed: int,
) -> Clustering:
    """Cluster images by the features of a network, or go on with that.

    Features are whitened (:func:`~lowshot_kedro.deepercluster.whitening.fit_whitening`) and
    clustered in two levels (:func:`~lowshot_kedro.deepercluster.hierarchical_kmeans`). Labels have
    the same bits for any number of processes. In memory, in each process: the network once more,
    what :func:`~lowshot_kedro.networks.extract_features` holds, 32 bytes for each of its images,
    and what `parameters.memory_budget_gb` allows; in the first one, for the mutual information
    with the round before, about 100 bytes for each of all images.

    Args:
        network: On the device of this process: float32 (n, 3, h, w) → (n, dimension). It is left
            as it is.
        images: The images. Those that cannot be read are blank ones, and counted.
        parameters: Augmentation and size of images, and how they are clustered.
        processes: Those that work together. All call this.
        folder: Where the clustering is to be, on a file system that all see. A finished one that is
            there is taken for this one, whatever the network is by now; an unfinished one is gone
            on with if it is of the same network, and else begun anew.
        previous: The clustering of the round before.
        seed: Of the first centroids.

    Returns:
        The clustering.

    Raises:
        InputError: For fewer images than clusters, an unlike clustering in the folder, features
            that are all equal, NaN or infinity.
        OSError: If the disk has no room for what is to be written.
        StoppedBySignal: If a signal asks for an end.
    """
    if len(images) < max(parameters.n_clusters, 2):
        expected = f"at most {len(images)}, the number of images"
        raise refuse("n_clusters", parameters.n_clusters, expected)
    work = _Work(network, images, parameters, processes, folder, seed)
    if not work.is_finished():
        work.do(previous)
    return Clustering(folder)


class _Work:
    """The steps of a clustering. All processes take them together."""

    def __init__(
        self,
        network: nn.Module,
        images: ImageSource,
        parameters: DeeperClusterParameters,
        processes: Processes,
        folder: Path,
        seed: int,
    ) -> None:
        self._images, self._parameters, self._processes = images, parameters, processes
        self._folder, self._seed = folder, seed
        self._partial = folder.with_name(f"{_UNFINISHED}{folder.name}")
        self._features = WhitenedFeatures(network, images, parameters, processes, self._partial)

    def is_finished(self) -> bool:
        """Whether the clustering is there.

        Raises:
            InputError: If another one is there.
        """
        # Others do not look: a network file system would remember what is not there.
        is_first = self._processes.is_first
        is_there = self._processes.broadcast(is_first and self._folder.is_dir())
        if is_there and is_first:
            found, facts = read_json(self._folder / NOTE), self._facts()
            if not isinstance(found, dict) or {**found, "features": None} != facts:
                raise InputError(
                    f"{self._folder}: found a clustering with other parameters; remove the folder"
                )
        return is_there

    def do(self, previous: Clustering | None) -> None:
        """All steps that are not done yet."""
        processes = self._processes
        if processes.is_first:
            self._begin()
        processes.barrier()
        if not processes.broadcast(processes.is_first and (self._partial / REPORT).is_file()):
            seconds, watch = {}, Stopwatch()
            with logged_step("clustering: features"):
                self._features.make(self._partial / WHITENING)
            seconds["features"], watch = watch.seconds, Stopwatch()
            with logged_step("clustering: k-means"):
                self._cluster()
            seconds["k-means"], watch = watch.seconds, Stopwatch()
            if processes.is_first:
                offsets = self._write_centroids()
                nmi = self._mutual_information(previous, offsets)
                seconds["mutual information"] = watch.seconds
                self._write_report(nmi, seconds)
            processes.barrier()
        if processes.is_first:
            self._finish()
        processes.barrier()

    def _facts(self) -> dict[str, Any]:
        """What the clustering follows from, beside the features."""
        parameters = self._parameters
        names = ("n_clusters", "clusters_per_super", "n_components", "n_iterations", "augmentation")
        return {
            **{name: getattr(parameters, name) for name in names},
            "n_images": len(self._images),
            "n_super_clusters": parameters.n_super_clusters,
            "n_whitening_images": self._features.sample.n_rows,
            "seed": self._seed,
            "features": None,
        }

    def _begin(self) -> None:
        """Make the folder, unless it is there from the same."""
        facts = {**self._facts(), "features": self._features.provenance}
        # As it will be read.
        facts = json.loads(json.dumps(facts))
        partial = self._partial
        note = partial / NOTE
        if partial.is_dir() and not (note.is_file() and read_json(note) == facts):
            logger.info("%s: what is unfinished there is of something else: begun anew", partial)
            shutil.rmtree(partial)
        partial.mkdir(parents=True, exist_ok=True)
        parameters = self._parameters
        # Centroids are there twice for a moment.
        n_centroids = 2 * parameters.n_clusters + parameters.n_super_clusters
        n_bytes = self._features.n_bytes + 12 * len(self._images)
        n_bytes += 4 * parameters.n_components * n_centroids
        taken = sum(512 * path.stat().st_blocks for path in partial.iterdir())
        require_space(note, max(0, n_bytes - taken))
        if not note.is_file():
            write_json(note, facts)

    # Clusters.

    def _cluster(self) -> None:
        """Both levels of k-means; each k-means that is finished is kept."""
        parameters, processes, n_images = self._parameters, self._processes, len(self._images)
        own = aligned_rows(n_images, processes)
        share = Share(self._features.whitened.open(own), own.start, n_images, processes)
        settings = KMeansSettings(
            parameters.n_iterations,
            self._seed,
            bytes_of(parameters.memory_budget_gb),
            processes.device.type,
            self._partial,
        )
        files = AssignmentFiles(self._partial, own, n_images, processes)
        files.create()
        stages, watch = processes.broadcast(self._stages()), Stopwatch()
        if _SUPER in stages:
            super_labels: NDArray[np.int32] = files.read(SUPER_LABELS)
        else:
            found = first_level(share, parameters.n_super_clusters, settings)
            super_labels = found.labels
            files.write(SUPER_LABELS, super_labels)
            self._keep(_SUPER, found, SUPER_CENTROIDS, watch)
            stages = processes.broadcast(self._stages())
        n_clusters = self._numbers_of_clusters(stages)
        missing = [number for number, n in enumerate(n_clusters) if n and str(number) not in stages]
        sub_labels, distances = files.read(SUB_LABELS), files.read(DISTANCES)
        watch = Stopwatch()
        for number, members, found in second_level(
            share, super_labels, n_clusters, settings, missing
        ):
            sub_labels[members], distances[members] = found.labels, np.sqrt(found.distances)
            files.write(SUB_LABELS, sub_labels)
            files.write(DISTANCES, distances)
            self._keep(str(number), found, f"{_STAGE_CENTROIDS}{number}.npy", watch)
            stopping.stop_if_wanted(processes, f"the clusters of super-cluster {number}")
            watch = Stopwatch()

    def _keep(self, stage: str, found: ShareKMeans, centroids: str, watch: Stopwatch) -> None:
        """Keep a k-means of which all processes have written their labels."""
        self._processes.barrier()
        if not self._processes.is_first:
            return
        write_array(self._partial / centroids, found.centroids)
        report = found.report
        content = {
            "n_images": int(report.sizes.sum()),
            "n_clusters": len(report.sizes),
            "objectives": report.objectives,
            "n_empty": report.n_empty,
            "seconds": watch.seconds,
            "sizes": report.sizes.tolist(),
        }
        write_json(self._partial / f"{_STAGE}{stage}.json", content)
        for path in self._partial.glob(PATTERN):
            path.unlink()

    def _stages(self) -> dict[str, Any]:
        """The k-means that are finished, by name; of other processes than the first none."""
        if not self._processes.is_first:
            return {}
        paths = self._partial.glob(f"{_STAGE}*.json")
        return {path.stem.removeprefix(_STAGE): read_json(path) for path in paths}

    def _numbers_of_clusters(self, stages: dict[str, Any]) -> list[int]:
        sizes = np.array(stages[_SUPER]["sizes"], np.int64)
        parameters = self._parameters
        return numbers_of_clusters(sizes, parameters.n_clusters, parameters.clusters_per_super)

    # What the first process adds.

    def _write_centroids(self) -> NDArray[np.int64]:
        """Write the centroids of all super-clusters into one file; returns their offsets."""
        n_clusters = self._numbers_of_clusters(self._stages())
        offsets = np.concatenate([[0], np.cumsum(n_clusters, dtype=np.int64)])
        path = self._partial / CENTROIDS
        shape = (int(offsets[-1]), self._parameters.n_components)
        centroids = np.lib.format.open_memmap(path, "w+", np.float32, shape)
        for number, (first, last) in enumerate(pairwise(offsets.tolist())):
            if first < last:
                name = f"{_STAGE_CENTROIDS}{number}.npy"
                centroids[first:last] = np.load(self._partial / name, mmap_mode="r")
        centroids.flush()
        write_array(self._partial / OFFSETS, offsets)
        return offsets

    def _mutual_information(
        self, previous: Clustering | None, offsets: NDArray[np.int64]
    ) -> float | None:
        """How much the clusters say of those of the round before, 0 to 1.

        A. Strehl and J. Ghosh (JMLR 3, 2002), with the mean of both entropies below.
        """
        if previous is None or len(previous) != len(self._images):
            return None
        from sklearn.metrics import normalized_mutual_info_score

        labels = offsets[np.load(self._partial / SUPER_LABELS, mmap_mode="r")]
        labels += np.load(self._partial / SUB_LABELS, mmap_mode="r")
        with logged_step("clustering: mutual information with the round before"):
            return float(normalized_mutual_info_score(previous.labels(), labels))

    def _write_report(self, nmi: float | None, seconds: dict[str, float]) -> None:
        stages, whitened = self._stages(), self._features.whitened
        super_sizes = np.array(stages[_SUPER].pop("sizes"), np.int64)
        of_supers = {int(name): stage for name, stage in stages.items() if name != _SUPER}
        sizes = np.concatenate([of_supers[number].pop("sizes") for number in sorted(of_supers)])
        n_images = len(self._images)
        objective = sum(stage["objectives"][-1] * stage["n_images"] for stage in of_supers.values())
        n_blank = whitened.n_blank(np.arange(whitened.n_batches))
        report = {
            "n_images": n_images,
            "n_blank_images": sum(n_blank),
            "n_whitening_images": self._features.sample.n_rows,
            "super_clusters": {**_summary(super_sizes), "sizes": super_sizes.tolist()},
            "clusters": _summary(sizes),
            "objective": objective / n_images,
            "normalized_mutual_information": nmi,
            "stages": [
                {"name": "super-clusters", **stages[_SUPER]},
                *(
                    {"name": f"clusters of super-cluster {number}", **of_supers[number]}
                    for number in sorted(of_supers)
                ),
            ],
            "seconds": seconds,
        }
        clusters = report["clusters"]
        logger.info(
            "%d images, %d of them blank, are in %d clusters of %d to %d images (median %g), %d of "
            "which are empty, of %d super-clusters of %d to %d images; mean squared distance %.4g; "
            "normalised mutual information with the round before: %s",
            n_images,
            report["n_blank_images"],
            clusters["n"],
            clusters["min"],
            clusters["max"],
            clusters["median"],
            clusters["n_empty"],
            len(super_sizes),
            super_sizes.min(),
            super_sizes.max(),
            report["objective"],
            "there is none" if nmi is None else f"{nmi:.3f}",
        )
        write_json(self._partial / REPORT, report)

    def _finish(self) -> None:
        """Remove what is of no use any more, and name the folder."""
        for pattern in (f"{_STAGE}*", f"{_STAGE_CENTROIDS}*", "*.f32", "*.done", ".partial-*"):
            for path in self._partial.glob(pattern):
                path.unlink()
        self._partial.replace(self._folder)


def _summary(sizes: NDArray[np.int64]) -> dict[str, Any]:
    return {
        "n": len(sizes),
        "n_empty": int(np.count_nonzero(sizes == 0)),
        "min": int(sizes.min()),
        "median": float(np.median(sizes)),
        "max": int(sizes.max()),
    }
