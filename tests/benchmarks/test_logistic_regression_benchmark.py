"""The script of the logistic regression runs, at sizes at which its times mean nothing."""

from __future__ import annotations

import importlib

import pytest

from tests.benchmarks.conftest import Measured
from tests.benchmarks.printed import assert_seconds, rows
from tests.projects import ROOT

SIZES = [
    *("--rows", "200", "--columns", "40", "--classes", "12", "--few-classes", "3"),
    *("--iterations", "4", "--few-iterations", "6", "--product", "64", "--repeat", "1"),
]
BATCHES = (16, 64, 128)
CONTESTANTS = ["ours", "products", "plain, all threads", "plain, one thread"]


def names(contestants: list[str]) -> list[str]:
    return [
        f"{contestant}, {n_classes} classes, batch {size}"
        for n_classes in (12, 3)
        for size in BATCHES
        for contestant in contestants
    ]


def test_all(results: Measured) -> None:
    text, content = results("logistic_regression.py", *SIZES)
    assert_seconds(content, [*names(CONTESTANTS), "product by torch", "product by numpy"])
    expected = [f"batch {size}, {contestant}" for size in BATCHES for contestant in CONTESTANTS]
    assert list(rows(text, "12 classes")) == list(rows(text, "3 classes")) == expected
    assert set(content["differences"]) == set(names(["weights"]))
    assert all(0 < difference < 1e-4 for difference in content["differences"].values())
    assert content["wanted"] == {
        "12_classes_vs_plain": 3.0, "12_classes_vs_product": 0.8, "3_classes_vs_plain": 10.0,
    }  # fmt: skip
    assert set(content["wanted"]) < set(content["ratios"])

    seconds = {name: parts["total"]["min"] for name, parts in content["seconds"].items()}
    for n_classes, n_iterations in ((12, 4), (3, 6)):
        # Nine configurations side by side, beside one.
        ours = sum(seconds[f"ours, {n_classes} classes, batch {size}"] for size in BATCHES)
        plain = 9 * sum(
            min(seconds[f"{name}, {n_classes} classes, batch {size}"] for name in CONTESTANTS[2:])
            for size in BATCHES
        )
        assert content["ratios"][f"{n_classes}_classes_vs_plain"] == pytest.approx(
            plain / ours, rel=0.02
        )
        useful = 9 * n_iterations * sum(4 * size * 40 * n_classes for size in BATCHES) / ours
        product = 2 * 64**3 / min(seconds[f"product by {name}"] for name in ("torch", "numpy"))
        assert content["ratios"][f"{n_classes}_classes_vs_product"] == pytest.approx(
            useful / product, rel=0.1
        )


def test_parts(results: Measured) -> None:
    text, content = results("logistic_regression.py", *SIZES, "--skip", "plain", "product")
    assert_seconds(content, names(["ours", "products"]))
    assert content["ratios"] == {}
    assert content["skipped"] == {"plain": "asked to", "product": "asked to"}
    assert "skipped plain: asked to" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--few-classes", "500"], "--few-classes: 500 are no fewer than 500"),
        (["--rows", "499"], "--classes: 500 of only 499 rows"),
        (["--skip", "nothing"], "invalid choice: 'nothing'"),
    ],
)
def test_options_that_do_not_go_together(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    script = importlib.import_module("logistic_regression")
    with pytest.raises(SystemExit):
        script.parse(options)
    assert message in " ".join(capsys.readouterr().err.split())
