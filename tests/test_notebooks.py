"""The notebooks run, one on the demonstration's results, the other on scikit-learn's digits."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.projects import ROOT, run

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# Of cells that download data, and take minutes.
LONG = "fashion-mnist"


def _code_cells(notebook: nbformat.NotebookNode) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


# What a place on a machine begins with, and an address in its memory; colours of a terminal; bars.
OF_A_MOMENT = re.compile(
    r"(?<![\w.])/(?:home|root|tmp|usr|opt|var|mnt|work|builds?|Users)/|0x[0-9a-f]{6}|\x1b|\r|it/s"
)
# Cells that warn, to show it.
WARNING = {"unreached"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_kept_with_the_outputs_of_one_run(path: Path) -> None:
    """As `make figures` leaves it."""
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert set(notebook.metadata) <= {"kernelspec"}, "metadata of one person's Jupyter"
    for cell in notebook.cells:
        assert re.fullmatch(r"[a-z-]+", cell.id), f"{cell.id}: not a name"
    cells = _code_cells(notebook)
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    for cell in cells:
        assert not set(cell.metadata) - {"tags"}, cell.id
        kinds = {output.output_type for output in cell.outputs}
        assert kinds <= {"stream", "execute_result", "display_data"}, cell.id
        assert cell.id in WARNING or not _printed(cell, "stderr"), f"{cell.id} warns"
        for text in _texts(cell):
            assert not OF_A_MOMENT.search(text), cell.id
    assert len(_with_images({cell.id: cell for cell in cells})) >= 3


def _texts(cell: Any) -> list[str]:
    """Everything a cell shows but images."""
    texts = [output.text for output in cell.outputs if output.output_type == "stream"]
    for output in cell.outputs:
        data = output.get("data", {})
        assert set(data) <= {"text/html", "text/plain", "image/png"}, cell.id
        written = (text for kind, text in data.items() if kind != "image/png")
        texts += [re.sub(r"base64,[^']*", "", text) for text in written]
    return texts


def _forget_jupyter(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    # The kernel inherits these: nothing of one person's IPython or Jupyter has a say.
    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(folder / "jupyter"))
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


def _with_images(cells: dict[str, Any]) -> set[str]:
    return {
        name
        for name, cell in cells.items()
        if any("image/png" in output.get("data", {}) for output in cell.outputs)
    }


def _printed(cell: Any, stream: str = "stdout") -> str:
    return "".join(o.text for o in cell.outputs if o.output_type == "stream" and o.name == stream)


def _percentages(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"([\d.]+) ?%", text)]


OTHERS = {"mode": "val", "n_labeled": 5, "seed": 3}


@pytest.fixture(scope="module")
def explored(
    demonstration_project: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The cells of explore_catalog on results that are not those of its own outputs."""
    folder = tmp_path_factory.mktemp("explored")
    project = Path(shutil.copytree(demonstration_project, folder / "project"))
    run(project, "baseline", "diffusion", "evaluation", experiment=OTHERS)
    path = project / "notebooks" / "explore_catalog.ipynb"
    with pytest.MonkeyPatch.context() as monkeypatch:
        _forget_jupyter(monkeypatch, folder)
        return _run(nbformat.read(path, as_version=4), path.parent)


def test_explore_catalog_runs(explored: dict[str, Any]) -> None:
    cells = explored
    for cell in cells.values():
        assert not [o for o in cell.outputs if o.output_type == "error"], cell.id
    assert cells["load-kedro"].outputs == [], "warnings before anything is shown"
    assert _with_images(cells) == {
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
    assert _printed(cells["results"]) == "environment: local\n"


def test_explore_catalog_is_about_the_results_that_are_there(explored: dict[str, Any]) -> None:
    results, counts = (
        "".join(o.data["text/html"] for o in explored[name].outputs if o.output_type != "stream")
        for name in ("results", "class-counts")
    )
    cell_of = r"<th>{}</th>\s*<td>{}</td>"
    for name, value in OTHERS.items():
        assert re.search(cell_of.format(name, value), results)
    # Of novel classes, here zero to four, five training images are labelled.
    for name, kind in (("zero", "novel"), ("four", "novel"), ("five", "base")):
        of_class = rf"<th>{name}</th>\s*<td>{kind}</td>\s*<td>\d+</td>\s*<td>(\d+)</td>"
        row = re.search(of_class, counts)
        assert row is not None
        assert (row[1] == "5") == (kind == "novel")


def test_label_diffusion_keeps_its_word_on_digits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _forget_jupyter(monkeypatch, tmp_path)
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

    assert _with_images(cells) == {"steps", "new-rows"}
    unreached, *_ = map(int, re.findall(r"\d+", _printed(cells["unreached"])))
    assert 100 < unreached < 1777
    warned = {name for name, cell in cells.items() if _printed(cell, "stderr")}
    assert warned == {"unreached"}
    assert f"{unreached} of 1797 rows" in _printed(cells["unreached"], "stderr")
    assert re.search(r"\['zero' 'one' 'two'", _printed(cells["words"]))
    new_rows, *_ = _percentages(_printed(cells["new-rows"]))
    held_out, found = _percentages(_printed(cells["grid"]))
    assert min(new_rows, held_out, found) > 80


def test_label_images_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _forget_jupyter(monkeypatch, tmp_path)
    notebook = nbformat.read(ROOT / "notebooks" / "label_images.ipynb", as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace('"image_size": 96', '"image_size": 32')
    cells = _run(notebook, tmp_path)
    before, after = (_percentages(_printed(cells[name]))[0] for name in ("truth", "again"))
    assert 40 < before < after + 5
    assert _with_images(cells) == {"reliability", "next-images", "map"}


# A batch, so that the test takes seconds: what is learnt is no matter here.
LITTLE = """
deepercluster:
  dimension: 16
  n_components: 8
  n_clusters: 16
  epochs: 1
  images_per_epoch: 64
  num_workers: 0
"""


def test_deepercluster_runs(
    demonstration_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _forget_jupyter(monkeypatch, tmp_path)
    project = Path(shutil.copytree(demonstration_project, tmp_path / "project"))
    (project / "conf" / "local").mkdir(exist_ok=True)
    (project / "conf" / "local" / "parameters.yml").write_text(LITTLE)
    path = ROOT / "notebooks" / "deepercluster.ipynb"
    cells = _run(nbformat.read(path, as_version=4), project / "notebooks")
    assert _with_images(cells) == {"curves", "sizes", "panel", "own-images"}
    assert _printed(cells["images"]) == "599 images\n"
    again, of_digit = _percentages(_printed(cells["others"]))
    # Whoever assigns images by the file of centroids gets the clusters of the run.
    assert again == 100
    assert 10 < of_digit <= _percentages(_printed(cells["agreement"]))[0] + 10
