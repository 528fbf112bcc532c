"""What few-shot episodes are drawn from, as an entry of a catalog."""

import numpy as np
import pytest
from kedro.io import DataCatalog
from PIL import Image

from lowshot_kedro.blocks import RegionFeatures
from lowshot_kedro.datasets import FewShotImagesDataset
from lowshot_kedro.images import FewShotImages
from tests.datasets.helpers import refused, refused_by_check_and_load
from tests.datasets.test_image_datasets import gray, shown, write_images
from tests.datasets.test_previews import annotation, centre_of_place, image_of, pretty


@pytest.fixture
def folder(tmp_path):
    return write_images(tmp_path / "birds", wren=[10, 20], owl=[30])


def dataset(folder, kind="folder", **settings):
    return FewShotImagesDataset(dataset=kind, data_path=str(folder), **settings)


def mini(root, lines, size=(84, 84)):
    (root / "split").mkdir(parents=True)
    (root / "images").mkdir()
    (root / "split/val.csv").write_text("filename,label\n" + "".join(f"{line}\n" for line in lines))
    for line in lines:
        Image.new("RGB", size).save(root / "images" / line.split(",")[0])
    return root


def test_a_folder_of_classes(folder):
    images = dataset(folder)
    images.check()
    source = images.load()
    assert isinstance(source, FewShotImages)
    assert source.class_names == ("owl", "wren")
    assert shown(source) == [(30, 0), (10, 1), (20, 1)]
    assert images.exists() and images.count_images() == 3
    assert images.files_in_use() == []
    with refused(ValueError, folder, "never written"):
        images.save(source)


def test_split_and_order_of_classes_are_handed_on(tmp_path):
    root = mini(tmp_path / "miniimagenet", ["1.png,wren", "2.png,owl"])
    images = dataset(tmp_path, "miniimagenet", split="val", class_order="original").load()
    assert (images.class_names, images.split) == (("wren", "owl"), "val")
    assert images.root == root / "images"


def test_what_is_special_is_said_once_a_run(tmp_path, caplog):
    mini(tmp_path, ["1.png,wren"])
    images = dataset(tmp_path, "miniimagenet", split="val")
    images.check()
    assert "smaller than the originals" in caplog.text
    caplog.clear()
    images.load()
    images.preview()
    assert not caplog.records


@pytest.mark.parametrize("shape", [(4,), (4, 3, 2)])
def test_features_from_a_file(tmp_path, shape):
    features = np.random.default_rng(0).random((5, *shape), np.float32)
    np.savez(tmp_path / "a.npz", features=features, labels=np.zeros(5, np.int32))
    images = dataset(tmp_path / "a.npz", "features")
    images.check()
    regions = images.load()
    assert isinstance(regions, RegionFeatures)
    assert regions.shape == (*shape, 1, 1)[:3]
    np.testing.assert_array_equal(regions.read(np.arange(5)), features.reshape(5, *regions.shape))
    assert images.count_images() == 5
    assert "features of 5 images, (4, " in pretty(images)
    assert image_of(images.preview()).width > 100


def test_the_environment_has_its_images_elsewhere():
    images = FewShotImagesDataset(dataset="environment")
    images.check()
    catalog = DataCatalog({"episode_images": images})
    assert catalog.load("episode_images") is None
    assert images.exists() and images.count_images() == 0
    assert "the test images of the environment" in images._repr_html_()


def test_what_is_not_there_is_refused_with_the_layout(tmp_path):
    images = dataset(tmp_path, "cifar_fs")
    refused_by_check_and_load(
        images, FileNotFoundError, tmp_path, "{meta-train,meta-val,meta-test}"
    )
    assert "not there yet" in images._repr_html_() and "not there yet" in pretty(images)
    assert images.count_images() == 0
    refused_by_check_and_load(dataset(tmp_path / "a.npz", "features"), FileNotFoundError, "a.npz")


def test_what_is_unknown_is_refused(tmp_path):
    refused_by_check_and_load(dataset(tmp_path, "imagenet"), ValueError, "dataset: got 'imagenet'")
    unknown = dataset(tmp_path, "fc100", split="novel")
    refused_by_check_and_load(unknown, ValueError, "split: got 'novel'")
    for kind in ("folder", "features"):
        without = FewShotImagesDataset(dataset=kind)
        refused_by_check_and_load(
            without, ValueError, f"data_path: got None, expected the path of the {kind}"
        )


def test_the_preview_is_a_contact_sheet_with_names(folder):
    images = dataset(folder)
    assert annotation(images) == "ImagePreview"
    assert image_of(images.preview()).getpixel(centre_of_place(0)) == (30, 30, 30)
    assert images._class_namer(images.load())(1) == "wren"
    assert "test: 3 images" in images._repr_html_()


def test_a_path_is_relative_to_the_project(tmp_path, monkeypatch):
    (tmp_path / "owl").mkdir()
    gray(1).save(tmp_path / "owl/1.png")
    monkeypatch.chdir(tmp_path)
    assert len(dataset(".").load()) == 1


def test_an_entry_of_a_catalog(folder):
    catalog = DataCatalog.from_config(
        {
            "episode_images": {
                "type": "lowshot_kedro.datasets.FewShotImagesDataset",
                "dataset": "folder",
                "data_path": str(folder),
                "split": "test",
                "metadata": {"kedro-viz": {"layer": "raw"}},
            }
        }
    )
    assert len(catalog.load("episode_images")) == 3
    assert catalog["episode_images"].metadata == {"kedro-viz": {"layer": "raw"}}
