"""The loop of a training: epochs over images, a row of a table for each, checkpoints.

Schedules, order and augmentation follow from the position alone, so that a training that is killed
anywhere goes on from its last checkpoint and ends with the same bytes.
"""

from __future__ import annotations

import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lowshot_kedro.child_processes import choose_num_workers
from lowshot_kedro.images import ImageSource
from lowshot_kedro.parameters import refuse
from lowshot_kedro.progress import Progress, Stopwatch, logged_step
from lowshot_kedro.training import stopping
from lowshot_kedro.training.batch_norm import with_synchronized_batch_norm
from lowshot_kedro.training.batches import (
    Batch,
    Batches,
    BatchOrder,
    LearntBatch,
    Order,
    own_rows,
    seed_of,
)
from lowshot_kedro.training.checkpoints import Checkpoint, Checkpoints
from lowshot_kedro.training.dropout import RowsOfBatch, with_whole_batch_dropout
from lowshot_kedro.training.gradients import parallel_network
from lowshot_kedro.training.parameters import TrainingParameters
from lowshot_kedro.training.processes import Job, Processes, run_in_processes
from lowshot_kedro.training.schedules import learning_rate
from lowshot_kedro.training.transforms import RECIPES

logger = logging.getLogger(__name__)

Row = dict[str, Any]


class Objective(ABC):
    """What a network learns: a loss, and what the loss has to remember.

    A loss that remembers nothing and is not evaluated is the whole of an objective.
    """

    @abstractmethod
    def __call__(self, outputs: torch.Tensor, batch: LearntBatch) -> torch.Tensor:
        """The loss of a batch.

        Args:
            outputs: float32 (b, …), what the network returns for this process's part of the batch.
            batch: Which images these are.

        Returns:
            A scalar, the same in all processes: the mean over the whole batch. Its gradient is such
            that the mean over processes is that of the whole batch. The part of this process may
            have no image.
        """

    def begin_epoch(self, epoch: int, network: nn.Module) -> Row:
        """Prepare for an epoch, counted from 0; returns columns of the table's row.

        It is called again when an epoch is continued, after :meth:`restore`, and has to lead to the
        same then. Gradients of the objective's own parameters that no step has used are dropped.

        Args:
            epoch: The epoch.
            network: On the device; it may be left in evaluation mode.
        """
        return {}

    def prepare(self, inputs: torch.Tensor, batch: LearntBatch) -> torch.Tensor:
        """What the network is to see of images.

        Args:
            inputs: float32 (b, 3, h, w), this process's part of the batch, augmented.
            batch: Which images these are.

        Returns:
            float32 (b, 3, h, w).
        """
        return inputs

    def step(self, lr: float) -> None:
        """Move parameters of the objective's own by the gradients since the last call.

        Args:
            lr: The learning rate of the epoch.
        """
        return

    def end_epoch(self) -> Row:
        """Columns of the table's row that say how an epoch went. All processes call it."""
        return {}

    def evaluate(self, network: nn.Module) -> Row:
        """Columns of the table's row that say how good the network is. All processes call it."""
        return {}

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of the objective besides rows: all processes have the same.

        Tensors, numbers, texts, lists and dictionaries; :meth:`restore` finds them as
        `checkpoint.state["objective"]`.
        """
        return {}

    def rows(self) -> dict[str, torch.Tensor]:
        """By name the rows that this process holds of tensors that a checkpoint keeps.

        All processes give the same names, and together each row once: of a tensor that all of them
        have, the first process gives the rows and the others give none, (0, …).
        """
        return {}

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take state and rows from a checkpoint."""
        return


def train(
    network: nn.Module,
    objective: Objective,
    images: ImageSource,
    parameters: TrainingParameters,
    checkpoints: Checkpoints,
    processes: Processes,
    order: Order | None = None,
) -> None:
    """Train a network by SGD, from the last checkpoint on if there is one.

    In memory, in each process: the network three times (weights, gradients, momentum), the
    activations of its part of a batch, two parts for each worker, and what the objective holds.

    Args:
        network: Float32 (b, 3, h, w) → one tensor of b rows. Changed in place. Each of its
            parameters takes part in each batch.
        objective: What it learns. What is learnt besides the network belongs to it.
        images: The images.
        parameters: How it is trained.
        checkpoints: Where its checkpoints lie.
        processes: Those that train together, of which this is one. All call this with the same.
        order: Which of the images are learnt from in which batch; None: each of them once an epoch.

    Raises:
        ValueError: If the loss is no longer a number, and for a checkpoint that cannot be read.
        StoppedBySignal: If a signal asks for an end, with a checkpoint of all that is done.
    """
    if order is None:
        order = BatchOrder(
            len(images), parameters.batch_size, parameters.seed, processes.rank,
            processes.n_processes,
        )  # fmt: skip
    loop = _Loop(network, objective, images, parameters, checkpoints, processes, order)
    with _repeatable(), stopping.stoppable():
        loop.run()


def train_in_processes(
    work: Callable[[Processes, Job], None],
    job: Job,
    parameters: TrainingParameters,
    checkpoints: Checkpoints,
) -> Checkpoint:
    """Have a training done in as many processes as are wanted, unless it is done already.

    Args:
        work: As for :func:`~lowshot_kedro.training.processes.run_in_processes`: makes network and
            objective and calls :func:`train` with checkpoints of the same.
        job: Likewise.
        parameters: How the network is trained.
        checkpoints: Where its checkpoints lie.

    Returns:
        The last checkpoint, with the network as `state["network"]`, the table as `state["table"]`
        and the rows of the objective.

    Raises:
        InputError: As `work`, and if the processes cannot be had.
        StoppedBySignal: As :func:`train`.
    """
    checkpoints.name_others()
    found = checkpoints.latest()
    if found is None or found.state["epoch"] < parameters.epochs:
        options = parameters.process_options(checkpoints.folder / "processes")
        run_in_processes(work, job, options, checkpoints.last_number)
        found = checkpoints.latest()
        assert found is not None, "each epoch ends with one"
    else:
        logger.info("%s: trained already, from the same: kept", checkpoints.folder)
    return found


@contextmanager
def _repeatable() -> Iterator[None]:
    """Take algorithms that repeat, and leave the random state of whoever trains as it is."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        torch.backends.cudnn.deterministic = before


class _Loop:
    def __init__(
        self,
        network: nn.Module,
        objective: Objective,
        images: ImageSource,
        parameters: TrainingParameters,
        checkpoints: Checkpoints,
        processes: Processes,
        order: Order,
    ) -> None:
        self._objective, self._parameters = objective, parameters
        self._checkpoints, self._processes = checkpoints, processes
        device = processes.device
        is_on_gpu = device.type == "cuda"
        self._order, self._rows = order, RowsOfBatch()
        _require_batches(network, order, parameters)
        network = with_synchronized_batch_norm(network, processes)
        network = with_whole_batch_dropout(network, self._rows)
        self._network = network.to(device).to(memory_format=torch.channels_last)
        self._optimizer = torch.optim.SGD(
            self._network.parameters(),
            lr=parameters.lr,
            momentum=parameters.momentum,
            weight_decay=parameters.weight_decay,
            nesterov=parameters.nesterov,
        )
        self._parallel: nn.Module = self._network
        if processes.n_processes > 1:
            self._parallel = parallel_network(self._network, device)
        recipe = RECIPES[parameters.augmentation]
        self._normalize = recipe.preprocessing(parameters.image_size).normalize
        self._autocast = parameters.uses_autocast(device.type)
        self._batches = Batches(
            images,
            recipe.augment(parameters.image_size),
            parameters.image_size,
            self._order,
            parameters.seed,
            choose_num_workers(parameters.workers),
            pin_memory=is_on_gpu,
        )
        # The position: batches done of an epoch, and their losses, summed over images.
        self._epoch = self._batch = 0
        self._table: list[Row] = []
        self._sum_of_losses = torch.zeros((), dtype=torch.float64, device=device)
        self._saved_at = time.monotonic()

    def run(self) -> None:
        self._checkpoints.begin()
        checkpoint = self._checkpoints.latest()
        if checkpoint is not None:
            self._restore(checkpoint)
        n_images, epochs = self._order.n_images, self._parameters.epochs
        done = self._epoch * n_images + min(self._batch * self._order.batch_size, n_images)
        with (
            logged_step("training"),
            Progress(epochs * n_images, "training", done, "image") as progress,
        ):
            while self._epoch < epochs:
                self._train_epoch(progress)
                self._save()
                stopping.stop_if_wanted(self._processes, f"epoch {self._epoch}")
        # The network may be used by others.
        self._rows.move_to(0, 0)

    def _train_epoch(self, progress: Progress) -> None:
        parameters, epoch, watch = self._parameters, self._epoch, Stopwatch()
        row = {"epoch": epoch + 1, "learning_rate": learning_rate(parameters, epoch)}
        row |= self._objective.begin_epoch(epoch, self._network)
        for group in self._optimizer.param_groups:
            group["lr"] = row["learning_rate"]
        first = self._batch
        if first == 0:
            self._sum_of_losses.zero_()
        self._parallel.train()
        # What an epoch leaves of unfinished sums of gradients is dropped, as in the original SNCA.
        self._optimizer.zero_grad()
        for part in self._batches.of_epoch(epoch, first):
            is_step = (self._batch + 1) % parameters.accumulated_batches == 0
            self._backward(part, is_step)
            n_images = self._order.size(self._batch)
            self._batch += 1
            progress.update(n_images)
            if is_step:
                self._optimizer.step()
                self._optimizer.zero_grad()
                self._objective.step(row["learning_rate"])
                if self._batch < len(self._order):
                    self._save_if_asked()
        n_images = self._order.n_images
        row["loss"] = self._mean_loss(n_images)
        row |= self._objective.end_epoch()
        rate = (n_images - first * self._order.batch_size) / max(watch.seconds, 1e-9)
        is_last = epoch + 1 == parameters.epochs
        if is_last or (epoch + 1) % parameters.eval_every == 0:
            row |= self._objective.evaluate(self._network)
        self._table.append({name: _rounded(value) for name, value in row.items()})
        self._epoch, self._batch = epoch + 1, 0
        if self._processes.is_first:
            self._log_epoch(rate)

    def _log_epoch(self, rate: float) -> None:
        """Say in a line what the last row of the table says, apart from what stays as it was."""
        before, row = ({}, *self._table)[-2:]
        told = [f"loss {row['loss']:.4g}"]
        shares = [name for name in row if "top" in name or "accuracy" in name]
        told += [f"{_for_reading(name)} {100 * row[name]:.1f} %" for name in shares]
        told += [
            f"{_for_reading(name)} {value:.4g}"
            for name, value in row.items()
            if name not in ("epoch", "loss", *shares) and before.get(name) != value
        ]
        logger.info(
            "epoch %d of %d: %s; %.0f images a second",
            row["epoch"],
            self._parameters.epochs,
            ", ".join(told),
            rate,
        )

    def _backward(self, part: Batch, is_step: bool) -> None:
        """Add the gradients of one batch."""
        seed, epoch, batch = self._parameters.seed, self._epoch, self._batch
        processes, n_images = self._processes, self._order.size(self._batch)
        device = processes.device
        own = own_rows(n_images, processes.rank, processes.n_processes)
        # Whatever a network draws at random follows from the position too.
        self._rows.move_to(own.start, n_images, seed, epoch, batch)
        torch.manual_seed(seed_of(seed, epoch, batch, processes.rank, 1))
        waiting: AbstractContextManager[Any] = nullcontext()
        if isinstance(self._parallel, DistributedDataParallel) and not is_step:
            waiting = self._parallel.no_sync()
        learnt = LearntBatch(
            part.numbers.to(device, non_blocking=True), part.places.to(device, non_blocking=True)
        )
        with waiting:
            pixels = part.pixels.to(device, non_blocking=True).permute(0, 3, 1, 2)
            inputs = self._objective.prepare(self._normalize(pixels), learnt)
            with torch.autocast(device.type, torch.bfloat16, enabled=self._autocast):
                outputs = self._parallel(inputs)
            loss = self._objective(outputs.float(), learnt)
            (loss / self._parameters.accumulated_batches).backward()  # type: ignore[no-untyped-call]
        self._sum_of_losses += loss.detach().double() * n_images

    def _mean_loss(self, n_images: int) -> float:
        loss = float(self._sum_of_losses) / n_images
        if not math.isfinite(loss):
            raise self._parameters.diverged(f"the loss is {loss} in epoch {self._epoch + 1}")
        return loss

    def _save_if_asked(self) -> None:
        """Save if it is time to, and if a signal asks for an end, which follows then."""
        minutes = (time.monotonic() - self._saved_at) / 60
        is_time = minutes >= self._parameters.checkpoint_minutes
        is_time, number = stopping.ask(self._processes, is_time)
        if is_time or number:
            self._save()
        if number:
            done = f"epoch {self._epoch + 1}, batch {self._batch} of {len(self._order)}"
            stopping.stop(self._processes, number, done)

    def _save(self) -> None:
        if self._batch:
            # A training that has gone wrong does not take the place of one that has not.
            self._mean_loss(self._order.n_images)
        state = {
            "network": _on_cpu(self._network.state_dict()),
            "optimizer": _on_cpu(self._optimizer.state_dict()),
            "objective": _on_cpu(self._objective.state()),
            "epoch": self._epoch,
            "batch": self._batch,
            "sum_of_losses": float(self._sum_of_losses),
            "table": self._table,
        }
        rows = {name: tensor.detach().cpu() for name, tensor in self._objective.rows().items()}
        number, every = self._epoch * len(self._order) + self._batch, self._parameters.keep_every
        is_kept = every is not None and self._batch == 0 and self._epoch % every == 0
        self._checkpoints.save(number, state, rows, is_kept)
        self._saved_at = time.monotonic()

    def _restore(self, checkpoint: Checkpoint) -> None:
        state = checkpoint.state
        self._network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._epoch, self._batch, self._table = state["epoch"], state["batch"], state["table"]
        self._sum_of_losses.fill_(state["sum_of_losses"])
        self._objective.restore(checkpoint)
        if self._processes.is_first:
            logger.info(
                "%s: continuing with epoch %d, batch %d of %d",
                self._checkpoints.folder,
                self._epoch + 1,
                self._batch + 1,
                len(self._order),
            )


def _rounded(value: Any) -> Any:
    """A number for people, without what is left of 0.1 · 0.1."""
    return float(f"{value:.12g}") if isinstance(value, float) else value


def _for_reading(name: str) -> str:
    return name.replace("_", " ").replace("top", "top-")


def _require_batches(network: nn.Module, order: Order, parameters: TrainingParameters) -> None:
    """Refuse batches from which nothing would be learnt, or at which a network would fail."""
    if parameters.accumulated_batches > len(order):
        raise refuse(
            "accumulated_batches",
            parameters.accumulated_batches,
            f"at most {len(order)}, the batches of an epoch: there would be no step",
        )
    if order.size(len(order) - 1) > 1:
        return
    trial = deepcopy(network).train()
    size = parameters.image_size
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            trial(torch.zeros(1, 3, size, size))
    except ValueError as error:
        # As batch normalisation does, of a single number for each channel.
        raise refuse(
            "batch_size",
            order.batch_size,
            f"a number that does not leave 1 of {order.n_images} images for the last batch: the "
            "network's batch normalisation wants more",
        ) from error


def _on_cpu(state: Any) -> Any:
    """A copy of nested dictionaries and lists with all tensors on the CPU, each in one piece."""
    if isinstance(state, torch.Tensor):
        # A view would be saved with all that it is a view of.
        return state.detach().cpu().clone(memory_format=torch.contiguous_format)
    if isinstance(state, Mapping):
        return {key: _on_cpu(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [_on_cpu(value) for value in state]
    return state
