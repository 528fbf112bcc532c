"""The environments of torchvision's data sets, on small files in their formats."""

from __future__ import annotations

import hashlib
import json
import pickle
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from torchvision import datasets

from tests.images.test_torchvision_dataset import idx
from tests.projects import ROOT, read_arrays, read_metrics, run

# Enough background for the components, and the labels of torchvision's own order.
SMALL: dict[str, Any] = {
    "features": {"image_size": 32, "num_workers": 0},
    "pca": {"n_components": 16},
    "graph": {"k": 5},
    "logistic_regression": {"max_iterations": 50},
}
PER_CLASS, LABELED, TESTED = 10, 4, 2


def images(labels: np.ndarray, channels: int, size: int, seed: int) -> np.ndarray:
    """Noise around a coarse pattern of the class, uint8 (n, channels, size, size)."""
    n_classes = labels.max() + 1
    coarse = np.random.default_rng(0).integers(20, 236, (n_classes, channels, 4, 4))
    patterns = np.kron(coarse, np.ones((size // 4, size // 4), int))
    noise = np.random.default_rng(seed).integers(-20, 20, (len(labels), channels, size, size))
    return (patterns[labels] + noise).astype(np.uint8)


def shuffled_labels(n_classes: int, per_class: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(n_classes), per_class))


def write_fashion_mnist(root: Path) -> np.ndarray:
    folder = root / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for seed, (name, per_class) in enumerate((("t10k", TESTED), ("train", PER_CLASS))):
        labels = shuffled_labels(10, per_class, seed)
        pixels = images(labels, 1, 28, seed)[:, 0]
        (folder / f"{name}-images-idx3-ubyte").write_bytes(idx(pixels))
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(idx(labels.astype(np.uint8)))
    return labels


def write_cifar100(root: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    names = json.loads((ROOT / "conf/cifar100/class_split.json").read_text())["label_names"]
    files = {"meta": {"fine_label_names": names}}
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
    labels = (
        write_fashion_mnist(root) if env == "fashion_mnist" else write_cifar100(root, monkeypatch)
    )
    path = project / "conf" / env / "catalog.yml"
    catalog = yaml.safe_load(path.read_text())
    real = {name: entry.get("rows_per_class") for name, entry in catalog.items()}
    assert real["train_images"][1] == real["background_images"][0]
    catalog["train_images"]["rows_per_class"] = [0, LABELED]
    catalog["background_images"]["rows_per_class"] = [LABELED, None]
    path.write_text(yaml.safe_dump(catalog))

    run(project, env=env, **SMALL)

    split = json.loads((project / "conf" / env / "class_split.json").read_text())
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
    split = json.loads((ROOT / "conf" / env / "class_split.json").read_text())
    lists = [split[f"{kind}_classes_{mode}"] for kind in ("base", "novel") for mode in (1, 2)]
    assert sorted(chain.from_iterable(lists)) == list(range(1, n_classes + 1))
    assert len(split["label_names"]) == n_classes


def test_the_names_are_those_of_torchvision() -> None:
    split = json.loads((ROOT / "conf/fashion_mnist/class_split.json").read_text())
    assert split["label_names"] == datasets.FashionMNIST.classes
