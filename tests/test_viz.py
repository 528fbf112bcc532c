"""kedro-viz shows the pipelines, the layers of the data, and what is in every dataset."""

from __future__ import annotations

import base64
import io
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.quick_kedro import Command

PIPELINES = {"features", "pca", "graph", "baseline", "diffusion", "evaluation"}
LAYERS = ["raw", "feature", "models", "model_input", "model_output", "reporting"]
PREVIEWS = {
    "train_images": "ImagePreview",
    "test_images": "ImagePreview",
    "background_images": "ImagePreview",
    "class_split": "TablePreview",
    "train_features": "TablePreview",
    "test_features": "TablePreview",
    "background_features": "TablePreview",
    "broken_images": "JSONPreview",
    "pca_transform": "TablePreview",
    "pca_spectrum_plot": "ImagePreview",
    "background_vectors": "TablePreview",
    "background_index": "TablePreview",
    "background_graph": "TablePreview",
    "background_graph_quality": "JSONPreview",
    "test_neighbors": "TablePreview",
    "inserted_links_quality": "JSONPreview",
    "logistic_regression": "TablePreview",
    "diffusion_scores": "TablePreview",
    "baseline_scores": "TablePreview",
    "diffusion_metrics": "JSONPreview",
    "baseline_metrics": "JSONPreview",
    "combined_metrics": "JSONPreview",
    "metrics_table": "TablePreview",
    "accuracy_per_step_plot": "ImagePreview",
    "methods_plot": "ImagePreview",
    "neighbors_plot": "ImagePreview",
}


@dataclass(frozen=True)
class BuiltSite:
    """What the page of `kedro viz build` asks its server for."""

    folder: Path
    main: dict[str, Any]
    details: dict[str, dict[str, Any]]
    printed: str

    @property
    def datasets(self) -> dict[str, dict[str, Any]]:
        """Nodes of the datasets that are on disk, by name."""
        return {
            node["name"]: node
            for node in self.main["nodes"]
            if node["type"] == "data" and not node["dataset_type"].endswith("MemoryDataset")
        }

    def details_of(self, dataset: str) -> dict[str, Any]:
        return self.details[self.datasets[dataset]["id"]]


@pytest.fixture(scope="module")
def site(demonstration_project: Path, tmp_path_factory: pytest.TempPathFactory) -> BuiltSite:
    folder = tmp_path_factory.mktemp("viz")
    project = shutil.copytree(demonstration_project, folder / "project")
    nowhere = "http://127.0.0.1:9"  # whatever asks the network must fail
    status, printed = Command(
        project,
        "viz",
        "build",
        "--include-previews",
        HOME=str(folder),
        KEDRO_DISABLE_TELEMETRY="1",
        **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), nowhere),
    ).wait()
    build = project / "build"
    assert status == 0 and build.is_dir(), printed
    details = {
        path.name: json.loads(path.read_text()) for path in (build / "api" / "nodes").iterdir()
    }
    main = json.loads((build / "api" / "main").read_text())
    return BuiltSite(build, main, details, printed)


def test_all_pipelines_can_be_selected(site: BuiltSite) -> None:
    assert {pipeline["id"] for pipeline in site.main["pipelines"]} >= PIPELINES
    for name in PIPELINES:
        content = json.loads((site.folder / "api" / "pipelines" / name).read_text())
        assert any(node["type"] == "task" for node in content["nodes"]), name


def test_the_first_sight_is_a_box_for_each_pipeline(site: BuiltSite) -> None:
    tree = site.main["modular_pipelines"]
    of_no_box = {child["id"] for child in tree["__root__"]["children"] if child["type"] == "task"}
    boxes = [c["id"] for c in tree["__root__"]["children"] if c["type"] == "modularPipeline"]
    assert sorted(boxes) == sorted({*PIPELINES, "demonstration"})
    assert of_no_box == set()
    sweep = json.loads((site.folder / "api" / "pipelines" / "sweep").read_text())
    children = sweep["modular_pipelines"]["__root__"]["children"]
    boxes = [child["id"] for child in children if child["type"] == "modularPipeline"]
    assert sorted(boxes) == ["report", "test", "validation"]


def test_layers_stand_in_the_order_of_the_data_flow(site: BuiltSite) -> None:
    # kedro-viz draws no layers at all when two of them read each other's data.
    assert "Layers visualisation is disabled" not in site.printed
    assert site.main["layers"] == LAYERS


def test_every_dataset_on_disk_has_a_layer(site: BuiltSite) -> None:
    assert {name for name, node in site.datasets.items() if node["layer"] not in LAYERS} == set()


def test_every_dataset_on_disk_is_expected_here(site: BuiltSite) -> None:
    assert set(site.datasets) == set(PREVIEWS)


@pytest.mark.parametrize("name", PREVIEWS)
def test_preview_shows_the_content(site: BuiltSite, name: str) -> None:
    details = site.details_of(name)
    assert details["preview_type"] == PREVIEWS[name]
    preview = details["preview"]
    if PREVIEWS[name] == "ImagePreview":
        image = Image.open(io.BytesIO(base64.b64decode(preview))).convert("L")
        darkest, brightest = image.getextrema()
        assert min(image.size) > 100
        assert darkest < brightest, "a blank image"
    elif PREVIEWS[name] == "JSONPreview":
        assert json.loads(preview)
    else:
        assert preview["data"]
        assert {len(row) for row in preview["data"]} == {len(preview["columns"])}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("train_features", "float32"),
        ("background_vectors", "float32"),
        ("background_graph", "int32 neighbours, float32 similarities"),
    ],
)
def test_tables_of_big_arrays_begin_with_the_facts(site: BuiltSite, name: str, dtype: str) -> None:
    rows = site.details_of(name)["preview"]["data"]
    facts = {row[0]: row[1] for row in rows if not row[0].startswith("row ")}
    assert {"shape", "dtype", "size on disk"} <= set(facts)
    assert facts["dtype"] == dtype
    # After a line that numbers the columns, or says that they are neighbours.
    shown = [row[0].partition(":")[0] for row in rows if row[0].startswith("row ")]
    assert shown == [f"row {n}" for n in range(5)]


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """What is not a dictionary or list, by the way that leads to it."""
    if isinstance(value, dict | list):
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        return {k: v for name, entry in entries for k, v in leaves(entry, f"{path}/{name}").items()}
    return {path: "null" if value is None else value}


def test_metrics_preview_is_the_whole_file_with_rounded_numbers(site: BuiltSite) -> None:
    written = site.folder.parent / "data" / "08_reporting" / "diffusion_metrics.json"
    expected = leaves(json.loads(written.read_text()))
    found = leaves(json.loads(site.details_of("diffusion_metrics")["preview"]))
    numbers = {name for name, value in expected.items() if isinstance(value, float)}
    assert len(numbers) > 20
    for name in expected:
        value = float(f"{expected[name]:.4g}") if name in numbers else expected[name]
        assert found.pop(name) == value
    assert found == {}


@pytest.mark.parametrize(
    ("name", "n_rows", "n_columns"),
    [
        ("train_features", 599, 1280),
        ("background_vectors", 599, 256),
        ("background_graph", 599, 32),
        ("diffusion_scores", 599, 10),
        ("metrics_table", 3, 8),
    ],
)
def test_statistics_count_rows_and_columns(
    site: BuiltSite, name: str, n_rows: int, n_columns: int
) -> None:
    assert all(site.details_of(name)["stats"] for name in site.datasets)
    statistics = site.details_of(name)["stats"]
    assert (statistics["rows"], statistics["columns"]) == (n_rows, n_columns)
    assert statistics["file_size"] > 0


def test_tables_name_classes(site: BuiltSite) -> None:
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    for method in ("baseline", "diffusion"):
        rows = site.details_of(f"{method}_scores")["preview"]["data"]
        assert ["class", *names] in rows
        assert rows[-1][0].partition(": ")[2] in names
    roles = site.details_of("class_split")["preview"]["data"]
    assert [row[1] for row in roles] == names
