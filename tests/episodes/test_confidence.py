"""Mean and interval, against Python's own statistics of the original's accuracies."""

import math
import statistics
from pathlib import Path

import numpy as np
import pytest

from lowshot_kedro.episodes import RunningConfidence, confidence_interval
from lowshot_kedro.errors import InputError

with np.load(Path(__file__).parent / "reference.npz") as file:
    ACCURACIES = file["ci_input"]


def expected(accuracies):
    values = [float(value) for value in accuracies]
    return statistics.fmean(values), 1.96 * statistics.pstdev(values) / math.sqrt(len(values))


@pytest.mark.parametrize("unit", [1, 100])
def test_the_interval_has_the_unit_of_the_accuracies(unit):
    assert confidence_interval(ACCURACIES * unit) == pytest.approx(expected(ACCURACIES * unit))


def test_a_known_interval():
    # Deviations of ±0.1 around 0.5: σ = 0.1 with n, and 0.1155 with n - 1.
    assert confidence_interval([0.4, 0.6, 0.4, 0.6]) == pytest.approx((0.5, 0.098))


def test_one_episode_has_no_width():
    assert confidence_interval([0.25]) == (0.25, 0.0)


def test_a_running_interval_agrees_after_every_episode():
    running = RunningConfidence()
    assert math.isnan(running.mean) and math.isnan(running.half_width)
    for number, accuracy in enumerate(ACCURACIES, start=1):
        running.update(accuracy)
        if number in (1, 2, 3, 100, len(ACCURACIES)):
            found = (running.mean, running.half_width)
            assert found == pytest.approx(confidence_interval(ACCURACIES[:number]), rel=1e-12)
    assert running.n_episodes == len(ACCURACIES)


def test_a_running_interval_stays_exact_far_from_zero():
    values = 1e6 + np.random.default_rng(0).random(5000)
    running = RunningConfidence()
    for value in values:
        running.update(value)
    assert (running.mean, running.half_width) == pytest.approx(
        confidence_interval(values), rel=1e-9
    )


def test_a_running_interval_is_said_in_per_cent():
    running = RunningConfidence()
    for accuracy in (0.4, 0.6):
        running.update(accuracy)
    assert str(running) == "50.00 ± 13.86 %"


@pytest.mark.parametrize(
    "accuracies", [[], [0.5, math.nan], [math.inf], [[0.5, 0.5]], 0.5, ["high"], None]
)
def test_what_has_no_interval_is_refused(accuracies):
    with pytest.raises(InputError, match=r"accuracies: .*accuracy of every episode") as raised:
        confidence_interval(accuracies)
    assert raised.value.parameter == "accuracies"


def test_a_running_interval_refuses_what_is_no_number():
    with pytest.raises(InputError, match="accuracy: got nan"):
        RunningConfidence().update(math.nan)
