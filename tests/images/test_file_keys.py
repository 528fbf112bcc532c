"""Files are known again wherever they lie, and not once they have changed."""

import os

import numpy as np
import pytest

from lowshot_kedro.images import (
    AbsentImages,
    ImageFolder,
    ImageSubset,
    KeyedImages,
    LabeledList,
    NumberedZipShards,
)
from lowshot_kedro.images.file_keys import file_keys
from lowshot_kedro.images.image_files import ImageFiles

TIME = 1_700_000_000_123_456_789
SIZES = [0, 1, 65_535, 65_536, 65_537, 70_000, 1_000_000]


def written(path, content, time=TIME):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, ns=(time, time))
    return path


def key(path):
    (found,) = file_keys([path])
    return found.tobytes()


def content_of_size(n_bytes):
    return np.random.default_rng(n_bytes).bytes(n_bytes)


@pytest.mark.parametrize("n_bytes", SIZES)
def test_name_and_folder_do_not_count_but_size_and_time_do(tmp_path, n_bytes):
    content = content_of_size(n_bytes)
    found = key(written(tmp_path / "a.jpg", content))
    assert any(found)
    assert key(written(tmp_path / "b" / "c.png", content)) == found
    others = {
        key(written(tmp_path / "later.jpg", content, TIME + 1)),
        key(written(tmp_path / "earlier.jpg", content, -5)),
        key(written(tmp_path / "longer.jpg", content + b"x")),
    }
    assert len(others | {found}) == 4


@pytest.mark.parametrize("n_bytes", SIZES[1:4])
def test_every_byte_of_a_small_file_counts(tmp_path, n_bytes):
    content = bytearray(content_of_size(n_bytes))
    found = {key(written(tmp_path / "a", content))}
    places = {0, n_bytes // 2, n_bytes - 1, *range(1, n_bytes, 7919)}
    for place in places:
        content[place] ^= 1
        found.add(key(written(tmp_path / "a", content)))
        content[place] ^= 1
    assert len(found) == 1 + len(places)


@pytest.mark.parametrize("n_bytes", SIZES[4:])
def test_beginning_middle_and_end_of_a_large_file_count(tmp_path, n_bytes):
    content = bytearray(content_of_size(n_bytes))
    found = {key(written(tmp_path / "a", content))}
    for number in range(8):
        # A piece of 8 KiB begins there, and the last one ends with the file.
        place = number * (n_bytes - 8192) // 7
        for offset in (0, 8191):
            content[place + offset] ^= 1
            found.add(key(written(tmp_path / "a", content)))
            content[place + offset] ^= 1
    assert len(found) == 17


def test_what_cannot_be_read_has_no_key(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    paths = [tmp_path / "nowhere", tmp_path / "pipe", tmp_path / "folder", tmp_path / "a\0b"]
    assert not file_keys(paths).any()
    assert file_keys([]).shape == (0, 16)


def test_links_are_what_they_lead_to(tmp_path):
    path = written(tmp_path / "a", b"content")
    (tmp_path / "link").symlink_to(path)
    assert key(tmp_path / "link") == key(path)


def test_files_of_their_own_have_keys(tmp_path):
    names = [f"{number}.jpg" for number in range(5)]
    for name in names:
        written(tmp_path / name, name.encode())
    images = ImageFolder(tmp_path)
    keys = images.file_keys(0, 5)
    assert (keys.shape, keys.dtype) == ((5, 16), np.uint8)
    np.testing.assert_array_equal(keys, file_keys([tmp_path / name for name in names]))
    np.testing.assert_array_equal(images.file_keys(2, 4), keys[2:4])
    assert issubclass(LabeledList, ImageFiles)
    others = (
        AbsentImages(tmp_path),
        NumberedZipShards(tmp_path, 0, 0),
        ImageSubset(images, np.arange(2)),
    )
    assert isinstance(images, KeyedImages)
    assert not any(isinstance(source, KeyedImages) for source in others)
