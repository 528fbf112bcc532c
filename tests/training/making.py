"""Small images to learn from, and a network and an objective that learn fast."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from lowshot_kedro.images import LoadedImage
from lowshot_kedro.training import loop
from lowshot_kedro.training.batches import LearntBatch
from lowshot_kedro.training.checkpoints import Checkpoint, Checkpoints
from lowshot_kedro.training.loop import Objective, Row
from lowshot_kedro.training.parameters import TrainingParameters
from lowshot_kedro.training.processes import Processes

CPU = torch.device("cpu")
ALONE = Processes(0, 1, CPU)


class MadeImages:
    """Images of random pixels, of which some are blank."""

    def __init__(self, n_images: int, size: int = 8, blank: Sequence[int] = ()) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (n_images, size, size, 3), np.uint8)
        self.pixels, self.blank = pixels, set(blank)

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def labels(self) -> NDArray[np.int32]:
        return (np.arange(len(self)) % 3).astype(np.int32)

    def __getitem__(self, number: int) -> LoadedImage:
        if number in self.blank:
            return LoadedImage(Image.new("RGB", (9, 9)), 0, f"{number}: is not there")
        return LoadedImage(Image.fromarray(self.pixels[number]), int(self.labels[number]), None)

    def describe(self) -> dict[str, Any]:
        return {"kind": "made", "n_pictures": len(self)}


def parameters(**changes: Any) -> TrainingParameters:
    values: dict[str, Any] = {
        "epochs": 3,
        "batch_size": 4,
        "accumulated_batches": 1,
        "lr": 0.01,
        "lr_schedule": "step",
        "lr_step_epochs": 2,
        "lr_gamma": 0.1,
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 0.001,
        "augmentation": "shift",
        "image_size": 8,
        "seed": 3,
        "eval_every": 1,
        "checkpoint_minutes": 1000,
        "num_workers": 0,
        "device": "cpu",
        "precision": "float32",
        "n_processes": 1,
        "scheduler": "local",
        "cluster": {},
    }
    return TrainingParameters(**{**values, **changes})


def network(dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Flatten(),
        nn.Linear(4 * 36, 2),
    )


class Targets(Objective):
    """Each image has a target, which drifts towards what the network says, as a bank does."""

    def __init__(self, n_images: int) -> None:
        self.targets = torch.arange(2 * n_images).reshape(n_images, 2) / n_images
        self.batches: list[list[int]] = []
        self.epochs: list[int] = []

    def __call__(self, outputs: torch.Tensor, batch: LearntBatch) -> torch.Tensor:
        index = batch.numbers
        self.batches.append(index.tolist())
        loss = ((outputs - self.targets[index]) ** 2).mean()
        self.targets[index] = 0.9 * self.targets[index] + 0.1 * outputs.detach()
        return loss

    def begin_epoch(self, epoch: int, network: nn.Module) -> Row:
        self.epochs.append(epoch)
        return {"part": epoch / 10}

    def evaluate(self, network: nn.Module) -> Row:
        # As any evaluation may.
        network.eval()
        torch.rand(3)
        return {"weight": float(network[0].weight.detach().abs().mean())}

    def rows(self) -> dict[str, torch.Tensor]:
        return {"targets": self.targets}

    def restore(self, checkpoint: Checkpoint) -> None:
        self.targets = checkpoint.read_rows("targets", 0, len(self.targets))


def checkpoints(folder: Path, **facts: Any) -> Checkpoints:
    return Checkpoints(folder, {"kind": "test", **facts}, ALONE)


class Stop(Exception):
    """Ends a training."""


@contextmanager
def stopped_after(n_batches: int) -> Iterator[None]:
    """Trainings inside are stopped before the batch that comes after so many."""
    backward, left = loop._Loop._backward, n_batches

    def backward_or_stop(self: loop._Loop, *arguments: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Stop
        backward(self, *arguments)

    with mock.patch.object(loop._Loop, "_backward", backward_or_stop):
        yield
