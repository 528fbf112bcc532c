import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from lowshot_kedro.datasets import LabeledImagesDataset, ZipShardImagesDataset
from lowshot_kedro.images import AbsentPictures
from tests.datasets.helpers import refused, refused_by_check_and_load


def gray(value):
    return Image.new("L", (16, 16), value)


def test_zip_shards_are_written_as_published(tmp_path):
    folder = tmp_path / "yfcc100m"
    dataset = ZipShardImagesDataset(filepath=str(folder))
    dataset.save(gray(number % 200) for number in range(1003))
    written = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert written == {"00/000.zip", "00/001.zip"}
    with zipfile.ZipFile(folder / "00/001.zip") as archive:
        assert archive.namelist() == ["000.jpg", "001.jpg", "002.jpg"]
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        picture = Image.open(io.BytesIO(archive.read("002.jpg")))
        assert picture.format == "JPEG"
        assert abs(picture.convert("L").getpixel((8, 8)) - 1002 % 200) <= 2
    source = dataset.load()
    assert len(source) == 1003
    assert abs(source[1001].image.getpixel((8, 8))[0] - 1001 % 200) <= 2


def test_the_same_pictures_make_the_same_zip_files(tmp_path):
    for name in ("a", "b"):
        ZipShardImagesDataset(filepath=str(tmp_path / name)).save([gray(1), gray(2)])
    assert (tmp_path / "a/00/000.zip").read_bytes() == (tmp_path / "b/00/000.zip").read_bytes()


def test_i0_and_i1_choose_a_range(tmp_path):
    ZipShardImagesDataset(filepath=str(tmp_path / "all")).save(gray(20 * n) for n in range(10))
    source = ZipShardImagesDataset(filepath=str(tmp_path / "all"), i0=3, i1=5).load()
    assert len(source) == 2
    assert [picture.image.getpixel((0, 0))[0] for picture in source] == pytest.approx(
        [60, 80], abs=2
    )
    with refused(ValueError, tmp_path, "5..3", "i0 ≤ i1"):
        ZipShardImagesDataset(filepath=str(tmp_path), i0=5, i1=3).load()


def test_no_pictures_do_not_destroy_an_older_collection(tmp_path):
    dataset = ZipShardImagesDataset(filepath=str(tmp_path / "yfcc100m"))
    dataset.save([gray(1)])
    with refused(ValueError, tmp_path):
        dataset.save([])
    assert len(dataset.load()) == 1


def test_a_missing_folder_of_zip_shards(tmp_path):
    dataset = ZipShardImagesDataset(filepath=str(tmp_path / "absent"))
    assert not dataset.exists()
    refused_by_check_and_load(dataset, FileNotFoundError, tmp_path / "absent")


def test_a_last_zip_file_that_cannot_be_read(tmp_path):
    path = tmp_path / "00/000.zip"
    path.parent.mkdir()
    path.write_bytes(b"no zip")
    dataset = ZipShardImagesDataset(filepath=str(tmp_path))
    refused_by_check_and_load(dataset, ValueError, path)


@pytest.mark.parametrize("dataset_class", [ZipShardImagesDataset, LabeledImagesDataset])
def test_an_optional_collection_may_be_absent(tmp_path, dataset_class):
    dataset = dataset_class(filepath=str(tmp_path / "absent"), optional=True)
    dataset.check()
    assert dataset.exists()
    assert isinstance(dataset.load(), AbsentPictures)


def test_a_labelled_list_is_written_as_published(tmp_path):
    path = tmp_path / "new folder" / "train.json"
    dataset = LabeledImagesDataset(filepath=str(path), root="train")
    dataset.save([(gray(10), 3), (gray(20), np.int64(0))])
    content = json.loads(path.read_text())
    assert content == {"image_names": ["000000.png", "000001.png"], "image_labels": [3, 0]}
    for name, value in zip(content["image_names"], (10, 20), strict=True):
        assert Image.open(path.parent / "train" / name).getpixel((0, 0)) == value
    source = dataset.load()
    assert [(p.image.getpixel((0, 0)), p.label) for p in source] == [
        ((10, 10, 10), 3),
        ((20, 20, 20), 0),
    ]


def test_a_shorter_labelled_list_replaces_a_longer_one(tmp_path):
    dataset = LabeledImagesDataset(filepath=str(tmp_path / "train.json"), root="train")
    dataset.save([(gray(10), 0)] * 3)
    dataset.save([(gray(20), 1)])
    assert [path.name for path in (tmp_path / "train").iterdir()] == ["000000.png"]
    assert dataset.load()[0].image.getpixel((0, 0)) == (20, 20, 20)


def test_saving_a_list_beside_other_files_leaves_them_alone(tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("precious")
    with refused(ValueError, tmp_path / "train.json", "root is '.'", "a folder below"):
        LabeledImagesDataset(filepath=str(tmp_path / "train.json")).save([(gray(10), 0)])
    assert other.exists()


def test_a_missing_labelled_list(tmp_path):
    path = tmp_path / "absent.json"
    dataset = LabeledImagesDataset(filepath=str(path))
    assert not dataset.exists()
    refused_by_check_and_load(dataset, FileNotFoundError, path)
