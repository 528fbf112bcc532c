"""What kedro-viz shows of rows and columns is counted in the files that it shows."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from kedro.io import DataCatalog
from PIL import Image

from lowshot_kedro.project.dataset_statistics import StatisticsHooks, dataset_statistics
from tests.projects import configure_kedro


@pytest.fixture
def catalog(tmp_path: Path) -> DataCatalog:
    """A matrix of 3 rows, a damaged file, one that is missing, one of no pipeline, 2 images."""
    configure_kedro()
    features = "lowshot_kedro.datasets.HDF5FeaturesDataset"
    vectors = {
        "type": "lowshot_kedro.datasets.RawMatrixDataset",
        "filepath": str(tmp_path / "vectors.raw"),
        "n_columns": 2,
    }
    (tmp_path / "train.hdf5").write_bytes(b"no HDF5")
    (tmp_path / "images").mkdir()
    for number in range(2):
        Image.new("L", (8, 8)).save(tmp_path / "images" / f"{number}.png")
    found = DataCatalog.from_config(
        {
            "{default}": {"type": "kedro.io.MemoryDataset"},
            "background_vectors": vectors,
            "of_nobody": vectors,
            "train_features": {"type": features, "filepath": str(tmp_path / "train.hdf5")},
            "background_images": {
                "type": "lowshot_kedro.datasets.FolderImagesDataset",
                "filepath": str(tmp_path / "images"),
            },
            "test_features": {"type": features, "filepath": str(tmp_path / "absent.hdf5")},
        }
    )
    found.save("background_vectors", np.ones((3, 2), dtype=np.float32))
    return found


EXPECTED = {"background_vectors": {"rows": 3, "columns": 2, "file_size": 24}}
WITH_IMAGES = {"background_images": {"rows": 2}, **EXPECTED}


def test_what_is_there_and_whole_is_counted(catalog: DataCatalog) -> None:
    before = set(catalog)
    assert dataset_statistics(catalog) == WITH_IMAGES
    assert set(catalog) == before


def test_a_run_leaves_what_there_is(catalog: DataCatalog, tmp_path: Path) -> None:
    note = tmp_path / ".viz" / "stats.json"
    note.parent.mkdir()
    note.write_text('{"metrics_table": {"rows": 1}}')  # of another environment
    hooks = StatisticsHooks()
    hooks.before_pipeline_run(catalog)
    hooks.after_pipeline_run({"project_path": str(tmp_path)}, catalog)
    assert json.loads(note.read_text()) == EXPECTED


def test_a_run_counts_the_images_that_it_has_opened(catalog: DataCatalog, tmp_path: Path) -> None:
    hooks = StatisticsHooks()
    hooks.before_pipeline_run(catalog)
    for name in ("background_images", "background_vectors"):
        hooks.after_dataset_loaded(name, catalog.load(name))
    hooks.after_pipeline_run({"project_path": str(tmp_path)}, catalog)
    assert json.loads((tmp_path / ".viz" / "stats.json").read_text()) == WITH_IMAGES


def test_a_run_does_not_fail_for_a_note(catalog: DataCatalog, tmp_path: Path) -> None:
    (tmp_path / ".viz").write_text("no folder")
    StatisticsHooks().after_pipeline_run({"project_path": str(tmp_path)}, catalog)


def test_only_kedro_viz_counts_when_a_catalog_is_made(
    catalog: DataCatalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks = StatisticsHooks()
    hooks.after_context_created(SimpleNamespace(project_path=tmp_path))  # type: ignore[arg-type]
    for module in ("kedro_viz.server", "kedro_viz.launchers.jupyter"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    hooks.after_catalog_created(catalog)
    assert not (tmp_path / ".viz").exists()
    monkeypatch.setitem(sys.modules, "kedro_viz.server", ModuleType("kedro_viz.server"))
    monkeypatch.setitem(sys.modules, "kedro_viz.launchers.jupyter", ModuleType("jupyter"))
    hooks.after_catalog_created(catalog)
    assert not (tmp_path / ".viz").exists()
    monkeypatch.delitem(sys.modules, "kedro_viz.launchers.jupyter")
    hooks.after_catalog_created(catalog)
    assert json.loads((tmp_path / ".viz" / "stats.json").read_text()) == WITH_IMAGES
