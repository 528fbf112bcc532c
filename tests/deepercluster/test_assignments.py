import json
import pickle

import numpy as np
import pytest

from lowshot_kedro.deepercluster.assignments import (
    DISTANCES,
    FILES,
    SUB_LABELS,
    SUPER_LABELS,
    AssignmentFiles,
    Clustering,
)
from lowshot_kedro.deepercluster.whitening import Whitening, aligned_rows
from lowshot_kedro.errors import InputError
from tests.deepercluster.threaded import in_threads
from tests.training.making import ALONE

SUPERS = np.array([1, 0, 1, 1, 0], np.int32)
SUBS = np.array([0, 2, 3, 0, 1], np.int32)
AWAY = np.array([0.5, 0, 1, 2, 3], np.float32)


@pytest.fixture
def folder(tmp_path):
    """A clustering of five images in super-clusters of three and four clusters."""
    arrays = {
        "super_labels": SUPERS,
        "sub_labels": SUBS,
        "distances": AWAY,
        "super_centroids": np.arange(4, dtype=np.float32).reshape(2, 2),
        "centroids": np.arange(14, dtype=np.float32).reshape(7, 2),
        "offsets": np.array([0, 3, 7]),
    }
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    Whitening(np.zeros(3), np.eye(2, 3), np.ones(2)).save(tmp_path / "whitening.npz")
    (tmp_path / "report.json").write_text(json.dumps({"n_images": 5}))
    (tmp_path / "clustering.json").write_text("{}")
    return tmp_path


def test_what_a_clustering_offers(folder):
    found = Clustering(folder)
    assert len(found) == 5
    assert isinstance(found.super_labels, np.memmap)
    assert not found.super_labels.flags.writeable
    assert found.labels().tolist() == [3, 2, 6, 3, 1]
    assert found.labels(1, 3).tolist() == [2, 6]
    assert found.distances.tolist() == AWAY.tolist()
    assert found.centroids.shape == (7, 2)
    assert found.whitening.n_components == 2
    again = pickle.loads(pickle.dumps(found))
    assert (again.folder, again.labels().tolist()) == (folder, found.labels().tolist())


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"found no {name} there, expected a finished clustering"):
        Clustering(folder)


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".npy")])
def test_a_damaged_file_is_named(folder, name):
    found = Clustering(folder)
    path = folder / name
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InputError, match=f"{name}: not readable"):
        getattr(found, path.stem)
    path.write_bytes(b"")
    with pytest.raises(InputError, match=f"{name}: not readable"):
        getattr(Clustering(folder), path.stem)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("sub_labels", SUBS[:4], r"found int32 \(4,\), expected int32 numbers, 1 axes, 5 rows"),
        ("distances", SUBS, r"found int32 \(5,\), expected float32"),
        ("centroids", np.zeros((6, 2), "f4"), "expected float32 numbers, 2 axes, 7 rows"),
    ],
)
def test_what_does_not_fit_is_named(folder, name, array, message):
    np.save(folder / f"{name}.npy", array)
    with pytest.raises(InputError, match=message):
        getattr(Clustering(folder), name)


def test_a_report_of_something_else(folder):
    for text in ("[]", "{}", '{"n_images": "5"}'):
        (folder / "report.json").write_text(text)
        with pytest.raises(InputError, match="expected the report of a clustering"):
            len(Clustering(folder))
    (folder / "report.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        len(Clustering(folder))


@pytest.mark.parametrize("n_images", [5, 40])
def test_processes_write_their_own_images(tmp_path, n_images):
    """Of few images some processes have none."""
    labels = np.arange(n_images, dtype=np.int32) * 7
    away = (labels / 3).astype(np.float32)

    def write(processes):
        rows = aligned_rows(n_images, processes)
        files = AssignmentFiles(tmp_path, rows, n_images, processes)
        files.create()
        assert not files.read(SUB_LABELS).any()
        files.write(SUB_LABELS, labels[rows.start : rows.stop])
        files.write(DISTANCES, away[rows.start : rows.stop])
        processes.barrier()
        files.create()
        return files.read(SUB_LABELS)

    parts = in_threads(3, write)
    assert np.concatenate(parts).tolist() == labels.tolist()
    assert np.load(tmp_path / SUB_LABELS).tolist() == labels.tolist()
    assert np.load(tmp_path / DISTANCES).tolist() == away.tolist()
    assert not np.load(tmp_path / SUPER_LABELS).any()
    alone = AssignmentFiles(tmp_path, range(n_images), n_images, ALONE)
    assert alone.read(DISTANCES).tolist() == away.tolist()
