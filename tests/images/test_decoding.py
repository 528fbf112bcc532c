import io
import itertools
import json
import pickle
import warnings
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lowshot_kedro.images import AbsentImages, decoding
from lowshot_kedro.images.decoding import decode, no_labels, read_image, to_rgb
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
    return read_image(lambda: decode(io.BytesIO(content)), name, label=5)


@pytest.mark.parametrize("content, color", READABLE.values(), ids=READABLE)
def test_readable_images_become_rgb(content, color):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = read(content)
    assert (loaded.label, loaded.problem) == (5, None)
    assert (loaded.image.mode, loaded.image.size) == ("RGB", SIZE)
    assert loaded.image.getpixel((15, 10)) == pytest.approx(color, abs=3)


@pytest.mark.parametrize("content, problem", BROKEN.values(), ids=BROKEN)
def test_unreadable_images_are_blank(content, problem):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = read(content)
    assert is_blank(loaded)
    assert loaded.label == 5
    assert loaded.problem.startswith("12/345.zip/678.jpg: ")
    assert problem in loaded.problem


@pytest.mark.parametrize("name", ["damaged EXIF", "palette with transparency"])
def test_pil_warns_of_what_is_read_here_in_silence(name):
    with pytest.warns(UserWarning):
        Image.open(io.BytesIO(READABLE[name][0])).convert("RGB")


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "RGBA", "P", "LA"])
def test_an_ordinary_image_has_the_pixels_that_pil_gives(mode):
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
        loaded = read(jpeg_of(pixels))
    assert loaded.problem is None
    assert loaded.image.size == (expected, expected)
    assert loaded.image.getpixel((10, 10))[0] == pytest.approx(30, abs=2)
    assert loaded.image.getpixel((expected - 10, 10))[0] == pytest.approx(200, abs=2)


@pytest.mark.parametrize(
    "limit, size",
    [(6_400, 80), (6_399, 40), (1_600, 40), (1_599, 20), (400, 20), (399, 10), (100, 10), (9, 10)],
)
def test_the_scale_is_the_largest_within_the_limit(monkeypatch, limit, size):
    monkeypatch.setattr(decoding, "REDUCED_PIXELS", limit)
    assert read(jpeg_of(80)).image.size == (size, size)
    assert read(jpeg_of(80, progressive=True)).image.size == (size, size)


def test_the_first_of_two_huge_images_in_a_jpeg_is_reduced_as_well(monkeypatch):
    two = encoded(NOISE, "MPO", save_all=True, append_images=[NOISE])
    assert Image.open(io.BytesIO(two)).format == "MPO"
    monkeypatch.setattr(decoding, "REDUCED_PIXELS", 64 * 64 - 1)
    assert read(two).image.size == (32, 32)


@pytest.mark.parametrize(
    "content",
    [
        encoded(NOISE.convert("RGB"), progressive=True),
        *(encoded(NOISE, k) for k in ("PNG", "TIFF")),
    ],
    ids=["a progressive JPEG", "a PNG", "a TIFF"],
)
def test_what_cannot_be_decoded_within_the_limit_is_blank(monkeypatch, content):
    monkeypatch.setattr(decoding, "REDUCED_PIXELS", 1_000)
    monkeypatch.setattr(decoding, "MAX_PIXELS", 4_096)
    assert read(content).problem is None
    monkeypatch.setattr(decoding, "MAX_PIXELS", 4_095)
    loaded = read(content)
    assert is_blank(loaded)
    assert "64 × 64 pixels, more than 4095" in loaded.problem
    # Of another JPEG no more is held than is decoded.
    assert read(encoded(NOISE)).image.size == (16, 16)


def test_what_a_camera_takes_at_a_time_is_within_the_limit():
    assert decoding.MAX_PIXELS > 11_648 * 8_736


def with_size(content: bytes, marker: int, width: int, height: int) -> bytes:
    """A JPEG whose header says another size."""
    at = content.index(bytes([0xFF, marker]))
    size = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return content[: at + 5] + size + content[at + 9 :]


@pytest.mark.parametrize("size", [(60_000, 60_000), (65_535, 65_535), (9_000, 9_000)])
@pytest.mark.parametrize(("options", "marker"), [({}, 0xC0), ({"progressive": True}, 0xC2)])
def test_a_header_far_larger_than_its_data_is_blank_and_takes_no_memory(size, options, marker):
    content = with_size(encoded(NOISE, **options), marker, *size)
    assert Image.open(io.BytesIO(encoded(NOISE, **options))).size == (64, 64)
    with mock.patch.object(Image.Image, "convert", side_effect=AssertionError):
        loaded = read(content)
    assert is_blank(loaded)
    expected = f"{size[0]} × {size[1]} pixels do not fit into {len(content)} bytes of JPEG"
    assert loaded.problem.endswith(expected)


@pytest.mark.parametrize(
    "options",
    [{}, {"optimize": True}, {"progressive": True, "optimize": True}, {"quality": 1}],
)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_the_emptiest_of_images_is_no_header_without_data(mode, options):
    assert read(encoded(Image.new(mode, (4_000, 4_000)), **options)).problem is None


def test_a_progressive_jpeg_with_scans_without_end_is_blank():
    content = encoded(NOISE, progressive=True)
    last = content.rindex(b"\xff\xda")
    scans, end = content[last:-2], content[-2:]
    n_scans = content.count(b"\xff\xda")
    assert read(content[:-2] + scans * (500 - n_scans) + end).problem is None
    loaded = read(content[:-2] + scans * (501 - n_scans) + end)
    assert is_blank(loaded)
    assert "501 scans, more than 500" in loaded.problem


def test_more_bytes_than_any_image_has(monkeypatch):
    content = encoded(NOISE, "PNG")
    monkeypatch.setattr(decoding, "MAX_BYTES", len(content))
    assert read(content).problem is None
    loaded = read(content + b"0")
    assert is_blank(loaded)
    assert f"{len(content) + 1} bytes, more than {len(content)}" in loaded.problem


def test_postscript_is_not_run():
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    assert Image.open(io.BytesIO(content)).format == "EPS"
    with mock.patch("subprocess.Popen", side_effect=AssertionError):
        loaded = read(content)
    assert is_blank(loaded)
    assert "PostScript" in loaded.problem


def test_an_image_that_pil_refuses_to_open_is_blank_and_its_size_is_said():
    loaded = read(encoded(Image.new("1", (14_000, 13_000)), "PNG"))
    assert is_blank(loaded)
    assert "DecompressionBombError: Image size (182000000 pixels)" in loaded.problem


def test_a_huge_image_is_refused_before_it_is_decoded():
    # Decoding would find that nearly all of it is missing.
    loaded = read(BROKEN["huge"][0][:1_000])
    assert "DecompressionBombError: 12000 × 12000 pixels" in loaded.problem


def test_a_file_that_cannot_be_opened_is_blank_and_its_folder_is_not_said(tmp_path):
    path = tmp_path / "absent.jpg"
    loaded = read_image(lambda: decode(path.open("rb")), "absent.jpg", label=2)
    assert is_blank(loaded)
    assert loaded.problem == "absent.jpg: FileNotFoundError: No such file or directory"


@pytest.mark.parametrize("content", [READABLE["animated gif"][0], BROKEN["half a GIF"][0]])
def test_no_file_stays_open(content):
    file = io.BytesIO(content)
    kept = read_image(lambda: decode(file), "a.gif", label=0)
    assert file.closed
    assert pickle.loads(pickle.dumps(kept)).image.tobytes() == kept.image.tobytes()


def failing(message: str):
    def load():
        raise ValueError(message)

    return load


def test_a_problem_is_one_short_line_of_text():
    loaded = read_image(failing("two\nlines " + 300 * "x"), "folder/" * 100 + "a.jpg", label=0)
    assert len(loaded.problem) == 200
    assert "\n" not in loaded.problem
    assert "folder/a.jpg: ValueError: two lines xxx" in loaded.problem
    assert loaded.problem.endswith("x…")


def test_a_problem_can_be_written_whatever_the_name_is():
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    problem = read_image(failing("no"), name, label=0).problem
    assert problem == "caf\\udce9.jpg: ValueError: no"
    json.dumps(problem).encode()


JPEG = encoded(NOISE.convert("RGB"))


@settings(deadline=None)
@given(position=st.integers(0, len(JPEG) - 1), noise=st.binary(min_size=1, max_size=20))
def test_damaged_bytes_never_raise(position, noise):
    loaded = read(JPEG[:position] + noise + JPEG[position + len(noise) :])
    assert loaded.image.mode == "RGB"
    assert loaded.problem is None or is_blank(loaded)


def test_absent_images(tmp_path):
    source = AbsentImages(tmp_path / "train.json")
    assert len(source) == 0
    for loaded in itertools.islice(source, 3):
        assert is_blank(loaded)
        assert loaded.problem == "train.json is not there"
    assert is_blank(source[12_345_678])
    assert str(tmp_path) in repr(source)
    assert (source.labels.shape, source.labels.dtype) == ((0,), np.int32)
    assert source.describe() == {"kind": "absent", "n_pictures": 0}


def test_no_labels_take_no_memory():
    labels = no_labels(100_000_000)
    assert (labels.shape, labels.dtype, labels.strides) == ((100_000_000,), np.int32, (0,))
    assert not labels[:10].any()
    assert to_rgb(Image.new("RGB", SIZE, BLUE)).getpixel((0, 0)) == BLUE
