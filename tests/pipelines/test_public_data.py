"""The environments of torchvision's data sets, on small files in their formats."""

from __future__ import annotations

import hashlib
import pickle
import re
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from kedro.io import DataCatalog
from scipy.io import savemat
from torchvision import datasets

from lowshot_kedro.datasets.class_list import class_namer
from lowshot_kedro.project.config import Project, UserError
from tests.images.test_torchvision_dataset import idx
from tests.projects import ROOT, read_arrays, read_metrics, run

# Enough background for the components, and the labels of torchvision's own order.
LISTS = ("base_classes_1", "novel_classes_1", "base_classes_2", "novel_classes_2")
SMALL: dict[str, Any] = {
    "features": {"image_size": 32, "num_workers": 0},
    "pca": {"n_components": 16},
    "graph": {"k": 5},
    "logistic_regression": {"max_iterations": 50},
}
PER_CLASS, LABELED, TESTED = 10, 4, 2

THINGS = [f"thing {number}" for number in range(100)]

# What the environments said in files before they had one of torchvision's own.
SPLITS: dict[str, dict[str, Any]] = {
    "fashion_mnist": {
        "base_classes_1": [3, 6],
        "novel_classes_1": [2, 7, 9],
        "base_classes_2": [1, 8],
        "novel_classes_2": [4, 5, 10],
        "label_names": [
            "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker",
            "Bag", "Ankle boot",
        ],
    },
    "cifar100": {
        "base_classes_1": list(range(2, 101, 4)),
        "novel_classes_1": list(range(4, 101, 4)),
        "base_classes_2": list(range(1, 101, 4)),
        "novel_classes_2": list(range(3, 101, 4)),
        "label_names": THINGS,
    },
}  # fmt: skip
ROWS = {"fashion_mnist": 500, "cifar100": 100}


def images(labels: np.ndarray, channels: int, size: int, seed: int) -> np.ndarray:
    """Noise around a coarse pattern of the class, uint8 (n, channels, size, size)."""
    n_classes = labels.max() + 1
    coarse = np.random.default_rng(0).integers(20, 236, (n_classes, channels, 4, 4))
    patterns = np.kron(coarse, np.ones((size // 4, size // 4), int))
    noise = np.random.default_rng(seed).integers(-20, 20, (len(labels), channels, size, size))
    return (patterns[labels] + noise).astype(np.uint8)


def shuffled_labels(n_classes: int, per_class: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(n_classes), per_class))


def write_mnist_files(root: Path, name: str, per_class: int = PER_CLASS) -> np.ndarray:
    """Files of FashionMNIST, KMNIST or another data set in this format of ten classes."""
    folder = root / name / "raw"
    folder.mkdir(parents=True)
    for seed, (part, n_images) in enumerate((("t10k", TESTED), ("train", per_class))):
        labels = shuffled_labels(10, n_images, seed)
        pixels = images(labels, 1, 28, seed)[:, 0]
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(pixels))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels.astype(np.uint8)))
    return labels


def write_cifar100(root: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    files = {"meta": {"fine_label_names": THINGS}}
    for seed, (name, per_class) in enumerate((("test", TESTED), ("train", PER_CLASS))):
        labels = shuffled_labels(100, per_class, seed)
        pixels = images(labels, 3, 32, seed).reshape(len(labels), -1)
        files[name] = {"data": pixels, "fine_labels": labels.tolist()}
    sums = {}
    for name, content in files.items():
        encoded = pickle.dumps(content)
        (folder / name).write_bytes(encoded)
        sums[name] = hashlib.md5(encoded).hexdigest()
    for name in ("train", "test"):
        monkeypatch.setattr(datasets.CIFAR100, f"{name}_list", [[name, sums[name]]])
    monkeypatch.setattr(datasets.CIFAR100, "meta", {**datasets.CIFAR100.meta, "md5": sums["meta"]})
    return labels


@pytest.mark.parametrize(("env", "n_classes"), [("fashion_mnist", 10), ("cifar100", 100)])
def test_a_run_from_files_to_the_table(
    project: Path, monkeypatch: pytest.MonkeyPatch, env: str, n_classes: int
) -> None:
    root = project / "data" / "01_raw"
    if env == "fashion_mnist":
        labels = write_mnist_files(root, "FashionMNIST")
    else:
        labels = write_cifar100(root, monkeypatch)
    path = project / "conf" / env / "globals.yml"
    content = yaml.safe_load(path.read_text())
    assert content["torchvision"]["train"] == {"rows_per_class": [0, ROWS[env]]}
    content["torchvision"]["train"]["rows_per_class"] = [0, LABELED]
    path.write_text(yaml.safe_dump(content))

    run(project, env=env, **SMALL)

    split = catalog_of(project, env).load("class_split")
    assert split == SPLITS[env]
    base, novel = split["base_classes_2"], split["novel_classes_2"]
    metrics = read_metrics(project, "diffusion", env)
    n_background = n_classes * (PER_CLASS - LABELED)
    assert metrics["n_classes"] == n_classes / 2
    assert metrics["n_novel"] == len(novel)
    assert metrics["n_test"] == TESTED * n_classes / 2
    assert metrics["n_nodes"] == LABELED * len(base) + 2 * len(novel) + n_background
    # Classes with a pattern of their own are no riddle, if labels and images go together.
    assert metrics["final"]["top1"] > 3 / metrics["n_classes"]
    assert (project / "data" / env / "08_reporting" / "metrics_table.csv").is_file()
    # What another environment computes lies elsewhere.
    assert {path.name for path in (project / "data").iterdir()} == {"01_raw", env}
    features = project / "data" / env / "04_feature"
    found = read_arrays(features / "train.hdf5")["all_labels"]
    rank = np.array([(labels[:row] == label).sum() for row, label in enumerate(labels)])
    np.testing.assert_array_equal(found, labels[rank < LABELED])
    background = read_arrays(features / "f100m" / "block0.hdf5")
    assert background["all_labels"].tolist() == [0] * n_background


@pytest.mark.parametrize(("env", "n_classes"), [("fashion_mnist", 10), ("cifar100", 100)])
def test_no_class_is_in_two_lists(env: str, n_classes: int) -> None:
    # Without files too: a run over features that are there reads no image.
    split = catalog_of(ROOT, env).load("class_split")
    assert {key: split[key] for key in LISTS} == {key: SPLITS[env][key] for key in LISTS}
    assert sorted(chain.from_iterable(split[key] for key in LISTS)) == [*range(1, n_classes + 1)]


def catalog_of(project: Path, env: str) -> DataCatalog:
    return Project(project, env, {}).catalog({})


def write_environment(project: Path, env: str, **section: Any) -> None:
    """One file."""
    folder = project / "conf" / env
    folder.mkdir()
    (folder / "globals.yml").write_text(yaml.safe_dump({"torchvision": section}))


def test_another_data_set_is_one_file(project: Path) -> None:
    labels = write_mnist_files(project / "data" / "01_raw", "KMNIST")
    page = (ROOT / "docs" / "public_data.md").read_text()
    example = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)[0]
    assert "rows_per_class: [0, 100]" in example
    (project / "conf" / "kmnist").mkdir()
    path = project / "conf" / "kmnist" / "globals.yml"
    path.write_text(example.replace("[0, 100]", f"[0, {LABELED}]"))
    run(project, env="kmnist", **SMALL)

    metrics = read_metrics(project, "combined", "kmnist")
    assert (metrics["n_classes"], metrics["n_novel"], metrics["n_test"]) == (5, 2, 5 * TESTED)
    assert metrics["n_nodes"] == 3 * LABELED + 2 * 2 + 10 * (PER_CLASS - LABELED)
    assert metrics["final"]["top1"] > 3 / 5
    catalog = catalog_of(project, "kmnist")
    # The first class to the base classes of test, the second to those of val, and so on.
    assert catalog.load("class_split") == {
        "base_classes_2": [1, 5, 9],
        "base_classes_1": [2, 6, 10],
        "novel_classes_2": [3, 7],
        "novel_classes_1": [4, 8],
        "label_names": datasets.KMNIST.classes,
    }
    test, background = catalog.load("test_images"), catalog.load("background_images")
    assert (len(test), len(background)) == (10 * TESTED, 10 * (PER_CLASS - LABELED))
    assert catalog.load("train_images").labels.tolist() == [
        label for row, label in enumerate(labels) if (labels[:row] == label).sum() < LABELED
    ]
    assert {path.name for path in (project / "data").iterdir()} == {"01_raw", "kmnist"}


def test_kedro_viz_shows_the_names_of_torchvision(project: Path) -> None:
    write_mnist_files(project / "data" / "01_raw", "KMNIST")
    write_environment(project, "signs", name="KMNIST", train={"rows_per_class": [0, LABELED]})
    catalog = catalog_of(project, "signs")
    rows = dict(catalog["class_split"].preview())["data"]
    assert rows[0] == [0, "o", "", "base"]
    assert [row[1] for row in rows] == datasets.KMNIST.classes
    for name in ("train_images", "test_images", "background_images"):
        assert len(catalog[name].preview()) > 1000


def write_svhn(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root.mkdir(parents=True)
    files = {}
    for seed, (part, per_class) in enumerate((("train", PER_CLASS), ("test", TESTED))):
        labels = shuffled_labels(10, per_class, seed)
        pixels = images(labels, 3, 32, seed).transpose(2, 3, 1, 0)
        path = root / f"{part}_32x32.mat"
        savemat(path, {"X": pixels, "y": np.where(labels == 0, 10, labels)[:, None]})
        md5 = hashlib.md5(path.read_bytes()).hexdigest()
        files[part] = ["http://127.0.0.1:9", path.name, md5]
    monkeypatch.setattr(datasets.SVHN, "split_list", files)


def test_a_data_set_that_calls_its_parts_splits(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_svhn(project / "data" / "01_raw", monkeypatch)
    write_environment(project, "numbers", name="SVHN", train={"rows_per_class": [0, LABELED]})
    catalog = catalog_of(project, "numbers")
    assert len(catalog.load("train_images")) == 10 * LABELED
    assert len(catalog.load("test_images")) == 10 * TESTED
    # It names no classes.
    split = catalog.load("class_split")
    assert split["label_names"] == []
    assert sorted(chain.from_iterable(split[key] for key in LISTS)) == [*range(1, 11)]


def test_arguments_and_rows_of_every_part_can_be_stated(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_svhn(project / "data" / "01_raw", monkeypatch)
    write_environment(
        project,
        "numbers",
        name="SVHN",
        train={"arguments": {"split": "test"}},
        test={"arguments": {"split": "train"}, "rows_per_class": [3, 6]},
        background={"arguments": {"split": "train"}, "rows_per_class": [6, None]},
        class_split={**SPLITS["fashion_mnist"], "label_names": [f"no. {n}" for n in range(10)]},
    )
    catalog = catalog_of(project, "numbers")
    names = ("train_images", "test_images", "background_images")
    counts = [len(catalog.load(name)) for name in names]
    assert counts == [10 * TESTED, 10 * 3, 10 * (PER_CLASS - 6)]
    split = catalog.load("class_split")
    assert (split["novel_classes_2"], split["label_names"][9]) == ([4, 5, 10], "no. 9")
    # Captions, here of features, have these names too.
    assert class_namer(catalog["train_features"]._class_list)(9) == "no. 9"


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("KMNIST", "torchvision: got 'KMNIST', expected a section"),
        (
            {"nmae": "KMNIST"},
            r"torchvision.nmae: unknown parameter \(did you mean torchvision.name\?\)",
        ),
        ({"train": {"rows_per_class": [0, 1]}}, "torchvision.name: got None, expected a class"),
        ({"name": "KMNIST"}, r"train.rows_per_class: got None, expected .* such as \[0, 100\]"),
        (
            {"name": "KMNIST", "train": {"row_per_class": [0, 5]}},
            r"torchvision.train.row_per_class: unknown .*mean torchvision.train.rows_per_class\?\)",
        ),
        (
            {"name": "KMNIST", "train": {"rows_per_class": 5}},
            r"torchvision.train.rows_per_class: got 5, expected \[first, last\]",
        ),
        (
            {
                "name": "KMNIST",
                "train": {"rows_per_class": [0, 5]},
                "background": {"rows_per_class": [4, None]},
            },
            r"background.rows_per_class: got \[4, None\], expected other images than .*\[0, 5\]",
        ),
        (
            {"name": "KMNIST", "train": {"rows_per_class": [0, 5]}, "n_classes": 0},
            "torchvision.n_classes: got 0, expected an integer from 1",
        ),
        (
            {
                "name": "KMNIST",
                "train": {"rows_per_class": [0, 5]},
                "n_classes": 10,
                "class_split": {"base_classes_1": [1]},
            },
            "torchvision.n_classes: got 10 beside class_split, expected one of both",
        ),
        (
            {
                "name": "KMNIST",
                "train": {"rows_per_class": [0, 5]},
                "class_split": {"base_classes": [1]},
            },
            "torchvision.class_split.base_classes: unknown parameter",
        ),
    ],
)
def test_what_is_no_data_set_is_said_in_a_line(project: Path, section: Any, message: str) -> None:
    folder = project / "conf" / "signs"
    folder.mkdir()
    (folder / "globals.yml").write_text(yaml.safe_dump({"torchvision": section}))
    with pytest.raises(UserError, match=rf"^{folder}/globals\.yml: [^\n]*{message}[^\n]*$"):
        run(project, env="signs")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"name": "KMINST"}, r"got 'KMINST', .*did you mean KMNIST"),
        # No file is there, and nothing may be downloaded.
        ({"name": "KMNIST", "download": False}, r"KMNIST/raw, .*let download: true fetch them"),
    ],
)
def test_what_cannot_be_opened_is_said_before_any_work(
    project: Path, section: dict[str, Any], message: str
) -> None:
    write_environment(project, "signs", train={"rows_per_class": [0, LABELED]}, **section)
    with pytest.raises(UserError, match=message):
        run(project, env="signs", **SMALL)
    assert not (project / "data" / "signs").exists()


def test_what_an_environment_says_itself_goes_first(project: Path) -> None:
    write_environment(project, "signs", name="KMNIST", train={"rows_per_class": [0, LABELED]})
    own = {"type": "lowshot_kedro.datasets.FolderImagesDataset", "filepath": "data/others"}
    (project / "conf/signs/catalog.yml").write_text(yaml.safe_dump({"background_images": own}))
    (project / "conf/signs/parameters.yml").write_text("pca: {n_components: 8}")
    catalog = catalog_of(project, "signs")
    assert type(catalog["background_images"]).__name__ == "FolderImagesDataset"
    assert type(catalog["train_images"]).__name__ == "TorchvisionImagesDataset"
    assert catalog.load("params:pca").n_components == 8
    assert catalog.load("params:demonstration").enabled is False
