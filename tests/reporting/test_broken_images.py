"""The report says which images could not be read, and why."""

import json
from types import SimpleNamespace

import pytest

from lowshot_kedro.datasets import (
    HDF5FeatureBlocksDataset,
    HDF5FeaturesDataset,
    WholeFileDataset,
)
from lowshot_kedro.pipelines.features.nodes import list_broken_images
from lowshot_kedro.reporting import broken_images, describe_broken_images
from tests.datasets.extraction import Extraction, row_content
from tests.datasets.helpers import labeled_blocks


def collection(n_rows, *broken):
    return SimpleNamespace(n_rows=n_rows, broken_images=iter(broken))


def test_every_collection_has_its_numbers_and_its_list():
    found = describe_broken_images(
        {"train": collection(5, (1, "no file"), (4, "cut off")), "test": collection(3)}
    )
    assert found == {
        "train": {
            "n_pictures": 5,
            "n_broken": 2,
            "broken": [
                {"picture": 1, "problem": "no file"},
                {"picture": 4, "problem": "cut off"},
            ],
        },
        "test": {"n_pictures": 3, "n_broken": 0, "broken": []},
    }
    assert list(found) == ["train", "test"]


@pytest.mark.parametrize(("n_broken", "n_listed"), [(2, 2), (3, 3), (4, 3), (10, 3)])
def test_all_are_counted_but_a_list_does_not_grow_without_end(monkeypatch, n_broken, n_listed):
    monkeypatch.setattr(broken_images, "_BROKEN_IMAGES_LISTED", 3)
    broken = [(number, "no file") for number in range(n_broken)]
    found = describe_broken_images({"background": collection(20, *broken)})["background"]
    assert (found["n_pictures"], found["n_broken"]) == (20, n_broken)
    assert [entry["picture"] for entry in found["broken"]] == list(range(n_listed))


def test_from_the_features_on_disk_to_the_report(tmp_path):
    """Training features computed here, published test features, and two jobs for the rest."""
    train = HDF5FeaturesDataset(filepath=str(tmp_path / "train.hdf5"))
    odd = 'a, comma; a "quote"; ümläut 図;\ntwo lines'
    Extraction(10, problems={0: odd, 9: "last"}).save(train)
    published = HDF5FeaturesDataset(filepath=str(tmp_path / "val.hdf5"))
    published.save(labeled_blocks(*row_content(0, 6), 6))
    settings = {"filepath": str(tmp_path / "f100m"), "rows_per_file": 4}
    Extraction(8, problems={3: "three"}).save(HDF5FeatureBlocksDataset(**settings))
    Extraction(5, first_image=8, problems={12: "twelve"}).save(
        HDF5FeatureBlocksDataset(**settings, i0=8)
    )

    report = WholeFileDataset(
        dataset={"type": "json.JSONDataset", "filepath": str(tmp_path / "broken_images.json")}
    )
    background = HDF5FeatureBlocksDataset(**settings)
    report.save(list_broken_images(train.load(), published.load(), background.load()))
    assert json.loads((tmp_path / "broken_images.json").read_text()) == {
        "train": {
            "n_pictures": 10,
            "n_broken": 2,
            "broken": [
                {"picture": 0, "problem": odd.replace("\n", " ")},
                {"picture": 9, "problem": "last"},
            ],
        },
        # Nothing is known of the images of published features.
        "test": {"n_pictures": 6, "n_broken": None, "broken": []},
        "background": {
            "n_pictures": 13,
            "n_broken": 2,
            "broken": [
                {"picture": 3, "problem": "three"},
                {"picture": 12, "problem": "twelve"},
            ],
        },
    }
