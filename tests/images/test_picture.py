import io
import itertools
import json
import pickle
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lowshot_kedro.images import AbsentPictures
from lowshot_kedro.images import picture as picture_module
from lowshot_kedro.images.picture import decode, no_labels, read_picture, to_rgb
from tests.images.helpers import (
    BLUE,
    BROKEN,
    NOISE,
    READABLE,
    SIZE,
    encoded,
    is_blank,
)


def read(content: bytes, name="12/345.zip/678.jpg"):
    return read_picture(lambda: decode(io.BytesIO(content)), name, label=5)


@pytest.mark.parametrize("content, color", READABLE.values(), ids=READABLE)
def test_readable_pictures_become_rgb(content, color):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = read(content)
    assert (picture.label, picture.problem) == (5, None)
    assert (picture.image.mode, picture.image.size) == ("RGB", SIZE)
    assert picture.image.getpixel((15, 10)) == pytest.approx(color, abs=3)


@pytest.mark.parametrize("content, problem", BROKEN.values(), ids=BROKEN)
def test_unreadable_pictures_are_blank(content, problem):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = read(content)
    assert is_blank(picture)
    assert picture.label == 5
    assert picture.problem.startswith("12/345.zip/678.jpg: ")
    assert problem in picture.problem


@pytest.mark.parametrize("name", ["damaged EXIF", "palette with transparency"])
def test_pil_warns_of_what_is_read_here_in_silence(name):
    with pytest.warns(UserWarning):
        Image.open(io.BytesIO(READABLE[name][0])).convert("RGB")


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "RGBA", "P", "LA"])
def test_an_ordinary_picture_has_the_pixels_that_pil_gives(mode):
    noise = Image.merge("RGB", [Image.effect_noise((301, 203), sigma) for sigma in (20, 50, 90)])
    content = encoded(noise.convert(mode), "JPEG" if mode in ("RGB", "L", "CMYK") else "PNG")
    expected = Image.open(io.BytesIO(content)).convert("RGB")
    assert read(content).image.tobytes() == expected.tobytes()


def test_16_bits_are_divided_so_that_the_ends_stay_the_ends():
    values = np.array([[0, 256, 257, 30_000, 65_535]], dtype=np.uint16)
    for dtype in ("uint16", "int32", "float32"):
        found = np.asarray(to_rgb(Image.fromarray(values.astype(dtype))))[0, :, 0]
        assert found.tolist() == [0, 0, 1, 116, 255]


def test_floating_point_numbers_that_are_none_do_not_disturb_the_others():
    values = np.array([[np.nan, np.inf, -np.inf, 100]], dtype=np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = np.asarray(to_rgb(Image.fromarray(values)))[0, :, 0]
    assert found.tolist() == [0, 0, 0, 100]


def jpeg_of(pixels: int, **options) -> bytes:
    """Left half dark, right half bright."""
    image = Image.new("L", (pixels, pixels), 30)
    image.paste(200, (pixels // 2, 0, pixels, pixels))
    return encoded(image, "JPEG", **options)


# Twice PIL's limit is where it refuses instead of warning.
@pytest.mark.parametrize("pixels, expected", [(9_472, 4_736), (13_600, 6_800)])
def test_a_huge_jpeg_is_decoded_at_a_smaller_scale(pixels, expected):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = read(jpeg_of(pixels))
    assert picture.problem is None
    assert picture.image.size == (expected, expected)
    assert picture.image.getpixel((10, 10))[0] == pytest.approx(30, abs=2)
    assert picture.image.getpixel((expected - 10, 10))[0] == pytest.approx(200, abs=2)


@pytest.mark.parametrize(
    "limit, size",
    [(6_400, 80), (6_399, 40), (1_600, 40), (1_599, 20), (400, 20), (399, 10), (100, 10)],
)
def test_the_scale_is_the_largest_within_the_limit(monkeypatch, limit, size):
    monkeypatch.setattr(picture_module, "MAX_PIXELS", limit)
    assert read(jpeg_of(80)).image.size == (size, size)


def test_the_first_of_two_huge_pictures_in_a_jpeg_is_reduced_as_well(monkeypatch):
    two = encoded(NOISE, "MPO", save_all=True, append_images=[NOISE])
    assert Image.open(io.BytesIO(two)).format == "MPO"
    monkeypatch.setattr(picture_module, "MAX_PIXELS", 64 * 64 - 1)
    assert read(two).image.size == (32, 32)


@pytest.mark.parametrize(
    "content, limit",
    [(jpeg_of(80), 99), (jpeg_of(80, progressive=True), 6_399), (encoded(NOISE, "PNG"), 4_095)],
    ids=["a JPEG above 64 times the limit", "a progressive JPEG", "a PNG"],
)
def test_what_cannot_be_decoded_within_the_limit_is_blank(monkeypatch, content, limit):
    monkeypatch.setattr(picture_module, "MAX_PIXELS", limit)
    picture = read(content)
    assert is_blank(picture)
    assert f" pixels, more than {limit}" in picture.problem


def test_a_picture_that_pil_refuses_to_open_is_blank_and_its_size_is_said():
    picture = read(encoded(Image.new("1", (14_000, 13_000)), "PNG"))
    assert is_blank(picture)
    assert "DecompressionBombError: Image size (182000000 pixels)" in picture.problem


def test_a_huge_picture_is_refused_before_it_is_decoded():
    # Decoding would find that nearly all of it is missing.
    picture = read(BROKEN["huge"][0][:1_000])
    assert "DecompressionBombError: 10000 × 9000 pixels" in picture.problem


def test_a_file_that_cannot_be_opened_is_blank_and_its_folder_is_not_said(tmp_path):
    path = tmp_path / "absent.jpg"
    picture = read_picture(lambda: decode(path.open("rb")), "absent.jpg", label=2)
    assert is_blank(picture)
    assert picture.problem == "absent.jpg: FileNotFoundError: No such file or directory"


@pytest.mark.parametrize("content", [READABLE["animated gif"][0], BROKEN["half a GIF"][0]])
def test_no_file_stays_open(content):
    file = io.BytesIO(content)
    kept = read_picture(lambda: decode(file), "a.gif", label=0)
    assert file.closed
    assert pickle.loads(pickle.dumps(kept)).image.tobytes() == kept.image.tobytes()


def failing(message: str):
    def load():
        raise ValueError(message)

    return load


def test_a_problem_is_one_short_line_of_text():
    picture = read_picture(failing("two\nlines " + 300 * "x"), "folder/" * 100 + "a.jpg", label=0)
    assert len(picture.problem) == 200
    assert "\n" not in picture.problem
    assert "folder/a.jpg: ValueError: two lines xxx" in picture.problem
    assert picture.problem.endswith("x…")


def test_a_problem_can_be_written_whatever_the_name_is():
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    problem = read_picture(failing("no"), name, label=0).problem
    assert problem == "caf\\udce9.jpg: ValueError: no"
    json.dumps(problem).encode()


JPEG = encoded(NOISE.convert("RGB"))


@settings(deadline=None)
@given(position=st.integers(0, len(JPEG) - 1), noise=st.binary(min_size=1, max_size=20))
def test_damaged_bytes_never_raise(position, noise):
    picture = read(JPEG[:position] + noise + JPEG[position + len(noise) :])
    assert picture.image.mode == "RGB"
    assert picture.problem is None or is_blank(picture)


def test_absent_pictures(tmp_path):
    source = AbsentPictures(tmp_path / "train.json")
    assert len(source) == 0
    for picture in itertools.islice(source, 3):
        assert is_blank(picture)
        assert picture.problem == "train.json is not there"
    assert is_blank(source[12_345_678])
    assert str(tmp_path) in repr(source)
    assert (source.labels.shape, source.labels.dtype) == ((0,), np.int32)
    assert source.describe() == {"kind": "absent", "n_pictures": 0}


def test_no_labels_take_no_memory():
    labels = no_labels(100_000_000)
    assert (labels.shape, labels.dtype, labels.strides) == ((100_000_000,), np.int32, (0,))
    assert not labels[:10].any()
    assert to_rgb(Image.new("RGB", SIZE, BLUE)).getpixel((0, 0)) == BLUE
