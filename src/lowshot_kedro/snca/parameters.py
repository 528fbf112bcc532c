"""The parameters of SNCA: section `snca`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from lowshot_kedro.errors import InputError
from lowshot_kedro.networks.embedding import require_embedding_network
from lowshot_kedro.networks.parameters import require_weights
from lowshot_kedro.parameters import (
    distinct_values,
    is_integer,
    is_number,
    refuse,
    require_integer,
    require_number,
    require_one_of,
)
from lowshot_kedro.training.parameters import TrainingParameters

CLASSES = ("base", "all")
# A float32 embedding has inner products up to 1, and exp of so many is still a float64.
MIN_TEMPERATURE = 0.002


@dataclass(frozen=True, kw_only=True)
class SNCAParameters(TrainingParameters):
    """A network that is trained by SNCA, and how it is evaluated.

    What is not said is as in the original's training on ImageNet, where bank_momentum_changes are
    {80: 0.8, 120: 0.9}.

    Attributes:
        network: A name for :func:`~lowshot_kedro.networks.embedding.embedding_network`.
        weights: What it starts from.
        dimension: Length of an embedding.
        classes: `base`: the base classes of the experiment's mode are trained on; `all`: every
            training image is.
        temperature: By which similarities are divided.
        margin: By how much similarities within a class count as less.
        bank_momentum: Part of a bank's row that stays when its image is seen.
        bank_momentum_changes: Epoch, counted from 0 → bank_momentum from then on.
        eval_k: Numbers of neighbours that are evaluated. The table of epochs has the first.
        eval_temperature: Temperature of the evaluation; None: the same.
        eval_n_labeled: Numbers of labelled images of a novel class that are evaluated.
        eval_seeds: Seeds that draw these.
        n_images: Test images in the picture of nearest neighbours.
    """

    without: ClassVar[tuple[str, ...]] = (
        *TrainingParameters.without,
        "eval_k",
        "eval_temperature",
        "eval_n_labeled",
        "eval_seeds",
        "n_images",
    )

    epochs: int = 130
    batch_size: int = 256
    lr: float = 0.1
    lr_step_epochs: int = 40
    weight_decay: float = 1e-4
    augmentation: str = "imagenet"
    image_size: int = 224
    network: str = "torchvision/resnet18"
    weights: str = "none"
    dimension: int = 128
    classes: str = "base"
    temperature: float = 0.05
    margin: float = 0.0
    bank_momentum: float = 0.5
    bank_momentum_changes: Mapping[int, float] = field(default_factory=dict)
    eval_k: tuple[int, ...] = (1, 30)
    eval_temperature: float | None = None
    eval_n_labeled: tuple[int, ...] = (1, 5)
    eval_seeds: tuple[int, ...] = (1, 2, 3, 4, 5)
    n_images: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            require_embedding_network(self.network)
        except InputError as error:
            raise error.renamed("network") from error
        require_weights(self.weights, has_package=False)
        require_integer("dimension", self.dimension, 2, 65536)
        require_one_of("classes", self.classes, CLASSES)
        require_number("temperature", self.temperature, MIN_TEMPERATURE, 100)
        require_number("margin", self.margin, 0, 2)
        require_number("bank_momentum", self.bank_momentum, 0, below=1)
        changes = _read_changes("bank_momentum_changes", self.bank_momentum_changes)
        object.__setattr__(self, "bank_momentum_changes", changes)
        for name, minimum in (("eval_k", 1), ("eval_n_labeled", 1), ("eval_seeds", 0)):

            def check(name: str, value: Any, minimum: int = minimum) -> None:
                require_integer(name, value, minimum)

            object.__setattr__(self, name, distinct_values(name, getattr(self, name), check))
        if self.eval_temperature is not None:
            require_number("eval_temperature", self.eval_temperature, MIN_TEMPERATURE, 100)
        require_integer("n_images", self.n_images, 1, 100)


def _read_changes(name: str, found: object) -> dict[int, float]:
    expected = "momenta from 0, below 1, by epoch, such as {80: 0.8, 120: 0.9}"
    if not isinstance(found, Mapping):
        raise refuse(name, found, expected)
    changes: dict[int, float] = {}
    for epoch, momentum in found.items():
        # The command line gives epochs as texts.
        number = int(epoch) if isinstance(epoch, str) and epoch.isdecimal() else epoch
        if not is_integer(number, 0) or not is_number(momentum, 0) or momentum >= 1:
            raise refuse(name, dict(found), expected)
        changes[number] = momentum
    return changes
