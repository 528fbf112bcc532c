"""The parameters of a training: what the sections of all trainers have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from lowshot_kedro.devices import DEVICES
from lowshot_kedro.errors import InputError
from lowshot_kedro.networks import PRECISIONS
from lowshot_kedro.parameters import (
    AUTO,
    refuse,
    require_boolean,
    require_integer,
    require_num_workers,
    require_number,
    require_one_of,
    require_part,
)
from lowshot_kedro.training.processes import MAX_PROCESSES, SCHEDULERS, ProcessOptions

SCHEDULES = ("constant", "step", "cosine")
AUGMENTATIONS = ("imagenet", "cifar", "shift", "shift_and_flip", "none")

_MAX_MINUTES = 1e6


@dataclass(frozen=True, kw_only=True)
class TrainingParameters:
    """How a network is trained. Sections of trainers inherit these and add their own.

    Attributes:
        epochs: Passes over the images.
        batch_size: Images of a batch, of all processes together.
        accumulated_batches: Batches whose gradients are summed for one step of the optimiser.
        lr: Learning rate at the beginning.
        lr_schedule: `constant`, `step` or `cosine`.
        lr_step_epochs: The schedule `step` multiplies the learning rate by lr_gamma after every so
            many epochs.
        lr_gamma: By what.
        momentum: Of SGD.
        nesterov: Whether it is Nesterov's.
        weight_decay: On all parameters.
        augmentation: How training images are changed at random.
        image_size: Width and height in pixels of the network's input.
        seed: Of weights, order and augmentation.
        eval_every: Epochs from one evaluation to the next; the last epoch always has one.
        checkpoint_minutes: Minutes from one checkpoint to the next; each epoch ends with one too.
        keep_every: Epochs from one checkpoint that is kept for good to the next; None: none is.
        max_restarts: How often processes of this machine begin again from the last checkpoint when
            one of them was killed; a new checkpoint makes the count begin anew.
        num_workers: Processes that decode images, for each process that trains.
        device: `auto`, `cpu` or `cuda`.
        precision: `float32`, `bfloat16`, or `auto`: bfloat16 on a GPU, else float32.
        n_processes: How many train together; `auto`: one for each GPU, one on a CPU.
        scheduler: `local`, or `slurm`: a job of SLURM trains.
        cluster: What SLURM is told.
    """

    # What the trained network does not follow from.
    without: ClassVar[tuple[str, ...]] = (
        "eval_every", "checkpoint_minutes", "keep_every", "max_restarts", "num_workers", "device",
        "n_processes", "scheduler", "cluster",
    )  # fmt: skip

    epochs: int
    batch_size: int
    accumulated_batches: int = 1
    lr: float
    lr_schedule: str = "step"
    lr_step_epochs: int
    lr_gamma: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float
    augmentation: str
    image_size: int
    seed: int = 0
    eval_every: int = 1
    checkpoint_minutes: float = 10
    keep_every: int | None = None
    max_restarts: int = 3
    num_workers: int | str = AUTO
    device: str = AUTO
    precision: str = AUTO
    n_processes: int | str = AUTO
    scheduler: str = "local"
    cluster: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_integer("epochs", self.epochs, 1)
        require_integer("batch_size", self.batch_size, 1)
        require_integer("accumulated_batches", self.accumulated_batches, 1)
        require_number("lr", self.lr, 0)
        require_one_of("lr_schedule", self.lr_schedule, SCHEDULES)
        require_integer("lr_step_epochs", self.lr_step_epochs, 1)
        require_part("lr_gamma", self.lr_gamma)
        require_number("momentum", self.momentum, 0, below=1)
        require_boolean("nesterov", self.nesterov)
        if self.nesterov and self.momentum == 0:
            raise refuse("nesterov", True, "false where momentum is 0")
        require_number("weight_decay", self.weight_decay, 0)
        require_one_of("augmentation", self.augmentation, AUGMENTATIONS)
        require_integer("image_size", self.image_size, 8, 4096)
        require_integer("seed", self.seed, 0)
        require_integer("eval_every", self.eval_every, 1)
        require_number("checkpoint_minutes", self.checkpoint_minutes, 0, _MAX_MINUTES)
        require_integer("keep_every", self.keep_every, 1, null="none")
        require_integer("max_restarts", self.max_restarts, 0, 1000)
        require_num_workers("num_workers", self.num_workers)
        require_one_of("device", self.device, DEVICES)
        require_one_of("precision", self.precision, PRECISIONS)
        if self.n_processes != AUTO:
            require_integer("n_processes", self.n_processes, 1, MAX_PROCESSES, alternative=AUTO)
        require_one_of("scheduler", self.scheduler, SCHEDULERS)
        if not isinstance(self.cluster, Mapping):
            raise refuse("cluster", self.cluster, "options of SLURM, such as {partition: gpu}")
        object.__setattr__(self, "cluster", dict(self.cluster))

    def process_options(self, folder: Path) -> ProcessOptions:
        """Which processes train, for :func:`~lowshot_kedro.training.processes.run_in_processes`.

        Args:
            folder: Where SLURM's files are until the work is done.
        """
        return ProcessOptions(
            folder=folder,
            n_processes=None if self.n_processes == AUTO else int(self.n_processes),
            device=self.device,
            scheduler=self.scheduler,
            cluster=self.cluster,
            max_restarts=self.max_restarts,
        )

    @property
    def workers(self) -> int | None:
        """Processes that decode images for each process that trains; None: as cores allow."""
        return None if self.num_workers == AUTO else int(self.num_workers)

    def uses_autocast(self, device: str) -> bool:
        """Whether the network runs in bfloat16 on a kind of device."""
        return self.precision == "bfloat16" or (self.precision == AUTO and device == "cuda")

    def facts(self) -> dict[str, Any]:
        """The parameters that a training follows from.

        The others say who does the work, and how often it is looked at.
        """
        return {name: value for name, value in asdict(self).items() if name not in self.without}

    def diverged(self, what: str) -> InputError:
        """The error for a training that has gone wrong.

        Args:
            what: What tells so.
        """
        return InputError(
            what, parameter="lr", found=self.lr, expected="less, so that the loss stays a number"
        )
