"""The script of episodes of DeepEMD, at sizes at which its times mean nothing."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from importlib.util import find_spec

import pytest
import torch

from tests.benchmarks.conftest import Measured
from tests.benchmarks.printed import assert_seconds, rows
from tests.projects import ROOT

pytest.importorskip("cv2")

SIZES = [
    *("--way", "2", "--shot", "2", "--queries", "4", "--channels", "8", "--side", "2"),
    *("--passes", "2", "--pairs", "1", "--threads", "1", "--repeat", "1"),
]


def test_all(results: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    # Another process would take seconds to load the libraries.
    memory = importlib.import_module("common.memory")
    monkeypatch.setattr(memory, "in_new_process", lambda function, *given: function(*given))
    text, content = results("deepemd.py", *SIZES)
    names = [
        f"{part}, {name}"
        for part in ("1 shot", "structured layer")
        for name in ("ours", "ours, opencv", "original")
    ]
    names += ["head, ours", "head, full tensor"]
    if find_spec("qpth") is None:
        assert content["skipped"] == {"qpth": "not installed"}
    else:
        names += ["1 pairs, native", "1 pairs, qpth"]
    assert_seconds(content, names)
    assert set(content["wall_seconds"]) == set(names)
    assert set(rows(text, "episodes")) >= set(names)
    assert set(content["differences"]) == {name for name in names[:6] if "original" not in name}
    assert max(content["differences"].values()) < 1e-3
    seconds = content["seconds"]
    assert content["ratios"]["1 shot"] == pytest.approx(
        seconds["1 shot, original"]["total"]["min"] / seconds["1 shot, ours"]["total"]["min"],
        rel=0.02,
    )
    assert content["sizes"]["passes"] == 2


def test_parts(results: Measured) -> None:
    _, content = results("deepemd.py", *SIZES, "--skip", "original", "head", "qpth")
    assert content["ratios"] == content["differences"] == {}
    assert content["skipped"] == dict.fromkeys(("original", "head", "qpth"), "asked to")


def test_wrong_logits_end_a_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    script = importlib.import_module("deepemd")
    benchmark = script.DeepEMDBenchmark(script.parse(SIZES))
    logits = {"ours": torch.zeros(2, 2), "original": torch.full((2, 2), 0.1)}
    with pytest.raises(SystemExit, match=r"^1 shot, ours: logits differ by 0\.1$"):
        benchmark._compare("1 shot", logits)


def test_other_parts_are_refused(refusal: Callable[..., str]) -> None:
    assert "invalid choice: 'ours'" in refusal("deepemd.py", "--skip", "ours")
