"""Training by DeeperCluster: from images without labels to a network, clusters and a table."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from lowshot_kedro.deepercluster.assignments import Clustering
from lowshot_kedro.deepercluster.groups import require_sizes
from lowshot_kedro.deepercluster.objective import (
    DeeperClusterObjective,
    clustering_folder,
    remove_clusterings,
    round_of,
)
from lowshot_kedro.deepercluster.parameters import DeeperClusterParameters
from lowshot_kedro.images import ImageSource
from lowshot_kedro.networks.unsupervised import unsupervised_network
from lowshot_kedro.networks.unsupervised_file import UnsupervisedDescription
from lowshot_kedro.training.checkpoints import Checkpoints
from lowshot_kedro.training.loop import Row, train, train_in_processes
from lowshot_kedro.training.processes import Processes
from lowshot_kedro.training.provenance import training_provenance
from lowshot_kedro.training.transforms import RECIPES


@dataclass(frozen=True)
class DeeperClusterJob:
    """All that processes have to know to train together.

    Attributes:
        images: The images that are learnt from; their labels are not looked at.
        parameters: How the network is trained.
        folder: Where checkpoints and clusterings lie.
    """

    images: ImageSource
    parameters: DeeperClusterParameters
    folder: Path

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """All that the training follows from. Images are looked at once."""
        return training_provenance(
            "DeeperCluster", self.images, self.parameters, self.parameters.weights
        )


@dataclass(frozen=True)
class TrainedDeeperCluster:
    """What a training by DeeperCluster ends with.

    Attributes:
        network: Tensors by name, for
            :func:`~lowshot_kedro.networks.unsupervised_file.unsupervised_from_tensors`.
        description: What has to be known to use the network.
        table: A row for each epoch.
        clustering: The clusters that were learnt last, on disk; None for RotNet, which has none.
    """

    network: dict[str, torch.Tensor]
    description: UnsupervisedDescription
    table: list[Row]
    clustering: Clustering | None


def train_deepercluster(job: DeeperClusterJob) -> TrainedDeeperCluster:
    """Train a network by DeeperCluster, or continue a training of the same that was stopped.

    M. Caron, P. Bojanowski, J. Mairal and A. Joulin, "Unsupervised Pre-Training of Image Features
    on Non-Curated Data", ICCV 2019. What is learnt does not depend on the number of processes, but
    for rounding. In memory, in each of them, besides what
    :func:`~lowshot_kedro.training.loop.train` holds: 4 bytes for each image, 4 for each image of an
    epoch of the training groups of which it has images, and for each of these groups a head with
    gradients and momentum, 12 · clusters · dimension bytes.

    Args:
        job: Images and parameters.

    Raises:
        InputError: For sizes with which nothing is learnt, weights that do not fit, and as
            :func:`~lowshot_kedro.training.loop.train` and
            :func:`~lowshot_kedro.deepercluster.clustering.cluster_images`.
    """
    parameters = job.parameters
    require_sizes(len(job.images), parameters)
    checkpoints = Checkpoints(job.folder, job.provenance, Processes(0, 1, torch.device("cpu")))
    found = train_in_processes(_train, job, parameters, checkpoints)
    clustering = None
    if parameters.needs_clustering:
        last = round_of(parameters.epochs - 1, parameters)
        clustering = Clustering(clustering_folder(checkpoints.folder, last))
        remove_clusterings(checkpoints.folder, last, parameters)
    return TrainedDeeperCluster(
        found.state["network"], describe(job), found.state["table"], clustering
    )


def _train(processes: Processes, job: DeeperClusterJob) -> None:
    """What each of the processes does."""
    parameters = job.parameters
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(parameters.seed)
        network = unsupervised_network(
            parameters.network,
            parameters.sobel,
            parameters.dimension,
            parameters.weights,
            parameters.image_size,
        )
    checkpoints = Checkpoints(job.folder, job.provenance, processes)
    objective = DeeperClusterObjective(job.images, parameters, processes, checkpoints.folder)
    train(network, objective, job.images, parameters, checkpoints, processes, order=objective.order)


def describe(job: DeeperClusterJob) -> UnsupervisedDescription:
    """What the network of a training is, for its file."""
    parameters = job.parameters
    return RECIPES[parameters.augmentation].describe_unsupervised(
        parameters.network,
        parameters.sobel,
        parameters.dimension,
        parameters.image_size,
        job.provenance,
    )
