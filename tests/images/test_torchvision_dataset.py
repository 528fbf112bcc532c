import functools
import gzip
import hashlib
import http.server
import io
import json
import pickle
import re
import tarfile
import threading
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import datasets

from lowshot_kedro.errors import InputError
from lowshot_kedro.images import (
    TorchvisionImages,
    torchvision_class_names,
    torchvision_dataset,
)
from tests.images.helpers import flat_jpeg, is_blank, value_of
from tests.images.test_sources import Whole
from tests.other_processes import another_process, written

TRAIN_LABELS = [0, 1, 0, 1, 2, 0, 1, 2, 0]


def idx(array: np.ndarray) -> bytes:
    """The format of the MNIST files: two zeros, the type, the number of dimensions, the sizes."""
    header = bytes([0, 0, 8, array.ndim])
    return header + b"".join(size.to_bytes(4, "big") for size in array.shape) + array.tobytes()


def flat_images(values) -> np.ndarray:
    return np.array(values, dtype=np.uint8)[:, None, None] * np.ones((1, 28, 28), dtype=np.uint8)


# LoadedImage number n is 10 n bright in training, and 200 in the test set.
MNIST_FILES = {
    "train-images-idx3-ubyte": idx(flat_images([10 * number for number in range(9)])),
    "train-labels-idx1-ubyte": idx(np.array(TRAIN_LABELS, dtype=np.uint8)),
    "t10k-images-idx3-ubyte": idx(flat_images([200, 200])),
    "t10k-labels-idx1-ubyte": idx(np.array([2, 0], dtype=np.uint8)),
}


def raw_folder(root: Path) -> Path:
    folder = root / "FashionMNIST" / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def fashion(root, **settings):
    return TorchvisionImages("FashionMNIST", root, **settings)


@pytest.fixture
def root(tmp_path):
    for name, content in MNIST_FILES.items():
        (raw_folder(tmp_path) / name).write_bytes(content)
    return tmp_path


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """No address on the Internet is asked, and none through a proxy."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(datasets.FashionMNIST, "mirrors", ["http://127.0.0.1:9/"])
    monkeypatch.setattr(datasets.CIFAR100, "url", "http://127.0.0.1:9/cifar-100-python.tar.gz")


def values(source) -> list[int]:
    return [loaded.image.getpixel((3, 3))[0] for loaded in source]


def test_files_that_are_there_are_read(root):
    source = fashion(root)
    assert values(source) == [10 * number for number in range(9)]
    assert [loaded.label for loaded in source] == TRAIN_LABELS == source.labels.tolist()
    assert source.labels.dtype == np.int32
    assert {(loaded.image.mode, loaded.image.size) for loaded in source} == {("RGB", (28, 28))}
    assert "FashionMNIST" in repr(source)
    assert values(fashion(root, arguments={"train": False})) == [200, 200]


def test_files_that_are_there_are_not_downloaded(root):
    assert len(fashion(root, download=True)) == 9


@pytest.mark.parametrize(
    "rows_per_class, expected",
    [
        ((0, None), [0, 1, 2, 3, 4, 5, 6, 7, 8]),
        ((0, 1), [0, 1, 4]),
        ([1, 2], [2, 3, 7]),
        ((0, 2), [0, 1, 2, 3, 4, 7]),
        ((2, None), [5, 6, 8]),
        ((3, 9), [8]),
    ],
)
@pytest.mark.parametrize("labeled", [True, False])
def test_some_images_of_every_class(root, rows_per_class, expected, labeled):
    source = fashion(root, rows_per_class=rows_per_class, labeled=labeled)
    assert values(source) == [10 * number for number in expected]
    labels = [TRAIN_LABELS[number] if labeled else 0 for number in expected]
    assert source.labels.tolist() == [loaded.label for loaded in source] == labels


@pytest.mark.parametrize(
    "rows_per_class", [(3, 3), (-1, 2), (0,), (0, 1, 2), ("0", 1), (None, 2), 5, (0, 1.5), "ab"]
)
def test_rows_per_class_that_are_no_range(root, rows_per_class):
    with pytest.raises(ValueError, match=r"rows_per_class: .*expected \[first, last\] with"):
        fashion(root, rows_per_class=rows_per_class)


def test_no_image_left(root):
    with pytest.raises(ValueError, match=r"no image left of 9 with rows_per_class \[4, None\]"):
        fashion(root, rows_per_class=(4, None))


@pytest.mark.parametrize("part, expected", [("train", True), ("test", False)])
def test_a_part_is_an_argument_of_the_class(root, part, expected):
    source = fashion(root, part=part)
    assert source.arguments == {"train": expected}
    assert source.describe() == fashion(root, arguments={"train": expected}).describe()
    other = fashion(root, part=part, arguments={"train": not expected})
    assert values(other) == values(fashion(root, arguments={"train": not expected}))


def test_a_part_that_is_none(root):
    with pytest.raises(InputError, match=r"^part: got 'val', expected one of: train, test$"):
        fashion(root, part="val")


def test_parts_of_a_class_without_a_word_for_them_are_rows(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for value in (10, 20, 30):
            (tmp_path / name / f"{value}.jpg").write_bytes(flat_jpeg(value))
    with pytest.raises(InputError, match=r"ImageFolder: its training and test images are the same"):
        TorchvisionImages("ImageFolder", tmp_path, part="test")
    source = TorchvisionImages("ImageFolder", tmp_path, part="test", rows_per_class=(1, 2))
    assert (len(source), source.arguments) == (2, {})
    assert source.class_names == ("cat", "dog")


def test_names_of_classes(root, tmp_path, monkeypatch):
    assert fashion(root).class_names == tuple(datasets.FashionMNIST.classes)
    # The class has them: no file is needed. The names of EMNIST are not those of MNIST.
    names = torchvision_class_names("KMNIST", tmp_path / "nowhere")
    assert names == tuple(datasets.KMNIST.classes)
    with pytest.raises(FileNotFoundError):
        torchvision_class_names("EMNIST", tmp_path, arguments={"split": "letters"})
    # Of an object in several words, the first.
    monkeypatch.setattr(datasets.FashionMNIST, "classes", [("tench", "Tinca tinca"), "goldfish"])
    assert fashion(root).class_names == ("tench", "goldfish")
    for nothing in (None, [1, 2], "ab", []):
        monkeypatch.setattr(datasets.FashionMNIST, "classes", nothing)
        assert fashion(root).class_names == ()


# Packed files of the MNIST family.


def pack(root, names=MNIST_FILES, level=1):
    """Leave packed files in place of unpacked ones, with a checksum that torchvision refuses."""
    for name in names:
        content = gzip.compress(MNIST_FILES[name], level, mtime=12345)
        (raw_folder(root) / f"{name}.gz").write_bytes(content)
        (raw_folder(root) / name).unlink(missing_ok=True)


def test_packed_files_are_unpacked(root):
    pack(root)
    assert values(fashion(root, download=True)) == [10 * number for number in range(9)]
    for name, content in MNIST_FILES.items():
        assert (raw_folder(root) / name).read_bytes() == content
    assert len(list(raw_folder(root).iterdir())) == 8


def test_packed_files_may_be_links(tmp_path):
    pack(tmp_path / "elsewhere")
    for name in MNIST_FILES:
        link = raw_folder(tmp_path / "here") / f"{name}.gz"
        link.symlink_to(raw_folder(tmp_path / "elsewhere") / f"{name}.gz")
    assert len(fashion(tmp_path / "here")) == 9
    assert len(list(raw_folder(tmp_path / "elsewhere").iterdir())) == 4


def test_an_unpacked_file_is_left_alone(root):
    name = "train-labels-idx1-ubyte"
    other = idx(np.zeros(9, dtype=np.uint8))
    (raw_folder(root) / f"{name}.gz").write_bytes(gzip.compress(other))
    assert fashion(root).labels.tolist() == TRAIN_LABELS


@pytest.mark.parametrize("damage", ["cut", "changed", "no gzip"])
def test_a_damaged_packed_file_is_named_and_leaves_nothing(root, damage):
    pack(root, level=0)
    path = raw_folder(root) / "train-images-idx3-ubyte.gz"
    content = path.read_bytes()
    path.write_bytes(
        {
            "cut": content[:-2000],
            "changed": content[:500] + b"??" + content[502:],
            "no gzip": b"<html>404</html>",
        }[damage]
    )
    with pytest.raises(ValueError, match=re.escape(f"{path}: not a readable gzip file")):
        fashion(root)
    names = {path.name for path in raw_folder(root).iterdir()}
    assert "train-images-idx3-ubyte" not in names
    assert not any("partial" in name for name in names)


# Files that are not there.


def test_absent_files(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        fashion(tmp_path)
    for fact in (str(raw_folder(tmp_path)), "FashionMNIST", "download: true"):
        assert fact in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_download_that_fails_says_why_and_where_files_may_be_placed(tmp_path):
    for name, folder in [("FashionMNIST", "FashionMNIST/raw"), ("CIFAR100", "cifar-100-python")]:
        with pytest.raises(ValueError) as caught:
            TorchvisionImages(name, tmp_path, download=True)
        for fact in (f"{tmp_path}/{folder}", "download failed", "refused", "put them there"):
            assert fact in str(caught.value)
        assert "\n" not in str(caught.value)


def test_files_that_cannot_be_downloaded_have_no_advice_to_do_so(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"ImageFolder: .*{tmp_path}") as caught:
        TorchvisionImages("ImageFolder", tmp_path, download=True)
    assert "download" not in str(caught.value)


def test_damaged_files(root):
    path = raw_folder(root) / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises((ValueError, FileNotFoundError), match=r"torchvision's FashionMNIST: "):
        fashion(root)


@pytest.fixture
def server(tmp_path):
    """The address of a folder on this machine, and the folder."""
    folder = tmp_path / "server"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/", folder
        running.shutdown()
        thread.join()


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def published(server, monkeypatch):
    """Fashion-MNIST, as far as torchvision knows, is what this server has."""
    address, folder = server
    resources = []
    for name, content in MNIST_FILES.items():
        packed = gzip.compress(content)
        (folder / f"{name}.gz").write_bytes(packed)
        resources.append((f"{name}.gz", md5(packed)))
    monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [address])
    monkeypatch.setattr(datasets.FashionMNIST, "resources", resources)
    return folder


def test_absent_files_are_downloaded_if_allowed(tmp_path, published):
    with pytest.raises(FileNotFoundError):
        fashion(tmp_path / "root")
    source = fashion(tmp_path / "root", download=True)
    assert values(source) == [10 * number for number in range(9)]
    for path in published.iterdir():
        path.unlink()
    assert fashion(tmp_path / "root", download=True).describe() == source.describe()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_two_processes_do_not_download_at_a_time(tmp_path, published):
    folder = raw_folder(tmp_path / "root")
    with (
        another_process(written, folder) as pid,
        pytest.raises(InputError, match=rf"{folder}: process {pid} .* has been writing it since"),
    ):
        fashion(tmp_path / "root", download=True)
    assert len(fashion(tmp_path / "root", download=True)) == 9


def test_a_cut_off_download_is_downloaded_again(tmp_path, published):
    content = (published / "train-images-idx3-ubyte.gz").read_bytes()
    path = raw_folder(tmp_path / "root") / "train-images-idx3-ubyte.gz"
    path.write_bytes(content[:-5])
    assert len(fashion(tmp_path / "root", download=True)) == 9
    assert path.read_bytes() == content


def test_a_downloaded_file_that_is_not_the_published_one_is_refused(tmp_path, published):
    (published / "train-images-idx3-ubyte.gz").write_bytes(b"a page to log in")
    with pytest.raises(ValueError, match=r"download failed .*corrupted"):
        fashion(tmp_path / "root", download=True)


# Other datasets.


def cifar100(n_images=4) -> dict[str, bytes]:
    """The files of CIFAR-100, image n 10 n bright and of class n % 3."""
    rows = np.repeat(10 * np.arange(n_images, dtype=np.uint8)[:, None], 3072, axis=1)
    fine = [number % 3 for number in range(n_images)]
    return {
        "train": pickle.dumps({"data": rows, "fine_labels": fine}),
        "test": pickle.dumps({"data": rows[:1] + 200, "fine_labels": [2]}),
        "meta": pickle.dumps({"fine_label_names": ["a", "b", "c"]}),
    }


def trust(monkeypatch, files: dict[str, bytes]) -> None:
    for name in ("train", "test"):
        monkeypatch.setattr(datasets.CIFAR100, f"{name}_list", [[name, md5(files[name])]])
    meta = {**datasets.CIFAR100.meta, "md5": md5(files["meta"])}
    monkeypatch.setattr(datasets.CIFAR100, "meta", meta)


def test_cifar100(tmp_path, monkeypatch):
    files = cifar100()
    (tmp_path / "cifar-100-python").mkdir()
    for name, content in files.items():
        (tmp_path / "cifar-100-python" / name).write_bytes(content)
    with pytest.raises(FileNotFoundError, match=r"cifar-100-python, or are not what torchvision"):
        TorchvisionImages("CIFAR100", tmp_path)
    trust(monkeypatch, files)
    source = TorchvisionImages("CIFAR100", tmp_path, arguments={"train": True})
    assert source.class_names == torchvision_class_names("CIFAR100", tmp_path) == ("a", "b", "c")
    assert values(source) == [0, 10, 20, 30]
    assert source.labels.tolist() == [0, 1, 2, 0]
    assert values(TorchvisionImages("CIFAR100", tmp_path, arguments={"train": False})) == [200]


def test_cifar100_is_downloaded_and_unpacked(tmp_path, monkeypatch, server):
    address, folder = server
    files = cifar100()
    with tarfile.open(folder / "cifar-100-python.tar.gz", "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"cifar-100-python/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    trust(monkeypatch, files)
    packed = (folder / "cifar-100-python.tar.gz").read_bytes()
    monkeypatch.setattr(datasets.CIFAR100, "url", f"{address}cifar-100-python.tar.gz")
    monkeypatch.setattr(datasets.CIFAR100, "tgz_md5", md5(packed))
    source = TorchvisionImages("CIFAR100", tmp_path / "root", download=True)
    assert values(source) == [0, 10, 20, 30]


def test_image_folder(tmp_path):
    for name, value in {"dog/a.jpg": 10, "cat/b.jpg": 20, "cat/c.jpg": 30}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(flat_jpeg(value))
    source = TorchvisionImages("ImageFolder", tmp_path)
    assert [value_of(loaded) for loaded in source] == pytest.approx([20, 30, 10], abs=2)
    assert source.labels.tolist() == [0, 0, 1]
    (tmp_path / "cat" / "c.jpg").write_bytes(b"")
    assert is_blank(source[1])
    assert source[1].problem == "cat/c.jpg: UnidentifiedImageError: cannot identify image file"


def test_a_dataset_that_takes_no_root(tmp_path):
    settings = {"size": 5, "image_size": [3, 8, 8], "num_classes": 4}
    source = TorchvisionImages("FakeData", tmp_path, arguments=settings)
    expected = datasets.FakeData(5, (3, 8, 8), 4)
    for number in range(5):
        image, label = expected[number]
        assert source[number].image.tobytes() == image.tobytes()
        assert source[number].label == int(label) == source.labels[number]


@pytest.mark.parametrize(
    "name, near",
    [
        ("fashionmnist", "FashionMNIST"),
        ("CIFAR", "CIFAR10 or CIFAR100"),
        ("VisionDataset", ""),
        ("wrap_dataset_for_transforms_v2", ""),
        ("", "such as FashionMNIST or CIFAR100"),
        (None, "such as FashionMNIST or CIFAR100"),
    ],
)
def test_an_unknown_name(tmp_path, name, near):
    with pytest.raises(ValueError, match=f"name: got {name!r}, expected .*{near}"):
        TorchvisionImages(name, tmp_path)


@pytest.mark.parametrize(
    "name, arguments, complaint",
    [
        ("FashionMNIST", {"trian": True}, r"no trian \(did you mean train\?\); allowed: train$"),
        ("FashionMNIST", {"root": "/"}, r"no root; allowed: train$"),
        ("FashionMNIST", {"download": True}, r"no download; allowed: train$"),
        ("EMNIST", {"spilt": "mnist"}, r"did you mean split\?\); allowed: split, train$"),
        ("EMNIST", {}, r"cannot be opened .*'split'"),
        ("STL10", {"split": "tets"}, r"cannot be opened .*'tets'"),
    ],
)
@pytest.mark.parametrize("download", [True, False])
def test_arguments_that_do_not_fit(tmp_path, name, arguments, complaint, download):
    with pytest.raises(ValueError, match=complaint):
        TorchvisionImages(name, tmp_path, arguments=arguments, download=download)


# Datasets in the place of torchvision's, to meet what these hold.


class Held(datasets.VisionDataset):
    """Items, and attributes that may hold labels."""

    items: ClassVar = ()
    attributes: ClassVar = {}

    def __init__(self, root):
        super().__init__(root)
        self.__dict__.update(self.attributes)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, number):
        if isinstance(self.items[number], Exception):
            raise self.items[number]
        return self.items[number]


@pytest.fixture
def held(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "FakeData", Held)

    def make(items, attributes=None, **settings):
        monkeypatch.setattr(Held, "items", items)
        monkeypatch.setattr(Held, "attributes", attributes or {})
        return TorchvisionImages("FakeData", tmp_path, **settings)

    return make


@pytest.mark.parametrize("download", [True, False])
def test_a_defect_of_a_dataset_is_no_wrong_argument(tmp_path, monkeypatch, download):
    class Defective(Held):
        def __init__(self, root):
            raise NameError("bug")

    monkeypatch.setattr(datasets, "FakeData", Defective)
    with pytest.raises(NameError, match="bug"):
        TorchvisionImages("FakeData", tmp_path, download=download)


UNREADABLE = [OSError("not decoded"), OSError("not decoded"), OSError("not decoded")]
PAIRS = [("a.jpg", 4), ("b.jpg", 0), ("c.jpg", 4)]


@pytest.mark.parametrize(
    "attributes",
    [
        {"targets": [4, 0, 4]},
        {"targets": torch.tensor([4, 0, 4])},
        {"labels": np.array([4, 0, 4], dtype=np.uint8)},
        {"_labels": (4, 0, 4)},
        {"y": [4, 0, 4]},
        {"samples": PAIRS},
        {"_samples": PAIRS},
        {"imgs": PAIRS},
        {"targets": ["cat", "dog", "cat"], "labels": [4, 0, 4]},
        {"targets": [4, 0], "y": [4, 0, 4]},
        {"targets": [[4, 1], [0], [4]], "_labels": [4, 0, 4]},
        {"targets": [None] * 3, "_samples": PAIRS},
        {"targets": [0.5, 0.1, 0.2], "samples": [("a", None)] * 3, "imgs": PAIRS},
    ],
)
def test_labels_are_found_without_decoding(held, attributes):
    source = held(UNREADABLE, attributes)
    assert source.labels.tolist() == [4, 0, 4]
    assert [loaded.label for loaded in source] == [4, 0, 4]


IMAGE = Image.new("L", (4, 4), 50)


def test_labels_that_the_dataset_does_not_hold_are_read_one_by_one(held, caplog):
    caplog.set_level("INFO")
    items = [(IMAGE, 3), (IMAGE, np.int64(0)), (IMAGE, torch.tensor(2))]
    assert held(items).labels.tolist() == [3, 0, 2]
    assert "labels of 3 images one by one" in caplog.text


@pytest.mark.parametrize(
    "item, found",
    [((IMAGE, "cat"), "'cat'"), ((IMAGE, 0.5), "0.5"), (OSError("cut off"), "cut off")],
)
def test_images_without_labels_have_to_be_called_so(held, item, found):
    items = [(IMAGE, 0), item]
    for settings in ({}, {"labeled": False, "rows_per_class": (0, 1)}):
        with pytest.raises(ValueError, match=f"label of image 1 is .*{found}.*labeled: false"):
            held(items, **settings)
    assert held(items, labeled=False).labels.tolist() == [0, 0]


def test_negative_labels_mean_no_labels(held):
    items = [(IMAGE, -1)] * 3
    with pytest.raises(ValueError, match="found label -1, expected integers from 0"):
        held(items)
    assert held(items, labeled=False, rows_per_class=(0, 2)).labels.tolist() == [0, 0]


CHANNELS = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)


@pytest.mark.parametrize(
    "item, expected",
    [
        (CHANNELS, CHANNELS),
        (torch.from_numpy(CHANNELS).permute(2, 0, 1), CHANNELS),
        (torch.from_numpy(CHANNELS).permute(2, 0, 1) / 255, CHANNELS),
        (CHANNELS[:, :, 0], CHANNELS[:, :, [0, 0, 0]]),
        (CHANNELS[:, :, :1], CHANNELS[:, :, [0, 0, 0]]),
        (torch.from_numpy(CHANNELS[None, :, :, 0]), CHANNELS[:, :, [0, 0, 0]]),
        (CHANNELS.astype(np.float64) / 255, CHANNELS),
        (Image.fromarray(CHANNELS), CHANNELS),
        (CHANNELS[:, :, 0].astype(np.uint16) * 257, CHANNELS[:, :, [0, 0, 0]]),
    ],
)
@pytest.mark.parametrize("alone", [True, False])
def test_images_arrays_and_tensors(held, item, expected, alone):
    [loaded] = held([item] if alone else [(item, 0)], labeled=False)
    assert loaded.problem is None
    np.testing.assert_array_equal(np.asarray(loaded.image), expected)


@pytest.mark.parametrize(
    "item, problem",
    [
        (OSError("image file is truncated"), r"FakeData\[1\]: OSError: image file is truncated"),
        ((np.zeros((2, 2, 2, 3), np.uint8), 0), r"FakeData\[1\]: \w+: "),
        (("no image", 0), r"FakeData\[1\]: \w+: "),
        ((None, 0), r"FakeData\[1\]: \w+: "),
    ],
)
def test_what_is_no_image_is_blank(held, item, problem):
    good, bad = held([(IMAGE, 0), item], labeled=False)
    assert good.problem is None
    assert is_blank(bad)
    assert re.match(problem, bad.problem)


def test_a_sent_source_is_small_and_opens_its_files_itself_without_download(root, monkeypatch):
    source = fashion(root, rows_per_class=(0, 2), download=True)
    sent = pickle.dumps(source)
    assert len(sent) < 2_000
    copy = pickle.loads(sent)
    for name in MNIST_FILES:
        (raw_folder(root) / name).rename(root / name)
    with pytest.raises(FileNotFoundError, match="download: true"):
        copy[0]
    for name in MNIST_FILES:
        (root / name).rename(raw_folder(root) / name)
    assert values(copy) == values(source) == [0, 10, 20, 30, 40, 70]


def test_workers_see_the_same(root):
    loader = DataLoader(Whole(fashion(root)), 4, num_workers=2, collate_fn=list)
    assert values(loaded for batch in loader for loaded in batch) == values(fashion(root))


def test_the_description_tells_images_from_others_wherever_they_lie(root, tmp_path):
    original = fashion(root).describe()
    json.dumps(original)
    assert str(tmp_path) not in json.dumps(original)
    assert (original["kind"], original["name"]) == ("torchvision", "FashionMNIST")
    assert (original["arguments"], original["n_pictures"]) == ({}, 9)
    assert fashion(root).describe() == original
    moved = tmp_path / "moved"
    moved.mkdir()
    (root / "FashionMNIST").rename(moved / "FashionMNIST")
    assert fashion(moved).describe() == original

    found = [
        original,
        fashion(moved, arguments={"train": False}).describe(),
        fashion(moved, rows_per_class=(0, 2)).describe(),
        fashion(moved, labeled=False).describe(),
    ]
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        path = raw_folder(moved) / name
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        found.append(fashion(moved).describe())
        path.write_bytes(content)
    assert len({json.dumps(description) for description in found}) == 6
    assert len({description["checksum"] for description in found}) == 6


def test_no_more_than_64_images_are_decoded_for_the_description(held, monkeypatch):
    source = held([(IMAGE, 0)] * 640)
    decoded = []
    original = torchvision_dataset._to_image
    monkeypatch.setattr(
        torchvision_dataset, "_to_image", lambda item: decoded.append(1) or original(item)
    )
    source.describe()
    assert len(decoded) == 64
