"""Logistic regression on the features of the labelled images: the baseline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.classifiers import LogisticRegressions
from lowshot_kedro.devices import choose_device
from lowshot_kedro.extras import require
from lowshot_kedro.methods.method import (
    COUNT,
    RATE,
    Axis,
    Method,
    Options,
    Outcome,
    Setting,
    Settings,
    SettingsMap,
    Style,
    Work,
)
from lowshot_kedro.methods.palette import ORANGE
from lowshot_kedro.parameters import distinct_values, refuse, require_integer, require_number
from lowshot_kedro.progress import Stopwatch


@dataclass(frozen=True)
class LogisticRegressionParameters:
    """One linear layer trained on class-balanced batches."""

    lr: float
    weight_decay: float
    batch_size: int
    max_iterations: int
    momentum: float
    eval_every: int

    def __post_init__(self) -> None:
        require_number("lr", self.lr, 0)
        require_number("weight_decay", self.weight_decay, 0)
        require_integer("batch_size", self.batch_size, 1)
        require_integer("max_iterations", self.max_iterations, 1)
        require_number("momentum", self.momentum, 0, below=1)
        require_integer("eval_every", self.eval_every, 1)


@dataclass(frozen=True)
class LogisticRegressionGrid:
    """What is searched: all combinations of the lists, after all iterations."""

    lr: tuple[float, ...]
    weight_decay: tuple[float, ...]
    batch_size: tuple[int, ...]
    max_iterations: int
    eval_every: int

    def __post_init__(self) -> None:
        for name in ("lr", "weight_decay"):
            values = distinct_values(
                name, getattr(self, name), lambda name, value: require_number(name, value, 0)
            )
            object.__setattr__(self, name, values)
        sizes = distinct_values(
            "batch_size", self.batch_size, lambda name, value: require_integer(name, value, 1)
        )
        object.__setattr__(self, "batch_size", sizes)
        require_integer("max_iterations", self.max_iterations, 1)
        require_integer("eval_every", self.eval_every, 1)


class LogisticRegressionMethod(Method):
    """Logistic regression; runs of one batch size are trained together on the same batches."""

    name = "logistic_regression"
    title = "logistic regression"
    style = Style(ORANGE, "s", ":")
    settings: ClassVar[Mapping[str, Setting]] = {
        "lr": Setting(RATE, "lr"),
        "weight_decay": Setting(RATE, "wd"),
        "batch_size": Setting(COUNT, "bs"),
    }
    axis = Axis("iteration", "max_iterations", COUNT, is_steps=True)
    grid = LogisticRegressionGrid
    parameters = LogisticRegressionParameters
    shared = ("batch_size",)
    heat_map = SettingsMap(
        "lr", "weight_decay", "batch_size", "learning rate", "weight decay", "batch"
    )

    def run(self, work: Work) -> Iterator[Outcome]:
        """Train the runs side by side, and judge the test images every `eval_every` iterations.

        In memory: the features of labelled and test images, and the weights of all runs.
        """
        require("torch", self.title)
        images, settings = work.images, work.settings
        reading = Stopwatch()
        labeled, test = images.labeled_features(), images.test_images_features()
        # Those that were trained side by side share the time.
        seconds = {"reading": reading.seconds / len(settings)}
        fixed = {
            "batch_size": settings[0]["batch_size"],
            "momentum": work.options.sections[self.name].momentum,
            "max_iterations": work.n_steps,
        }
        classifiers = LogisticRegressions(
            images.n_classes,
            lr=[of_run["lr"] for of_run in settings],
            weight_decay=[of_run["weight_decay"] for of_run in settings],
            seed=images.seed,
            device=choose_device("auto"),
            **fixed,
        )

        def evaluate(iteration: int) -> dict[str, Any]:
            if work.is_strict and classifiers.diverged.any():
                expected = f"less: the training diverged before iteration {iteration}"
                raise refuse("lr", settings[0]["lr"], expected)
            return {
                name: work.judge(number, iteration, classifiers.scores(test, number))
                for number, name in enumerate(work.names)
            }

        training = Stopwatch()
        with work.unfinished() as checkpoint:
            entries = classifiers.fit(
                labeled,
                images.labeled_classes,
                evaluate,
                work.options.grid.eval_every if work.is_measured else None,
                checkpoint,
                work.provenance,
            )
        seconds["training"] = training.seconds / len(settings)
        for number, (name, of_run) in enumerate(zip(work.names, settings, strict=True)):
            described = {**of_run, **fixed, "trained_side_by_side": len(settings)}
            yield Outcome(
                number,
                [of_iteration[name] for of_iteration in entries],
                seconds,
                {self.name: described},
                state=classifiers.state_dict(number),
            )

    def candidates(self, grid: LogisticRegressionGrid, n_images: int) -> list[dict[str, Any]]:
        """Every combination of learning rate, weight decay and batch size."""
        return [
            {"lr": lr, "weight_decay": decay, "batch_size": size}
            for size, lr, decay in product(grid.batch_size, grid.lr, grid.weight_decay)
        ]

    def n_steps(self, grid: LogisticRegressionGrid) -> int:
        """Iterations of the validation runs."""
        return grid.max_iterations

    def provenance(self, settings: Settings, options: Options, n_images: int) -> dict[str, Any]:
        """The momentum, which no grid has."""
        return {"momentum": options.sections[self.name].momentum}

    def places_provenance(self, options: Options, n_images: int) -> dict[str, Any]:
        """After how many iterations there is an entry each."""
        return {"eval_every": options.grid.eval_every}

    def probabilities(self, scores: NDArray[np.float32]) -> NDArray[np.floating[Any]]:
        """The probabilities float (T, C) whose logarithms the scores are."""
        return np.exp(scores)
