"""Schedules, against the tables of the original SNCA."""

from __future__ import annotations

import numpy as np
import pytest

from lowshot_kedro.training.schedules import learning_rate, value_of_epoch
from tests.training.making import parameters


@pytest.mark.parametrize(("epochs", "step"), [(130, 40), (200, 50)])
def test_steps_of_the_original(epochs: int, step: int) -> None:
    settings = parameters(epochs=epochs, lr_step_epochs=step, lr=0.1)
    found = [learning_rate(settings, epoch) for epoch in range(epochs)]
    expected = [0.1 * 0.1 ** (epoch // step) for epoch in range(epochs)]
    assert found == expected
    assert found[step - 1] == 0.1 and found[step] == pytest.approx(0.01)
    assert found[-1] == pytest.approx(1e-4)


def test_the_momentum_of_the_bank_in_the_original() -> None:
    found = [value_of_epoch(0.5, {120: 0.9, 80: 0.8}, epoch) for epoch in range(130)]
    assert found == [0.5] * 80 + [0.8] * 40 + [0.9] * 10
    assert value_of_epoch(0.5, {}, 1000) == 0.5
    assert value_of_epoch(0.5, {0: 0.1}, 0) == 0.1


def test_the_cosine_falls_from_lr_towards_nothing() -> None:
    settings = parameters(epochs=8, lr_schedule="cosine", lr=0.4)
    found = np.array([learning_rate(settings, epoch) for epoch in range(8)])
    assert found[0] == 0.4 and found[4] == pytest.approx(0.2)
    assert (np.diff(found) < 0).all() and found[-1] > 0
    # Symmetric about its middle.
    np.testing.assert_allclose(found[1:] + found[:0:-1], 0.4)


def test_constant() -> None:
    settings = parameters(lr_schedule="constant", lr=0.1)
    assert {learning_rate(settings, epoch) for epoch in range(3)} == {0.1}
