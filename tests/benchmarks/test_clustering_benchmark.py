"""The script of k-means, at sizes at which its times mean nothing."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.conftest import Measured
from tests.benchmarks.printed import assert_seconds, rows
from tests.projects import ROOT

SIZES = [
    *("--rows", "300", "--few-rows", "150", "--columns", "8", "--clusters", "20"),
    *("--super-clusters", "3", "--iterations", "2", "--data", "uniform"),
    *("--memory-rows", "2000", "--budget-gb", "0.05"),
]


def test_all(results: Measured) -> None:
    text, content = results("clustering.py", *SIZES)
    cases = {
        "uniform flat, 300 rows, 20 clusters": ["ours", "faiss", "scikit-learn"],
        "uniform flat, 150 rows, 20 clusters": ["ours", "faiss", "original", "scikit-learn"],
        "uniform two-level 3, 150 rows, 21 clusters": ["ours", "faiss", "original", "scikit-learn"],
    }
    assert_seconds(content, [f"{name}, {case}" for case in cases for name in cases[case]])
    objectives = content["objectives"]
    for case, names in cases.items():
        table = rows(text, case)
        assert [name for name in table if name != "k-means"] == names
        assert table["ours"][-1] == f"{objectives[f'ours, {case}']:.6f}"
        if "flat" in case:
            assert objectives[f"ours, {case}"] == pytest.approx(
                objectives[f"faiss, {case}"], rel=1e-3
            )
    assert content["budget_part"] <= 1.1
    assert set(rows(text, "Ratios")) - {"how many times faster"} == set(content["ratios"])
    assert content["wanted"] == {}


def test_parts(results: Measured) -> None:
    skipped = ["faiss", "original", "scikit-learn", "two-level", "memory"]
    _, content = results("clustering.py", *SIZES, "--skip", *skipped)
    flat = [f"ours, uniform flat, {n} rows, 20 clusters" for n in (300, 150)]
    assert_seconds(content, flat)
    assert content["ratios"] == {}
    assert content["budget_part"] is None


def test_a_worse_objective_ends_a_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    script = importlib.import_module("clustering")
    matrix = np.random.default_rng(0).standard_normal((90, 5)).astype(np.float32)
    for contestant in (script.ours, script.by_faiss, script.original):
        labels = contestant(matrix, 6, 3)
        means = np.stack([matrix[labels == label].mean(0) for label in range(6)])
        expected = ((matrix - means[labels]) ** 2).sum(1).mean()
        assert script.objective_of(matrix, labels) == pytest.approx(expected, rel=1e-5)
    benchmark = script.ClusteringBenchmark(argparse.Namespace(allowed=1e-3), Path())
    benchmark.objectives = {"ours, a": 1.0009, "faiss, a": 1.0, "ours, b": 1.0011, "faiss, b": 1.0}
    benchmark.require_as_good("a")
    with pytest.raises(SystemExit, match=r"b: objective of ours 1\.0011, of faiss 1"):
        benchmark.require_as_good("b")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--clusters", "5000"], "--clusters: 5000 of only 9600 rows"),
        (["--rows", "5000"], "--few-rows: 9600 of only 5000 rows"),
        (["--budget-gb", "0"], "expected more than 0, got 0"),
    ],
)
def test_options_that_do_not_go_together(
    refusal: Callable[..., str], options: list[str], message: str
) -> None:
    assert message in refusal("clustering.py", *options)
