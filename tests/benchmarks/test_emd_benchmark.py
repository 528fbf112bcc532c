"""The script of optimal transport, at sizes at which its times mean nothing."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import numpy as np
import pytest

from tests.benchmarks.conftest import Measured
from tests.benchmarks.printed import assert_seconds, rows
from tests.projects import ROOT

SIZES = ["--nodes", "4", "6", "--problems", "3", "--columns", "8", "--repeat", "2"]
CONTESTANTS = ["ours", "opencv", "pot", "pot-threads", "assignment"]


def test_all(results: Measured) -> None:
    text, content = results("emd.py", *SIZES)
    skipped = content["skipped"]
    assert set(skipped) <= {"opencv", "pot", "pot-threads"}
    present = [name for name in CONTESTANTS if name not in skipped]
    names = [f"{name}, {nodes} nodes × 3" for nodes in (4, 6) for name in present]
    assert_seconds(content, names)
    assert set(content["cpu_seconds"]) == set(names)
    for nodes in (4, 6):
        table = rows(text, f"{nodes} nodes × 3")
        assert [name for name in table if name != "solver"] == present
    if "pot" not in skipped:
        assert content["differences"]["ours, 6 nodes × 3"] < 1e-12
    peers = [name.replace("-", "_") for name in present if name != "ours"]
    expected = {f"{nodes}_nodes_vs_{peer}" for nodes in (4, 6) for peer in peers}
    assert set(content["ratios"]) == set(content["ratios_of_cpu"]) == expected
    seconds = content["seconds"]
    assert content["ratios"]["6_nodes_vs_assignment"] == pytest.approx(
        seconds["assignment, 6 nodes × 3"]["total"]["min"]
        / seconds["ours, 6 nodes × 3"]["total"]["min"],
        rel=0.02,
    )
    assert content["wanted"] == {}
    assert content["versions"]["scipy"] in text


def test_a_wrong_cost_ends_a_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    script = importlib.import_module("emd")
    benchmark = script.EmdBenchmark(script.parse([*SIZES]))
    costs = np.array([1.0, 2.0, 3.0])
    benchmark._compare(4, {"ours": costs * (1 + 1e-10), "pot": costs})
    wrong = costs * [1, 1 + 2e-9, 1]
    with pytest.raises(SystemExit, match="ours, 4 nodes × 3: a cost differs from POT's by 2e-09"):
        benchmark._compare(4, {"ours": wrong, "pot": costs})


def test_problems_are_balanced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    problems = importlib.import_module("emd").problems_of(5, 9, 16, 0)
    assert problems.costs.shape == (5, 9, 9)
    assert ((problems.costs >= 0) & (problems.costs <= 2)).all()
    for weights in problems[1:]:
        assert (weights > 0).all()
        np.testing.assert_allclose(weights.sum(1), 9)


def test_options_that_cannot_be(refusal: Callable[..., str]) -> None:
    assert "invalid choice: 'ours'" in refusal("emd.py", "--skip", "ours")
