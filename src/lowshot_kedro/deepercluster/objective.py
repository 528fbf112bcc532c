"""What DeeperCluster learns: super-classes and clusters, clustered anew every few epochs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lowshot_kedro.deepercluster.assignments import Clustering
from lowshot_kedro.deepercluster.clustering import cluster_images
from lowshot_kedro.deepercluster.groups import images_per_group
from lowshot_kedro.deepercluster.heads import Heads
from lowshot_kedro.deepercluster.parameters import DeeperClusterParameters
from lowshot_kedro.deepercluster.sampling import GroupedOrder
from lowshot_kedro.errors import InputError
from lowshot_kedro.images import ImageSource
from lowshot_kedro.training.batches import LearntBatch, seed_of
from lowshot_kedro.training.checkpoints import Checkpoint
from lowshot_kedro.training.loop import Objective, Row
from lowshot_kedro.training.processes import Processes

_CLUSTERING = "clustering-"
# What is summed over the images of an epoch, in this order.
_SUMMED = (
    "loss_super_class", "loss_sub_class", "accuracy", "accuracy_super_class", "accuracy_sub_class",
)  # fmt: skip


class DeeperClusterObjective(Objective):
    """Cross-entropy of super-class and cluster, with heads that begin anew with each clustering.

    The features are what the network returns, with negative numbers set to 0. Besides the heads,
    4 bytes for each image are in memory, on the device.

    Args:
        images: The images that are learnt from.
        parameters: How a network is trained.
        processes: Those that train together.
        folder: Where clusterings lie, one for each round: that of the training.

    Attributes:
        order: Which images make up a batch.

    Raises:
        InputError: If an epoch has no batch, or a batch has no image for one of the processes.
    """

    def __init__(
        self,
        images: ImageSource,
        parameters: DeeperClusterParameters,
        processes: Processes,
        folder: Path,
    ) -> None:
        self._images, self._parameters, self._processes = images, parameters, processes
        self._folder = folder
        self.order = GroupedOrder(
            parameters.n_super_classes,
            parameters.n_rotations,
            images_per_group(len(images), parameters),
            parameters.batch_size,
            parameters.seed,
            processes,
        )
        self._heads = Heads(parameters, self.order.own, processes)
        self._clusters = torch.empty(0)
        self._clustering: Clustering | None = None
        # The epoch of the clustering that the heads are for, and that of the sums.
        self._round = self._epoch = -1
        self._sums = torch.zeros(len(_SUMMED), dtype=torch.float64, device=processes.device)

    def begin_epoch(self, epoch: int, network: nn.Module) -> Row:
        """Cluster the images if it is time to, and begin with new heads then."""
        begun = round_of(epoch, self._parameters)
        if self._processes.is_first:
            # The last checkpoint is one of the epoch before, at least.
            remove_clusterings(
                self._folder, round_of(max(epoch - 1, 0), self._parameters), self._parameters
            )
        if self._round != begun:
            self._heads.drop()
            self._take_clusters(begun, network)
        if self._epoch != epoch:
            self._epoch = epoch
            self._sums.zero_()
        self._heads.drop_gradients()
        if self._clustering is None or epoch != begun:
            return {}
        return _columns(self._clustering.report)

    def prepare(self, inputs: torch.Tensor, batch: LearntBatch) -> torch.Tensor:
        """Turn images by as many quarters as their group says, counter-clockwise."""
        if not self._parameters.rotation:
            return inputs
        turned, first = torch.empty_like(inputs), 0
        for rows in self.order.own:
            last = first + rows.last - rows.first
            n_quarters = rows.group % self._parameters.n_rotations
            turned[first:last] = torch.rot90(inputs[first:last], n_quarters, (2, 3))
            first = last
        return turned

    def __call__(self, outputs: torch.Tensor, batch: LearntBatch) -> torch.Tensor:
        """The mean over a batch of the two cross-entropies, which are added."""
        features, clusters = outputs.relu(), self._clusters[batch.numbers]
        of_super = self._heads.predict_super_classes(features)
        of_sub = self._heads.predict_clusters(features, clusters)
        is_right = of_super.is_right & of_sub.is_right
        own = torch.stack([of_super.losses.sum(), of_sub.losses.sum()])
        rights = torch.stack(
            [each.sum() for each in (is_right, of_super.is_right, of_sub.is_right)]
        )
        sums = self._processes.sum(torch.cat([own.detach().double(), rights.double()]))
        self._sums += sums
        # The mean over processes of the gradients is that of the mean over the batch.
        batch_size = self._parameters.batch_size
        of_own = own.sum() * (self._processes.n_processes / batch_size)
        return of_own - of_own.detach() + (sums[:2].sum() / batch_size).float()

    def step(self, lr: float) -> None:
        """Move the heads."""
        self._heads.step(lr)

    def end_epoch(self) -> Row:
        """Losses and accuracies, from 0 to 1, over the images as they were learnt from."""
        means = (self._sums / self.order.n_images).tolist()
        return dict(zip(_SUMMED, means, strict=True))

    def state(self) -> dict[str, Any]:
        """What all processes have: sums, and the head of super-classes."""
        return {
            "round": self._round,
            "epoch": self._epoch,
            "sums": self._sums,
            "super_head": self._heads.state(),
        }

    def rows(self) -> dict[str, torch.Tensor]:
        """The heads of the training groups."""
        return self._heads.rows()

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take heads and sums; the clustering that they are for has to be there."""
        state = checkpoint.state["objective"]
        if state["round"] == round_of(checkpoint.state["epoch"], self._parameters):
            self._take_clusters(state["round"], None)
            self._heads.restore_rows(checkpoint)
        if self._round == state["round"] or self._parameters.n_super_clusters == 1:
            self._heads.restore(state["super_head"])
        self._epoch = state["epoch"]
        self._sums.copy_(state["sums"])

    def _take_clusters(self, begun: int, network: nn.Module | None) -> None:
        """Learn from the clustering of a round from now on, with new heads."""
        n_images = len(self._images)
        if self._parameters.needs_clustering:
            clustering = self._clustering = self._clustered(begun, network)
            sizes = np.diff(clustering.offsets).tolist()
            sub_labels = np.array(clustering.sub_labels, np.int32)
            self.order.use_labels(clustering.super_labels, clustering.sub_labels)
        else:
            sizes = [1]
            nothing = np.broadcast_to(np.int32(0), n_images)
            sub_labels = np.zeros(n_images, np.int32)
            self.order.use_labels(nothing, nothing)
        self._clusters = torch.from_numpy(sub_labels).to(self._processes.device)
        self._heads.renew(begun, sizes)
        self._round = begun

    def _clustered(self, begun: int, network: nn.Module | None) -> Clustering:
        """The clustering of a round: as it lies there, or made by the network."""
        folder = clustering_folder(self._folder, begun)
        if network is None:
            if not self._processes.broadcast(folder.is_dir()):
                raise InputError(
                    f"{folder}: is not there, though the last checkpoint was learnt from it; "
                    f"remove the folder {self._folder} to begin anew"
                )
            return Clustering(folder)
        before = clustering_folder(self._folder, begun - self._parameters.cluster_every)
        return cluster_images(
            network,
            self._images,
            self._parameters,
            self._processes,
            folder,
            Clustering(before) if self._processes.broadcast(before.is_dir()) else None,
            seed_of(self._parameters.seed, begun, 3),
        )


def round_of(epoch: int, parameters: DeeperClusterParameters) -> int:
    """The epoch before which the clusters were made that an epoch learns from."""
    return epoch - epoch % parameters.cluster_every if parameters.needs_clustering else 0


def clustering_folder(folder: Path, epoch: int) -> Path:
    """Where the clustering before an epoch lies.

    Args:
        folder: The folder of the training.
        epoch: The epoch, counted from 0.
    """
    return folder / f"{_CLUSTERING}{epoch:06d}"


def remove_clusterings(folder: Path, before: int, parameters: DeeperClusterParameters) -> None:
    """Remove clusterings that no checkpoint needs any more.

    Those of the rounds of checkpoints that are kept for good stay.

    Args:
        folder: The folder of the training.
        before: The round of the last checkpoint.
        parameters: Of the training.
    """
    for path in folder.glob(f"{_CLUSTERING}*"):
        number = path.name.removeprefix(_CLUSTERING)
        if number.isdecimal() and int(number) < before and not _is_kept(int(number), parameters):
            shutil.rmtree(path, ignore_errors=True)


def _is_kept(begun: int, parameters: DeeperClusterParameters) -> bool:
    """Whether a checkpoint that is kept for good is of a round."""
    every, last = parameters.keep_every, begun + parameters.cluster_every
    return every is not None and last // every > begun // every


def _columns(report: dict[str, Any]) -> Row:
    """What the table says of a clustering."""
    found = {
        "n_clusters": report["clusters"]["n"],
        "n_empty_clusters": report["clusters"]["n_empty"],
        "smallest_cluster": report["clusters"]["min"],
        "median_cluster": report["clusters"]["median"],
        "largest_cluster": report["clusters"]["max"],
        "mean_squared_distance": report["objective"],
    }
    if report["normalized_mutual_information"] is not None:
        found["normalized_mutual_information"] = report["normalized_mutual_information"]
    return found
