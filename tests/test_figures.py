"""The figures of README and docs are those of the code as it is."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from tests.projects import ROOT

FIGURES = ROOT / "docs" / "figures"


@pytest.fixture(scope="module")
def making() -> ModuleType:
    """The script behind `make figures`."""
    folder = ROOT / "docs"
    spec = importlib.util.spec_from_file_location("make_figures", folder / "make_figures.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(folder))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(folder))
    return module


def test_every_figure_is_made_and_shown(making: ModuleType) -> None:
    names = {path.name for path in FIGURES.iterdir()}
    of_labels = {making.LABELS_PAGE, *making.LABELS_PLOTS}
    assert set(making.FIGURES) | set(making.SCREENSHOTS) | of_labels == names
    parts = {*making.QUICK_PARTS, *making.SLOW_PARTS}
    assert {figure.part for figure in making.FIGURES.values()} <= parts
    assert {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} <= parts
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    shown = {
        (page.parent / link).resolve()
        for page in pages
        for link in re.findall(r"\]\(([^)]*\.png)\)", page.read_text())
    }
    assert shown == {FIGURES / name for name in names}


@pytest.mark.parametrize("name", ["accuracy_per_step", "methods", "neighbors", "pca_spectrum"])
def test_plots_are_those_of_a_run(demonstration_project: Path, name: str) -> None:
    kept, made = (
        np.asarray(Image.open(folder / f"{name}.png").convert("L"), dtype=float)
        for folder in (FIGURES, demonstration_project / "data" / "08_reporting")
    )
    assert kept.shape == made.shape, "make figures"
    # Another processor, or another version of matplotlib, draws a little differently.
    assert np.abs(kept - made).mean() < 6, "make figures"


def test_tables_are_compared_with_the_pages(
    making: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = "| method | n=1 |\n| --- | --- |\n| diffusion | 50.0 ± 1.0 |\n"
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "results.md").write_text(f"# Title\n\n| a | b |\n\n{table}\nMore.\n")
    report = tmp_path / "table.md"
    monkeypatch.setattr(making, "ROOT", tmp_path)
    monkeypatch.setattr(making, "_file", lambda dataset, env: report)
    report.write_text(f"Top-1\n\n{table}")
    making._compare_tables("digits")
    assert capsys.readouterr().out == "docs/results.md: table 1 of digits is that of the run\n"
    report.write_text(f"Top-1\n\n{table.replace('50.0', '49.9')}")
    making._compare_tables("digits")
    printed = capsys.readouterr().out
    assert "differs" in printed
    assert "-| diffusion | 50.0 ± 1.0 |" in printed and "+| diffusion | 49.9 ± 1.0 |" in printed


def test_outputs_of_notebooks_hold_nothing_of_a_machine(making: ModuleType) -> None:
    cleaned, is_empty = (
        getattr(sys.modules[making.execute.__module__], name) for name in ("_cleaned", "_is_empty")
    )
    import nbformat.v4 as v4

    warning = "/tmp/ipykernel_17/123.py:1: UserWarning: 3 rows\n  fit(X)\n"
    stream = v4.new_output("stream", name="stderr", text=warning)
    assert cleaned(stream, "cell").text == "UserWarning: 3 rows\n  fit(X)\n"
    styled = {"text/html": '<table id="T_0a1b2">', "text/plain": "<Styler at 0x7fac73fa3250>"}
    shown = cleaned(v4.new_output("display_data", data=styled), "cell")
    assert json.loads(json.dumps(shown.data)) == {"text/html": '<table id="T_cell">'}
    empty = {"text/html": '<pre style="x"></pre>\n', "text/plain": ""}
    assert is_empty(v4.new_output("display_data", data=empty))
    assert not is_empty(v4.new_output("display_data", data=styled))
    assert not is_empty(stream)
