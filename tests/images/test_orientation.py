"""Images are turned as their EXIF data say, whatever file and source they come from."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, features
from torchvision import datasets

from lowshot_kedro.images import (
    ClassFolders,
    ImageFolder,
    LabeledList,
    NumberedZipShards,
    TorchvisionImages,
    decoding,
    write_labeled_list,
    write_zip_shards,
)
from lowshot_kedro.images.decoding import decode, to_rgb, upright
from tests.images.helpers import (
    CORNERS,
    ORIENTATIONS,
    encoded,
    oriented,
    shows_corners,
    stored,
    write_shard,
)

KINDS = [
    kind
    for kind in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")
    if kind != "AVIF" or features.check("avif")
]
SIDEWAYS = (5, 6, 7, 8)


def test_the_images_of_these_tests_are_stored_in_eight_different_ways():
    assert len({(stored(each).size, stored(each).tobytes()) for each in ORIENTATIONS}) == 8
    assert [shows_corners(stored(each)) for each in ORIENTATIONS] == [True] + 7 * [False]


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_files_of_every_kind_are_turned(kind, orientation):
    image = decode(io.BytesIO(oriented(orientation, kind)))
    assert (image.mode, image.size) == ("RGB", (96, 64))
    assert shows_corners(image)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize(
    "kind, mode",
    [
        ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "P"), ("PNG", "RGBA"), ("PNG", "LA"), ("PNG", "1"),
        ("PNG", "I;16"), ("TIFF", "I;16"), ("TIFF", "F"), ("TIFF", "YCbCr"),
    ],
)  # fmt: skip
def test_images_of_every_mode_are_turned(kind, mode, orientation):
    def written(orientation):
        image = stored(orientation)
        if mode in ("I;16", "F"):
            values = np.asarray(image.convert("L")).astype("u2" if mode == "I;16" else "f4")
            image = Image.fromarray(values * 257)
        else:
            image = image.quantize(8) if mode == "P" else image.convert(mode)
        if kind == "TIFF":
            return encoded(image, kind, tiffinfo={0x0112: orientation})
        exif = Image.Exif()
        exif[0x0112] = orientation
        return encoded(image, kind, exif=exif.tobytes())

    # Chroma is stored at half the resolution, and black and white is dithered.
    expected, found = (decode(io.BytesIO(written(each))) for each in (1, orientation))
    assert found.size == expected.size == (96, 64)
    places = np.s_[16::32, 24::48]
    if mode == "1":
        found, expected = (np.asarray(image)[4:28, 4:44].mean() for image in (found, expected))
        assert found == pytest.approx(expected, abs=10)
    else:
        difference = np.asarray(found).astype(int)[places] - np.asarray(expected)[places]
        assert np.abs(difference).max() <= 12


def test_both_images_of_a_jpeg_with_two_have_an_orientation_and_the_first_counts():
    exif = Image.Exif()
    exif[0x0112] = 6
    other = Image.new("RGB", (20, 30), "white")
    two = encoded(stored(6), "MPO", save_all=True, append_images=[other], exif=exif.tobytes())
    assert shows_corners(decode(io.BytesIO(two)))


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="8"/></x:xmpmeta>'


def test_an_orientation_may_stand_in_xmp_alone():
    assert shows_corners(decode(io.BytesIO(encoded(stored(8), "JPEG", xmp=XMP))))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_what_is_turned_is_not_turned_again(kind, orientation):
    content = oriented(orientation, kind)
    once = to_rgb(Image.open(io.BytesIO(content)))
    assert shows_corners(to_rgb(once))
    assert shows_corners(to_rgb(Image.open(io.BytesIO(content)).convert("RGB")))


def exif_of(*entries: bytes, number: int | None = None) -> bytes:
    """Little-endian EXIF data of some 12-byte entries."""
    count = (len(entries) if number is None else number).to_bytes(2, "little")
    return b"Exif\0\0II*\0\x08\0\0\0" + count + b"".join(entries) + b"\0\0\0\0"


def entry(tag: int, kind: int, count: int, value: int) -> bytes:
    parts = ((tag, 2), (kind, 2), (count, 4), (value, 4))
    return b"".join(number.to_bytes(size, "little") for number, size in parts)


ORIENTATION_6 = entry(0x0112, 3, 1, 6)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0no tags",
        b"Exif\0\0II*\0\xff\xff\xff\x7f",
        exif_of(number=5),
        exif_of(entry(0x0112, 3, 0xFFFF, 0x7FFFFFFF)),
        exif_of(entry(0x0112, 2, 4, 0x00363636)),
        exif_of(entry(0x0112, 3, 1, 0)),
        exif_of(entry(0x0112, 3, 1, 9)),
        exif_of(entry(0x0112, 3, 1, 65_535)),
        exif_of(entry(0x0112, 5, 1, 0x7FFFFFFF)),
        exif_of(entry(0x0112, 99, 1, 6)),
    ],
)
def test_exif_data_that_say_nothing_leave_an_image_as_it_is(exif):
    image = decode(io.BytesIO(encoded(stored(1), "JPEG", exif=exif)))
    assert shows_corners(image)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize(
    "others",
    [
        [entry(0x010F, 2, 50, 0x7FFFFFFF)],
        [entry(0x8769, 4, 1, 0x7FFFFFFF)],
        [entry(0x8825, 4, 1, 8)],
        [entry(0x011A, 5, 1, 0x7FFFFFFF)],
        [entry(0x9999, 99, 1, 1)],
    ],
)
def test_what_is_damaged_beside_it_does_not_hide_an_orientation(others):
    content = encoded(stored(6), "JPEG", exif=exif_of(ORIENTATION_6, *others))
    assert shows_corners(decode(io.BytesIO(content)))


def test_exif_data_that_cannot_be_written_again_do_not_matter():
    # A date that is a number.
    content = encoded(stored(6), "JPEG", exif=exif_of(ORIENTATION_6, entry(0x0132, 5, 1, 7)))
    with pytest.raises(AttributeError):
        ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    assert shows_corners(decode(io.BytesIO(content)))


def test_a_failure_to_read_exif_data_is_no_failure_to_read_the_image(monkeypatch):
    def fail(image):
        raise SyntaxError("not a TIFF file")

    monkeypatch.setattr(Image.Image, "getexif", fail)
    assert shows_corners(decode(io.BytesIO(encoded(stored(1), "JPEG"))))


@pytest.mark.parametrize("orientation", SIDEWAYS)
def test_a_huge_jpeg_is_reduced_and_turned(monkeypatch, orientation):
    monkeypatch.setattr(decoding, "REDUCED_PIXELS", 640 * 960 - 1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    large = stored(orientation).resize((640, 960), Image.Resampling.NEAREST)
    assert large.width < large.height
    image = decode(io.BytesIO(encoded(large, "JPEG", exif=exif.tobytes())))
    assert image.size == (480, 320)
    assert shows_corners(image.resize((96, 64)))


# --- sources ---


def write_files(folder: Path) -> list[str]:
    folder.mkdir(parents=True)
    for orientation in ORIENTATIONS:
        (folder / f"{orientation}.jpg").write_bytes(oriented(orientation))
    return [f"{orientation}.jpg" for orientation in ORIENTATIONS]


def labeled_list(folder: Path):
    names = write_files(folder)
    content = {"image_names": names, "image_labels": [0] * len(names)}
    (folder / "train.json").write_text(json.dumps(content))
    return LabeledList(folder / "train.json")


def class_folders(folder: Path):
    write_files(folder / "cat")
    return ClassFolders(folder)


def folder_of_images(folder: Path):
    write_files(folder)
    return ImageFolder(folder)


def zip_shards(folder: Path):
    files = {f"{number - 1:03d}.jpg": oriented(number) for number in ORIENTATIONS}
    write_shard(folder, "00", "000", files)
    return NumberedZipShards(folder)


def image_folder(folder: Path):
    write_files(folder / "cat")
    return TorchvisionImages("ImageFolder", folder)


def written_shards(folder: Path):
    paths = [folder / name for name in write_files(folder)]
    write_zip_shards(folder / "shards", (Image.open(path).convert("RGB") for path in paths))
    return NumberedZipShards(folder / "shards")


def written_list(folder: Path):
    paths = [folder / name for name in write_files(folder)]
    write_labeled_list(folder / "train.json", "train", ((Image.open(path), 0) for path in paths))
    return LabeledList(folder / "train.json", "train")


@pytest.mark.parametrize(
    "make",
    [
        labeled_list, class_folders, folder_of_images, zip_shards, image_folder, written_shards,
        written_list,
    ],
    ids=lambda make: make.__name__,
)  # fmt: skip
def test_every_source_turns_its_images(make, tmp_path):
    images = list(make(tmp_path / "images"))
    assert len(images) == 8
    assert [shows_corners(loaded.image) for loaded in images] == 8 * [True]
    assert {loaded.problem for loaded in images} == {None}


class Opening:
    """A dataset that opens files itself, as most of torchvision's do."""

    convert = True

    def __init__(self, root):
        self.paths = sorted(Path(root).glob("*.jpg"))

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, number):
        image = Image.open(self.paths[number])
        return (image.convert("RGB") if self.convert else image), 0


@pytest.mark.parametrize("convert", [True, False])
def test_a_dataset_that_opens_files_itself(tmp_path, monkeypatch, convert):
    monkeypatch.setattr(datasets, "FakeData", Opening)
    monkeypatch.setattr(Opening, "convert", convert)
    write_files(tmp_path / "images")
    source = TorchvisionImages("FakeData", tmp_path / "images")
    assert [shows_corners(loaded.image) for loaded in source] == 8 * [True]


def test_an_image_without_an_orientation_stays_the_same_image():
    image = Image.fromarray(CORNERS)
    assert upright(image) is image
