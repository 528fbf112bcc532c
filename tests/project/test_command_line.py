"""The command `lowshot`, as it is typed in the repository; test_package.py types it without."""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from kedro.framework.startup import bootstrap_project
from PIL import Image

from lowshot_kedro.datasets import HDF5FeaturesDataset
from lowshot_kedro.networks import create_extractor
from lowshot_kedro.project.command_line import main
from tests.projects import ROOT
from tests.snca.original import original_code, save


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_new_project_has_settings_and_folders_and_says_no_to_telemetry(tmp_path, capsys):
    folder = tmp_path / "my project"
    assert main(["new", str(folder)]) == 0
    found = files_in(folder)
    shared = {
        name: content
        for name, content in files_in(ROOT / "conf").items()
        if not name.startswith("local/")
    }
    assert {
        name.removeprefix("conf/"): content
        for name, content in found.items()
        if name.startswith("conf/")
    } == {**shared, "local/.gitkeep": b""}
    layers = [path.name for path in (ROOT / "data").iterdir() if (path / ".gitkeep").is_file()]
    assert sorted(path.name for path in (folder / "data").iterdir()) == sorted(layers)
    assert yaml.safe_load(found[".telemetry"]) == {"consent": False}
    assert {".gitignore", "README.md", "src/.gitkeep", "docs/own_images.md"} <= set(found)
    assert "notebooks/explore_catalog.ipynb" in found
    *_, last = capsys.readouterr().out.splitlines()
    assert last.startswith(f"Next:  cd '{folder}' && ") and last.endswith("kedro run")
    metadata = bootstrap_project(folder)
    assert (metadata.package_name, metadata.source_dir) == ("lowshot_kedro", folder / "src")
    sys.path.remove(str(folder / "src"))


def test_the_git_of_a_new_project_keeps_what_the_repositorys_does(tmp_path):
    main(["new", str(tmp_path)])

    def kept(folder):
        lines = (folder / ".gitignore").read_text().splitlines()
        return {line for line in lines if line.lstrip("!").startswith(("/data", "/conf"))}

    assert kept(tmp_path) == kept(ROOT)


@pytest.mark.parametrize(("name", "found"), [("settings.yml", "is a file"), (".", "is not empty")])
def test_what_is_there_is_left_alone(tmp_path, capsys, name, found):
    (tmp_path / "settings.yml").write_text("a: 1\n")
    folder = tmp_path / name
    assert main(["new", str(folder)]) == 1
    assert capsys.readouterr().err == (
        f"lowshot new: {folder}: {found}; expected a folder that is new or empty\n"
    )
    assert files_in(tmp_path) == {"settings.yml": b"a: 1\n"}


def test_whoever_has_no_kedro_is_told_first(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "kedro_datasets", None)
    assert main(["new", str(tmp_path / "project")]) == 0
    assert capsys.readouterr().out.splitlines()[1] == (
        "First: the pipelines: needs kedro_datasets, which is not installed; "
        'type: pip install "lowshot-kedro[kedro]"'
    )


def test_downloading_is_the_command_it_was(capsys, monkeypatch):
    monkeypatch.delenv("DDIR", raising=False)
    assert main(["download", "--list"]) == 1
    assert capsys.readouterr().err.startswith("lowshot download: no folder: expected --folder")
    with pytest.raises(SystemExit):
        main(["download", "--help"])
    assert "usage: lowshot download" in capsys.readouterr().out


def test_without_a_command_there_is_a_list_of_them(capsys):
    with pytest.raises(SystemExit):
        main([])
    assert "{new,label,convert-snca,download}" in capsys.readouterr().err


CLASSES = {"ant": 3, "bee": 2}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A folder with a checkpoint of the original, its images in folders and the same in a list."""
    folder = tmp_path_factory.mktemp("original")
    with original_code(folder / "code") as code, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        network = code.cifar.ResNet(code.cifar.BasicBlock, (2, 2, 2, 2), 8)
        bank = code.LinearAverage(8, sum(CLASSES.values()))
        bank.memory[:3, :4] = bank.memory[3:, 4:] = 0
        save(
            {"net": network, "lemniscate": bank, "acc": 0.5, "epoch": 3}, folder / "ckpt.t7", "2018"
        )
        np.save(folder / "bank.npy", bank.memory.numpy())
    names, labels = [], []
    for label, (class_name, n_images) in enumerate(CLASSES.items()):
        (folder / "train" / class_name).mkdir(parents=True)
        for number in range(n_images):
            names.append(f"train/{class_name}/{number}.png")
            labels.append(label)
            Image.new("RGB", (4, 4)).save(folder / names[-1])
    content = {"image_names": names, "image_labels": labels}
    (folder / "train.json").write_text(json.dumps(content))
    (folder / "fewer.json").write_text(
        json.dumps({"image_names": names[1:], "image_labels": labels[1:]})
    )
    return folder


@pytest.mark.parametrize("images", ["train", "train.json"])
def test_a_checkpoint_of_the_original_becomes_a_network_and_features(
    original, tmp_path, capsys, images
):
    network, bank = tmp_path / "network.safetensors", tmp_path / "bank.hdf5"
    arguments = ["convert-snca", str(original / "ckpt.t7"), "--network", str(network)]
    assert main([*arguments, "--images", str(original / images), "--bank", str(bank)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{bank}: the bank of 5 images",
        f"{network}: cifar_resnet18, 8 numbers for an image",
    ]
    rows = HDF5FeaturesDataset(filepath=str(bank)).load()
    assert np.array_equal(rows.read(0, 5), np.load(original / "bank.npy"))
    assert rows.labels.tolist() == [0, 0, 0, 1, 1]
    assert create_extractor("snca", str(network), None).dimension == 8


def test_the_network_alone_is_converted_and_images_may_be_compared(original, tmp_path):
    network = tmp_path / "network.safetensors"
    arguments = ["convert-snca", str(original / "ckpt.t7"), "--network", str(network)]
    assert main(arguments) == 0
    first = network.read_bytes()
    assert main([*arguments, "--images", str(original / "train")]) == 0
    assert network.read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == ["network.safetensors"]


@pytest.mark.parametrize(
    ("checkpoint", "options", "message"),
    [
        ("ckpt.t7", {"bank": "b.hdf5"}, "says of no row of its bank which class it is of"),
        (
            "ckpt.t7",
            {"bank": "b.hdf5", "images": "fewer.json"},
            "its bank has 5 rows but LabeledList(",
        ),
        ("ckpt.t7", {"images": "fewer.json"}, "images; expected the images that it was made from"),
        ("ckpt.t7", {"images": "absent"}, "absent: no such file"),
        ("ckpt.t7", {"bank": "b.raw"}, "--bank: got "),
        ("ckpt.t7", {"network": "n.pt"}, "n.pt, expected a name that ends in .safetensors"),
        ("absent", {}, "absent: no such file"),
        ("train.json", {}, "cannot read "),
        ("train", {}, "is a folder, expected a file"),
    ],
)
def test_a_checkpoint_that_cannot_be_converted_is_refused_in_one_line(
    original, tmp_path, capsys, checkpoint, options, message
):
    folders = {"images": original, "bank": tmp_path, "network": tmp_path}
    arguments = ["convert-snca", str(original / checkpoint)]
    for name, value in {"network": "n.safetensors", **options}.items():
        arguments += [f"--{name}", str(folders[name] / value)]
    assert main(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lowshot convert-snca: ") and message in line
    assert "weights:" not in line
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*arguments: object, **parameters: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lowshot_kedro.project.command_line.label_folder", stopped)
    assert main(["label", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "lowshot label: stopped; type it again to go on\n"
