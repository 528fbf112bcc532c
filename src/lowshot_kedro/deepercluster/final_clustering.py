"""The clusters that a network makes of its images when its training is done."""

from __future__ import annotations

import logging

import torch

from lowshot_kedro.deepercluster.assignments import Clustering
from lowshot_kedro.deepercluster.clustering import cluster_images
from lowshot_kedro.deepercluster.objective import clustering_folder, round_of
from lowshot_kedro.deepercluster.training import DeeperClusterJob, describe
from lowshot_kedro.errors import InputError
from lowshot_kedro.networks.unsupervised_file import unsupervised_from_tensors
from lowshot_kedro.training import stopping
from lowshot_kedro.training.batches import seed_of
from lowshot_kedro.training.checkpoints import Checkpoints
from lowshot_kedro.training.processes import Processes, run_in_processes

logger = logging.getLogger(__name__)


def cluster_trained(job: DeeperClusterJob) -> Clustering:
    """Cluster all images once more, by the network that a training ended with.

    The clusters that were learnt last are those of an older network: they go with no network that
    is left. What is there already from an earlier call is kept.

    Args:
        job: Of a training that is done, and has clusters.

    Returns:
        The clustering, in the folder of the training.

    Raises:
        InputError: If the training is not done, and as
            :func:`~lowshot_kedro.deepercluster.clustering.cluster_images`.
        StoppedBySignal: If a signal asks for an end.
    """
    parameters = job.parameters
    checkpoints = Checkpoints(job.folder, job.provenance, Processes(0, 1, torch.device("cpu")))
    folder = clustering_folder(checkpoints.folder, parameters.epochs)
    if folder.is_dir():
        logger.info("%s: clustered already, from the same: kept", folder)
    else:
        options = parameters.process_options(checkpoints.folder / "processes")
        run_in_processes(_cluster, job, options)
    return Clustering(folder)


def _cluster(processes: Processes, job: DeeperClusterJob) -> None:
    """What each of the processes does."""
    parameters = job.parameters
    checkpoints = Checkpoints(job.folder, job.provenance, processes)
    found = checkpoints.latest()
    if found is None or found.state["epoch"] < parameters.epochs:
        raise InputError(
            f"{checkpoints.folder}: found no training that is done", made_by="deepercluster"
        )
    network = unsupervised_from_tensors(describe(job), found.state["network"], checkpoints.folder)
    last = round_of(parameters.epochs - 1, parameters)
    with stopping.stoppable():
        cluster_images(
            network.to(processes.device),
            job.images,
            parameters,
            processes,
            clustering_folder(checkpoints.folder, parameters.epochs),
            Clustering(clustering_folder(checkpoints.folder, last)),
            seed_of(parameters.seed, parameters.epochs, 3),
        )
