"""Zip shards of which a list says which images are used."""

import json
import pickle

import numpy as np
import pytest

from lowshot_kedro.errors import InputError
from lowshot_kedro.images import NumberedZipShards, id_list
from tests.images.helpers import flat_jpeg, is_blank, value_of, write_shard
from tests.odd_files import NO_FILES, no_waiting

IDS = [12_345_678, 3, 1_001, 3, 2]
VALUES = {12_345_678: 200, 3: 30, 1_001: 101, 2: 20}


@pytest.fixture
def shards(tmp_path):
    folder = tmp_path / "shards"
    write_shard(folder, "12", "345", {"678.jpg": flat_jpeg(200)})
    write_shard(folder, "00", "000", {"002.jpg": flat_jpeg(20), "003.jpg": flat_jpeg(30)})
    write_shard(folder, "00", "001", {"001.jpg": flat_jpeg(101)})
    return folder


def listed(path, ids, dtype="int64"):
    np.save(path, np.array(ids, dtype))
    return path


@pytest.mark.parametrize("dtype", ["int32", "uint32", "int64", "uint64", ">i4"])
def test_image_i_is_the_one_that_the_list_names(shards, tmp_path, dtype):
    source = NumberedZipShards(shards, ids=listed(tmp_path / "ids.npy", IDS, dtype))
    assert len(source) == 5
    assert [value_of(image) for image in source] == pytest.approx(
        [VALUES[number] for number in IDS], abs=2
    )
    assert value_of(source[-5]) == pytest.approx(200, abs=2)
    assert [source.file_name(number) for number in (0, 2, -1)] == [
        "12/345.zip/678.jpg", "00/001.zip/001.jpg", "00/000.zip/002.jpg",
    ]  # fmt: skip
    assert source.labels.tolist() == [0] * 5
    with pytest.raises(IndexError, match="image 5 of 5"):
        source[5]


def test_a_list_of_small_integers(shards, tmp_path):
    source = NumberedZipShards(shards, ids=listed(tmp_path / "ids.npy", [3, 2], "uint8"))
    assert [value_of(image) for image in source] == pytest.approx([30, 20], abs=2)


def test_first_and_last_are_positions_in_the_list(shards, tmp_path):
    ids = listed(tmp_path / "ids.npy", IDS)
    source = NumberedZipShards(shards, 1, 3, ids)
    assert [value_of(image) for image in source] == pytest.approx([30, 101], abs=2)
    assert "1..3 of ids.npy" in repr(source)
    with pytest.raises(InputError, match=r"ids\.npy: last: got 6, expected an integer from 0 to 5"):
        NumberedZipShards(shards, last=6, ids=ids)
    with pytest.raises(InputError, match=r"first: got 6, which leaves images 6\.\.5"):
        NumberedZipShards(shards, first=6, ids=ids)
    assert len(NumberedZipShards(shards, 5, 5, ids)) == 0


def test_a_listed_image_that_is_missing_is_blank(shards, tmp_path):
    source = NumberedZipShards(shards, ids=listed(tmp_path / "ids.npy", [3, 4, 99_000_000]))
    assert source[0].problem is None
    assert is_blank(source[1]) and is_blank(source[2])
    assert source[1].problem == "00/000.zip/004.jpg: FileNotFoundError: it is not in the zip file"
    assert source[2].problem.startswith("99/000.zip/000.jpg: FileNotFoundError: No such file")


def test_a_worker_maps_the_list_itself(shards, tmp_path):
    ids = listed(tmp_path / "ids.npy", [*IDS, *[3] * 100_000])
    source = NumberedZipShards(shards, ids=ids)
    sent = pickle.dumps(source)
    assert len(sent) < 2_000
    copy = pickle.loads(sent)
    assert [value_of(copy[n]) for n in range(5)] == pytest.approx(
        [VALUES[number] for number in IDS], abs=2
    )
    assert len(copy) == 100_005


def test_the_description_tells_one_list_from_another(shards, tmp_path):
    def describe(ids, dtype="int64", **part):
        path = listed(tmp_path / f"{len(list(tmp_path.iterdir()))}.npy", ids, dtype)
        return NumberedZipShards(shards, ids=path, **part).describe()

    original = describe(IDS)
    json.dumps(original)
    assert original["n_pictures"] == 5
    assert describe(IDS, "int32") == original
    assert describe([*IDS, 7], last=5) == original
    others = [describe(IDS[::-1]), describe([*IDS[:-1], 7]), describe(IDS, last=4)]
    assert len({entry["ids"] for entry in [original, *others]}) == 4
    # Shards that the list does not name are as if they were not there.
    write_shard(shards, "00", "777", {"000.jpg": flat_jpeg(1)})
    assert describe(IDS) == original
    write_shard(shards, "00", "001", {"001.jpg": flat_jpeg(1) + b"x"})
    assert describe(IDS)["checksum"] != original["checksum"]
    assert "ids" not in NumberedZipShards(shards).describe()


def test_a_list_is_read_once_and_again_when_it_has_changed(shards, tmp_path, monkeypatch):
    monkeypatch.setattr(id_list, "_BLOCK_ROWS", 2)
    read, checked = [], id_list._checked_blocks

    def noted(*part):
        for block in checked(*part):
            read.extend(block.tolist())
            yield block

    monkeypatch.setattr(id_list, "_checked_blocks", noted)
    ids = listed(tmp_path / "ids.npy", IDS)
    for _ in range(2):
        before = NumberedZipShards(shards, ids=ids).describe()
    assert read == IDS
    listed(ids, [*IDS, 2])
    assert NumberedZipShards(shards, last=5, ids=ids).describe() == before
    assert read == IDS + IDS


@pytest.mark.parametrize(
    "ids, dtype, position",
    [
        ([5, -1, 3], "int64", 1),
        ([5, 3, 2**31 - 1], "int64", 2),
        ([0, 2**63], "uint64", 1),
        ([5, 5, 5, 2_147_483_000], "int32", 3),
    ],
)
def test_a_number_that_no_image_has_is_named(shards, tmp_path, monkeypatch, ids, dtype, position):
    monkeypatch.setattr(id_list, "_BLOCK_ROWS", 2)
    path = listed(tmp_path / "ids.npy", ids, dtype)
    message = rf"ids\.npy: entry {position} is {ids[position]}, expected .* 0\.\.2147482999"
    with pytest.raises(InputError, match=message):
        NumberedZipShards(shards, ids=path)
    assert len(NumberedZipShards(shards, last=position, ids=path)) == position


def _cut(path):
    np.save(path, np.arange(1_000))
    path.write_bytes(path.read_bytes()[:-1])


BAD_LISTS = {
    "two dimensions": (lambda path: np.save(path, np.zeros((2, 3), int)), r"shape \(2, 3\)"),
    "a single number": (lambda path: np.save(path, np.int64(5)), r"int64 of shape \(\)"),
    "no integers": (lambda path: np.save(path, np.zeros(3)), "is float64"),
    "truth values": (lambda path: np.save(path, np.zeros(3, bool)), "is bool"),
    "text": (lambda path: np.save(path, np.array(["12"])), "is <U2"),
    "no entry": (lambda path: np.save(path, np.zeros(0, int)), "no number"),
    "objects": (lambda path: np.save(path, np.array([1, None])), "cannot be read"),
    "a pickle": (lambda path: path.write_bytes(pickle.dumps([1, 2])), "cannot be read"),
    "a cut file": (_cut, "is it cut off"),
    "a cut header": (lambda path: path.write_bytes(b"\x93NUMPY\x01\x00v\x00{'descr'"), "cut off"),
    "an empty file": (lambda path: path.touch(), "cut off"),
    "another file": (lambda path: path.write_text("1\n2\n3\n"), "cannot be read"),
}


@pytest.mark.parametrize("kind", BAD_LISTS)
def test_what_is_no_list_is_named(shards, tmp_path, kind):
    make, said = BAD_LISTS[kind]
    make(tmp_path / "ids.npy")
    with pytest.raises(InputError, match=rf"ids\.npy: .*{said}") as caught:
        NumberedZipShards(shards, ids=tmp_path / "ids.npy")
    assert "\n" not in str(caught.value)
    assert "list of integers" in str(caught.value)


def test_an_archive_of_arrays_is_no_list(shards, tmp_path):
    np.savez(tmp_path / "ids.npz", ids=np.arange(3))
    with pytest.raises(InputError, match=r"ids\.npz: is an archive"):
        NumberedZipShards(shards, ids=tmp_path / "ids.npz")


def test_a_list_that_is_not_there(shards, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"ids\.npy: no such file"):
        NumberedZipShards(shards, ids=tmp_path / "ids.npy")


@pytest.mark.parametrize("kind", NO_FILES)
def test_a_list_that_is_no_file_is_not_waited_for(shards, tmp_path, kind):
    make, found = NO_FILES[kind]
    make(tmp_path / "ids.npy")
    with no_waiting(), pytest.raises(InputError, match=f"{found}"):
        NumberedZipShards(shards, ids=tmp_path / "ids.npy")
