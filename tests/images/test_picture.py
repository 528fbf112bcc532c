import io
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lowshot_kedro.images import AbsentPictures
from lowshot_kedro.images.picture import read_picture
from tests.images.helpers import encoded

BLUE = (10, 20, 200)


def read(content: bytes):
    return read_picture(lambda: io.BytesIO(content), label=5)


def is_blank(picture) -> bool:
    image = picture.image
    return (image.mode, image.size, image.getextrema()) == ("RGB", (256, 256), ((0, 0),) * 3)


READABLE = {
    "rgb": (Image.new("RGB", (30, 20), BLUE), "PNG", BLUE),
    "jpeg": (Image.new("RGB", (30, 20), BLUE), "JPEG", BLUE),
    "grayscale": (Image.new("L", (30, 20), 77), "JPEG", (77, 77, 77)),
    "black and white": (Image.new("1", (30, 20), 1), "PNG", (255, 255, 255)),
    "palette": (Image.new("RGB", (30, 20), BLUE).quantize(4), "PNG", BLUE),
    "rgba": (Image.new("RGBA", (30, 20), (*BLUE, 255)), "PNG", BLUE),
    "gray with alpha": (Image.new("LA", (30, 20), (77, 255)), "PNG", (77, 77, 77)),
    # No ink but the black one, of which half: a middle gray.
    "cmyk": (Image.new("CMYK", (30, 20), (0, 0, 0, 128)), "JPEG", (127, 127, 127)),
    "gif": (Image.new("RGB", (30, 20), BLUE).quantize(4), "GIF", BLUE),
}


@pytest.mark.parametrize("image, kind, color", READABLE.values(), ids=READABLE)
def test_readable_pictures_become_rgb(image, kind, color):
    picture = read(encoded(image, kind))
    assert (picture.label, picture.problem) == (5, None)
    assert (picture.image.mode, picture.image.size) == ("RGB", (30, 20))
    assert picture.image.getpixel((15, 10)) == pytest.approx(color, abs=3)


def sixteen_bits() -> bytes:
    return encoded(Image.fromarray(np.full((20, 30), 128 * 257, dtype=np.uint16)), "PNG")


def test_a_picture_of_16_bits_does_not_raise():
    picture = read(sixteen_bits())
    assert (picture.image.mode, picture.image.size) == ("RGB", (30, 20))


def test_a_picture_of_16_bits_keeps_its_brightness():
    assert read(sixteen_bits()).image.getpixel((15, 10)) == pytest.approx((128,) * 3, abs=2)


JPEG = encoded(Image.effect_noise((64, 64), 80).convert("RGB"))


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>404</html>", JPEG[:2], JPEG[:300], JPEG[: len(JPEG) // 2]],
    ids=["empty", "a web page", "two bytes", "only a header", "half"],
)
def test_unreadable_pictures_are_blank(content):
    picture = read(content)
    assert is_blank(picture)
    assert picture.label == 5
    assert "Error" in picture.problem


def test_a_file_that_cannot_be_opened_is_blank(tmp_path):
    path = tmp_path / "absent.jpg"
    picture = read_picture(lambda: path.open("rb"), label=2)
    assert is_blank(picture)
    assert str(path) in picture.problem


def test_a_decompression_bomb_is_blank(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    picture = read(JPEG)
    assert is_blank(picture)
    assert "DecompressionBombError" in picture.problem


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
        assert str(tmp_path / "train.json") in picture.problem
    assert is_blank(source[12_345_678])
    assert str(tmp_path) in repr(source)
