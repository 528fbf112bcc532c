import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lowshot_kedro.blocks import Blocks, LabeledBlock
from lowshot_kedro.datasets import HDF5FeatureBlocksDataset, HDF5FeaturesDataset
from tests.datasets.helpers import (
    content_of,
    labeled_blocks,
    random_features,
    refused,
    refused_by_check_and_load,
)


def write(path, features, labels, capacity=None, **replaced):
    """A feature file as published: more rows allocated than are valid; None leaves a key out."""
    capacity = capacity or len(features)
    padding = capacity - len(features)
    arrays = {
        "all_feats": np.pad(features, ((0, padding), (0, 0)), constant_values=np.nan),
        "all_labels": np.pad(labels, (0, padding), constant_values=-7),
        "count": np.array([len(features)], dtype=np.int32),
        **replaced,
    }
    with h5py.File(path, "w") as file:
        for key, array in arrays.items():
            if array is not None:
                file[key] = array


@pytest.fixture
def path(tmp_path):
    return tmp_path / "train.hdf5"


def test_only_the_first_count_rows_are_valid(path):
    features, labels = random_features(7, 3)
    write(path, features, labels, capacity=12)
    loaded = HDF5FeaturesDataset(filepath=str(path)).load()
    assert (loaded.n_rows, len(loaded), loaded.n_columns) == (7, 7, 3)
    np.testing.assert_array_equal(loaded.read(0, 7), features)
    np.testing.assert_array_equal(loaded.labels, labels)
    assert (loaded.labels.dtype, loaded.read(0, 1).dtype) == (np.int32, np.float32)
    assert loaded.name == str(path)
    with pytest.raises(IndexError, match=r"train\.hdf5: rows 5\.\.8 of 7"):
        loaded.read(5, 8)


def test_labels_of_another_integer_type_and_wider_features_are_converted(path):
    features, labels = random_features(4, 2)
    write(path, features.astype(np.float64), labels.astype(np.int64))
    loaded = HDF5FeaturesDataset(filepath=str(path)).load()
    np.testing.assert_array_equal(loaded.read(0, 4), features)
    assert (loaded.read(0, 4).dtype, loaded.labels.dtype) == (np.float32, np.int32)


def test_an_empty_collection(path):
    write(path, np.empty((0, 3), np.float32), np.empty(0, np.int32), capacity=5)
    loaded = HDF5FeaturesDataset(filepath=str(path)).load()
    assert (loaded.n_rows, loaded.labels.shape, loaded.read(0, 0).shape) == (0, (0,), (0, 3))


@pytest.mark.parametrize("block_rows", [1, 4, 7, 100])
def test_writes_the_published_format(path, block_rows):
    features, labels = random_features(7, 3)
    HDF5FeaturesDataset(filepath=str(path)).save(labeled_blocks(features, labels, block_rows))
    with h5py.File(path, "r") as file:
        assert set(file) == {"all_feats", "all_labels", "count"}
        assert file["all_feats"].dtype == np.dtype("<f4")
        assert file["all_labels"].dtype == file["count"].dtype == np.dtype("<i4")
        np.testing.assert_array_equal(file["all_feats"], features)
        np.testing.assert_array_equal(file["all_labels"], labels)
        np.testing.assert_array_equal(file["count"], [7])


def test_missing_file(path):
    dataset = HDF5FeaturesDataset(filepath=str(path))
    assert not dataset.exists()
    refused_by_check_and_load(dataset, FileNotFoundError, path)


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file(path, kept):
    write(path, *random_features(50, 8))
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    dataset = HDF5FeaturesDataset(filepath=str(path))
    refused_by_check_and_load(dataset, ValueError, path, "cut off")


@pytest.mark.parametrize("key", ["all_feats", "all_labels", "count"])
def test_a_missing_key(path, key):
    write(path, *random_features(4, 3), **{key: None})
    found = ", ".join(sorted({"all_feats", "all_labels", "count"} - {key}))
    dataset = HDF5FeaturesDataset(filepath=str(path))
    refused_by_check_and_load(dataset, ValueError, path, f"no dataset {key}", f"found {found}")


@pytest.mark.parametrize(
    "key, array, found, expected",
    [
        ("all_feats", np.zeros((4, 3), np.int32), "int32 of shape (4, 3)", "float32"),
        ("all_feats", np.zeros(4, np.float32), "shape (4,)", "2 dimension"),
        ("all_feats", np.zeros((4, 3, 1), np.float32), "shape (4, 3, 1)", "2 dimension"),
        ("all_labels", np.zeros(4, np.float32), "float32 of shape (4,)", "int32"),
        ("all_labels", np.zeros((4, 1), np.int32), "shape (4, 1)", "1 dimension"),
        ("count", np.array([4.0]), "float64 of shape (1,)", "int32"),
        ("count", np.array(4), "shape ()", "1 dimension"),
    ],
)
def test_a_wrong_type_or_shape(path, key, array, found, expected):
    write(path, *random_features(4, 3), **{key: array})
    dataset = HDF5FeaturesDataset(filepath=str(path))
    refused_by_check_and_load(dataset, ValueError, path, key, found, expected)


@pytest.mark.parametrize("key", ["count", "all_feats"])
def test_a_count_without_entries_or_a_group_in_place_of_an_array(path, key):
    write(path, *random_features(4, 3), **{key: np.empty(0, np.int32) if key == "count" else None})
    if key == "all_feats":
        with h5py.File(path, "a") as file:
            file.create_group(key)
    dataset = HDF5FeaturesDataset(filepath=str(path))
    refused_by_check_and_load(dataset, ValueError, path, key)


@pytest.mark.parametrize("count", [5, -1, 2**31 - 1])
def test_an_impossible_count(path, count):
    write(path, *random_features(4, 3), count=np.array([count], dtype=np.int32))
    dataset = HDF5FeaturesDataset(filepath=str(path))
    refused_by_check_and_load(dataset, ValueError, path, f"count is {count}", "4")


def test_fewer_labels_than_count(path):
    write(path, *random_features(4, 3), all_labels=np.zeros(3, np.int32))
    dataset = HDF5FeaturesDataset(filepath=str(path))
    refused_by_check_and_load(dataset, ValueError, path, "count is 4", "all_labels 3")


MISANNOUNCED = {
    "fewer rows": (3, 2, 3),
    "more rows": (5, 2, 5),
    "narrow": (4, 1, 4),
    "fewer labels": (4, 2, 3),
}


@pytest.mark.parametrize("dataset_class", [HDF5FeaturesDataset, HDF5FeatureBlocksDataset])
@pytest.mark.parametrize("n_rows, n_columns, n_labels", MISANNOUNCED.values(), ids=MISANNOUNCED)
def test_refuses_blocks_that_are_not_what_they_announce(
    tmp_path, dataset_class, n_rows, n_columns, n_labels
):
    block = LabeledBlock(np.ones((n_rows, n_columns), np.float32), np.zeros(n_labels, np.int32))
    with refused(ValueError, tmp_path):
        dataset_class(filepath=str(tmp_path / "new")).save(Blocks(4, 2, lambda: [block]))
    assert content_of(tmp_path) == {}


# Background collections.


def block_file(folder, number):
    return folder / f"block{number}.hdf5"


@settings(deadline=None)
@given(
    counts=st.lists(st.integers(0, 5), min_size=1, max_size=4),
    spare=st.integers(0, 3),
    first=st.integers(0, 20),
    last=st.integers(0, 20),
)
def test_reads_across_block_files(tmp_path_factory, counts, spare, first, last):
    folder = tmp_path_factory.mktemp("f100m")
    features, labels = random_features(sum(counts), 2)
    start = 0
    for number, count in enumerate(counts):
        rows = slice(start, start + count)
        capacity = count + spare + 1
        write(block_file(folder, number), features[rows], labels[rows], capacity=capacity)
        start += count
    loaded = HDF5FeatureBlocksDataset(filepath=str(folder)).load()
    assert loaded.n_rows == len(features)
    np.testing.assert_array_equal(loaded.labels, labels)
    first, last = sorted((min(first, len(features)), min(last, len(features))))
    np.testing.assert_array_equal(loaded.read(first, last), features[first:last])


@pytest.mark.parametrize(
    "n_rows, rows_per_file, expected",
    [(7, 3, [3, 3, 1]), (6, 3, [3, 3]), (2, 3, [2]), (0, 3, [0]), (7, 1_000_000, [7])],
)
@pytest.mark.parametrize("block_rows", [1, 2, 5, 100])
def test_writes_block_files(tmp_path, n_rows, rows_per_file, expected, block_rows):
    folder = tmp_path / "f100m"
    features, labels = random_features(n_rows, 2)
    dataset = HDF5FeatureBlocksDataset(filepath=str(folder), rows_per_file=rows_per_file)
    dataset.save(labeled_blocks(features, labels, block_rows))
    assert {path.name for path in folder.iterdir()} == {
        f"block{number}.hdf5" for number in range(len(expected))
    }
    found = []
    for number in range(len(expected)):
        with h5py.File(block_file(folder, number), "r") as file:
            assert file["all_feats"].dtype == np.float32
            assert file["count"][:].tolist() == [expected[number]]
            found.append((file["all_feats"][:], file["all_labels"][:]))
    np.testing.assert_array_equal(np.concatenate([part[0] for part in found]), features)
    np.testing.assert_array_equal(np.concatenate([part[1] for part in found]), labels)
    assert dataset.load().counts == tuple(expected)


def test_a_smaller_collection_replaces_a_larger_one(tmp_path):
    dataset = HDF5FeatureBlocksDataset(filepath=str(tmp_path), rows_per_file=2)
    dataset.save(labeled_blocks(*random_features(7, 2), 3))
    features, labels = random_features(3, 4)
    dataset.save(labeled_blocks(features, labels, 3))
    assert {path.name for path in tmp_path.iterdir()} == {"block0.hdf5", "block1.hdf5"}
    np.testing.assert_array_equal(dataset.load().read(0, 3), features)


def test_blocks_left_by_a_killed_run_do_not_join_a_new_collection(tmp_path):
    # What a kill between two renames leaves: later blocks without block 0.
    write(block_file(tmp_path, 1), *random_features(5, 2))
    features, labels = random_features(3, 2)
    dataset = HDF5FeatureBlocksDataset(filepath=str(tmp_path))
    dataset.save(labeled_blocks(features, labels, 3))
    np.testing.assert_array_equal(dataset.load().labels, labels)


def test_missing_folder_and_missing_first_block(tmp_path):
    for folder in (tmp_path / "absent", tmp_path):
        write(block_file(tmp_path, 1), *random_features(4, 3))
        dataset = HDF5FeatureBlocksDataset(filepath=str(folder))
        assert not dataset.exists()
        refused_by_check_and_load(dataset, FileNotFoundError, block_file(folder, 0))


def test_blocks_of_different_width(tmp_path):
    write(block_file(tmp_path, 0), *random_features(4, 3))
    write(block_file(tmp_path, 1), *random_features(4, 5))
    dataset = HDF5FeatureBlocksDataset(filepath=str(tmp_path))
    facts = (block_file(tmp_path, 1), "5 columns", "block0.hdf5 has 3")
    refused_by_check_and_load(dataset, ValueError, *facts)


def test_a_truncated_later_block(tmp_path):
    for number in range(2):
        write(block_file(tmp_path, number), *random_features(4, 3))
    later = block_file(tmp_path, 1)
    later.write_bytes(later.read_bytes()[:-100])
    dataset = HDF5FeatureBlocksDataset(filepath=str(tmp_path))
    refused_by_check_and_load(dataset, ValueError, later, "cut off")


@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"dtype": "<f8"},
        {"dtype": ">f4"},
        {"chunks": (3, 2)},
        {"chunks": (2, 5), "compression": "gzip"},
    ],
    ids=["plain", "float64", "big-endian", "in chunks", "compressed"],
)
def test_rows_are_read_however_they_are_stored(tmp_path, layout):
    features, labels = random_features(23, 5)
    for number, rows in enumerate((slice(0, 10), slice(10, 20), slice(20, 23))):
        with h5py.File(tmp_path / f"block{number}.hdf5", "w") as file:
            file.create_dataset("all_feats", data=features[rows], **{"dtype": "<f4", **layout})
            file["all_labels"] = labels[rows]
            file["count"] = np.array([len(labels[rows])], dtype="<i4")
    loaded = HDF5FeatureBlocksDataset(filepath=str(tmp_path), rows_per_file=10).load()
    for first, last in ((0, 23), (0, 0), (3, 4), (9, 11), (8, 22), (20, 23)):
        np.testing.assert_array_equal(loaded.read(first, last), features[first:last])
        buffer = np.full((30, 5), 7, dtype=np.float32)
        found = loaded.read(first, last, out=buffer[: last - first])
        assert np.shares_memory(found, buffer) or first == last
        np.testing.assert_array_equal(buffer[: last - first], features[first:last])
        assert (buffer[last - first :] == 7).all()


def test_a_file_that_is_cut_off_after_it_was_opened(path):
    features, labels = random_features(50, 4)
    write(path, features, labels)
    loaded = HDF5FeaturesDataset(filepath=str(path)).load()
    np.testing.assert_array_equal(loaded.read(0, 50), features)
    with h5py.File(path) as file:
        end = file["all_feats"].id.get_offset() + 4 * 4 * 40
    with path.open("r+b") as file:
        file.truncate(end)
    np.testing.assert_array_equal(loaded.read(0, 40), features[:40])
    with refused(ValueError, path, "cut off"):
        loaded.read(0, 41)
