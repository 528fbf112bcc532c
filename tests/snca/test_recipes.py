"""The recipes of the original, which are settings of environments, against its tables."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from lowshot_kedro.networks.embedding import embedding_network
from lowshot_kedro.snca.parameters import SNCAParameters
from lowshot_kedro.training.schedules import learning_rate, value_of_epoch
from tests.projects import ROOT

IMAGENET = {
    "network": "torchvision/resnet18", "epochs": 130, "batch_size": 256, "image_size": 224,
    "augmentation": "imagenet", "weight_decay": 1e-4, "momentum": 0.9, "nesterov": True,
    "accumulated_batches": 1, "dimension": 128, "temperature": 0.05, "margin": 0.0,
}  # fmt: skip
CIFAR = {
    **IMAGENET, "network": "cifar_resnet18", "epochs": 200, "batch_size": 128, "image_size": 32,
    "augmentation": "cifar", "weight_decay": 5e-4,
}  # fmt: skip


def parameters_of(environment: str) -> SNCAParameters:
    def section(path: str) -> dict[str, Any]:
        found: dict[str, Any] = yaml.safe_load((ROOT / "conf" / path).read_text())["snca"]
        return found

    return SNCAParameters(
        **{**section("base/parameters_snca.yml"), **section(f"{environment}/parameters.yml")}
    )


@pytest.mark.parametrize(
    ("environment", "expected", "step", "momenta", "k"),
    [
        ("imagenet", IMAGENET, 40, {0: 0.5, 79: 0.5, 80: 0.8, 119: 0.8, 120: 0.9, 129: 0.9}, 1),
        ("cifar10", CIFAR, 50, {0: 0.5, 199: 0.5}, 30),
    ],
)
def test_settings_are_those_of_the_original(
    environment: str,
    expected: dict[str, Any],
    step: int,
    momenta: dict[int, float],
    k: int,
) -> None:
    found = parameters_of(environment)
    assert {name: getattr(found, name) for name in expected} == expected
    for epoch in range(found.epochs):
        assert learning_rate(found, epoch) == pytest.approx(0.1 * 0.1 ** (epoch // step))
    for epoch, momentum in momenta.items():
        changes = found.bank_momentum_changes
        assert value_of_epoch(found.bank_momentum, changes, epoch) == momentum
    assert found.eval_k[0] == k and found.eval_temperature is None
    network = embedding_network(found.network, found.dimension)
    n_parameters = sum(parameter.numel() for parameter in network.parameters())
    assert n_parameters == {"imagenet": 11_242_176, "cifar10": 11_234_496}[environment]


def test_without_settings_it_is_imagenet() -> None:
    of_environment, default = parameters_of("imagenet"), SNCAParameters()
    assert {name: getattr(default, name) for name in IMAGENET} == IMAGENET
    assert default.lr_step_epochs == of_environment.lr_step_epochs
