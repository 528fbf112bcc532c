import inspect
import io
import json
import zipfile
from functools import partial

import numpy as np
import pytest
from kedro.io import DataCatalog
from PIL import Image, ImageDraw

from lowshot_kedro.datasets import (
    ClassFolderImagesDataset,
    FolderImagesDataset,
    LabeledImagesDataset,
    TorchvisionImagesDataset,
    ZipShardImagesDataset,
)
from lowshot_kedro.images import AbsentImages
from tests.datasets.helpers import refused, refused_by_check_and_load
from tests.datasets.test_previews import centre_of_place, image_of, pretty
from tests.images.test_torchvision_dataset import MNIST_FILES, raw_folder, values


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
        image = Image.open(io.BytesIO(archive.read("002.jpg")))
        assert image.format == "JPEG"
        assert abs(image.convert("L").getpixel((8, 8)) - 1002 % 200) <= 2
    source = dataset.load()
    assert len(source) == 1003
    assert abs(source[1001].image.getpixel((8, 8))[0] - 1001 % 200) <= 2


def test_the_same_images_make_the_same_zip_files(tmp_path):
    for name in ("a", "b"):
        ZipShardImagesDataset(filepath=str(tmp_path / name)).save([gray(1), gray(2)])
    assert (tmp_path / "a/00/000.zip").read_bytes() == (tmp_path / "b/00/000.zip").read_bytes()


def test_i0_and_i1_choose_a_range(tmp_path):
    ZipShardImagesDataset(filepath=str(tmp_path / "all")).save(gray(20 * n) for n in range(10))
    source = ZipShardImagesDataset(filepath=str(tmp_path / "all"), i0=3, i1=5).load()
    assert len(source) == 2
    assert [image.image.getpixel((0, 0))[0] for image in source] == pytest.approx([60, 80], abs=2)
    with refused(ValueError, tmp_path, "i0: got 5, which leaves images 5..3; expected at most 3"):
        ZipShardImagesDataset(filepath=str(tmp_path), i0=5, i1=3).load()


def test_a_list_chooses_among_zip_shards(tmp_path, monkeypatch):
    folder = tmp_path / "all"
    ZipShardImagesDataset(filepath=str(folder)).save(gray(20 * n) for n in range(10))
    np.save(tmp_path / "ids.npy", np.array([7, 2, 5]))
    monkeypatch.chdir(tmp_path)
    dataset = ZipShardImagesDataset(filepath=str(folder), i1=2, ids="ids.npy")
    # A worker may work elsewhere.
    monkeypatch.chdir("/")
    dataset.check()
    assert dataset.count_images() == 2
    found = [image.image.getpixel((0, 0))[0] for image in dataset.load()]
    assert found == pytest.approx([140, 40], abs=2)
    assert image_of(dataset.preview()).getpixel(centre_of_place(0))[0] == pytest.approx(140, abs=2)
    with refused(ValueError, folder, "never written"):
        dataset.save([gray(1)])
    too_many = ZipShardImagesDataset(filepath=str(folder), i1=4, ids=str(tmp_path / "ids.npy"))
    refused_by_check_and_load(too_many, ValueError, "ids.npy: i1: got 4, expected an integer")
    absent = ZipShardImagesDataset(filepath=str(folder), ids=str(tmp_path / "absent.npy"))
    refused_by_check_and_load(absent, FileNotFoundError, "absent.npy: no such file")


def test_no_images_do_not_destroy_an_older_collection(tmp_path):
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


@pytest.mark.parametrize(
    "dataset_class",
    [
        ZipShardImagesDataset,
        LabeledImagesDataset,
        ClassFolderImagesDataset,
        FolderImagesDataset,
    ],
)
def test_an_optional_collection_may_be_absent(tmp_path, dataset_class):
    dataset = dataset_class(filepath=str(tmp_path / "absent"), optional=True)
    dataset.check()
    assert dataset.exists()
    assert isinstance(dataset.load(), AbsentImages)


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


def write_images(root, **images):
    """Flat images by class and brightness: cat=[10, 20] makes cat/10.png and cat/20.png."""
    for folder, brightnesses in images.items():
        (root / folder).mkdir(parents=True)
        for brightness in brightnesses:
            gray(brightness).save(root / folder / f"{brightness}.png")
    return root


def shown(source):
    return [(image.image.getpixel((3, 3))[0], image.label) for image in source]


def test_a_folder_for_every_class(tmp_path):
    root = write_images(tmp_path / "train", dog=[10, 20], cat=[30])
    dataset = ClassFolderImagesDataset(filepath=str(root))
    assert dataset.exists()
    dataset.check()
    assert shown(dataset.load()) == [(30, 0), (10, 1), (20, 1)]


CSV, JSON = "class,role\ndog,novel\ncat,base\n", json.dumps({"label_names": ["dog", "cat"]})


@pytest.mark.parametrize("name, content", [("classes.csv", CSV), ("label_idx.json", JSON)])
@pytest.mark.parametrize("absolute", [True, False])
def test_a_class_list_orders_the_classes(tmp_path, monkeypatch, name, content, absolute):
    monkeypatch.chdir(tmp_path)
    root = write_images(tmp_path / "train", dog=[10, 20], cat=[30], bird=[40])
    path = tmp_path / name
    path.write_text(content)
    class_list = str(path) if absolute else name
    dataset = ClassFolderImagesDataset(filepath=str(root), class_list=class_list)
    assert shown(dataset.load()) == [(10, 0), (20, 0), (30, 1)]
    assert dataset._describe() == {
        "filepath": str(root),
        "class_list": str(path),
        "every_class": True,
    }
    path.unlink()
    refused_by_check_and_load(dataset, FileNotFoundError, path)


def test_a_class_of_the_list_without_a_folder(tmp_path):
    root = write_images(tmp_path / "train", dog=[10])
    (tmp_path / "classes.csv").write_text(CSV)
    class_list = str(tmp_path / "classes.csv")
    dataset = ClassFolderImagesDataset(filepath=str(root), class_list=class_list)
    refused_by_check_and_load(dataset, ValueError, root, "no folder for class cat", "found dog")


def test_all_images_of_a_folder(tmp_path):
    root = write_images(tmp_path / "background", b=[10, 20], a=[30])
    dataset = FolderImagesDataset(filepath=str(root))
    assert shown(dataset.load()) == [(30, 0), (10, 0), (20, 0)]


@pytest.mark.parametrize("dataset_class", [ClassFolderImagesDataset, FolderImagesDataset])
def test_a_folder_of_images_that_is_not_there_or_empty(tmp_path, dataset_class):
    dataset = dataset_class(filepath=str(tmp_path / "absent"))
    assert not dataset.exists()
    refused_by_check_and_load(dataset, FileNotFoundError, tmp_path / "absent")
    refused_by_check_and_load(
        dataset_class(filepath=str(tmp_path)), ValueError, tmp_path, "expected"
    )


@pytest.fixture
def fashion(tmp_path, monkeypatch):
    """A dataset with the settings given; its files are there, and there is no network."""
    monkeypatch.setattr("torchvision.datasets.FashionMNIST.mirrors", ["http://127.0.0.1:9/"])
    monkeypatch.setenv("no_proxy", "*")
    for name, content in MNIST_FILES.items():
        (raw_folder(tmp_path) / name).write_bytes(content)

    def make(**settings):
        return TorchvisionImagesDataset(filepath=str(tmp_path), name="FashionMNIST", **settings)

    return make


def test_torchvision_images(fashion):
    assert values(fashion().load()) == [10 * number for number in range(9)]
    assert values(fashion(arguments={"train": False}).load()) == [200, 200]
    background = fashion(rows_per_class=[2, None], labeled=False)
    assert shown(background.load()) == [(50, 0), (60, 0), (80, 0)]
    assert fashion().exists()
    assert fashion()._describe()["rows_per_class"] == (0, None)


def test_torchvision_files_that_are_not_there(fashion, tmp_path, monkeypatch):
    for name in MNIST_FILES:
        (raw_folder(tmp_path) / name).unlink()
    refused_by_check_and_load(fashion(), FileNotFoundError, raw_folder(tmp_path), "download: true")
    dataset = fashion(download=True)
    refused_by_check_and_load(dataset, ValueError, raw_folder(tmp_path), "download failed")
    asked = []
    monkeypatch.setattr("torchvision.datasets.FashionMNIST.download", lambda self: asked.append(1))
    for text in (pretty(dataset), dataset._repr_html_()):
        assert "not there yet" in text
    with pytest.raises(FileNotFoundError):
        dataset.preview()
    assert asked == []


def test_a_class_list_is_relative_to_the_project_wherever_one_works(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text("[tool.kedro]\n")
    (tmp_path / "notebooks").mkdir()
    root = write_images(tmp_path / "data" / "train", dog=[10], cat=[30])
    (tmp_path / "data" / "classes.csv").write_text(CSV)
    monkeypatch.chdir(tmp_path / "notebooks")
    dataset = ClassFolderImagesDataset(filepath=str(root), class_list="data/classes.csv")
    assert shown(dataset.load()) == [(10, 0), (30, 1)]


def read_only(tmp_path):
    return [
        ClassFolderImagesDataset(filepath=str(tmp_path)),
        FolderImagesDataset(filepath=str(tmp_path)),
        TorchvisionImagesDataset(filepath=str(tmp_path), name="FashionMNIST"),
    ]


def test_what_others_have_put_there_is_never_written(tmp_path):
    (tmp_path / "a.txt").write_text("precious")
    for dataset in read_only(tmp_path):
        with refused(ValueError, tmp_path, type(dataset).__name__, "never written"):
            dataset.save([gray(1)])
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_the_first_images_are_shown(fashion, tmp_path):
    root = write_images(tmp_path / "train", cat=[30, 40])
    datasets = [
        ClassFolderImagesDataset(filepath=str(root)),
        FolderImagesDataset(filepath=str(root)),
        fashion(rows_per_class=[1, None]),
    ]
    for dataset, brightness in zip(datasets, (30, 30, 20), strict=True):
        sheet = image_of(dataset.preview())
        assert (sheet.format, sheet.getpixel((48, 48))) == ("PNG", (brightness,) * 3)
        assert f"{len(dataset.load())} images" in pretty(dataset)
        assert "data:image/png;base64," in dataset._repr_html_()
        assert inspect.signature(dataset.preview).return_annotation == "ImagePreview"


def test_a_catalog_makes_them(fashion, tmp_path):
    write_images(tmp_path / "train", cat=[30])
    catalog = DataCatalog.from_config(
        {
            "train_images": {
                "type": "lowshot_kedro.datasets.ClassFolderImagesDataset",
                "filepath": str(tmp_path / "train"),
                "metadata": {"kedro-viz": {"layer": "raw"}},
            },
            "test_images": {
                "type": "lowshot_kedro.datasets.TorchvisionImagesDataset",
                "filepath": str(tmp_path),
                "name": "FashionMNIST",
                "arguments": {"train": False},
            },
            "background_images": {
                "type": "lowshot_kedro.datasets.FolderImagesDataset",
                "filepath": str(tmp_path / "train"),
            },
        }
    )
    assert [len(catalog.load(name)) for name in catalog] == [1, 2, 1]
    assert catalog["train_images"].metadata == {"kedro-viz": {"layer": "raw"}}


def test_a_broken_image_is_marked_on_the_contact_sheet(tmp_path):
    root = write_images(tmp_path / "train", cat=[30, 40])
    (root / "cat" / "30.png").write_bytes(b"")
    blank = FolderImagesDataset(filepath=str(root))
    sheet = image_of(blank.preview())
    assert sheet.getpixel(centre_of_place(0)) == (0, 0, 0)
    assert sheet.getpixel(centre_of_place(1)) == (40, 40, 40)


def written_below(dataset, monkeypatch):
    """The captions of a preview."""
    texts = []
    write = ImageDraw.ImageDraw.text

    def text(self, position, words, *args, **kwargs):
        texts.append(words)
        return write(self, position, words, *args, **kwargs)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    dataset.preview()
    title, *captions = texts
    assert title.startswith(f"{len(dataset.load())} images")
    return captions


def test_captions_name_classes_where_they_are_known(tmp_path, monkeypatch):
    write_images(tmp_path / "train", horse=[1, 2], cat=[3])
    folders = ClassFolderImagesDataset(filepath=str(tmp_path / "train"))
    assert written_below(folders, monkeypatch) == ["0: cat", "1: horse", "2: horse"]
    (tmp_path / "train.json").write_text(
        json.dumps({"image_names": ["cat/3.png", "horse/1.png"], "image_labels": [1, 7]})
    )
    (tmp_path / "split.json").write_text(json.dumps({"label_names": ["dog", "cat"]}))
    listed = partial(LabeledImagesDataset, filepath=str(tmp_path / "train.json"), root="train")
    named = listed(class_list=str(tmp_path / "split.json"))
    # A label without a name, and no list of names.
    assert written_below(named, monkeypatch) == ["0: cat", "1: 7"]
    for class_list in (None, str(tmp_path / "absent.json"), str(tmp_path / "train.json")):
        dataset = listed(class_list=class_list)
        assert written_below(dataset, monkeypatch) == ["0: 1", "1: 7"]


def test_captions_of_torchvision_images_have_its_names(fashion, monkeypatch):
    assert written_below(fashion(part="test"), monkeypatch) == ["0: Pullover", "1: T-shirt/top"]
    assert written_below(fashion(part="test", labeled=False), monkeypatch) == ["0", "1"]


def test_captions_of_torchvision_images_have_the_names_that_are_given(
    fashion, monkeypatch, tmp_path
):
    source = {"name": "KMNIST", "filepath": str(tmp_path)}
    captions = written_below(fashion(part="test", class_list=source), monkeypatch)
    assert captions == ["0: su", "1: o"]
    given = {**source, "label_names": ["a", "b"]}
    captions = written_below(fashion(part="test", class_list=given), monkeypatch)
    assert captions == ["0: 2", "1: a"]
    # Names that are in files which are not there.
    absent = {**source, "name": "CIFAR100"}
    captions = written_below(fashion(part="test", class_list=absent), monkeypatch)
    assert captions == ["0: 2", "1: 0"]


def test_captions_of_images_without_labels_are_their_numbers(tmp_path, monkeypatch):
    write_images(tmp_path / "some", a=[1, 2])
    folder = FolderImagesDataset(filepath=str(tmp_path / "some"))
    assert written_below(folder, monkeypatch) == ["0", "1"]
    (tmp_path / "some" / "a" / "1.png").write_bytes(b"")
    assert written_below(folder, monkeypatch) == ["0: blank", "1"]


def test_a_long_name_is_cut_and_many_images_are_spread(tmp_path, monkeypatch):
    name = "a class with a name that is longer than its image is wide"
    write_images(tmp_path, **{name: range(1, 31)})
    captions = written_below(ClassFolderImagesDataset(filepath=str(tmp_path)), monkeypatch)
    assert [caption.partition(":")[0] for caption in captions] == [
        str(number) for number in range(0, 30, 2)
    ]
    for caption in captions:
        beginning = caption.partition(": ")[2].removesuffix("…")
        assert name.startswith(beginning) and 5 < len(beginning) < 20


@pytest.mark.parametrize("size", [(64, 32), (10, 200)])
def test_a_contact_sheet_keeps_the_shape_of_images(tmp_path, size):
    (tmp_path / "a").mkdir()
    Image.new("RGB", size, (200, 0, 0)).save(tmp_path / "a" / "1.png")
    sheet = image_of(FolderImagesDataset(filepath=str(tmp_path)).preview())
    is_red = (np.asarray(sheet) == (200, 0, 0)).all(axis=2)
    height, width = np.ptp(np.nonzero(is_red), axis=1) + 1
    assert width / height == pytest.approx(size[0] / size[1], rel=0.1)
