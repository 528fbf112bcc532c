"""The notebooks run from the first cell to the last on the demonstration's results."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.projects import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


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


def test_explore_catalog_runs(
    demonstration_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The kernel inherits these: nothing of one person's IPython or Jupyter has a say.
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    monkeypatch.setenv("KEDRO_DISABLE_TELEMETRY", "1")
    for name in ("KEDRO_ENV", "KEDRO_LOGGING_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    folder = demonstration_project / "notebooks"
    notebook = nbformat.read(folder / "explore_catalog.ipynb", as_version=4)

    client = NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()

    cells = {cell.id: cell for cell in _code_cells(notebook)}
    for cell in cells.values():
        assert not [o for o in cell.outputs if o.output_type == "error"], cell.id
    assert cells["load-kedro"].outputs == [], "warnings before anything is shown"
    shown = {
        name: {kind for output in cell.outputs for kind in output.get("data", {})}
        for name, cell in cells.items()
    }
    with_pictures = {name for name, kinds in shown.items() if "image/png" in kinds}
    assert with_pictures == {
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
