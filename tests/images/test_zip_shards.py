import json
import multiprocessing
import os
import pickle
import sys
import zipfile
from unittest import mock

import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

from lowshot_kedro.errors import InputError
from lowshot_kedro.images import NumberedZipShards, decoding, zip_shards
from tests.images.helpers import flat_jpeg, is_blank, open_files, value_of, write_shard
from tests.odd_files import NO_FILES, no_waiting


@pytest.mark.parametrize(
    "number, folder, name, file",
    [
        (12_345_678, "12", "345", "678.jpg"),
        (0, "00", "000", "000.jpg"),
        (999, "00", "000", "999.jpg"),
        (1_000, "00", "001", "000.jpg"),
        (1_000_000, "01", "000", "000.jpg"),
        (99_999_999, "99", "999", "999.jpg"),
    ],
)
def test_the_published_layout(tmp_path, number, folder, name, file):
    write_shard(tmp_path, folder, name, {file: flat_jpeg(77)})
    image = NumberedZipShards(tmp_path, last=100_000_000)[number]
    assert image.problem is None
    assert value_of(image) == pytest.approx(77, abs=2)
    assert image.label == 0


def test_the_last_image_is_the_last_of_the_last_shard(tmp_path):
    write_shard(tmp_path, "00", "002", {"500.jpg": flat_jpeg(1)})
    write_shard(tmp_path, "01", "003", {"007.jpg": flat_jpeg(1), "004.jpg": b"", "9.png": b""})
    (tmp_path / "01" / "notes.zip").touch()
    write_shard(tmp_path, "01", "002", {"999.jpg": flat_jpeg(1)})
    (tmp_path / "extra").mkdir()
    assert len(NumberedZipShards(tmp_path)) == 1_003_008
    assert len(NumberedZipShards(tmp_path, first=1_003_000)) == 8


def test_a_folder_without_shards_is_empty(tmp_path):
    assert len(NumberedZipShards(tmp_path)) == 0


@pytest.fixture
def four(tmp_path):
    """Images 998 to 1001, in two shards, each as bright as the last two digits of its number."""
    write_shard(tmp_path, "00", "000", {"998.jpg": flat_jpeg(98), "999.jpg": flat_jpeg(99)})
    write_shard(tmp_path, "00", "001", {"000.jpg": flat_jpeg(0), "001.jpg": flat_jpeg(1)})
    return NumberedZipShards(tmp_path, first=998, last=1002)


def test_a_range_counts_from_its_first_image(four):
    assert [value_of(image) for image in four] == pytest.approx([98, 99, 0, 1], abs=2)
    assert value_of(four[-4]) == pytest.approx(98, abs=2)
    assert "998..1002" in repr(four)


@pytest.mark.parametrize("number", [4, -5])
def test_a_number_outside_the_range(four, number):
    with pytest.raises(IndexError, match=f"image {number} of 4"):
        four[number]


ODD_RANGES = [
    ("5", 9, "first"),
    (0, 1e6, "last"),
    (True, 9, "first"),
    (-1, 3, "first"),
    (0, 2**31, "last"),
    (10**30, None, "first"),
    (0, float("nan"), "last"),
]


@pytest.mark.parametrize("first, last, name", ODD_RANGES)
def test_a_range_that_is_not_of_integers(tmp_path, first, last, name):
    with pytest.raises(ValueError, match=rf"{name}: .*expected an integer from 0 to 2147483647"):
        NumberedZipShards(tmp_path, first, last)


@pytest.mark.parametrize("first, last", [(5, 3), (1, None)])
def test_a_range_that_is_none(tmp_path, first, last):
    with pytest.raises(
        ValueError, match=rf"first: got {first}, which leaves .*{first}\.\.{last or 0}"
    ):
        NumberedZipShards(tmp_path, first, last)


def test_a_shard_of_a_number_too_large(tmp_path):
    write_shard(tmp_path, "9" * 40, "000", {"000.jpg": flat_jpeg(50)})
    with pytest.raises(InputError, match=r"9/000\.zip: expected shards up to 2147/482\.zip"):
        NumberedZipShards(tmp_path)


def test_missing_and_damaged_images_are_blank(tmp_path):
    write_shard(tmp_path, "00", "000", {"001.jpg": flat_jpeg(50)[:200], "002.jpg": flat_jpeg(50)})
    (tmp_path / "00" / "002.zip").write_bytes(b"no zip")
    content = write_shard(tmp_path, "00", "003", {"000.jpg": flat_jpeg(50)}).read_bytes()
    (tmp_path / "00" / "003.zip").write_bytes(content[:-30])
    source = NumberedZipShards(tmp_path, last=5_000)
    expected = {
        0: "00/000.zip/000.jpg: FileNotFoundError: it is not in the zip file",
        1: "00/000.zip/001.jpg: OSError: Truncated",
        2: None,
        1_000: "00/001.zip/000.jpg: FileNotFoundError: No such file or directory",
        2_000: "00/002.zip/000.jpg: BadZipFile: File is not a zip file",
        3_000: "00/003.zip/000.jpg: BadZipFile: File is not a zip file",
    }
    for number, problem in expected.items():
        image = source[number]
        if problem is None:
            assert image.problem is None
            continue
        assert problem in image.problem
        assert image.image.size == (256, 256)
        assert image.image.getextrema() == ((0, 0),) * 3


def test_few_files_are_open_at_a_time(tmp_path, monkeypatch):
    for shard in range(20):
        write_shard(tmp_path, "00", f"{shard:03d}", {"000.jpg": flat_jpeg(10 * shard)})
    open_now, most_open = set(), 0

    class Counted(zipfile.ZipFile):
        def __init__(self, *args, **kwargs):
            nonlocal most_open
            super().__init__(*args, **kwargs)
            open_now.add(self)
            most_open = max(most_open, len(open_now))

        def close(self):
            open_now.discard(self)
            super().close()

    monkeypatch.setattr(zipfile, "ZipFile", Counted)
    source = NumberedZipShards(tmp_path, last=20_000)
    for _ in range(2):
        found = [value_of(source[1_000 * shard]) for shard in range(20)]
        assert found == pytest.approx([10 * shard for shard in range(20)], abs=2)
    assert most_open == 16


def test_a_file_stays_open_between_images(four, monkeypatch):
    value_of(four[0])
    monkeypatch.setattr(zipfile, "ZipFile", None)
    assert value_of(four[1]) == pytest.approx(99, abs=2)


def test_an_opened_source_can_be_pickled(four):
    four[0]
    copy = pickle.loads(pickle.dumps(four))
    assert [value_of(image) for image in copy] == pytest.approx([98, 99, 0, 1], abs=2)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_does_not_move_the_files_of_its_parent(tmp_path, monkeypatch):
    padding = bytes(100_000)
    shard = {f"{number:03d}.jpg": flat_jpeg(number) + padding for number in (0, 100, 200)}
    write_shard(tmp_path, "00", "000", shard)
    opened = []

    class Noted(zipfile.ZipFile):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            opened.append(self.fp.fileno())

    source = NumberedZipShards(tmp_path)
    monkeypatch.setattr(zipfile, "ZipFile", Noted)
    assert value_of(source[0]) == 0
    [descriptor] = opened
    before = os.lseek(descriptor, 0, os.SEEK_CUR)

    def look() -> None:
        sys.exit(0 if abs(value_of(source[200]) - 200) <= 2 else 1)

    process = multiprocessing.get_context("fork").Process(target=look)
    process.start()
    process.join()
    assert process.exitcode == 0
    assert os.lseek(descriptor, 0, os.SEEK_CUR) == before
    assert value_of(source[100]) == pytest.approx(100, abs=2)


class Values(Dataset):
    def __init__(self, source):
        self.source = source

    def __len__(self):
        return len(self.source)

    def __getitem__(self, number):
        image = self.source[number]
        return value_of(image), image.problem or ""


def test_workers_see_the_right_images_after_the_parent_has_opened_the_file(tmp_path):
    values = [(37 * number) % 250 for number in range(60)]
    shard = {f"{number:03d}.jpg": flat_jpeg(value) for number, value in enumerate(values)}
    write_shard(tmp_path, "00", "000", shard)
    source = NumberedZipShards(tmp_path)
    assert source[59].problem is None
    loader = DataLoader(Values(source), batch_size=5, num_workers=2, multiprocessing_context="fork")
    found, problems = [], []
    for batch, batch_problems in loader:
        found += batch.tolist()
        problems += batch_problems
        source[0]
    assert problems == [""] * 60
    assert found == pytest.approx(values, abs=2)


def test_workers_find_the_same_broken_shards(tmp_path):
    for shard in range(3):
        write_shard(tmp_path, "00", f"{shard:03d}", {"000.jpg": flat_jpeg(shard * 50)})
    (tmp_path / "00" / "001.zip").write_bytes(b"no zip")
    source = NumberedZipShards(tmp_path, last=2_001)
    source[1_000]
    loader = DataLoader(Values(source), 100, num_workers=2, multiprocessing_context="fork")
    values = [value for batch, _ in loader for value in batch.tolist()]
    problems = [problem for _, batch_problems in loader for problem in batch_problems]
    assert values[2_000] == pytest.approx(100, abs=2)
    assert [number for number, problem in enumerate(problems) if not problem] == [0, 2_000]
    assert all("001.zip" in problem and "not a zip" in problem for problem in problems[1_000:2_000])


@pytest.mark.parametrize("content", [None, b"no zip"], ids=["absent", "damaged"])
def test_a_broken_shard_is_opened_once_for_its_images(tmp_path, monkeypatch, content):
    if content is not None:
        (tmp_path / "00").mkdir()
        (tmp_path / "00" / "000.zip").write_bytes(content)
    opened = mock.Mock(side_effect=zip_shards._open_shard)
    monkeypatch.setattr(zip_shards, "_open_shard", opened)
    source = NumberedZipShards(tmp_path, last=1_000)
    problems = {source[number].problem.split(": ", 1)[1] for number in range(1_000)}
    assert len(problems) == opened.call_count == 1


@pytest.mark.parametrize("kind", NO_FILES)
def test_a_shard_that_is_no_file_is_not_waited_for(tmp_path, kind):
    make, found = NO_FILES[kind]
    write_shard(tmp_path, "00", "001", {"000.jpg": flat_jpeg(50)})
    make(tmp_path / "00" / "000.zip")
    with no_waiting():
        source = NumberedZipShards(tmp_path)
        source.describe()
        image = source[7]
        assert source[1_000].problem is None
    assert is_blank(image)
    assert image.problem.startswith("00/000.zip/007.jpg: it is ")
    assert found.removeprefix("is ") in image.problem
    (tmp_path / "00" / "001.zip").unlink()
    with (
        no_waiting(),
        pytest.raises(InputError, match=rf"000\.zip: not a readable zip.*{found[3:]}"),
    ):
        NumberedZipShards(tmp_path)


def packed(folder, content, declared=None, method=zipfile.ZIP_DEFLATED):
    """A shard whose only file claims to be of another size than it unpacks to."""
    path = folder / "00" / "000.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("000.jpg", content)
    if declared is not None:
        size = len(content).to_bytes(4, "little")
        changed = path.read_bytes()
        assert changed.count(size) == 2
        path.write_bytes(changed.replace(size, declared.to_bytes(4, "little")))
    return NumberedZipShards(folder)[0]


METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]


@pytest.mark.parametrize("method", METHODS[1:])
@pytest.mark.parametrize(
    ("n_bytes", "declared", "problem"),
    [
        (99_000, None, "99000 bytes, more than 50000"),
        (99_000, 2**31, "2147483648 bytes, more than 50000"),
        # What comes out is cut off at the size that the entry declares.
        (99_000, 49_000, "Bad CRC-32"),
    ],
)
def test_a_file_that_unpacks_to_more_than_an_image_is_blank(
    tmp_path, monkeypatch, method, n_bytes, declared, problem
):
    for module in (decoding, zip_shards):
        monkeypatch.setattr(module, "MAX_BYTES", 50_000)
    image = packed(tmp_path, bytes(n_bytes), declared, method)
    assert is_blank(image)
    assert image.problem.startswith("00/000.zip/000.jpg: ")
    assert problem in image.problem


def test_no_more_is_unpacked_than_is_asked_for(tmp_path):
    unpacked = []

    class Noted(zipfile.ZipExtFile):
        def read(self, n=-1):
            content = super().read(n)
            unpacked.append((n, len(content)))
            return content

    content = flat_jpeg(50) + bytes(10**6)
    with mock.patch.object(zipfile, "ZipExtFile", Noted):
        assert packed(tmp_path, content).problem is None
    assert unpacked == [(decoding.MAX_BYTES + 1, len(content))]


@pytest.mark.parametrize("method", METHODS)
def test_packed_images_are_read(tmp_path, method):
    assert value_of(packed(tmp_path, flat_jpeg(50), method=method)) == pytest.approx(50, abs=2)


def damage(content: bytes) -> list[bytes]:
    """A zip file with a piece of its directory overwritten, cut, or taken from another file."""
    directory = content.rindex(b"PK\x01\x02")
    end = content.rindex(b"PK\x05\x06")
    noise = bytes(range(256))
    return [
        content[:directory],
        content[: directory + 20],
        content[:directory] + noise[: end - directory] + content[end:],
        content[:end] + b"PK\x05\x06" + b"\xff" * 18,
        content[: directory + 42] + b"\xff\xff\xff\x7f" + content[directory + 46 :],
        content[: directory + 6] + b"\xff\xff" + content[directory + 8 :],
        content[:10],
        b"",
    ]


def test_no_damage_to_a_shard_stops_a_job_or_leaves_it_open(tmp_path):
    path = write_shard(tmp_path, "00", "000", {"000.jpg": flat_jpeg(50)})
    for content in damage(path.read_bytes()):
        path.write_bytes(content)
        source = NumberedZipShards(tmp_path, last=1)
        assert is_blank(source[0])
        assert source[0].problem.startswith("00/000.zip/000.jpg: ")
        del source
        assert open_files(tmp_path) == []


def test_an_image_whose_bytes_have_changed_is_blank(tmp_path):
    path = write_shard(tmp_path, "00", "000", {"000.jpg": flat_jpeg(50), "001.jpg": flat_jpeg(9)})
    content = path.read_bytes()
    path.write_bytes(content[:300] + bytes([content[300] ^ 1]) + content[301:])
    changed, other = NumberedZipShards(tmp_path)
    assert "BadZipFile: Bad CRC-32" in changed.problem
    assert other.problem is None


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_job_over_many_shards_keeps_16_files_open_and_nothing_else(tmp_path):
    for shard in range(40):
        write_shard(tmp_path, "00", f"{shard:03d}", {"000.jpg": flat_jpeg(shard)})
    (tmp_path / "00" / "030.zip").write_bytes(b"no zip")
    source = NumberedZipShards(tmp_path)
    for shard in range(20):
        source[1_000 * shard]
    assert len(open_files(tmp_path)) == 16
    for shard in range(20, 40):
        source[1_000 * shard]
    assert open_files(tmp_path) == sorted(
        str(tmp_path / "00" / f"{shard:03d}.zip") for shard in range(24, 40) if shard != 30
    )
    assert open_files(tmp_path / "00" / "030.zip") == []


def test_there_are_no_labels(four):
    assert (four.labels.tolist(), four.labels.dtype) == ([0, 0, 0, 0], np.int32)


def test_the_description_tells_images_from_others_wherever_they_lie(tmp_path):
    def make(folder, shards, first=0, last=None):
        for shard, images in shards.items():
            write_shard(tmp_path / folder, "00", shard, images)
        return NumberedZipShards(tmp_path / folder, first, last).describe()

    one, two = {"000.jpg": flat_jpeg(10)}, {"000.jpg": flat_jpeg(20), "001.jpg": flat_jpeg(30)}
    original = make("original", {"000": one, "001": two})
    json.dumps(original)
    assert original.keys() == {"kind", "n_pictures", "first", "last", "checksum"}
    assert (original["kind"], original["n_pictures"]) == ("numbered zip shards", 1_002)
    assert make("again", {"000": one, "001": two}) == original
    content = {**two, "001.jpg": flat_jpeg(31)}
    assert len(content["001.jpg"]) == len(two["001.jpg"])
    others = [
        make("content", {"000": one, "001": content}),
        make("name", {"000": {"001.jpg": one["000.jpg"]}, "001": two}),
        make("missing", {"001": two}),
        make("longer", {"000": {"000.jpg": one["000.jpg"] + b"x"}, "001": two}),
    ]
    (tmp_path / "again" / "00" / "000.zip").write_bytes(b"no zip")
    others.append(NumberedZipShards(tmp_path / "again").describe())
    assert len({description["checksum"] for description in [original, *others]}) == 6
    assert make("original", {}, first=1) != original
    assert make("original", {}, last=1_001) != original


def test_a_shard_outside_the_range_does_not_change_the_description(tmp_path):
    for shard in ("000", "001", "002"):
        write_shard(tmp_path, "00", shard, {"000.jpg": flat_jpeg(10)})
    middle = NumberedZipShards(tmp_path, 1_000, 2_000).describe()
    for shard in ("000", "002"):
        (tmp_path / "00" / f"{shard}.zip").unlink()
    assert NumberedZipShards(tmp_path, 1_000, 2_000).describe() == middle
    (tmp_path / "00" / "001.zip").unlink()
    assert NumberedZipShards(tmp_path, 1_000, 2_000).describe() != middle


def test_only_16_of_many_shards_are_opened_for_the_description(tmp_path, monkeypatch):
    for shard in range(32):
        write_shard(tmp_path, "00", f"{shard:03d}", {"000.jpg": flat_jpeg(10)})
    source = NumberedZipShards(tmp_path)
    opened = []

    class Noted(zipfile.ZipFile):
        def __init__(self, file, *args, **kwargs):
            super().__init__(file, *args, **kwargs)
            opened.append(file.stem)

    monkeypatch.setattr(zipfile, "ZipFile", Noted)
    before = source.describe()
    assert opened == [f"{shard:03d}" for shard in range(0, 32, 2)]
    (tmp_path / "00" / "031.zip").unlink()
    assert source.describe() != before
