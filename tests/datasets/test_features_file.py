"""Features of images from a file: feature files and .npz, read without holding them in memory."""

import os

import h5py
import numpy as np
import pytest

from lowshot_kedro.blocks import RegionFeatures
from lowshot_kedro.datasets import HDF5FeaturesDataset
from lowshot_kedro.datasets.features_file import open_regions
from tests.datasets.extraction import Extraction
from tests.datasets.helpers import labeled_blocks, refused

MAPS = np.random.default_rng(0).standard_normal((5, 2, 3, 4)).astype(np.float32)
LABELS = np.array([0, 2, 2, 1, 0], np.int32)
ROWS = np.array([4, 1, 1])


def write_hdf5(path, features, labels=LABELS, **options):
    with h5py.File(path, "w") as file:
        file.create_dataset("all_feats", data=features, **options)
        file["all_labels"] = labels
        file["count"] = np.array([len(features)], np.int32)
    return path


def requires(path, expected, labels=LABELS):
    found = open_regions(path)
    assert isinstance(found, RegionFeatures)
    assert found.shape == expected.shape[1:]
    np.testing.assert_array_equal(found.read(ROWS), expected[ROWS], strict=True)
    np.testing.assert_array_equal(found.labels, labels, strict=True)
    assert found.features.name == str(path)
    return found


@pytest.mark.parametrize("options", [{}, {"compression": "gzip", "chunks": (2, 2, 3, 4)}])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dense_maps_in_hdf5(tmp_path, options, dtype):
    requires(write_hdf5(tmp_path / "maps.hdf5", MAPS.astype(dtype), **options), MAPS)


def test_vectors_are_maps_of_one_place(tmp_path):
    vectors = MAPS.reshape(5, 24)
    HDF5FeaturesDataset(filepath=str(tmp_path / "a.hdf5")).save(labeled_blocks(vectors, LABELS, 2))
    np.savez(tmp_path / "a.npz", features=vectors, labels=LABELS)
    for name in ("a.hdf5", "a.npz"):
        requires(tmp_path / name, vectors[:, :, None, None])


def test_an_attribute_says_what_rows_are_flattened_from(tmp_path):
    path = write_hdf5(tmp_path / "a.hdf5", MAPS.reshape(5, 24))
    with h5py.File(path, "a") as file:
        file["all_feats"].attrs["shape"] = [2, 3, 4]
    requires(path, MAPS)


@pytest.mark.parametrize("shape", [[2, 3, 5], [24], [-2, -3, 4], [2.0, 3.0, 4.0], "2 3 4"])
def test_an_attribute_of_another_size_is_refused(tmp_path, shape):
    path = write_hdf5(tmp_path / "a.hdf5", MAPS.reshape(5, 24))
    with h5py.File(path, "a") as file:
        file["all_feats"].attrs["shape"] = shape
    with refused(ValueError, path, "shape is"):
        open_regions(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ">f8"])
def test_arrays_in_npz(tmp_path, save, dtype):
    maps = MAPS.astype(dtype)
    save(tmp_path / "a.npz", labels=LABELS.astype(np.int64), other=MAPS, features=maps)
    requires(tmp_path / "a.npz", maps.astype(np.float32))


def test_arrays_that_are_not_compressed_stay_on_disk(tmp_path):
    np.savez(tmp_path / "a.npz", features=np.asfortranarray(MAPS), labels=LABELS)
    found = requires(tmp_path / "a.npz", MAPS)
    assert isinstance(found.features._array, np.memmap)
    out = np.empty((2, 24), np.float32)
    assert found.features.read(1, 3, out) is out
    np.testing.assert_array_equal(out, MAPS[1:3].reshape(2, 24))
    with pytest.raises(IndexError, match=r"a\.npz: rows 2\.\.6 of 5"):
        found.features.read(2, 6)


def test_words_are_numbered_in_their_order(tmp_path):
    words = np.array(["cat", "wren", "wren", "dog", "cat"])
    np.savez(tmp_path / "a.npz", features=MAPS, labels=words)
    requires(tmp_path / "a.npz", MAPS)


def test_the_note_of_features_is_their_provenance(tmp_path):
    made = Extraction()
    made.save(HDF5FeaturesDataset(filepath=str(tmp_path / "a.hdf5")))
    assert open_regions(tmp_path / "a.hdf5").provenance == made.provenance


def test_without_a_note_content_tells_features_from_others(tmp_path):
    np.savez(tmp_path / "a.npz", features=MAPS, labels=LABELS)
    facts = open_regions(tmp_path / "a.npz").provenance
    assert facts == open_regions(write_hdf5(tmp_path / "a.hdf5", MAPS)).provenance
    changed = MAPS.copy()
    changed[3, 1, 2, 3] += 1
    others = [
        open_regions(write_hdf5(tmp_path / "b.hdf5", *content)).provenance
        for content in ((changed,), (MAPS, LABELS[::-1]), (MAPS.reshape(5, 24),), (MAPS[:4],))
    ]
    assert facts not in others


def test_rows_that_are_not_compared_may_have_changed(tmp_path):
    path, features = tmp_path / "a.npz", np.zeros((200, 4), np.float32)
    labels = np.zeros(200, np.int32)
    found = []
    for number in range(2):
        # No other row than this one changes, whichever rows are compared.
        features[101] = number
        np.savez(path, features=features, labels=labels)
        os.utime(path, ns=(number, number))
        found.append(open_regions(path).provenance)
    assert found[0] != found[1]
    assert open_regions(path).provenance == found[1]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"features": MAPS}, "holds no array 'labels'"),
        ({"labels": LABELS}, "holds no array 'features'"),
        ({"features": MAPS[:4], "labels": LABELS}, "labels of shape (5,)"),
        ({"features": MAPS[0], "labels": LABELS[:2]}, "of shape (2, 3, 4)"),
        ({"features": MAPS[:, :0], "labels": LABELS}, "of shape (5, 0, 3, 4)"),
        ({"features": MAPS > 0, "labels": LABELS}, "features are bool"),
        ({"features": MAPS, "labels": LABELS / 2}, "labels are float64"),
        ({"features": MAPS, "labels": LABELS - 1}, "labels are -1..1"),
        ({"features": MAPS, "labels": LABELS + np.int64(2**31)}, "expected integers from 0 to"),
        ({"features": np.array([[None]] * 5), "labels": LABELS}, "cannot be read"),
    ],
)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_other_arrays_are_refused(tmp_path, save, arrays, message):
    save(tmp_path / "a.npz", **arrays)
    with refused(ValueError, tmp_path / "a.npz", message):
        open_regions(tmp_path / "a.npz")


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    with refused(FileNotFoundError, path):
        open_regions(path)
    np.savez(path, features=MAPS, labels=LABELS)
    content = path.read_bytes()
    # Its header says that there are more maps than there are.
    for damaged in (b"", content[:200], content.replace(b"(5, 2, 3, 4)", b"(9, 2, 3, 4)")):
        path.write_bytes(damaged)
        with refused(ValueError, path, "cannot be read"):
            open_regions(path)


def test_maps_are_no_features_of_the_published_format(tmp_path):
    path = write_hdf5(tmp_path / "maps.hdf5", MAPS)
    with refused(ValueError, path, "all_feats is float32 of shape (5, 2, 3, 4)"):
        HDF5FeaturesDataset(filepath=str(path)).load()
    write_hdf5(path, MAPS[:, :, 0])
    with refused(ValueError, path, "expected float32 with 2 or 4 dimension(s)"):
        open_regions(path)
