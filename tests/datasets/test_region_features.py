"""Regions of images, a file for every view: kept, continued, made anew, left alone."""

import json
import shutil

import h5py
import numpy as np
import pytest
from kedro.io import DataCatalog, DatasetError

from lowshot_kedro.blocks import LabeledBlock, Resumable, RowBlocks
from lowshot_kedro.datasets import RegionFeaturesDataset
from tests.datasets.extraction import Extraction, row_content
from tests.datasets.helpers import content_of, refused
from tests.datasets.test_previews import annotation, pretty, table_of

SHAPE = (3, 1, 1)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "episodes"


@pytest.fixture
def dataset(folder):
    return RegionFeaturesDataset(filepath=str(folder))


def view_of(made, shape=SHAPE):
    return Resumable(made.provenance, made.begin), shape


def save(dataset, **made):
    dataset.save({name: view_of(each) for name, each in made.items()})
    return [each.asked for each in made.values()]


def test_each_view_is_a_file_with_its_shape(dataset, folder):
    assert not dataset.exists()
    array = np.arange(4 * 12, dtype=np.float32).reshape(4, 12)
    blocks = RowBlocks(4, 12, 4, lambda first: [LabeledBlock(array, np.arange(4, dtype=np.int32))])
    maps = Resumable({"n_rows": 4, "n_columns": 12}, lambda folder: blocks)
    dataset.save({"map": (maps, (3, 2, 2)), "sampling": (maps, (3, 4, 1))})
    views = dataset.load()
    assert {name: regions.shape for name, regions in views.items()} == {
        "map": (3, 2, 2),
        "sampling": (3, 4, 1),
    }
    found = views["map"].read(np.array([2, 0]))
    np.testing.assert_array_equal(found, array[[2, 0]].reshape(2, 3, 2, 2))
    assert views["map"].labels.tolist() == [0, 1, 2, 3]
    assert dataset.exists()
    # The shape goes where the file goes.
    (folder / "map.hdf5").rename(folder / "grid.hdf5")
    (folder / "map.hdf5.made_from.json").unlink()
    assert dataset.load()["grid"].shape == (3, 2, 2)


def test_what_was_made_from_the_same_is_kept_and_other_views_left_alone(dataset, folder):
    assert save(dataset, map=Extraction(), grid=Extraction(seed=1)) == [[0, 3, 6, 9]] * 2
    before = content_of(folder)
    assert save(dataset, map=Extraction()) == [[]]
    assert content_of(folder) == before
    assert save(dataset, map=Extraction(seed=2)) == [[0, 3, 6, 9]]
    after = content_of(folder)
    assert {name for name in after if after[name] != before[name]} == {
        "map.hdf5",
        "map.hdf5.made_from.json",
    }
    np.testing.assert_array_equal(
        dataset.load()["grid"].features.read(0, 10), row_content(0, 10, 1)[0]
    )


def test_another_shape_of_as_many_numbers_is_made_anew(dataset):
    save(dataset, map=Extraction())
    made = Extraction()
    dataset.save({"map": view_of(made, (1, 3, 1))})
    assert made.asked == [0, 3, 6, 9]
    assert dataset.load()["map"].shape == (1, 3, 1)


def test_what_was_stopped_is_continued(dataset, folder):
    def stop():
        raise InterruptedError("stopped half-way")

    with pytest.raises((DatasetError, InterruptedError), match="stopped half-way"):
        save(dataset, map=Extraction(), grid=Extraction(at=6, midway=stop))
    assert list(dataset.load()) == ["map"]
    assert save(dataset, map=Extraction(), grid=Extraction()) == [[], [6, 9]]
    grid = dataset.load()["grid"]
    np.testing.assert_array_equal(grid.read(np.arange(10))[:, :, 0, 0], row_content(0, 10)[0])
    assert grid.shape == SHAPE


def test_the_provenance_of_a_view_tells_what_it_was_made_from(dataset, folder):
    assert dataset.provenance() is None
    save(dataset, map=Extraction(seed=4))
    expected = {"n_rows": 10, "n_columns": 3, "seed": 4, "shape": [3, 1, 1]}
    assert dataset.load()["map"].provenance == expected
    assert dataset.provenance() == {"map": expected}
    assert not dataset.are_of_others()
    (folder / "map.hdf5.made_from.json").unlink()
    facts = dataset.load()["map"].provenance
    assert facts.items() >= {"kind": "features from a file", "shape": [3, 1, 1]}.items()
    assert json.loads(json.dumps(facts)) == facts
    assert dataset.are_of_others()


def test_maps_of_others_are_used_as_they_are(dataset, folder):
    folder.mkdir()
    maps = np.random.default_rng(0).random((10, 2, 2, 2), np.float32)
    with h5py.File(folder / "map.hdf5", "w") as file:
        file["all_feats"], file["all_labels"] = maps, np.zeros(10, np.int32)
        file["count"] = [10]
    dataset.check_kept()
    assert save(dataset, map=Extraction()) == [[]]
    np.testing.assert_array_equal(dataset.load()["map"].read(np.arange(10)), maps)
    with refused(ValueError, folder / "map.hdf5", "10 images, but there are 11"):
        save(dataset, map=Extraction(n_rows=11))


def test_nothing_to_load_is_said(dataset, folder):
    for action in (dataset.load, dataset.check):
        with refused(FileNotFoundError, folder, "looked for map.hdf5, grid.hdf5, sampling.hdf5"):
            action()


def test_damaged_files_are_refused(dataset, folder):
    folder.mkdir()
    (folder / "grid.hdf5").write_bytes(b"no HDF5")
    for action in (dataset.load, dataset.check, dataset.check_kept):
        with refused(ValueError, folder / "grid.hdf5"):
            action()


@pytest.mark.parametrize(("view", "shape"), [("patches", SHAPE), ("grid", (3, 1, 2))])
def test_what_fits_nothing_is_refused_before_anything_is_written(dataset, folder, view, shape):
    made = Extraction()
    with refused(ValueError, view):
        dataset.save({"map": view_of(made), view: view_of(made, shape)})
    assert made.asked == [] and not folder.exists()


def test_nobody_else_writes_any_view_meanwhile(dataset, folder):
    names = ["map.hdf5", "grid.hdf5", "sampling.hdf5"]
    assert dataset.files_in_use() == [folder / name for name in names]


def test_they_show_what_they_are(dataset, folder):
    assert pretty(dataset).endswith("episodes is not there yet")
    save(dataset, map=Extraction(), sampling=Extraction(seed=3))
    table = table_of(dataset)
    assert annotation(dataset) == "TablePreview"
    assert table["map"][0] == "10 images, (3, 1, 1)"
    assert "seed 3" in table["sampling made from"][0]
    assert table["row 2"][:3] == ["2", "0", "0.3333"]
    assert "sampling" in dataset._repr_html_()
    size = sum((folder / name).stat().st_size for name in ("map.hdf5", "sampling.hdf5"))
    assert dataset.statistics() == {"file_size": size}


def test_an_entry_of_a_catalog(folder):
    entry = {"type": "lowshot_kedro.datasets.RegionFeaturesDataset", "filepath": str(folder)}
    catalog = DataCatalog.from_config({"regions": {**entry, "metadata": {"a": 1}}})
    catalog.save("regions", {"map": view_of(Extraction())})
    assert catalog.load("regions")["map"].features.n_rows == 10
    assert catalog["regions"].metadata == {"a": 1}


def test_room_for_all_views_is_there_before_the_first_is_computed(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    # Room for either view, not for both.
    n_bytes = 4 * 10 * (2 * 3 * 3 + 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=n_bytes + 100))
    begun = []

    def content(name):
        def begin(_):
            begun.append(name)
            raise AssertionError

        return Resumable({"n_rows": 10, "n_columns": 18, "name": name}, begin), (2, 3, 3)

    dataset = RegionFeaturesDataset(filepath=str(tmp_path / "episodes"))
    with pytest.raises(DatasetError, match=r"map\.hdf5: the disk is too full"):
        dataset.save({"map": content("map"), "grid": content("grid")})
    assert begun == []
