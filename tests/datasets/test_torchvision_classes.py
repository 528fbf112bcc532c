"""The class split of a torchvision data set: stated, or classes dealt in turn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision import datasets

from lowshot_kedro.datasets import TorchvisionClassSplitDataset
from lowshot_kedro.errors import InputError
from lowshot_kedro.protocol import read_class_split
from tests.datasets.helpers import refused, refused_by_check_and_load
from tests.images.test_torchvision_dataset import flat_images, idx

STATED = {
    "base_classes_1": [3],
    "novel_classes_1": [1],
    "base_classes_2": [1],
    "novel_classes_2": [2],
}


def split_of(root: Path, name: str = "KMNIST", **arguments: Any) -> TorchvisionClassSplitDataset:
    return TorchvisionClassSplitDataset(filepath=str(root), name=name, **arguments)


def write_kmnist(root: Path, labels: list[int]) -> None:
    folder = root / "KMNIST" / "raw"
    folder.mkdir(parents=True)
    (folder / "train-images-idx3-ubyte").write_bytes(idx(flat_images(labels)))
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(np.array(labels, dtype=np.uint8)))
    for what, array in (("images-idx3", flat_images([1])), ("labels-idx1", np.zeros(1, "u1"))):
        (folder / f"t10k-{what}-ubyte").write_bytes(idx(array))


def test_a_stated_split_needs_no_files(tmp_path: Path) -> None:
    content = split_of(tmp_path, class_split=STATED).load()
    assert content == {**STATED, "label_names": datasets.KMNIST.classes}
    assert read_class_split(content, "val").class_names == tuple(datasets.KMNIST.classes)
    named = {**STATED, "label_names": ["a", "b", "c"]}
    assert split_of(tmp_path, class_split=named).load() == named
    # Names that are in the files are left out.
    content = split_of(tmp_path, "CIFAR100", class_split=STATED).load()
    assert content == {**STATED, "label_names": []}
    assert read_class_split(content, "test").novel_classes.tolist() == [1]


@pytest.mark.parametrize(
    ("n_classes", "expected"),
    [
        (4, ([1], [2], [3], [4])),
        (10, ([1, 5, 9], [2, 6, 10], [3, 7], [4, 8])),
    ],
)
def test_classes_are_dealt_in_turn(
    tmp_path: Path, n_classes: int, expected: tuple[list[int], ...]
) -> None:
    content = split_of(tmp_path, n_classes=n_classes).load()
    dealt = ("base_classes_2", "base_classes_1", "novel_classes_2", "novel_classes_1")
    assert tuple(content[key] for key in dealt) == expected


def test_classes_that_have_no_image_are_not_dealt(tmp_path: Path) -> None:
    write_kmnist(tmp_path, [9, 1, 2, 9, 5, 5, 7])
    dataset = split_of(tmp_path)
    dataset.check()
    assert dataset.load() == {
        "base_classes_2": [2, 10],
        "base_classes_1": [3],
        "novel_classes_2": [6],
        "novel_classes_1": [8],
        "label_names": datasets.KMNIST.classes,
    }


def test_too_few_classes(tmp_path: Path) -> None:
    message = "expected at least 4, or a class_split that states the classes"
    write_kmnist(tmp_path, [0, 1, 1, 2])
    for dataset in (split_of(tmp_path), split_of(tmp_path, n_classes=3)):
        refused_by_check_and_load(dataset, ValueError, "got 3 classes to divide", message)


def test_files_that_are_needed_and_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused_by_check_and_load(split_of(tmp_path), FileNotFoundError, "KMNIST", "download: true")
    asked: list[object] = []
    monkeypatch.setattr("torchvision.datasets.KMNIST.download", lambda self: asked.append(self))
    dataset = split_of(tmp_path, download=True)
    with pytest.raises(FileNotFoundError):
        dataset.preview()
    assert asked == []
    with pytest.raises(InputError, match="download failed"):
        dataset.check()
    assert len(asked) == 1


def test_nobody_writes_it(tmp_path: Path) -> None:
    dataset = split_of(tmp_path, class_split=STATED)
    assert dataset.exists() and dataset.files_in_use() == []
    with refused(ValueError, tmp_path, "never written"):
        dataset.save(STATED)


def test_kedro_viz_shows_the_role_of_every_class(tmp_path: Path) -> None:
    table = dict(split_of(tmp_path, n_classes=5).preview())
    assert table["columns"] == ["label", "class", "mode val", "mode test"]
    assert table["data"] == [
        [0, "o", "", "base"],
        [1, "ki", "base", ""],
        [2, "su", "", "novel"],
        [3, "tsu", "novel", ""],
        [4, "na", "", "base"],
    ]
