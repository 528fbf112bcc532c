"""What a person meets who brings images of their own."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from lowshot_kedro.project.config import UserError
from tests.own_images import run_own_images, write_own_images
from tests.projects import read_metrics, run


@pytest.fixture
def own_images(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    images = write_own_images(project)
    monkeypatch.setenv("IMAGES", str(images))
    return images


def test_a_sweep_over_own_images(
    project: Path, own_images: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_own_images(project)
    path = project / "conf" / "own_images" / "parameters.yml"
    parameters = yaml.safe_load(path.read_text())
    assert parameters["sweep"] == {
        "n_labeled": [1, 2, 5, None],
        "n_background": [0, None],
        "diffusion": {"k": [5, 10, 30]},
    }
    parameters["sweep"] |= {
        "n_labeled": [1, 5, 13, None], "n_background": [0, 42, None], "n_workers": 0,
        "seeds": [1, 2], "validation_seeds": [1], "nearest_neighbors": {"k": [1, 10]},
        "diffusion": {"k": [4, 10], "n_iterations": 2},
        "logistic_regression": {
            "lr": [0.1], "weight_decay": [0], "batch_size": [16], "max_iterations": 20,
        },
    }  # fmt: skip
    path.write_text(yaml.safe_dump(parameters))
    caplog.clear()
    run_own_images(project, "sweep")
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert [warning for warning in warnings if warning.startswith("sweep.")] == [
        "sweep.n_labeled: 13 left out, as no novel class has more than 12 labelled images",
        "sweep.n_background: 42 left out, as the background has 41 images",
        "sweep.nearest_neighbors.k: left out where there are fewer images: "
        "10 of 3 (n_labeled 1), 9 (n_labeled 5)",
        "sweep.label_spreading.n_neighbors: left out where there are fewer images: "
        "7 of 3 (n_labeled 1, no background)",
        "sweep.diffusion.k: left out where there are fewer images: "
        "4, 10 of 3 (n_labeled 1, no background); 10 of 9 (n_labeled 5, no background)",
    ]
    folder = project / "data" / "own_images" / "08_reporting" / "sweep"
    table = pd.read_csv(folder / "table.csv")
    assert set(table["n_labeled"]) == {"1", "5", "all"}
    assert not [column for column in table.columns if "base" in column or "top5" in column]
    diffusion = table[table["method"] == "diffusion"][["unlabeled", "n_labeled"]]
    assert {tuple(row) for row in diffusion.to_numpy()} == {
        ("nbg0", "5"), ("nbg0", "all"), ("nbgall", "1"), ("nbgall", "5"), ("nbgall", "all"),
    }  # fmt: skip
    chosen = yaml.safe_load((folder / "hyperparameters.yml").read_text())
    assert chosen["diffusion"]["nl5"]["nbg0"]["k"] == 4
    assert "nbg0" not in chosen["diffusion"]["nl1"]
    assert set(chosen["nearest_neighbors"]) == {"nl1", "nl5", "nlall"}
    report = (folder / "table.md").read_text()
    assert "all: as many as there are" in report
    assert "novel classes" not in report


def test_a_class_without_test_images_is_not_measured(
    project: Path, own_images: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(own_images / "test" / "cat")
    run_own_images(project)
    assert f"{own_images}/test: no image of class cat" in caplog.messages
    metrics = read_metrics(project, "combined", "own_images")
    assert (metrics["n_classes"], metrics["n_test"]) == (3, 8)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (("train",), r"background_images: IMAGES: found no class and 41 images without a label"),
        (("background",), r"background_images: IMAGES: found no image but those in train, test"),
        (("classes.csv",), r"class_split: IMAGES/classes\.csv is missing: the list of the class"),
        (
            ("train/dog",),
            r"train_images: IMAGES/train: no folder for class dog; found cat",
        ),
        (("",), r"IMAGES: no such folder: IMAGES; expected the folder of your data"),
        (("train/dog/*",), r"train_images: IMAGES/train: found no image of class dog"),
        (("background/*",), r"background_images: IMAGES/background: found no image"),
        (("test/*",), r"test_images: IMAGES/test: found no image in a folder of a class"),
        (("train", "test"), r"test_images: IMAGES/test is missing: labelled images that the "),
    ],
)
def test_what_is_missing_of_own_images_is_said_in_a_line(
    project: Path, own_images: Path, broken: tuple[str, ...], message: str
) -> None:
    for name in broken:
        for path in list(own_images.glob(name)) if name else [own_images]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(UserError) as error:
        run_own_images(project)
    text = str(error.value).replace(str(own_images), "IMAGES")
    assert re.match(message, text)
    for line in text.splitlines():
        assert re.search(r"\(docs/own_images\.md says (more|what is expected).*\)$", line)
    assert "lowshot download" not in text


def test_the_page_about_a_missing_file_is_that_of_its_folder(
    project: Path, published: Path, own_images: Path
) -> None:
    (published / "label_idx.json").unlink()
    message = r"label_idx\.json is missing; .*docs/published_files\.md .* `.*lowshot.* download` f"
    with pytest.raises(UserError, match=message):
        run(project, "baseline", env="imagenet")
    path = project / "conf" / "own_images" / "catalog.yml"
    catalog = yaml.safe_load(path.read_text())
    catalog["train_images"] = {
        "type": "lowshot_kedro.datasets.LabeledImagesDataset",
        "filepath": "${globals:folders.raw}/train.json",
    }
    path.write_text(yaml.safe_dump(catalog))
    message = (
        r"train\.json is missing; put it there \(docs/own_images\.md says which file this is\)$"
    )
    with pytest.raises(UserError, match=message):
        run_own_images(project)


def test_a_folder_of_published_files_that_is_not_there_is_named(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DDIR", "/not/there")
    with pytest.raises(UserError, match=r"^DDIR: no such folder: /not/there; .*published_files"):
        run(project, "baseline", env="imagenet")


def test_own_images_need_a_name(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IMAGES", raising=False)
    with pytest.raises(UserError, match=r"^IMAGES: .* not set.*docs/own_images\.md"):
        run_own_images(project)
