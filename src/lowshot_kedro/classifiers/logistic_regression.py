"""Multinomial logistic regression trained on class-balanced batches."""

from __future__ import annotations

import json
import logging
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.blocks import row_ranges, spread_rows
from lowshot_kedro.classifiers.gradient_descent import (
    BalancedBatches,
    BlockDescent,
    Settings,
    padded_rows,
)
from lowshot_kedro.classifiers.vectors import require_every_class
from lowshot_kedro.errors import InputError
from lowshot_kedro.extras import LazyModule
from lowshot_kedro.input_files import UNPICKLING_ERRORS
from lowshot_kedro.progress import Progress, Stopwatch
from lowshot_kedro.torch_threads import single_threaded_tasks

if TYPE_CHECKING:
    import torch
else:
    torch = LazyModule("torch", "logistic regression", globals())

logger = logging.getLogger(__name__)

_BLOCK_ROWS = 1024
_SECONDS_BETWEEN_CHECKPOINTS = 300.0
_ROWS_IN_CHECKSUM = 64


class LogisticRegressions:
    """Linear layers trained side by side by stochastic gradient descent, one for a configuration.

    Every image of a batch is drawn by choosing a class uniformly, then one of its images
    uniformly, so that a class with two images counts as much as one with a thousand (Hariharan and
    Girshick, ICCV 2017). All configurations begin with the same weights and get the same batches.
    The result does not depend on the number of threads; :mod:`~.gradient_descent` says how it is
    computed.

    Args:
        n_classes: Number of classes C.
        lr: Learning rates, fixed, one for each of G configurations.
        weight_decay: L2 penalties of weights and biases, as many.
        batch_size: Images of a batch.
        max_iterations: Batches.
        momentum: Momentum of the gradient descent.
        seed: Seed of the initial weights and the batches.
        device: Where to train, for instance `cpu` or `cuda`.

    Raises:
        ValueError: Unless there are as many penalties as learning rates, at least one.
    """

    def __init__(
        self,
        n_classes: int,
        *,
        lr: Sequence[float],
        weight_decay: Sequence[float],
        batch_size: int,
        max_iterations: int,
        momentum: float = 0.0,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        if not len(lr) == len(weight_decay) > 0:
            raise InputError(
                f"logistic regression: {len(lr)} learning rates and {len(weight_decay)} weight "
                "decays; expected one of each for every configuration"
            )
        self.n_classes = n_classes
        self.lr = [float(value) for value in lr]
        self.weight_decay = [float(value) for value in weight_decay]
        self.batch_size = batch_size
        self.max_iterations = max_iterations
        self.momentum = momentum
        self.seed = seed
        self.device = torch.device(device)
        # Weights and, with momentum, velocities: (G·C, d + 1), the bias is the last column.
        self._layers: list[torch.Tensor] = []

    def fit(
        self,
        features: NDArray[np.float32],
        classes: NDArray[np.int32],
        evaluate: Callable[[int], Any] | None = None,
        eval_every: int | None = None,
        checkpoint: Path | None = None,
        evaluated_from: Mapping[str, Any] | None = None,
    ) -> list[Any]:
        """Train on labelled features.

        In memory: weights of all configurations, with momentum twice, and logits and gradients of
        some hundred images for all of them; on a GPU the features as well.

        Args:
            features: float32 (n, d).
            classes: int32 (n,), 0..C-1, each present.
            evaluate: Called with the number of iterations done, every eval_every and at the end.
            eval_every: Iterations between calls; None: only at the end.
            checkpoint: Where to write every few minutes, after a call of `evaluate`, what a later
                training needs to go on from there; that gives bit for bit what it would have given
                in one go. `max_iterations` may be another then. The file is removed at the end.
            evaluated_from: What `evaluate` returns follows from this, besides the training: a
                training goes on from a checkpoint only if it is the same, as JSON holds it.

        Returns:
            What `evaluate` returned, call by call. With a checkpoint that has to be something that
            JSON can hold: a training that goes on does not repeat earlier calls.

        Raises:
            ValueError: For a class without images, or other classes than features. A configuration
                that diverges is no error: see `diverged`.
        """
        require_every_class(classes, len(features), self.n_classes, "logistic regression")
        # All randomness comes from one CPU generator, so that a GPU draws the same batches.
        generator = torch.Generator().manual_seed(self.seed)
        self._layers = self._initial_layers(features.shape[1], generator)
        batches = BalancedBatches(classes, self.n_classes, self.batch_size, generator)
        descent = BlockDescent(
            Settings(
                np.array(self.lr), np.array(self.weight_decay), self.momentum, self.batch_size
            ),
            self._layers,
            torch.from_numpy(features).to(self.device),
            torch.from_numpy(classes.astype(np.int64)).to(self.device),
            self.n_classes,
            batches,
        )
        iteration = 0
        returned: list[Any] = []
        keeper = None
        if checkpoint is not None:
            provenance = self._provenance(features, classes, eval_every)
            provenance["evaluated_from"] = json.dumps(evaluated_from, sort_keys=True)
            keeper = _Checkpoint(checkpoint, provenance)
            iteration, returned = keeper.restore(self._layers, batches, self.max_iterations)

        n_threads = min(torch.get_num_threads(), descent.n_parts)
        with Progress(
            self.max_iterations, "logistic regression", iteration, "iteration"
        ) as progress:
            while iteration < self.max_iterations:
                last = self.max_iterations
                if eval_every is not None:
                    last = min(last, (iteration // eval_every + 1) * eval_every)
                with single_threaded_tasks(n_threads) as run:
                    descent.advance(iteration, last, run, progress.update)
                iteration = last
                if evaluate is not None:
                    returned.append(evaluate(iteration))
                if keeper is not None and iteration < self.max_iterations:
                    keeper.save_if_due(iteration, returned, self._layers, batches)
        if keeper is not None:
            keeper.remove()
        return returned

    @property
    def diverged(self) -> NDArray[np.bool_]:
        """Bool (G,): whose weights are not finite any more.

        Raises:
            RuntimeError: Before :meth:`fit`.
        """
        return np.array(
            [self._has_diverged(configuration) for configuration in range(len(self.lr))]
        )

    def scores(self, features: NDArray[np.float32], configuration: int) -> NDArray[np.float32]:
        """Log-probabilities of the classes.

        Args:
            features: float32 (m, d).
            configuration: 0..G-1.

        Returns:
            float32 (m, C); of a configuration that diverged -log C everywhere.

        Raises:
            RuntimeError: Before :meth:`fit`.
        """
        result = np.full((len(features), self.n_classes), -np.log(self.n_classes), dtype=np.float32)
        if self._has_diverged(configuration):
            return result
        weights = self._weights(configuration)
        tasks = [
            partial(self._score, weights, features[first:last], result[first:last])
            for first, last in row_ranges(len(features), _BLOCK_ROWS)
        ]
        n_threads = torch.get_num_threads() if self.device.type == "cpu" and len(tasks) > 1 else 1
        with single_threaded_tasks(n_threads) as run:
            run(tasks)
        return result

    def state_dict(self, configuration: int) -> dict[str, Any]:
        """Weight (C, d) and bias (C,) of a configuration, 0..G-1, for torch.save.

        Raises:
            RuntimeError: Before :meth:`fit`.
        """
        weights = self._weights(configuration).cpu()
        # Copies: what is saved of a part of a tensor is all of it.
        return {"weight": weights[:, :-1].clone(), "bias": weights[:, -1].clone()}

    def _initial_layers(self, n_columns: int, generator: torch.Generator) -> list[torch.Tensor]:
        bound = n_columns**-0.5
        weight, bias = torch.empty(self.n_classes, n_columns), torch.empty(self.n_classes)
        for values in (weight, bias):
            values.uniform_(-bound, bound, generator=generator)
        shape = (len(self.lr) * self.n_classes, n_columns + 1)
        layers = [padded_rows(*shape, self.device) for _ in range(2 if self.momentum else 1)]
        layers[0].view(-1, self.n_classes, n_columns + 1)[:] = torch.cat(
            [weight, bias[:, None]], dim=1
        )
        return layers

    def _provenance(
        self, features: NDArray[np.float32], classes: NDArray[np.int32], eval_every: int | None
    ) -> dict[str, Any]:
        """All that the training follows from, but for where it ends."""
        some = np.ascontiguousarray(features[spread_rows(len(features), _ROWS_IN_CHECKSUM)])
        return {
            "n_images": len(features),
            "n_columns": features.shape[1],
            "n_classes": self.n_classes,
            "lr": self.lr,
            "weight_decay": self.weight_decay,
            "batch_size": self.batch_size,
            "momentum": self.momentum,
            "seed": self.seed,
            "eval_every": eval_every,
            "features": zlib.crc32(some.tobytes()),
            "classes": zlib.crc32(np.ascontiguousarray(classes, dtype=np.int32).tobytes()),
        }

    def _weights(self, configuration: int) -> torch.Tensor:
        if not self._layers:
            raise RuntimeError("LogisticRegressions: fit it before asking for anything")
        return self._layers[0].view(len(self.lr), self.n_classes, -1)[configuration]

    def _has_diverged(self, configuration: int) -> bool:
        return not bool(torch.isfinite(self._weights(configuration)).all())

    def _score(
        self, weights: torch.Tensor, features: NDArray[np.float32], out: NDArray[np.float32]
    ) -> None:
        block = torch.from_numpy(features).to(self.device)
        logits = torch.nn.functional.linear(block, weights[:, :-1], weights[:, -1])
        out[:] = torch.nn.functional.log_softmax(logits, dim=1).cpu().numpy()


class LogisticRegression:
    """One linear layer trained by stochastic gradient descent: :class:`LogisticRegressions` of one.

    Args:
        n_classes: Number of classes C.
        lr: Learning rate, fixed.
        weight_decay: L2 penalty of weights and biases.
        batch_size: Images of a batch.
        max_iterations: Batches.
        momentum: Momentum of the gradient descent.
        seed: Seed of the initial weights and the batches.
        device: Where to train, for instance `cpu` or `cuda`.
    """

    def __init__(
        self,
        n_classes: int,
        *,
        lr: float,
        weight_decay: float,
        batch_size: int,
        max_iterations: int,
        momentum: float = 0.0,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        self.lr = lr
        self._side_by_side = LogisticRegressions(
            n_classes,
            lr=[lr],
            weight_decay=[weight_decay],
            batch_size=batch_size,
            max_iterations=max_iterations,
            momentum=momentum,
            seed=seed,
            device=device,
        )
        self._is_fitted = False

    def fit(
        self,
        features: NDArray[np.float32],
        classes: NDArray[np.int32],
        evaluate: Callable[[int], None] | None = None,
        eval_every: int | None = None,
    ) -> None:
        """Train on labelled features.

        Args:
            features: float32 (n, d).
            classes: int32 (n,), 0..C-1, each present.
            evaluate: Called with the number of iterations done, every eval_every and at the end.
            eval_every: Iterations between calls; None: only at the end.

        Raises:
            ValueError: For a class without images, or if the training diverges.
        """

        def checked(iteration: int) -> None:
            if self._side_by_side.diverged[0]:
                raise InputError(
                    f"{self.lr} is too large, the training diverged before iteration {iteration}",
                    parameter="lr",
                )
            self._is_fitted = True
            if evaluate is not None:
                evaluate(iteration)

        self._side_by_side.fit(features, classes, checked, eval_every)

    def scores(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Log-probabilities of the classes.

        Args:
            features: float32 (m, d).

        Returns:
            float32 (m, C).

        Raises:
            RuntimeError: Before :meth:`fit`.
        """
        self._require_fit("scores")
        return self._side_by_side.scores(features, 0)

    def state_dict(self) -> dict[str, Any]:
        """Weight (C, d) and bias (C,), for torch.save.

        Raises:
            RuntimeError: Before :meth:`fit`.
        """
        self._require_fit("its state")
        return self._side_by_side.state_dict(0)

    def _require_fit(self, what: str) -> None:
        if not self._is_fitted:
            raise RuntimeError(f"LogisticRegression: fit it before asking for {what}")


class _Checkpoint:
    """A file from which an interrupted training goes on.

    Args:
        path: The file.
        provenance: What has to be the same for that.
    """

    def __init__(self, path: Path, provenance: dict[str, Any]) -> None:
        self._path, self._provenance = path, provenance
        self._since_saved = Stopwatch()

    def restore(
        self, layers: Sequence[torch.Tensor], batches: BalancedBatches, max_iterations: int
    ) -> tuple[int, list[Any]]:
        """Take over what the file holds, if it was written by this training.

        Returns:
            How many iterations are done, and what their evaluations returned.
        """
        saved = self._load()
        if saved is None or saved["iteration"] > max_iterations:
            return 0, []
        for layer, values in zip(layers, saved["layers"], strict=True):
            layer.copy_(values)
        batches.restore(saved["batches"])
        iteration: int = saved["iteration"]
        logger.info("%s: the training goes on after iteration %d", self._path, iteration)
        return iteration, json.loads(saved["returned"])

    def save_if_due(
        self,
        iteration: int,
        returned: list[Any],
        layers: Sequence[torch.Tensor],
        batches: BalancedBatches,
    ) -> None:
        """Write the file if that is some minutes ago; a killed process leaves an older one."""
        if self._since_saved.seconds < _SECONDS_BETWEEN_CHECKPOINTS:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._partial().open("wb") as file:
            content = {
                "made_from": self._provenance,
                "iteration": iteration,
                "returned": json.dumps(returned),
                "layers": [layer.cpu() for layer in layers],
                "batches": batches.state(),
            }
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        self._partial().replace(self._path)
        self._since_saved = Stopwatch()

    def remove(self) -> None:
        """Remove the file, since the training is done."""
        self._path.unlink(missing_ok=True)
        self._partial().unlink(missing_ok=True)

    def _partial(self) -> Path:
        return self._path.with_name(f".partial-{self._path.name}")

    def _load(self) -> dict[str, Any] | None:
        if not self._path.exists():
            return None
        try:
            saved: dict[str, Any] = torch.load(self._path, map_location="cpu", weights_only=True)
            is_same = saved["made_from"] == self._provenance
        except UNPICKLING_ERRORS as error:
            logger.warning("%s: not a readable checkpoint, begun anew (%s)", self._path, error)
            return None
        if not is_same:
            logger.info("%s: of a training with other settings or images, begun anew", self._path)
            return None
        return saved
