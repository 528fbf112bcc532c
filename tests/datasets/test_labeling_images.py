import inspect
import json
import logging

import pytest
from kedro.io import DataCatalog
from PIL import Image

from lowshot_kedro.datasets import LabeledFolderImagesDataset, UnlabeledFolderImagesDataset
from lowshot_kedro.images import ClassFolders, ImageFolder
from tests.datasets.helpers import refused, refused_by_check_and_load
from tests.datasets.test_image_datasets import shown, written_below
from tests.datasets.test_previews import image_of, pretty

LOGGER = "lowshot_kedro.datasets.labeling_images"


def write(root, *names):
    """Images by name, each as bright as the number that its name begins with."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (16, 16), int(path.stem)).save(path)
    return root


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path, "dog/10.png", "dog/x/20.png", "cat/30.png", "40.png", "50.png")


def both(folder, **settings):
    return (
        LabeledFolderImagesDataset(filepath=str(folder), **settings),
        UnlabeledFolderImagesDataset(
            filepath=str(folder),
            **{name: value for name, value in settings.items() if name != "class_list"},
        ),
    )


def test_folders_are_classes_and_loose_images_have_no_label(folder, caplog):
    labeled, unlabeled = both(folder)
    assert shown(labeled.load()) == [(30, 0), (10, 1), (20, 1)]
    assert labeled.load().classes == ("cat", "dog")
    assert shown(unlabeled.load()) == [(40, 0), (50, 0)]
    assert labeled.exists() and unlabeled.exists()
    with caplog.at_level(logging.INFO, LOGGER):
        labeled.check()
        unlabeled.check()
        labeled.load()
    (sentence,) = (record.message for record in caplog.records if record.name == LOGGER)
    assert sentence.startswith(f"{folder}: images in cat, dog have the name of their folder")


def test_a_file_of_labels_makes_all_images_unlabelled_at_first(folder):
    (folder / "labels.csv").touch()
    labeled, unlabeled = both(folder)
    labeled.check()
    assert (len(labeled.load()), labeled.load().classes) == (0, ())
    assert len(unlabeled.load()) == 5


@pytest.mark.parametrize("absolute", [True, False])
def test_a_file_of_labels_may_lie_elsewhere(folder, monkeypatch, absolute):
    monkeypatch.chdir(folder)
    labels = folder / ".hidden" / "mine.csv"
    given = str(labels) if absolute else ".hidden/mine.csv"
    assert [len(each.load()) for each in both(folder, labels=given)] == [3, 2]
    labels.parent.mkdir()
    labels.touch()
    datasets = both(folder, labels=given)
    assert [len(each.load()) for each in datasets] == [0, 5]
    for dataset in datasets:
        assert dataset._describe()["labels"] == str(labels)
    # The usual one does not count then.
    labels.unlink()
    (folder / "labels.csv").touch()
    assert [len(each.load()) for each in both(folder, labels=given)] == [3, 2]


def test_train_and_background_are_the_collections_that_people_have_features_of(tmp_path):
    write(tmp_path, "train/dog/10.png", "train/cat/20.png", "background/a/30.png", "test/cat/4.png")
    (tmp_path / "classes.csv").write_text("class,role\ndog,novel\ncat,novel\n")
    labeled, unlabeled = both(tmp_path, class_list=str(tmp_path / "classes.csv"))
    theirs = ClassFolders(tmp_path / "train", ["dog", "cat"]), ImageFolder(tmp_path / "background")
    assert [labeled.load().describe(), unlabeled.load().describe()] == [
        each.describe() for each in theirs
    ]
    assert labeled._describe()["class_list"] == str(tmp_path / "classes.csv")


def test_a_class_list_may_be_missing(folder):
    path = folder / "classes.csv"
    (labeled, _) = both(folder, class_list=str(path))
    assert labeled.load().classes == ("cat", "dog")
    path.write_text("class,role\ndog,novel\ncat,novel\n")
    assert shown(labeled.load()) == [(10, 0), (20, 0), (30, 1)]
    path.write_text("class,role\neel,novel\ndog,novel\ncat,novel\n")
    refused_by_check_and_load(labeled, ValueError, "no folder for class eel")
    path.write_text("class,kind\n")
    refused_by_check_and_load(labeled, ValueError, path, "'class', 'kind'")


def test_folders_that_fit_no_layout(tmp_path):
    labeled, unlabeled = both(tmp_path / "absent")
    for dataset in (labeled, unlabeled):
        assert not dataset.exists()
        refused_by_check_and_load(dataset, FileNotFoundError, tmp_path / "absent")
    write(tmp_path, "1.png", "2.png")
    for dataset in both(tmp_path):
        refused_by_check_and_load(
            dataset, ValueError, tmp_path, "no class and 2 images", "expected"
        )


def test_they_are_never_written(folder):
    for dataset in both(folder):
        assert dataset.files_in_use() == []
        with refused(ValueError, folder, type(dataset).__name__, "never written"):
            dataset.save([])


def test_previews(folder, monkeypatch):
    labeled, unlabeled = both(folder)
    assert written_below(labeled, monkeypatch) == ["0: cat", "1: dog", "2: dog"]
    assert written_below(unlabeled, monkeypatch) == ["0", "1"]
    assert inspect.signature(labeled.preview).return_annotation == "ImagePreview"


def test_previews_of_no_images(folder):
    (folder / "labels.csv").touch()
    labeled, _ = both(folder)
    assert image_of(labeled.preview()).format == "PNG"
    assert "0 images" in pretty(labeled)
    assert "0 images" in labeled._repr_html_()
    assert labeled.count_images() == 0


def test_a_catalog_makes_them(folder):
    names = {"train_images": "LabeledFolder", "background_images": "UnlabeledFolder"}
    catalog = DataCatalog.from_config(
        {
            name: {
                "type": f"lowshot_kedro.datasets.{kind}ImagesDataset",
                "filepath": str(folder),
                "labels": None,
                "metadata": {"kedro-viz": {"layer": "raw"}},
            }
            for name, kind in names.items()
        }
    )
    assert [len(catalog.load(name)) for name in names] == [3, 2]
    assert catalog["train_images"].metadata == {"kedro-viz": {"layer": "raw"}}
    json.dumps(catalog["train_images"]._describe())
