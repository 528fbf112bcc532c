"""The script that measures what shares are worth, and its arithmetic."""

from __future__ import annotations

import importlib
import json
from typing import Any

import numpy as np
import pytest

from tests.benchmarks.conftest import Script
from tests.projects import ROOT


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("label_shares")


def two_classes(module: Any, shares: list[float], right: list[bool]) -> Any:
    """Shares of class 0, which is true where that is right."""
    first = np.array(shares)
    return module.Shares(np.stack([first, 1 - first], axis=1), np.where(right, 0, 1))


def test_bins_and_error_worked_out_by_hand(module: Any) -> None:
    curve = module.Curve()
    curve.add(two_classes(module, [0.62, 0.68], [True, True]))
    curve.add(two_classes(module, [0.95, 1.0], [True, False]))
    low, high = curve.bins((0.5, 0.9, 1.0))
    assert low == pytest.approx((0.5, 0.65, 1.0))
    assert high == pytest.approx((0.5, 0.975, 0.5))
    assert curve.error() == pytest.approx(0.5 * 0.35 + 0.5 * 0.475)


@pytest.mark.parametrize(
    ("precision", "expected"), [(1.0, 0.9), (0.75, 0.7), (0.6, 0.6), (0.1, 0.6)]
)
def test_the_threshold_is_the_smallest_share_that_is_good_enough(
    module: Any, precision: float, expected: float
) -> None:
    shares = two_classes(module, [0.7, 0.9, 0.6, 0.95, 0.8], [True, True, False, True, False])
    assert module.fitted_threshold(shares, precision) == expected


def test_no_threshold_is_good_enough_where_the_largest_share_is_wrong(module: Any) -> None:
    shares = two_classes(module, [0.7, 0.9], [True, False])
    assert module.fitted_threshold(shares, 0.9) == np.inf


def test_the_temperature_makes_shares_what_they_are_worth(module: Any) -> None:
    # Nine of ten are right at a share of 0.75: 0.75^(1/T) : 0.25^(1/T) = 9 : 1 for T = 1/2.
    shares = two_classes(module, [0.75] * 10, [True] * 9 + [False])
    temperature = module.fitted_temperature(shares)
    assert temperature == pytest.approx(0.5, rel=1e-3)
    np.testing.assert_allclose(shares.with_temperature(temperature).largest, 0.9, rtol=1e-3)


def test_it_prints_a_table_and_json(
    here: Script,
    capsys: pytest.CaptureFixture[str],
) -> None:
    here("label_shares.py", "--data", "digits", "--labels", "5", "--draws", "1")
    printed = capsys.readouterr().out
    found = json.loads(printed.splitlines()[-1])["results"]["digits"]["5"]
    for name in ("bins", "bins_of_new_rows"):
        parts, _, right = np.array(found[name], float).T
        assert parts.sum() == pytest.approx(1)
        # Shares tell good rows from bad ones.
        assert np.nanmax(right[:3]) < 1 and right[3] > 0.95
    assert found["error_with_temperature"] < found["error"]
    assert found["precisions"][0] > 0.9 and found["kept"][0] > 0.5
    assert printed.count("5 a class") == 2
