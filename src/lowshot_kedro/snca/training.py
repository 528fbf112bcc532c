"""Training by SNCA: from images to a network, a bank and a table of epochs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lowshot_kedro.blocks import Blocks, LabeledBlock, row_ranges
from lowshot_kedro.errors import InputError
from lowshot_kedro.images import ImageSource
from lowshot_kedro.networks.embedding import embedding_network
from lowshot_kedro.networks.embedding_file import EmbeddingDescription
from lowshot_kedro.probes.knn import Gallery, class_scores, strict_top_k
from lowshot_kedro.snca.loss import SNCALoss
from lowshot_kedro.snca.parameters import SNCAParameters
from lowshot_kedro.training.batches import LearntBatch
from lowshot_kedro.training.checkpoints import Checkpoint, Checkpoints
from lowshot_kedro.training.embedding import embed
from lowshot_kedro.training.loop import Objective, Row, train, train_in_processes
from lowshot_kedro.training.processes import Processes
from lowshot_kedro.training.provenance import training_provenance
from lowshot_kedro.training.schedules import value_of_epoch
from lowshot_kedro.training.transforms import RECIPES

_BANK = "bank"
_BANK_ROWS = 16384


@dataclass(frozen=True)
class SNCAJob:
    """All that processes have to know to train together.

    Attributes:
        images: The images that are learnt from; row i of the bank is image i.
        classes: int64 (N,), their classes, 0..C-1.
        test_images: Images that the epochs are judged by; None: none.
        test_classes: int64, their classes, 0..C-1.
        parameters: How the network is trained.
        folder: Where checkpoints lie.
    """

    images: ImageSource
    classes: NDArray[np.int64]
    test_images: ImageSource | None
    test_classes: NDArray[np.int64]
    parameters: SNCAParameters
    folder: Path

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """All that the training follows from. Images are looked at once."""
        return training_provenance("SNCA", self.images, self.parameters, self.parameters.weights)


@dataclass(frozen=True)
class TrainedSNCA:
    """What a training by SNCA ends with.

    Attributes:
        network: Tensors by name, as :class:`EmbeddingNetwork` has them.
        description: What has to be known to use the network.
        bank: The bank in blocks, read from the last checkpoint: float32 (N, dimension), and the
            labels of its images.
        table: A row for each epoch.
    """

    network: dict[str, torch.Tensor]
    description: EmbeddingDescription
    bank: Blocks[LabeledBlock]
    table: list[Row]


def train_snca(job: SNCAJob) -> TrainedSNCA:
    """Train a network by SNCA, or continue a training of the same that was stopped.

    Z. Wu, A. Efros and S. Yu, "Improving Generalization via Scalable Neighborhood Component
    Analysis", ECCV 2018. In memory, in each of p processes: N / p rows of the bank, and what
    :func:`~lowshot_kedro.training.loop.train` holds.

    Args:
        job: Images and parameters.

    Raises:
        InputError: For images that cannot be learnt from, weights that do not fit, and as
            :func:`~lowshot_kedro.training.loop.train`.
    """
    _require_classes(job.classes)
    checkpoints = Checkpoints(job.folder, job.provenance, Processes(0, 1, torch.device("cpu")))
    found = train_in_processes(_train, job, job.parameters, checkpoints)
    return TrainedSNCA(
        found.state["network"], _describe(job), _bank(found, job.images), found.state["table"]
    )


def _train(processes: Processes, job: SNCAJob) -> None:
    """What each of the processes does."""
    parameters = job.parameters
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(parameters.seed)
        network: nn.Module = embedding_network(
            parameters.network, parameters.dimension, parameters.weights, parameters.image_size
        )
        loss = SNCALoss(
            torch.from_numpy(job.classes),
            parameters.dimension,
            temperature=parameters.temperature,
            momentum=parameters.bank_momentum,
            margin=parameters.margin,
        ).to(processes.device)
    objective = _SNCAObjective(loss, job, processes)
    checkpoints = Checkpoints(job.folder, job.provenance, processes)
    train(network, objective, job.images, parameters, checkpoints, processes)


class _SNCAObjective(Objective):
    """The loss of SNCA, and its bank as the gallery of a k-NN classifier."""

    def __init__(self, loss: SNCALoss, job: SNCAJob, processes: Processes) -> None:
        self._loss, self._job, self._processes = loss, job, processes

    def __call__(self, outputs: torch.Tensor, batch: LearntBatch) -> torch.Tensor:
        value: torch.Tensor = self._loss(outputs, batch.numbers)
        return value

    def begin_epoch(self, epoch: int, network: nn.Module) -> Row:
        parameters = self._job.parameters
        self._loss.momentum = value_of_epoch(
            parameters.bank_momentum, parameters.bank_momentum_changes, epoch
        )
        return {"bank_momentum": self._loss.momentum}

    def rows(self) -> dict[str, torch.Tensor]:
        return {_BANK: self._loss.bank}

    def restore(self, checkpoint: Checkpoint) -> None:
        loss = self._loss
        rows = checkpoint.read_rows(_BANK, loss.first_row, loss.last_row)
        loss.bank = rows.to(self._processes.device)

    def evaluate(self, network: nn.Module) -> Row:
        """Top-1 accuracy of test images by their nearest rows of the bank."""
        job, loss = self._job, self._loss
        if job.test_images is None or len(job.test_images) == 0:
            return {}
        parameters = job.parameters
        queries = embed(network, job.test_images, parameters, self._processes).cpu().numpy()
        classes = job.classes[loss.first_row : loss.last_row]
        n_classes = int(job.classes.max()) + 1
        k = min(parameters.eval_k[0], len(job.classes))
        # Each process looks through its own rows; their nearest are compared with one another.
        k_here = min(k, len(classes))
        gallery = Gallery(loss.bank.cpu().numpy(), classes, n_classes)
        nearest = gallery.nearest(queries, k_here)
        all_classes = self._columns(classes[nearest.indices], k)
        similarities = self._columns(nearest.similarities, k)
        order = np.argsort(-similarities, axis=1, kind="stable")[:, :k]
        scores = class_scores(
            np.take_along_axis(all_classes, order, axis=1),
            np.take_along_axis(similarities, order, axis=1).astype(np.float64),
            parameters.eval_temperature or parameters.temperature,
            n_classes,
        )
        hits = strict_top_k(scores, job.test_classes.astype(np.int32), 1)
        return {"bank_top1": float(hits.mean())}

    def _columns(self, own: NDArray[Any], k: int) -> NDArray[Any]:
        """Columns of all processes side by side; -inf or -1 where one has fewer than k."""
        missing = -np.inf if own.dtype.kind == "f" else -1
        padded = np.full((len(own), k), missing, dtype=own.dtype)
        padded[:, : own.shape[1]] = own
        device = self._processes.device
        parts = self._processes.gather(torch.from_numpy(padded).to(device)).cpu().numpy()
        return np.concatenate(np.split(parts, self._processes.n_processes), axis=1)


def _require_classes(classes: NDArray[np.int64]) -> None:
    counts = np.bincount(classes)
    largest = counts.max(initial=0)
    if np.count_nonzero(counts) < 2 or largest < 2:
        raise InputError(
            f"images: {len(classes)} of {np.count_nonzero(counts)} class(es), at most {largest} of "
            "one; expected at least two classes, and two images of one of them"
        )


def _describe(job: SNCAJob) -> EmbeddingDescription:
    parameters = job.parameters
    return RECIPES[parameters.augmentation].describe(
        parameters.network, parameters.dimension, parameters.image_size, job.provenance
    )


def _bank(checkpoint: Checkpoint, images: ImageSource) -> Blocks[LabeledBlock]:
    labels, n_rows = images.labels, len(images)
    n_columns = checkpoint.read_rows(_BANK, 0, 1).shape[1]

    def blocks() -> Iterator[LabeledBlock]:
        for first, last in row_ranges(n_rows, _BANK_ROWS):
            rows = checkpoint.read_rows(_BANK, first, last).numpy()
            yield LabeledBlock(rows, np.asarray(labels[first:last]))

    return Blocks(n_rows, n_columns, blocks)
