"""HDF5 files whose numbers lie elsewhere, nowhere, or cannot be unpacked: refused by name."""

import os
import tracemalloc

import h5py
import numpy as np
import pytest

from lowshot_kedro.datasets import (
    HDF5ArraysDataset,
    HDF5FeatureBlocksDataset,
    HDF5FeaturesDataset,
    hdf5_arrays,
)
from lowshot_kedro.datasets.runs import RunScores
from lowshot_kedro.errors import InputError
from tests.datasets.helpers import (
    labeled_blocks,
    random_features,
    refused,
    refused_by_check_and_load,
)
from tests.odd_files import no_waiting

SHAPES = {"all_feats": (10, 4), "all_labels": (10,), "count": (1,), "scores": (10, 4)}


def numbers(name):
    """What belongs there, for other files to hold."""
    if name == "count":
        return np.array([10], np.int32)
    if name == "all_labels":
        return np.arange(10, dtype=np.int32)
    return np.arange(40, dtype=np.float32).reshape(10, 4)


def other_file(folder, name):
    path = folder / "other.hdf5"
    with h5py.File(path, "w") as file:
        file[name] = numbers(name)
    return path


def external_link(file, name, folder):
    file[name] = h5py.ExternalLink(str(other_file(folder, name)), name)


def external_link_to_nothing(file, name, folder):
    file[name] = h5py.ExternalLink("absent.hdf5", name)


def external_link_to_a_pipe(file, name, folder):
    os.mkfifo(folder / "pipe")
    file[name] = h5py.ExternalLink(str(folder / "pipe"), name)


def link_through_another_file(file, name, folder):
    file["away"] = h5py.ExternalLink(str(other_file(folder, name)), "/")
    file[name] = h5py.SoftLink(f"/away/{name}")


def link_to_itself(file, name, folder):
    file[name] = h5py.SoftLink(f"/{name}")


def links_in_a_circle(file, name, folder):
    file["back"] = h5py.SoftLink(name)
    file[name] = h5py.SoftLink("/back")


def link_to_nothing(file, name, folder):
    file[name] = h5py.SoftLink("/nothing/there")


def link_below_a_dataset(file, name, folder):
    file["data"] = numbers(name)
    file[name] = h5py.SoftLink("/data/below")


def group(file, name, folder):
    file.create_group(name)["again"] = file["/"]


def data_type(file, name, folder):
    file[name] = np.dtype("f4")


def virtual(file, name, folder):
    layout = h5py.VirtualLayout(SHAPES[name], numbers(name).dtype)
    layout[...] = h5py.VirtualSource(str(other_file(folder, name)), name, SHAPES[name])
    file.create_virtual_dataset(name, layout)


def external_storage(file, name, folder):
    (folder / "raw").write_bytes(numbers(name).tobytes())
    raw = [(str(folder / "raw"), 0, numbers(name).nbytes)]
    file.create_dataset(name, SHAPES[name], numbers(name).dtype, external=raw)


def no_shape(file, name, folder):
    file[name] = h5py.Empty(numbers(name).dtype)


def references(file, name, folder):
    file.create_dataset(name, SHAPES[name], h5py.ref_dtype)


def regions(file, name, folder):
    file.create_dataset(name, SHAPES[name], h5py.regionref_dtype)


def lists(file, name, folder):
    file.create_dataset(name, SHAPES[name], h5py.vlen_dtype(np.float32))


def texts(file, name, folder):
    file.create_dataset(name, SHAPES[name], h5py.string_dtype())


def records(file, name, folder):
    file.create_dataset(name, SHAPES[name], [("a", "f4"), ("b", "i4")])


def unknown_filter(file, name, folder):
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk(SHAPES[name])
    properties.set_filter(32099, h5py.h5z.FLAG_OPTIONAL, ())
    kind = h5py.h5t.py_create(numbers(name).dtype)
    space = h5py.h5s.create_simple(SHAPES[name])
    dataset = h5py.h5d.create(file.id, name.encode(), kind, space, properties)
    dataset.write_direct_chunk((0,) * len(SHAPES[name]), b"compressed by something")


def huge_chunks(file, name, folder):
    shape = (2**20, *SHAPES[name][1:])
    chunks = (2**28 + 1, 1)[: len(shape)]
    dataset = file.create_dataset(
        name, shape, numbers(name).dtype, chunks=chunks, maxshape=(None, *shape[1:]),
        compression="gzip",
    )  # fmt: skip
    assert dataset.chunks == chunks


ELSEWHERE = {
    external_link: "is a link to",
    external_link_to_nothing: "is a link to absent.hdf5",
    external_link_to_a_pipe: "is a link to",
    link_through_another_file: "is a link to",
    link_to_itself: "circle",
    links_in_a_circle: "circle",
    link_to_nothing: "is a link to nothing",
    link_below_a_dataset: "is a link to nothing",
    group: "is a group, expected a dataset",
    data_type: "is a data type, expected a dataset",
    virtual: "from other files",
    external_storage: "from other files",
    no_shape: "has no shape",
    references: "object",
    regions: "object",
    lists: "object",
    texts: "object",
    records: "('a', '<f4')",
    unknown_filter: "filter 32099",
}


def write(path, changed, make, folder):
    with h5py.File(path, "w") as file:
        for name in ("all_feats", "all_labels", "count"):
            if name == changed:
                make(file, name, folder)
            else:
                file[name] = numbers(name)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "train.hdf5"


@pytest.mark.parametrize("make", ELSEWHERE)
@pytest.mark.parametrize("name", ["all_feats", "all_labels", "count"])
def test_features_that_are_not_in_the_file(path, tmp_path, name, make):
    write(path, name, make, tmp_path)
    dataset = HDF5FeaturesDataset(filepath=str(path))
    with no_waiting():
        refused_by_check_and_load(dataset, InputError, path, name, ELSEWHERE[make])


@pytest.mark.parametrize("make", ELSEWHERE)
def test_arrays_that_are_not_in_the_file(path, tmp_path, make):
    write(path, "all_feats", make, tmp_path)
    dataset = HDF5ArraysDataset(filepath=str(path))
    with no_waiting():
        refused_by_check_and_load(dataset, InputError, path, "all_feats", ELSEWHERE[make])
        with refused(InputError, path, "all_feats"):
            dataset.preview()


@pytest.mark.parametrize("make", ELSEWHERE)
def test_scores_that_are_not_in_the_file_are_none(tmp_path, make):
    scores = RunScores(tmp_path)
    scores.write("run", {"k": 3}, numbers("scores"))
    np.testing.assert_array_equal(scores.read("run", {"k": 3}), numbers("scores"))
    with h5py.File(tmp_path / "run.hdf5", "r+") as file:
        del file["scores"]
        make(file, "scores", tmp_path)
    with no_waiting():
        assert not scores.has("run", {"k": 3})
        assert scores.read("run", {"k": 3}) is None


def note_of_numbers(file):
    file.attrs["made_from"] = np.arange(3)


def note_that_is_a_reference(file):
    file.attrs["made_from"] = file["scores"].ref


def scores_in_three_dimensions(file):
    del file["scores"]
    file["scores"] = np.zeros((2, 3, 4), np.float32)


@pytest.mark.parametrize(
    "change", [note_of_numbers, note_that_is_a_reference, scores_in_three_dimensions]
)
def test_scores_of_somebody_else_are_none(tmp_path, change):
    scores = RunScores(tmp_path)
    scores.write("run", {"k": 3}, numbers("scores"))
    with h5py.File(tmp_path / "run.hdf5", "r+") as file:
        change(file)
    assert not scores.has("run", {"k": 3})
    assert scores.read("run", {"k": 3}) is None


def test_scores_behind_a_named_pipe_are_none(tmp_path):
    os.mkfifo(tmp_path / "run.hdf5")
    with no_waiting():
        assert RunScores(tmp_path).read("run", {"k": 3}) is None


@pytest.mark.parametrize("target", ["/real", "real", "/inner/real", "inner/./real", "/hop"])
def test_links_within_the_file_are_followed(path, target):
    with h5py.File(path, "w") as file:
        file["real"] = file["inner/real"] = numbers("all_feats")
        file["hop"] = h5py.SoftLink("inner/real")
        file["all_feats"] = h5py.SoftLink(target)
        file["all_labels"], file["count"] = numbers("all_labels"), numbers("count")
    features = HDF5FeaturesDataset(filepath=str(path)).load()
    np.testing.assert_array_equal(features.read(0, 10), numbers("all_feats"))


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "gzip"},
        {"compression": "lzf", "shuffle": True},
        {"fletcher32": True},
        {"chunks": (3, 2)},
        {"maxshape": (None, 4)},
        {"track_times": True},
    ],
)
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<f2"])
def test_other_ways_to_store_the_numbers_are_read(path, options, dtype):
    with h5py.File(path, "w") as file:
        file.create_dataset("all_feats", data=numbers("all_feats").astype(dtype), **options)
        file["all_labels"], file["count"] = numbers("all_labels"), numbers("count")
    features = HDF5FeaturesDataset(filepath=str(path)).load()
    np.testing.assert_array_equal(features.read(3, 7), numbers("all_feats")[3:7])
    arrays = HDF5ArraysDataset(filepath=str(path)).load()
    np.testing.assert_array_equal(arrays["all_feats"], numbers("all_feats"))


def unwritten(file, name, shape, dtype, **options):
    file.create_dataset(name, shape, dtype, **options)


@pytest.mark.parametrize(
    ("options", "written"),
    [({}, 0), ({"chunks": (1024, 2048)}, 0), ({"chunks": (1024, 2048)}, 1)],
    ids=["plain", "chunks", "one chunk written"],
)
def test_a_shape_that_nothing_stands_behind_takes_no_memory(path, options, written):
    n_rows = 10**9
    with h5py.File(path, "w") as file:
        unwritten(file, "all_feats", (n_rows, 2048), "f4", **options)
        if written:
            file["all_feats"][0] = 1
        unwritten(file, "all_labels", (n_rows,), "i4")
        file["count"] = np.array([n_rows])
    assert path.stat().st_size < 10_000_000
    tracemalloc.start()
    try:
        for dataset in (
            HDF5FeaturesDataset(filepath=str(path)),
            HDF5ArraysDataset(filepath=str(path)),
        ):
            refused_by_check_and_load(
                dataset, InputError, path, "all_feats", "(1000000000, 2048)", "7.5 TiB"
            )
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("options", [{}, {"chunks": (10, 4)}], ids=["plain", "chunks"])
def test_features_that_nobody_has_written(path, options):
    with h5py.File(path, "w") as file:
        unwritten(file, "all_feats", (100, 4), "f4", **options)
        file["all_labels"], file["count"] = numbers("all_labels"), numbers("count")
    dataset = HDF5FeaturesDataset(filepath=str(path))
    refused_by_check_and_load(dataset, InputError, path, "all_feats holds no numbers")
    with h5py.File(path, "r+") as file:
        file["count"][0] = 0
    assert dataset.load().n_rows == 0


def test_room_for_more_rows_than_are_valid_is_no_fault(path):
    with h5py.File(path, "w") as file:
        room = file.create_dataset("all_feats", (10**9, 4), "f4", chunks=(10, 4))
        room[:10] = numbers("all_feats")
        # Never written: all of them are 0.
        unwritten(file, "all_labels", (10**9,), "i4")
        file["count"] = numbers("count")
    features = HDF5FeaturesDataset(filepath=str(path)).load()
    np.testing.assert_array_equal(features.read(0, 10), numbers("all_feats"))
    np.testing.assert_array_equal(features.labels, np.zeros(10))


def test_chunks_too_large_to_unpack_one_for_a_row(path):
    with h5py.File(path, "w") as file:
        huge_chunks(file, "all_feats", None)
        file["all_labels"], file["count"] = numbers("all_labels"), np.array([0])
    dataset = HDF5FeaturesDataset(filepath=str(path))
    refused_by_check_and_load(dataset, InputError, path, "all_feats", "chunks of 1.0 GiB")


def test_arrays_are_loaded_only_where_there_is_memory_for_them(path, monkeypatch):
    dataset = HDF5ArraysDataset(filepath=str(path))
    with h5py.File(path, "w") as file:
        file.create_dataset("scores", data=np.zeros((1000, 1000), "f4"), compression="gzip")
        file["more"] = np.zeros(1000)
    monkeypatch.setattr(hdf5_arrays, "available_bytes", lambda: 4_008_000)
    assert dataset.load()["scores"].shape == (1000, 1000)
    monkeypatch.setattr(hdf5_arrays, "available_bytes", lambda: 4_007_999)
    refused_by_check_and_load(dataset, InputError, path, "3.8 MiB in memory")


def test_damaged_numbers_are_said_to_be_damaged(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("all_feats", data=numbers("all_feats"), fletcher32=True)
        at = file["all_feats"].id.get_chunk_info(0).byte_offset
        file["all_labels"], file["count"] = numbers("all_labels"), numbers("count")
    content = bytearray(path.read_bytes())
    content[at + 5] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"train\.hdf5: cannot be read") as error:
        HDF5FeaturesDataset(filepath=str(path)).load().read(0, 10)
    assert "\n" not in str(error.value)


# --- labels ---


def write_labels(path, labels):
    with h5py.File(path, "w") as file:
        file["all_feats"] = np.zeros((len(labels) + 2, 3), np.float32)
        # More than are valid: what follows does not matter.
        file["all_labels"] = np.append(labels, labels[-1:].repeat(2))
        file["count"] = np.array([len(labels)])


@pytest.mark.parametrize(
    "dtype, value",
    [
        ("int64", 2**31),
        ("int64", 2**32 + 3),
        ("int64", -(2**31) - 1),
        ("int64", 2**63 - 1),
        ("uint64", 2**32 + 3),
        ("uint64", 2**64 - 1),
        ("uint32", 2**31),
        (">i8", 2**32 + 3),
    ],
)
@pytest.mark.parametrize("row", [0, 7])
def test_labels_that_do_not_fit_are_refused_with_their_row(path, dtype, value, row):
    labels = np.arange(8).astype(dtype)
    labels[row] = value
    write_labels(path, labels)
    dataset = HDF5FeaturesDataset(filepath=str(path))
    refused_by_check_and_load(dataset, InputError, path, f"all_labels[{row}] is {value};", "32 bit")


@pytest.mark.parametrize("dtype", ["int8", "uint8", "uint32", "int64", "uint64", ">i8"])
def test_labels_that_fit_are_read_whatever_their_type(path, dtype):
    labels = np.array([0, 5, min(np.iinfo(dtype).max, 2**31 - 1), 3], dtype)
    write_labels(path, labels)
    read = HDF5FeaturesDataset(filepath=str(path)).load().labels
    assert (read.dtype, read.tolist()) == (np.int32, labels.tolist())


def test_a_label_in_the_second_file_is_named_by_its_place_there(tmp_path):
    dataset = HDF5FeatureBlocksDataset(filepath=str(tmp_path), rows_per_file=4)
    dataset.save(labeled_blocks(*random_features(8, 3), 4))
    labels = np.array([1, 2, 2**32 + 3, 4])
    with h5py.File(tmp_path / "block1.hdf5", "r+") as file:
        del file["all_labels"]
        file["all_labels"] = labels
    refused_by_check_and_load(
        dataset, InputError, tmp_path / "block1.hdf5", "all_labels[2] is 4294967299"
    )
