"""Features of images that are known are copied, whatever became of their folders."""

import logging
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kedro.io import DatasetError
from PIL import Image

from lowshot_kedro.blocks import KeyedRowBlocks, LabeledBlock, RowBlocks
from lowshot_kedro.datasets import HDF5FeatureBlocksDataset, HDF5FeaturesDataset
from lowshot_kedro.datasets.known_rows import rows_with_keys, with_known_rows
from lowshot_kedro.images import ClassFolders, ImageFolder
from lowshot_kedro.networks import Extractor, Preprocessing, extract_features
from tests.datasets.helpers import content_of, forks, killed_half_way
from tests.features import MemoryFeatures

SIZE = 4


def unchanged(image):
    return image.resize((SIZE, SIZE), Image.Resampling.NEAREST)


def network(factor=1.0):
    """Features are the pixels, so that every image has its own."""
    scale = torch.nn.Linear(3 * SIZE**2, 3 * SIZE**2, bias=False)
    with torch.no_grad():
        scale.weight[:] = factor * torch.eye(3 * SIZE**2)
    preprocess = Preprocessing(unchanged, (0, 0, 0), (1, 1, 1))
    return Extractor("pixels", torch.nn.Sequential(torch.nn.Flatten(), scale), preprocess, 48)


class Counting(ImageFolder):
    """A folder that notes which images are decoded."""

    def __init__(self, root, midway=None, at=None):
        super().__init__(root)
        self.decoded = []
        self._midway, self._at = midway, at

    def __getitem__(self, number):
        if len(self.decoded) == self._at:
            self._midway()
        self.decoded.append(self.name(number))
        return super().__getitem__(number)


def extraction(source, extractor=None, batch_size=3):
    return extract_features(
        extractor or network(), source, batch_size=batch_size, num_workers=0, device="cpu"
    )


def in_blocks(folder, rows_per_file=4):
    return HDF5FeatureBlocksDataset(filepath=str(folder), rows_per_file=rows_per_file)


def save(dataset, root, **options):
    """Features of all images below a folder; returns which of them were decoded."""
    source = Counting(root)
    dataset.save(extraction(source, **options))
    return source.decoded


def write_image(path: Path, seed: int, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)


@pytest.fixture
def root(tmp_path):
    """Eleven images in two folders, all of the same size and the same time."""
    for number in range(11):
        path = tmp_path / "images" / "ab"[number % 2] / f"{number:02d}.bmp"
        write_image(path, number)
        os.utime(path, ns=(10**18, 10**18))
    return tmp_path / "images"


@pytest.fixture
def features(tmp_path, root):
    dataset = in_blocks(tmp_path / "f")
    save(dataset, root)
    return dataset


def assert_fresh(dataset, root, tmp_path, **options):
    """The features are those that a computation from nothing gives, to the last bit."""
    fresh = in_blocks(tmp_path / "fresh")
    shutil.rmtree(tmp_path / "fresh", ignore_errors=True)
    fresh.save(extraction(ImageFolder(root), **options))
    found, wanted = dataset.load(), fresh.load()
    n_rows = wanted.n_rows
    np.testing.assert_array_equal(found.read(0, found.n_rows), wanted.read(0, n_rows), strict=True)
    np.testing.assert_array_equal(found.labels, wanted.labels)
    np.testing.assert_array_equal(found.image_keys(16), wanted.image_keys(16))
    assert list(found.broken_images) == list(wanted.broken_images)
    assert found.image_keys(16).any(axis=1).all()


def add(root):
    write_image(root / "a" / "new.png", 100)
    write_image(root / "a" / "aa" / "new.png", 101)
    return ["a/aa/new.png", "a/new.png"]


def remove(root):
    (root / "a" / "04.bmp").unlink()
    (root / "b" / "01.bmp").unlink()
    return []


def move(root):
    shutil.move(root / "a", root / "z")
    (root / "c").mkdir()
    (root / "b" / "03.bmp").rename(root / "c" / "03.bmp")
    return []


def rename(root):
    (root / "b" / "03.bmp").rename(root / "b" / "99.bmp")
    return []


def exchange(root):
    one, other, aside = root / "a" / "00.bmp", root / "b" / "01.bmp", root / "aside"
    one.rename(aside)
    other.rename(one)
    aside.rename(other)
    write_image(root / "new.png", 100)
    return ["new.png"]


def touch(root):
    os.utime(root / "b" / "05.bmp")
    write_image(root / "new.png", 100)
    return ["b/05.bmp", "new.png"]


def edit(root):
    """Of the same size and with the old time, as some programs keep it."""
    path = root / "b" / "05.bmp"
    write_image(path, 200)
    os.utime(path, ns=(10**18, 10**18))
    write_image(root / "new.png", 100)
    return ["b/05.bmp", "new.png"]


def copy(root):
    shutil.copy2(root / "b" / "05.bmp", root / "copy.bmp")
    return []


CHANGES = (add, remove, move, rename, exchange, touch, edit, copy)


@pytest.mark.parametrize("change", CHANGES)
def test_only_images_that_are_not_known_are_decoded(tmp_path, root, features, change, caplog):
    caplog.set_level(logging.INFO)
    expected = change(root)
    n_images = len(ImageFolder(root))
    assert save(features, root) == expected
    n_known = n_images - len(expected)
    line = f"features of {n_known} of {n_images} images are known: {len(expected)} are computed"
    assert line in caplog.text
    assert_fresh(features, root, tmp_path)


def test_one_change_after_the_other_in_a_single_file(tmp_path, root):
    dataset = HDF5FeaturesDataset(filepath=str(tmp_path / "train.hdf5"))
    assert len(save(dataset, root)) == 11
    for batch_size, change in enumerate((add, remove, copy, move), 1):
        expected = change(root)
        assert save(dataset, root, batch_size=batch_size) == expected
        assert_fresh(dataset, root, tmp_path)
    assert save(dataset, root) == []


def test_labels_are_those_of_the_new_collection(tmp_path, root):
    dataset = HDF5FeaturesDataset(filepath=str(tmp_path / "train.hdf5"))
    dataset.save(extraction(ClassFolders(root)))
    before = dataset.load()
    expected = {before.read(row, row + 1).tobytes(): before.labels[row] for row in range(11)}
    (root / "b" / "05.bmp").rename(root / "a" / "05.bmp")
    dataset.save(extraction(ClassFolders(root)))
    after = dataset.load()
    moved = [
        row
        for row in range(11)
        if expected[after.read(row, row + 1).tobytes()] != after.labels[row]
    ]
    assert [ClassFolders(root).name(row) for row in moved] == ["a/05.bmp"]


@pytest.mark.parametrize("n_rows", [0, 1])
def test_collections_that_shrink_to_nothing_and_grow_again(tmp_path, root, n_rows):
    dataset = in_blocks(tmp_path / "f")
    save(dataset, root)
    kept = sorted(root.rglob("*.bmp"))
    aside = tmp_path / "aside"
    aside.mkdir()
    for path in kept[n_rows:]:
        path.rename(aside / path.name)
    if n_rows:
        assert save(dataset, root) == []
        assert dataset.load().n_rows == 1
    for path in kept[n_rows:]:
        (aside / path.name).rename(path)
    assert len(save(dataset, root)) == (10 if n_rows else 0)
    assert_fresh(dataset, root, tmp_path)


def test_another_network_computes_everything(root, features, caplog):
    caplog.set_level(logging.INFO)
    write_image(root / "new.png", 100)
    assert len(save(features, root, extractor=network(2.0))) == 12
    assert "are known" not in caplog.text


@pytest.mark.parametrize(("blocks", "n_computed"), [((0, 1, 2), 12), ((1,), 5)])
def test_files_of_an_earlier_version_have_no_keys(tmp_path, root, features, blocks, n_computed):
    for number in blocks:
        with h5py.File(tmp_path / "f" / f"block{number}.hdf5", "r+") as file:
            del file["image_keys"]
    write_image(root / "z.png", 100)
    assert len(save(features, root)) == n_computed
    assert_fresh(features, root, tmp_path)


def spoil_file(folder):
    (folder / "block1.hdf5").write_bytes(b"?")


def spoil_list(folder):
    (folder / "block0.hdf5.broken_pictures.csv").unlink()


def spoil_note(folder):
    (folder / "block0.hdf5.made_from.json").write_text("{")


def lose_file(folder):
    (folder / "block2.hdf5").unlink()


@pytest.mark.parametrize("spoil", [spoil_file, spoil_list, spoil_note, lose_file])
def test_what_is_damaged_is_computed_anew(tmp_path, root, features, spoil):
    spoil(tmp_path / "f")
    write_image(root / "z.png", 100)
    assert len(save(features, root)) == 12
    assert_fresh(features, root, tmp_path)


def test_files_of_others_are_left_alone(tmp_path, root, features):
    for name in ("made_from.json", "broken_pictures.csv"):
        (tmp_path / "f" / f"block0.hdf5.{name}").unlink()
    before = content_of(tmp_path / "f")
    assert save(features, root) == []
    assert content_of(tmp_path / "f") == before


def test_broken_images_are_tried_again(tmp_path, root):
    dataset = in_blocks(tmp_path / "f")
    for name in ("a/03.bmp", "b/zz.bmp"):
        (root / name).write_bytes(b"no image")
    (root / "a" / "gone.png").symlink_to(root / "nowhere")
    save(dataset, root)
    numbers = [number for number, _ in dataset.load().broken_images]
    assert len(numbers) == 3
    # Moved, it is named as it is called now; another one has come back.
    (root / "b" / "zz.bmp").rename(root / "zz.bmp")
    write_image(root / "nowhere", 300, format="png")
    assert save(dataset, root) == ["a/03.bmp", "a/gone.png", "zz.bmp"]
    assert [why.partition(":")[0] for _, why in dataset.load().broken_images] == [
        "a/03.bmp",
        "zz.bmp",
    ]


def stop():
    raise InterruptedError("stopped half-way")


@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_a_run_that_is_stopped_continues_and_the_old_files_stay(tmp_path, root, features, at):
    before = content_of(tmp_path / "f")
    for number in range(4):
        write_image(root / "ab"[number % 2] / f"{2 * number:02d}.5.png", 100 + number)
    source = Counting(root, stop, at)
    with pytest.raises((DatasetError, InterruptedError), match="stopped half-way"):
        features.save(extraction(source, batch_size=1))
    assert before.items() <= content_of(tmp_path / "f").items()
    # What was decoded ahead and not written comes again.
    decoded = save(features, root, batch_size=1)
    assert max(0, 4 - at) <= len(decoded) <= 4
    assert_fresh(features, root, tmp_path)
    assert save(features, root) == []


@forks
def test_a_run_that_is_killed_continues(tmp_path, root, features, monkeypatch):
    monkeypatch.setattr("lowshot_kedro.datasets.feature_writer._SECONDS_BETWEEN_COMMITS", 0)
    for number in range(4):
        write_image(root / "ab"[number % 2] / f"{2 * number:02d}.5.png", 100 + number)
    killed_half_way(
        lambda wait: features.save(extraction(Counting(root, wait, 3), batch_size=1)),
        tmp_path / "marker",
    )
    assert features.load().n_rows == 11
    assert len(save(features, root, batch_size=1)) <= 4
    assert_fresh(features, root, tmp_path)


def test_the_file_is_one_that_others_read(tmp_path, root, features):
    with h5py.File(tmp_path / "f" / "block0.hdf5") as file:
        assert set(file) == {"all_feats", "all_labels", "count", "image_keys"}
        assert (file["image_keys"].shape, file["image_keys"].dtype) == ((4, 16), np.uint8)


# --- which rows are which ---


def test_rows_are_found_by_their_keys():
    older = np.array([[5, 0], [0, 0], [1, 2], [0, 7], [1, 2], [9, 9]], np.uint8)
    keys = np.array([[1, 2], [0, 0], [7, 0], [0, 7], [9, 9], [5, 0], [1, 2]], np.uint8)
    found = rows_with_keys(keys, older, np.array([5, 77, -3]))
    assert found.tolist() == [2, -1, -1, 3, -1, 0, 2]
    assert rows_with_keys(keys, older[:0], np.empty(0, np.int64)).tolist() == [-1] * 7
    assert rows_with_keys(keys[:0], older, np.empty(0, np.int64)).tolist() == []


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_wherever_the_work_starts_rows_and_batches_are_the_same(data):
    n_rows = data.draw(st.integers(0, 25))
    block_rows = data.draw(st.integers(1, 6))
    n_older = data.draw(st.integers(1, 12))
    known = data.draw(
        st.lists(st.integers(-1, n_older - 1), min_size=n_rows, max_size=n_rows).map(
            lambda rows: np.array(rows, np.int64)
        )
    )
    older = MemoryFeatures(1000 + np.arange(n_older)[:, None] * np.ones(2), "older")
    batches = []

    def only(rows):
        def make(first_row):
            assert first_row % block_rows == 0
            for first in range(first_row, len(rows), block_rows):
                batch = rows[first : first + block_rows]
                batches.append(tuple(batch))
                problems = {place: f"of {row}" for place, row in enumerate(batch) if row % 3 == 0}
                values = np.repeat(batch[:, None], 2, axis=1).astype(np.float32)
                yield LabeledBlock(values, np.full(len(batch), -1, np.int32), problems)

        return RowBlocks(len(rows), 2, block_rows, make)

    labels = np.arange(n_rows, dtype=np.int32)
    blocks = KeyedRowBlocks(
        n_rows, 2, block_rows, lambda first: (), lambda: None, labels, only, frozenset()
    )
    result = with_known_rows(blocks, older, known)
    assert batches == []
    expected = np.where(known < 0, np.arange(n_rows), 1000 + known)
    whole = None
    for first_row in range(0, max(n_rows, 1), block_rows):
        batches.clear()
        row = first_row
        for block in result.starting_at(first_row):
            assert len(block.features) == min(block_rows, n_rows - row)
            last = row + len(block.features)
            np.testing.assert_array_equal(block.features[:, 0], expected[row:last])
            np.testing.assert_array_equal(block.features[:, 1], expected[row:last])
            np.testing.assert_array_equal(block.labels, labels[row:last])
            assert block.problems == {
                number - row: f"of {number}"
                for number in range(row, last)
                if known[number] < 0 and number % 3 == 0
            }
            row = last
        assert row == n_rows
        whole = whole or list(batches)
        assert set(batches) <= set(whole)
    assert (
        sorted(row for batch in whole or () for row in batch) == np.flatnonzero(known < 0).tolist()
    )
