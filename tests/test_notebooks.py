"""The notebooks run, one on the demonstration's results, the other on scikit-learn's digits."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.projects import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# Of cells that download data, and take minutes.
LONG = "fashion-mnist"


def _code_cells(notebook: nbformat.NotebookNode) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_kept_without_outputs_and_with_ids(path: Path) -> None:
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert set(notebook.metadata) <= {"kernelspec"}, "metadata of one person's Jupyter"
    for cell in notebook.cells:
        assert re.fullmatch(r"[a-z-]+", cell.id), f"{cell.id}: not a name"
    for cell in _code_cells(notebook):
        assert cell.outputs == [] and cell.execution_count is None, f"{cell.id} has outputs"


@pytest.fixture
def nobodys_jupyter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The kernel inherits these: nothing of one person's IPython or Jupyter has a say.
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    monkeypatch.setenv("KEDRO_DISABLE_TELEMETRY", "1")
    for name in ("KEDRO_ENV", "KEDRO_LOGGING_CONFIG"):
        monkeypatch.delenv(name, raising=False)


def _run(notebook: nbformat.NotebookNode, folder: Path) -> dict[str, Any]:
    """Run all cells in a folder; the code cells by their names."""
    client = NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    return {cell.id: cell for cell in _code_cells(notebook)}


def _with_pictures(cells: dict[str, Any]) -> set[str]:
    return {
        name
        for name, cell in cells.items()
        if any("image/png" in output.get("data", {}) for output in cell.outputs)
    }


def _printed(cell: Any, stream: str = "stdout") -> str:
    return "".join(o.text for o in cell.outputs if o.output_type == "stream" and o.name == stream)


def _percentages(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"([\d.]+) ?%", text)]


@pytest.mark.usefixtures("nobodys_jupyter")
def test_explore_catalog_runs(demonstration_project: Path) -> None:
    folder = demonstration_project / "notebooks"
    cells = _run(nbformat.read(folder / "explore_catalog.ipynb", as_version=4), folder)
    for cell in cells.values():
        assert not [o for o in cell.outputs if o.output_type == "error"], cell.id
    assert cells["load-kedro"].outputs == [], "warnings before anything is shown"
    assert _with_pictures(cells) == {
        "background-graph",
        "accuracy-per-class-plot",
        "score-row",
        "metrics-plot",
        "neighbors-plot",
    }
    table = "".join(o.data.get("text/html", "") for o in cells["catalog-table"].outputs)
    for name in ("train_images", "background_graph", "diffusion_scores", "metrics_table"):
        assert name in table
    assert "params:" not in table


@pytest.mark.usefixtures("nobodys_jupyter")
def test_label_diffusion_keeps_its_word_on_digits(tmp_path: Path) -> None:
    notebook = nbformat.read(ROOT / "notebooks" / "label_diffusion.ipynb", as_version=4)
    is_long = [LONG in cell.metadata.get("tags", []) for cell in notebook.cells]
    assert sorted(is_long) == is_long and any(is_long), "digits first, then what takes long"
    notebook.cells = [c for c, long in zip(notebook.cells, is_long, strict=True) if not long]
    # Nothing of the project's folder is needed.
    cells = _run(notebook, tmp_path)

    text = next(cell.source for cell in notebook.cells if cell.id == "ten-lines-title")
    (stated,) = _percentages(text)
    (printed,) = _percentages(_printed(cells["ten-lines"]))
    assert printed == pytest.approx(stated, abs=1)
    (others,) = (o.data["text/html"] for o in cells["others"].outputs)
    own, *others = _percentages(re.sub(r"<style.*?</style>", "", others, flags=re.DOTALL))
    assert own == printed and len(others) == 4 and max(others) < own

    assert _with_pictures(cells) == {"steps", "new-rows"}
    unreached, *_ = map(int, re.findall(r"\d+", _printed(cells["unreached"])))
    assert 100 < unreached < 1777
    warned = {name for name, cell in cells.items() if _printed(cell, "stderr")}
    assert warned == {"unreached"}
    assert f"{unreached} of 1797 rows" in _printed(cells["unreached"], "stderr")
    assert re.search(r"\['zero' 'one' 'two'", _printed(cells["words"]))
    new_rows, *_ = _percentages(_printed(cells["new-rows"]))
    held_out, found = _percentages(_printed(cells["grid"]))
    assert min(new_rows, held_out, found) > 80
