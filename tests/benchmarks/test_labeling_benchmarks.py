"""The scripts that measure what a person is shown: suspicious labels, and images to label next."""

from __future__ import annotations

import importlib
import json
from typing import Any

import numpy as np
import pytest

from tests.benchmarks.conftest import Script
from tests.projects import ROOT

DIGITS = ["--data", "digits", "--draws", "1"]


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("labeling_suspicious")


def test_recall_counts_as_many_as_there_are(module: Any) -> None:
    is_wrong = np.array([True, False, True, False, True])
    assert module.recall(np.array([0, 1, 2, 4, 3]), is_wrong) == pytest.approx(2 / 3)
    assert module.recall(np.array([4]), is_wrong) == pytest.approx(1 / 3)


def test_suspicious_labels(here: Script, capsys: pytest.CaptureFixture[str]) -> None:
    here("labeling_suspicious.py", *DIGITS, "--labels", "300")
    printed = capsys.readouterr().out
    found = json.loads(printed.splitlines()[-1])["results"]["digits"]
    for kind in ("random", "confusing"):
        (recall,) = found["recall"][kind]["ours"]
        assert recall > 0.7
    assert found["listed"]["none"]["ours"][0] < found["listed"]["random"]["ours"][0]
    assert "of 30 errors" in printed


def test_images_to_label_next(here: Script, capsys: pytest.CaptureFixture[str]) -> None:
    here("labeling_next.py", *DIGITS, "--first", "1", "--chosen", "10", "--rounds", "1")
    printed = capsys.readouterr().out
    found = json.loads(printed.splitlines()[-1])["results"]["digits"]
    first = {accuracies[0][0] for accuracies in found.values()}
    assert len(first) == 1 and 0.5 < first.pop() < 0.95
    assert found["ours"][0][1] > found["ours"][0][0]
    assert all(len(accuracies[0]) == 2 for accuracies in found.values())


def test_what_is_missing_is_named(
    here: Script, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    missing = ["--data", "Fashion-MNIST, pixels", "--fashion-mnist", str(tmp_path)]
    here("labeling_next.py", *missing)
    printed = capsys.readouterr()
    assert "Fashion-MNIST, pixels is left out" in printed.err
    assert json.loads(printed.out.splitlines()[-1])["results"] == {}


def test_a_folder_of_photographs(here: Script, capsys: pytest.CaptureFixture[str]) -> None:
    here("labeling_run.py", "--images", "24", "--more", "4")
    printed = capsys.readouterr().out
    found = json.loads(printed.splitlines()[-1])["runs"]
    assert list(found) == ["first run", "more labels", "4 photographs more"]
    nodes = {name: of_run["nodes"] for name, of_run in found.items()}
    assert {"features.extract_background_features", "labeling.find_labels"} <= {*nodes["first run"]}
    assert nodes["first run"].keys() == nodes["more labels"].keys()
