"""Small trainings by DeeperCluster, of which the clusters are made up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from torch import nn

from lowshot_kedro.deepercluster import objective
from lowshot_kedro.deepercluster.assignments import FILES, Clustering, write_array, write_json
from lowshot_kedro.deepercluster.objective import DeeperClusterObjective
from lowshot_kedro.deepercluster.parameters import DeeperClusterParameters
from lowshot_kedro.training.checkpoints import Checkpoint, Checkpoints
from lowshot_kedro.training.loop import train
from lowshot_kedro.training.processes import Processes
from tests.training.making import MadeImages

N_IMAGES = 60


class Job(NamedTuple):
    """A training.

    Attributes:
        parameters: How.
        folder: Where its checkpoints lie.
    """

    parameters: DeeperClusterParameters
    folder: Path


def parameters(**changes: Any) -> DeeperClusterParameters:
    """Of batches of 16 images, 2 for each of 8 groups, and of 7 steps in an epoch."""
    values: dict[str, Any] = {
        "epochs": 3,
        "batch_size": 16,
        "lr": 0.05,
        "n_super_classes": 8,
        "n_clusters": 10,
        "images_per_epoch": 112,
        "cluster_every": 2,
        "dimension": 12,
        "n_components": 4,
        "image_size": 8,
        "augmentation": "shift",
        "network": "small",
        "sobel": False,
        "seed": 3,
        "checkpoint_minutes": 1000,
        "num_workers": 0,
        "device": "cpu",
        "precision": "float32",
        "n_processes": 1,
    }
    return DeeperClusterParameters(**{**values, **changes})


def network(dropout: bool = True) -> nn.Module:
    """One with all that has to be told to other processes."""
    torch.manual_seed(5)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Dropout2d(0.2 * dropout),
        nn.Flatten(),
        nn.Linear(6 * 36, 16),
        nn.ReLU(),
        nn.Dropout(0.5 * dropout),
        nn.Linear(16, 12),
    )


def made_up(network: nn.Module, images: Any, *arguments: Any) -> Clustering:
    """Clusters that follow from the numbers of images and from the round alone.

    Super-cluster 0 has one cluster less than any other one, and the last cluster is empty.
    """
    parameters, processes, folder, previous, _ = arguments
    network.eval()
    m, n_images = parameters.n_super_clusters, len(images)
    if processes.is_first and not folder.is_dir():
        n_clusters = np.full(m, parameters.n_clusters // m)
        if 1 < m < parameters.n_clusters:
            n_clusters[0] -= 1
            n_clusters[1] += 1
        numbers = np.arange(n_images) + int(folder.name.removeprefix("clustering-"))
        super_labels = (numbers % m).astype(np.int32)
        sub_labels = (numbers // m % np.maximum(n_clusters[super_labels] - 1, 1)).astype(np.int32)
        offsets = np.concatenate([[0], np.cumsum(n_clusters)])
        arrays = {
            "super_labels.npy": super_labels,
            "sub_labels.npy": sub_labels,
            "offsets.npy": offsets,
        }
        unfinished = folder.with_name("unfinished")
        unfinished.mkdir(parents=True)
        for name in FILES:
            (unfinished / name).touch()
        for name, array in arrays.items():
            write_array(unfinished / name, array)
        report = {
            "n_images": n_images,
            "clusters": {
                "n": parameters.n_clusters,
                "n_empty": m,
                "min": 0,
                "median": 4.0,
                "max": 9,
            },
            "objective": 0.5,
            "normalized_mutual_information": None if previous is None else 0.25,
        }
        write_json(unfinished / "report.json", report)
        unfinished.replace(folder)
    processes.barrier()
    return Clustering(folder)


@contextmanager
def clusters_made_up() -> Iterator[None]:
    with mock.patch.object(objective, "cluster_images", made_up):
        yield


def train_made(processes: Processes, job: Job, dropout: bool = True) -> None:
    """Train on images of random pixels."""
    images = MadeImages(N_IMAGES)
    checkpoints = Checkpoints(job.folder, job.parameters.facts(), processes)
    checkpoints.begin()
    with clusters_made_up():
        learnt = DeeperClusterObjective(images, job.parameters, processes, checkpoints.folder)
        train(
            network(dropout),
            learnt,
            images,
            job.parameters,
            checkpoints,
            processes,
            order=learnt.order,
        )


def last_of(job: Job) -> Checkpoint:
    """The last checkpoint of a training."""
    last = Checkpoints(
        job.folder, job.parameters.facts(), Processes(0, 1, torch.device("cpu"))
    ).latest()
    assert last is not None
    return last


def tensors_of(job: Job) -> dict[str, torch.Tensor]:
    """All tensors of the last checkpoint of a training."""
    last, parameters = last_of(job), job.parameters
    state = last.state
    found = {f"network.{name}": tensor for name, tensor in state["network"].items()}
    found |= {
        f"optimizer.{number}": each.get("momentum_buffer", torch.zeros(1))
        for number, each in state["optimizer"]["state"].items()
    }
    found |= {f"super.{name}": each for name, each in state["objective"]["super_head"].items()}
    found["sums"] = state["objective"]["sums"]
    if parameters.needs_clustering:
        m = parameters.n_super_clusters
        for group in range(parameters.n_super_classes):
            n_clusters = parameters.n_clusters // m
            if 1 < m < parameters.n_clusters:
                n_clusters += {0: -1, 1: 1}.get(group // parameters.n_rotations, 0)
            if n_clusters == 1:
                continue
            names = ["weight", "bias"]
            if parameters.momentum:
                names += [f"{name}_momentum" for name in names]
            for name in names:
                row_name = f"head_{group:05d}_{name}"
                found[row_name] = last.read_rows(row_name, 0, n_clusters)
    return found
