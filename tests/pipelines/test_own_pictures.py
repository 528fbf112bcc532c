"""What a person meets who brings pictures of their own."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from lowshot_kedro.config import UserError
from tests.own_pictures import run_own_pictures, write_own_pictures
from tests.projects import read_metrics, run


@pytest.fixture
def own_pictures(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pictures = write_own_pictures(project)
    monkeypatch.setenv("PICTURES", str(pictures))
    return pictures


def test_a_sweep_over_own_pictures(
    project: Path, own_pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_own_pictures(project)
    path = project / "conf" / "own_pictures" / "parameters.yml"
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
    run_own_pictures(project, "sweep")
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert [warning for warning in warnings if warning.startswith("sweep.")] == [
        "sweep.n_labeled: 13 left out, as no novel class has more than 12 labelled images",
        "sweep.n_background: 42 left out, as the background has 41 images",
        "sweep.nearest_neighbors.k: left out where there are fewer images: "
        "10 of 3 (n_labeled 1), 9 (n_labeled 5)",
        "sweep.diffusion.k: left out where there are fewer images: "
        "4, 10 of 3 (n_labeled 1, no background); 10 of 9 (n_labeled 5, no background)",
        "sweep.label_spreading.n_neighbors: left out where there are fewer images: "
        "7 of 3 (n_labeled 1, no background)",
    ]
    folder = project / "data" / "own_pictures" / "08_reporting" / "sweep"
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


def test_a_class_without_test_pictures_is_not_measured(
    project: Path, own_pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(own_pictures / "test" / "cat")
    run_own_pictures(project)
    assert f"{own_pictures}/test: no picture of class cat" in caplog.messages
    metrics = read_metrics(project, "combined", "own_pictures")
    assert (metrics["n_classes"], metrics["n_test"]) == (3, 8)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (("train",), r"train_images: PICTURES/train is missing: the labelled pictures"),
        (("background",), r"background_images: PICTURES/background is missing: the pictures with"),
        (("classes.csv",), r"class_split: PICTURES/classes\.csv is missing: the list of the class"),
        (
            ("train/dog",),
            r"train_images: PICTURES/train: no folder for class dog; found cat",
        ),
        (("",), r"PICTURES: no such folder: PICTURES; expected the folder of your data"),
        (("train/dog/*",), r"train_images: PICTURES/train: found no picture of class dog"),
        (("background/*",), r"background_images: PICTURES/background: found no picture"),
        (("test/*",), r"test_images: PICTURES/test: found no picture in a folder of a class"),
        (("train", "test"), r"test_images: .*\ntrain_images: "),
    ],
)
def test_what_is_missing_of_own_pictures_is_said_in_a_line(
    project: Path, own_pictures: Path, broken: tuple[str, ...], message: str
) -> None:
    for name in broken:
        for path in list(own_pictures.glob(name)) if name else [own_pictures]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(UserError) as error:
        run_own_pictures(project)
    text = str(error.value).replace(str(own_pictures), "PICTURES")
    assert re.match(message, text)
    for line in text.splitlines():
        assert re.search(r"\(docs/own_pictures\.md says (more|what is expected).*\)$", line)
    assert "lowshot-download" not in text


def test_the_page_about_a_missing_file_is_that_of_its_folder(
    project: Path, published: Path, own_pictures: Path
) -> None:
    (published / "label_idx.json").unlink()
    message = r"label_idx\.json is missing; .*docs/published_files\.md .* lowshot-download fetches"
    with pytest.raises(UserError, match=message):
        run(project, "baseline", env="imagenet")
    path = project / "conf" / "own_pictures" / "catalog.yml"
    catalog = yaml.safe_load(path.read_text())
    catalog["train_images"] = {
        "type": "lowshot_kedro.datasets.LabeledImagesDataset",
        "filepath": "${globals:folders.raw}/train.json",
    }
    path.write_text(yaml.safe_dump(catalog))
    message = (
        r"train\.json is missing; put it there \(docs/own_pictures\.md says which file this is\)$"
    )
    with pytest.raises(UserError, match=message):
        run_own_pictures(project)


def test_a_folder_of_published_files_that_is_not_there_is_named(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DDIR", "/not/there")
    with pytest.raises(UserError, match=r"^DDIR: no such folder: /not/there; .*published_files"):
        run(project, "baseline", env="imagenet")


def test_own_pictures_need_a_name(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PICTURES", raising=False)
    with pytest.raises(UserError, match=r"^PICTURES: .* not set.*docs/own_pictures\.md"):
        run_own_pictures(project)
