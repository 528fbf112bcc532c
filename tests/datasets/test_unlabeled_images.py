"""A folder of images without labels, which a parameter may name."""

import pytest
from kedro.io import DataCatalog

from lowshot_kedro.datasets import UnlabeledImagesDataset
from lowshot_kedro.images import ImageFolder
from tests.datasets.helpers import refused, refused_by_check_and_load
from tests.datasets.test_image_datasets import gray, shown
from tests.datasets.test_previews import annotation, centre_of_place, image_of, pretty
from tests.images.helpers import is_blank


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "photos"
    for name, value in {"b/2.png": 20, "a/x/1.PNG": 10, "c.png": 30, "a.png": 40}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        gray(value).save(root / name)
    (root / ".hidden").mkdir()
    gray(99).save(root / ".hidden/3.png")
    gray(99).save(root / ".thumb.png")
    (root / "notes.txt").write_text("no image")
    return root


def test_images_at_any_depth_in_the_order_of_their_paths(folder):
    images = UnlabeledImagesDataset(path=str(folder))
    images.check()
    source = images.load()
    assert isinstance(source, ImageFolder)
    assert [source.name(n) for n in range(4)] == ["a.png", "a/x/1.PNG", "b/2.png", "c.png"]
    assert shown(source) == [(40, 0), (10, 0), (20, 0), (30, 0)]
    assert images.count_images() == 4 and images.files_in_use() == []
    with refused(ValueError, folder, "never written"):
        images.save(source)


def test_without_a_folder_none_is_loaded():
    images = UnlabeledImagesDataset(path=None)
    images.check()
    assert DataCatalog({"deepercluster_images": images}).load("deepercluster_images") is None
    assert images.exists() and images.count_images() == 0
    assert "no folder is named" in images._repr_html_()
    assert "no folder is named" in pretty(images)
    assert image_of(images.preview()).width > 100


def test_a_broken_image_is_blank_and_named(folder):
    (folder / "d.jpg").write_bytes(b"no image")
    (folder / "e.png").mkdir()
    source = UnlabeledImagesDataset(path=str(folder)).load()
    assert len(source) == 5
    assert is_blank(source[4])
    assert source[4].problem == "d.jpg: UnidentifiedImageError: cannot identify image file"


def test_what_is_no_folder_of_images_is_named(folder, tmp_path):
    absent = UnlabeledImagesDataset(path=str(tmp_path / "absent"))
    refused_by_check_and_load(absent, FileNotFoundError, "absent: no such folder")
    assert "not there yet" in absent._repr_html_() and absent.count_images() == 0
    file = UnlabeledImagesDataset(path=str(folder / "a.png"))
    refused_by_check_and_load(file, ValueError, "a.png: is a file, expected a folder of images")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/notes.txt").touch()
    empty = UnlabeledImagesDataset(path=str(tmp_path / "empty"))
    refused_by_check_and_load(empty, ValueError, "empty: found no image, expected some")
    nothing = UnlabeledImagesDataset(path="")
    refused_by_check_and_load(nothing, ValueError, "path: got '', expected a folder of images")


def test_the_preview_is_a_contact_sheet(folder):
    images = UnlabeledImagesDataset(path=str(folder))
    assert annotation(images) == "ImagePreview"
    assert image_of(images.preview()).getpixel(centre_of_place(0)) == (40, 40, 40)


def test_a_path_is_relative_to_the_project(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    images = UnlabeledImagesDataset(path="photos")
    monkeypatch.chdir("/")
    assert images.count_images() == 4
