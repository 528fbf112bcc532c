import io
import os

import numpy as np
import pytest
from PIL import Image

from lowshot_kedro.images import ImageFolder
from lowshot_kedro.images.joined import JoinedImages
from lowshot_kedro.reporting.labels_page.thumbnails import (
    remove_other_thumbnails,
    write_thumbnails,
)
from tests.images.helpers import CORNERS, ORIENTATIONS, encoded, shows_corners, stored
from tests.reporting.labels_page.making import Shades, names_below, write_files


def made(images, folder, size=96, numbers=None):
    numbers = np.arange(len(images)) if numbers is None else numbers
    return write_thumbnails(images, numbers, folder, size)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_every_orientation_is_upright(tmp_path, kind):
    # Eight times as large as the copy: a JPEG is decoded at a part of its scale.
    for orientation in ORIENTATIONS:
        image = stored(orientation)
        exif = Image.Exif()
        exif[0x0112] = orientation
        large = image.resize((image.width * 8, image.height * 8), Image.Resampling.NEAREST)
        path = tmp_path / "images" / f"{orientation}.{kind.lower()}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded(large, kind, exif=exif.tobytes()))
    images = JoinedImages([ImageFolder(tmp_path / "images")])
    found = made(images, tmp_path / "small")
    assert found.problems == {}
    for name in found.names.values():
        copy = Image.open(tmp_path / "small" / name)
        assert copy.format == "JPEG"
        # Nothing in it turns it again.
        assert 0x0112 not in copy.getexif()
        assert shows_corners(copy)


def test_copies_have_the_size_asked_for_and_small_images_all_their_pixels(tmp_path):
    source = tmp_path / "images"
    source.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (5, 11, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(source / "a.png")
    Image.fromarray(CORNERS).save(source / "b.png")
    Image.new("RGB", (3000, 2)).save(source / "c.png")
    images = JoinedImages([ImageFolder(source)])
    names = made(images, tmp_path / "small", size=48).names
    copies = [Image.open(tmp_path / "small" / names[number]) for number in range(3)]
    assert [copy.size for copy in copies] == [(11, 5), (48, 32), (48, 1)]
    np.testing.assert_array_equal(np.asarray(copies[0]), pixels)


def test_a_second_run_makes_what_is_new_and_removes_what_is_gone(tmp_path):
    source, small = tmp_path / "images", tmp_path / "small"
    write_files(source, ["a.png", "b.png", "c.png"])
    first = made(JoinedImages([ImageFolder(source)]), small).names
    for name in first.values():
        os.utime(small / name, (0, 0))
    Image.new("RGB", (12, 8), "white").save(source / "b.png")
    (source / "c.png").unlink()
    write_files(source / "d", ["d.png"])

    second = made(JoinedImages([ImageFolder(source)]), small).names
    remove_other_thumbnails(small, second.values())
    assert second[0] == first[0]
    assert (small / second[0]).stat().st_mtime == 0
    assert second[1] != first[1]
    assert Image.open(small / second[1]).getpixel((0, 0)) == (255, 255, 255)
    assert names_below(small) == set(second.values())
    assert len(second) == 3


def test_another_size_is_another_copy(tmp_path):
    write_files(tmp_path / "images", ["a.png"])
    images = JoinedImages([ImageFolder(tmp_path / "images")])
    assert made(images, tmp_path / "small", 16).names != made(images, tmp_path / "small", 17).names


def test_images_that_are_no_files_are_decoded_once_and_only_those_asked_for(tmp_path):
    shades = Shades(300)
    images = JoinedImages([Shades(5), shades])
    numbers = np.array([5, 7, 204])
    first = made(images, tmp_path, numbers=numbers)
    second = made(images, tmp_path, numbers=numbers)
    assert shades.asked_for == [0, 2, 199]
    assert first == second
    assert [Image.open(tmp_path / first.names[n]).getpixel((0, 0))[0] for n in (5, 7, 204)] == [
        0, 2, 199,
    ]  # fmt: skip


def test_a_broken_image_has_no_copy_but_a_reason(tmp_path):
    write_files(tmp_path / "images", ["a.png", "b.png"])
    (tmp_path / "images" / "b.png").write_bytes(b"no image")
    images = JoinedImages([ImageFolder(tmp_path / "images")])
    found = made(images, tmp_path / "small")
    assert list(found.names) == [0]
    assert list(found.problems) == [1]
    assert "b.png: UnidentifiedImageError" in found.problems[1]


def test_what_a_killed_run_has_left_is_no_copy(tmp_path, monkeypatch):
    write_files(tmp_path / "images", ["a.png"])
    images = JoinedImages([ImageFolder(tmp_path / "images")])

    def killed(self, path, *arguments, **options):
        path.write_bytes(b"\x89PNG")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            made(images, tmp_path / "small")
    assert len(names_below(tmp_path / "small")) == 1

    names = made(images, tmp_path / "small").names
    remove_other_thumbnails(tmp_path / "small", names.values())
    assert names_below(tmp_path / "small") == {names[0]}
    Image.open(io.BytesIO((tmp_path / "small" / names[0]).read_bytes())).load()


def test_an_empty_copy_is_made_again(tmp_path):
    write_files(tmp_path / "images", ["a.png"])
    images = JoinedImages([ImageFolder(tmp_path / "images")])
    name = made(images, tmp_path / "small").names[0]
    (tmp_path / "small" / name).write_bytes(b"")
    assert made(images, tmp_path / "small").names[0] == name
    Image.open(tmp_path / "small" / name).load()
