"""Names of images in several collections."""

import json
from pathlib import Path

import pytest
from PIL import Image

from lowshot_kedro.images import (
    AbsentImages,
    ClassFolders,
    ImageFolder,
    LabeledList,
    NumberedZipShards,
    write_zip_shards,
)
from lowshot_kedro.images.joined import JoinedImages
from tests.images.helpers import flat_jpeg


@pytest.fixture
def folder(tmp_path):
    for name in ("train/cat/1.jpg", "train/dog/a..odd.jpg", "background/a/2.jpg", "3.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(flat_jpeg(1))
    names = ["train/cat/1.jpg", "./3.jpg", "train/../3.jpg", str(tmp_path / "background/a/2.jpg")]
    content = {"image_names": names, "image_labels": [0] * len(names)}
    (tmp_path / "list.json").write_text(json.dumps(content))
    return tmp_path


@pytest.mark.parametrize("base", [None, "", "train", "elsewhere/deep"])
def test_names_of_all_are_those_of_each(folder, base, monkeypatch):
    monkeypatch.chdir(folder)
    sources = [
        ClassFolders("train"),
        LabeledList(folder / "list.json"),
        ImageFolder(folder / "background"),
        ImageFolder(folder),
        AbsentImages(Path("absent")),
    ]
    images = JoinedImages(sources, None if base is None else folder / base)
    names = [*images.files()]
    assert names == [images.file(number) for number in range(len(images))]
    if base is None:
        assert names[:6] == [
            "train/cat/1.jpg", "train/dog/a..odd.jpg", "train/cat/1.jpg", "3.jpg", "3.jpg",
            "background/a/2.jpg",
        ]  # fmt: skip


def test_images_that_are_no_files_of_their_own_have_names_too():
    class Numbers(AbsentImages):
        def __len__(self):
            return 2

    assert [*JoinedImages([Numbers(Path("x"))]).files()] == ["image 0", "image 1"]


def test_images_in_archives_are_called_as_they_are_there(tmp_path):
    write_zip_shards(tmp_path / "shards", (Image.new("RGB", (8, 8)) for _ in range(1002)))
    shards = NumberedZipShards(tmp_path / "shards")
    joined = JoinedImages([shards])
    assert joined.file(0) == "00/000.zip/000.jpg"
    assert [*joined.files()][-1] == "00/001.zip/001.jpg"
