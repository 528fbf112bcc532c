"""What holds for every source: images of every kind, in files that are there or not."""

import json
import os
import pickle
import warnings
from pathlib import Path

import pytest
from torch.utils.data import DataLoader, Dataset

from lowshot_kedro.images import (
    ClassFolders,
    ImageFolder,
    LabeledList,
    NumberedZipShards,
    TorchvisionImages,
)
from tests.images.helpers import BROKEN, READABLE, SIZE, is_blank, open_files, write_shard

CONTENTS = [*READABLE.values(), *BROKEN.values()]


def write_files(folder: Path) -> list[str]:
    """Every kind of image, all of them under names that promise a JPEG."""
    folder.mkdir(parents=True)
    names = [f"{number:03d}.jpg" for number in range(len(CONTENTS))]
    for name, (content, _) in zip(names, CONTENTS, strict=True):
        (folder / name).write_bytes(content)
    return names


def zip_shards(folder: Path):
    contents = {f"{number:03d}.jpg": content for number, (content, _) in enumerate(CONTENTS)}
    write_shard(folder, "12", "345", contents)
    return NumberedZipShards(folder, 12_345_000), "12/345.zip/"


def labeled_list(folder: Path):
    names = write_files(folder / "images")
    content = {"image_names": names, "image_labels": [0] * len(names)}
    (folder / "train.json").write_text(json.dumps(content))
    return LabeledList(folder / "train.json", "images"), ""


def class_folders(folder: Path):
    write_files(folder / "cat")
    return ClassFolders(folder), "cat/"


def folder_of_images(folder: Path):
    write_files(folder / "any" / "depth")
    return ImageFolder(folder), "any/depth/"


def image_folder(folder: Path):
    write_files(folder / "cat")
    return TorchvisionImages("ImageFolder", folder), "cat/"


SOURCES = [zip_shards, labeled_list, class_folders, folder_of_images, image_folder]


@pytest.fixture(params=SOURCES, ids=lambda make: make.__name__)
def made(request, tmp_path):
    return request.param(tmp_path / "source")


def check(images, folder: str) -> None:
    for number, ((content, expected), image) in enumerate(zip(CONTENTS, images, strict=True)):
        assert image.label == 0
        if content in [content for content, _ in READABLE.values()]:
            assert image.problem is None
            assert (image.image.mode, image.image.size) == ("RGB", SIZE)
            assert image.image.getpixel((15, 10)) == pytest.approx(expected, abs=3)
        else:
            assert is_blank(image)
            assert image.problem.startswith(f"{folder}{number:03d}.jpg: ")
            assert expected in image.problem
            assert os.sep + "source" not in image.problem


def test_images_of_every_kind_are_decoded_or_blank_with_a_reason(made, tmp_path):
    source, folder = made
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check([source[number] for number in range(len(source))], folder)
    assert [path for path in open_files(tmp_path) if not path.endswith(".zip")] == []


class Whole(Dataset):
    """A source whose images are sent back as they are."""

    def __init__(self, source):
        self.source = source

    def __len__(self):
        return len(self.source)

    def __getitem__(self, number):
        return self.source[number]


@pytest.mark.parametrize("make", [zip_shards, image_folder], ids=["zip shards", "image folder"])
def test_workers_see_the_same(make, tmp_path):
    source, folder = make(tmp_path / "source")
    source[0]
    loader = DataLoader(
        Whole(source), 8, num_workers=2, multiprocessing_context="fork", collate_fn=list
    )
    check([image for batch in loader for image in batch], folder)


def test_a_sent_source_is_the_same(made):
    source, folder = made
    description = source.describe()
    copy = pickle.loads(pickle.dumps(source))
    check([copy[number] for number in range(len(copy))], folder)
    assert copy.describe() == description
    assert copy.labels.tolist() == source.labels.tolist() == [0] * len(CONTENTS)


def test_the_description_is_plain_json_without_a_path(made, tmp_path):
    source, _ = made
    text = json.dumps(source.describe())
    assert str(tmp_path) not in text
    assert source.describe()["n_pictures"] == len(CONTENTS)


@pytest.mark.parametrize("number", [len(CONTENTS), -len(CONTENTS) - 1])
def test_a_number_outside_the_source(made, number):
    source, _ = made
    with pytest.raises(IndexError, match=f"image {number} of {len(CONTENTS)}"):
        source[number]
    assert source[-len(CONTENTS)].problem is None
