"""The script of the loss of SNCA, at sizes at which its times mean nothing."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import pytest
import torch

from tests.benchmarks.conftest import Measured
from tests.benchmarks.printed import assert_seconds, rows
from tests.projects import ROOT

SIZES = [
    *("--rows", "300", "--batch", "16", "--columns", "8", "--classes", "20"),
    *("--threads", "1", "--repeat", "1"),
]
CONTESTANTS = ["ours", "plain", "pytorch-metric-learning", "attention", "products"]


def test_all(results: Measured) -> None:
    text, content = results("snca_loss.py", *SIZES)
    skipped = content["skipped"]
    assert set(skipped) <= {"pytorch-metric-learning", "attention"}
    present = [name for name in CONTESTANTS if name not in skipped]
    names = [f"{name}, 300 rows, 1 thread" for name in present]
    assert_seconds(content, names)
    assert set(content["wall_seconds"]) == set(content["memory"]) == set(names)
    table = rows(text, "300 rows, 1 thread")
    assert [name for name in table if name != "step"] == present
    ours, plain, peer = (f"{name}, 300 rows, 1 thread" for name in CONTESTANTS[:3])
    losses, seconds = content["losses"], content["seconds"]
    assert losses[ours] == pytest.approx(losses[plain], rel=1e-5)
    assert table["ours"][-1] == f"{losses[ours]:.6f}"
    assert set(content["differences"]) == {ours, plain}
    # An image that is its own neighbour has its class.
    assert losses.get(peer, 0) < 0.99 * losses[ours]
    assert content["ratios"]["300_rows_1_threads_vs_plain"] == pytest.approx(
        seconds[plain]["total"]["min"] / seconds[ours]["total"]["min"], rel=0.02
    )
    assert set(rows(text, "Ratios")) - {"how many times faster"} == set(content["ratios"])
    assert content["wanted"] == {}


def test_parts(results: Measured) -> None:
    skipped = ["plain", "pytorch-metric-learning", "attention"]
    text, content = results(
        "snca_loss.py", *SIZES, "--rows", "300", "2000", "--memory-limit-gb", "0.0001",
        "--skip", *skipped,
    )  # fmt: skip
    assert_seconds(content, ["ours, 300 rows, 1 thread", "products, 300 rows, 1 thread"])
    assert list(content["ratios"]) == ["300_rows_1_threads_vs_products"]
    assert "skipped ours, 2000 rows, 1 thread: it takes 0.0 GB" in text
    assert content["skipped"]["plain"] == "asked to"


def test_a_wrong_loss_ends_a_measurement(
    refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    script = importlib.import_module("snca_loss")
    task = script.Task(300, 16, 8, 20, 0.05, torch.get_num_threads(), 0)
    expected, found = script.truth(task), script.ours(task)()
    benchmark = script.SncaLossBenchmark(script.parse([*SIZES]))
    outcome = script.Outcome(1.0, 1.0, 0, found, found.loss)
    benchmark._add("ours", outcome, expected)
    for wrong in (
        expected._replace(loss=1.0001 * expected.loss),
        expected._replace(gradient=1.001 * expected.gradient),
        expected._replace(rows=expected.rows.flip(0)),
    ):
        with pytest.raises(SystemExit, match="ours: loss, gradient, rows differ from float64 by"):
            benchmark._add("ours", outcome, wrong)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch", "400000"], "--batch: 400000 of only 320000 rows"),
        (["--skip", "ours"], "invalid choice: 'ours'"),
        (["--temperature", "0"], "expected more than 0, got 0"),
    ],
)
def test_options_that_do_not_go_together(
    refusal: Callable[..., str], options: list[str], message: str
) -> None:
    assert message in refusal("snca_loss.py", *options)
