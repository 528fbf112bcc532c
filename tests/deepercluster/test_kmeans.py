"""k-means beside the original's, beside plain Lloyd iterations, and beside itself."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from lowshot_kedro import native
from lowshot_kedro.deepercluster import kmeans
from lowshot_kedro.deepercluster.lloyd import (
    KMeansSettings,
    kmeans_of,
    min_bytes,
    update_centroids,
)
from lowshot_kedro.deepercluster.native_assigner import NativeAssigner
from lowshot_kedro.deepercluster.rows import share_of
from lowshot_kedro.deepercluster.torch_assigner import TorchAssigner
from lowshot_kedro.errors import InputError, NotEnoughMemoryError
from lowshot_kedro.training import stopping
from lowshot_kedro.training.processes import Processes

from .published import KMEANS

ALONE = Processes(0, 1, torch.device("cpu"))
ROWS = KMEANS["rows"]


def squared_distances(rows, centroids):
    return ((rows[:, None].astype(float) - centroids.astype(float)) ** 2).sum(-1)


def found_of(rows, k, n_iterations=10, seed=0, budget=None, **arguments):
    settings = KMeansSettings(n_iterations, seed, budget)
    return kmeans_of(share_of(rows, ALONE), k, settings, **arguments)


def test_the_reference():
    found = kmeans(ROWS, 24, init=KMEANS["init"])
    assert found.labels.dtype == np.int64
    assert found.labels.tolist() == KMEANS["labels"].tolist()
    assert np.abs(found.centroids - KMEANS["centroids"]).max() < 1e-6
    assert found.objective == pytest.approx(float(KMEANS["objective"][0]), abs=1e-6)
    report = found_of(ROWS, 24, init=KMEANS["init"]).report
    assert np.round(report.objectives, 4) == pytest.approx(KMEANS["losses"], abs=1e-4)
    assert report.sizes.tolist() == np.bincount(KMEANS["labels"]).tolist()


def test_labels_and_objective_are_those_of_the_returned_centroids():
    found = kmeans(ROWS, 24, seed=5)
    distances = squared_distances(ROWS, found.centroids)
    assert found.labels.tolist() == distances.argmin(1).tolist()
    assert found.objective == pytest.approx(distances.min(1).mean(), rel=1e-9)


def test_objectives_beside_numbers_that_are_larger_by_far():
    far_columns = np.concatenate([ROWS / 1000, np.full_like(ROWS[:, :1], 1e6)], 1)
    far_row = np.concatenate([ROWS, np.full_like(ROWS[:1], 1e9)])
    for rows in (far_columns, far_row):
        found = kmeans(rows, 24, init=rows[-24:])
        nearest = squared_distances(rows, found.centroids).min(1)
        assert found.objective == pytest.approx(nearest.mean(), rel=1e-9)


def test_the_first_centroids_are_different_rows_that_follow_from_the_seed():
    rows = np.arange(50, dtype=np.float32)[:, None] + [0, 100]
    first = kmeans(rows, 50, n_iterations=0)
    assert sorted(first.centroids[:, 0].tolist()) == list(range(50))
    few = [kmeans(rows, 5, n_iterations=0, seed=seed).centroids.tolist() for seed in (0, 0, 1)]
    assert few[0] == few[1] != few[2]


def test_empty_clusters_get_rows():
    found = found_of(ROWS, 24, init=KMEANS["empty_init"])
    assert found.report.n_empty[0] >= 4
    assert found.report.n_empty[-1] == 0
    assert found.report.objectives[-1] <= 0.2140
    distances = squared_distances(ROWS, found.centroids)
    assert found.labels.tolist() == distances.argmin(1).tolist()


def test_empty_clusters_split_the_largest():
    """Of 20, 9 and 3 rows the first is split into 10 and 10, and then both of these."""
    centroids = np.zeros((6, 2), np.float32)
    counts = np.array([3, 20, 0, 0, 0, 9])
    sums = np.array([[3, 0], [20, 40], [0, 0], [0, 0], [0, 0], [-9, 18]]) << 10
    update_centroids(centroids, sums, counts, 10, 4.0)
    means = np.array([[1, 0], [1, 2], [1, 2], [1, 2], [1, 2], [-1, 2]])
    assert centroids == pytest.approx(means, rel=3e-3)
    assert len({tuple(centroid) for centroid in centroids.tolist()}) == 6
    # Apart from each other symmetrically, as far as float32 shows.
    assert centroids[1:5].mean(0) == pytest.approx([1, 2], rel=1e-6)
    one_column = np.zeros((9, 1), np.float32)
    update_centroids(one_column, 16 * np.eye(9, 1, dtype=int), np.eye(9, dtype=int)[0] * 16, 0, 1.0)
    assert len(set(one_column[:, 0].tolist())) == 9
    at_zero = np.zeros((2, 2), np.float32)
    update_centroids(at_zero, np.zeros((2, 2), np.int64), np.array([7, 0]), 10, 4.0)
    assert (at_zero[0] == -at_zero[1]).all() and at_zero.all()


def test_clusters_without_rows_in_the_end_are_reported():
    rows = np.repeat(np.eye(3, dtype=np.float32), 4, 0)
    found = found_of(rows, 5)
    assert found.report.n_empty[-1] == np.count_nonzero(found.report.sizes == 0) >= 2
    assert found.report.sizes.sum() == 12


def test_passes_that_would_change_nothing_are_left_out_of_the_work_but_not_of_the_report():
    rows = np.repeat(np.float32([[0, 0], [9, 9]]), 10, 0)
    report = found_of(rows, 2, init=np.float32([[1, 1], [8, 8]]), n_iterations=6).report
    assert report.objectives == [2.0] + 6 * [0.0]
    assert report.n_empty == 7 * [0]


def test_the_same_bits_for_any_threads_blocks_members_and_layout(tmp_path):
    rows = np.random.default_rng(1).standard_normal((900, 33)).astype(np.float32)
    expected = found_of(rows, 40, n_iterations=4)
    before = native.get_num_threads()
    native.set_num_threads(3)
    other = found_of(rows, 40, n_iterations=4, budget=min_bytes(40, 33))
    native.set_num_threads(before)
    file = np.memmap(tmp_path / "rows", np.float32, "w+", shape=rows.shape)
    file[:] = rows
    with_others = np.full((2000, 33), np.nan, np.float32)
    members = np.sort(np.random.default_rng(2).choice(2000, 900, replace=False))
    with_others[members] = rows
    for found in (
        other,
        found_of(file, 40, n_iterations=4),
        found_of(np.asfortranarray(rows), 40, n_iterations=4),
        found_of(rows.astype(float), 40, n_iterations=4),
        found_of(with_others, 40, n_iterations=4, members=members),
    ):
        for part, whole in zip(found[:3], expected[:3], strict=True):
            assert part.tobytes() == whole.tobytes()
        assert found.report.objectives == expected.report.objectives


@pytest.mark.parametrize("kind", ["apart", "ties", "clump", "one column"])
@pytest.mark.parametrize("work_bytes", [2**12, 2**24])
def test_torch_gives_the_same_bits(kind, work_bytes):
    rng = np.random.default_rng(3)
    rows, centroids = rng.standard_normal((90, 35)), rng.standard_normal((41, 35))
    if kind == "ties":
        rows, centroids = np.rint(rows), np.rint(centroids)
        centroids[20:] = centroids[:21]
    elif kind == "clump":
        rows, centroids = 1e-4 * rows + 7, 1e-4 * centroids + 7
    elif kind == "one column":
        rows, centroids = rows[:, :1], centroids[:, :1]
    rows, centroids = rows.astype(np.float32), centroids.astype(np.float32)
    results = []
    for assigner in (
        NativeAssigner(float(np.abs(rows).max())),
        TorchAssigner(torch.device("cpu"), work_bytes),
    ):
        labels, distances = np.full(len(rows), -1, np.int32), np.empty(len(rows))
        sums = np.zeros(centroids.shape, np.int64)
        assigner.begin(centroids, sums, 30)
        assigner.assign(rows, labels, distances)
        assigner.finish()
        results.append([labels, distances, sums])
    for native_part, torch_part in zip(*results, strict=True):
        assert native_part.tobytes() == torch_part.tobytes()
    assert results[0][0].tolist() == squared_distances(rows, centroids).argmin(1).tolist()


@pytest.mark.parametrize("size", [1e-30, 1e17])
def test_numbers_of_any_size(size):
    plain = kmeans(ROWS, 24, init=KMEANS["init"])
    scaled = kmeans(
        ROWS * np.float32(2.0 ** np.rint(np.log2(size))),
        24,
        init=KMEANS["init"] * np.float32(2.0 ** np.rint(np.log2(size))),
    )
    assert scaled.labels.tolist() == plain.labels.tolist()


def test_what_cannot_be_clustered():
    def refused(message, rows=ROWS, k=24, **arguments):
        with pytest.raises(InputError, match=re.escape(message)):
            kmeans(rows, k, **arguments)

    refused("found 1200 rows, expected at least as many as clusters, 1201", k=1201)
    for bad in (np.nan, np.inf, -np.inf, 1e30):
        rows = ROWS.copy()
        rows[[700, 900], 3] = bad
        refused("found NaN, infinity or a number above 1e+18 in row 700", rows)
    rows = ROWS.astype(float)
    rows[3, 3] = 1e300
    refused("in row 3, expected finite", rows)
    for array in (
        ROWS[0],
        ROWS.astype(complex),
        ROWS.astype(str),
        ROWS[:, :0],
        [[1], [1, 2]],
        None,
    ):
        refused("features: got ", array)
    refused("init: got 'shape (23, 16)', expected finite numbers of shape (24, 16)", init=ROWS[:23])
    refused("init: got ", init=np.full((24, 16), np.nan))
    refused("init: got ", init="centroids")
    refused("n_iterations: got -1", n_iterations=-1)
    refused("seed: got 'x'", seed="x")
    for k in (0, 2.5, True):
        refused(f"k: got {k}", k=k)
    refused("memory_budget_gb: got 'much'", memory_budget_gb="much")
    with pytest.raises(NotEnoughMemoryError, match=r"memory_budget_gb: got 0.001 GB, expected at "):
        kmeans(ROWS, 24, memory_budget_gb=0.001)


def test_rows_that_are_refused_are_named_by_their_own_numbers():
    rows = np.zeros((50, 3), np.float32)
    rows[44, 1] = np.nan
    share = share_of(rows, ALONE)
    with pytest.raises(InputError, match=r"clusters of 7: found NaN.* in row 44,"):
        kmeans_of(share, 2, KMeansSettings(), members=np.arange(40, 48), name="clusters of 7")
    moved = replace(share, first=1000, n_rows=1050)
    with pytest.raises(InputError, match="in row 1044,"):
        kmeans_of(moved, 2, KMeansSettings())


def test_a_stopped_kmeans_goes_on_after_its_last_pass(tmp_path, monkeypatch):
    """The same bits as if nothing had happened; the passes that are done are not repeated."""
    rows = np.random.default_rng(5).standard_normal((400, 6)).astype(np.float32)
    share = share_of(rows, ALONE)
    expected = kmeans_of(share, 9, KMeansSettings(8, 3))

    def stop(processes, after):
        if after.startswith("pass 3 "):
            raise stopping.StoppedBySignal(15, after)

    settings = KMeansSettings(8, 3, folder=tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(stopping, "stop_if_wanted", stop)
        with pytest.raises(stopping.StoppedBySignal):
            kmeans_of(share, 9, settings)
    (kept,) = tmp_path.glob("passes-*.npz")
    with np.load(kept) as saved:
        np.testing.assert_allclose(saved["objectives"], expected.report.objectives[:3])
    found = kmeans_of(share, 9, settings)
    assert found.centroids.tobytes() == expected.centroids.tobytes()
    assert found.labels.tobytes() == expected.labels.tobytes()
    assert found.report.objectives == expected.report.objectives
    kept.write_bytes(kept.read_bytes()[:50])
    with pytest.raises(InputError, match=r"passes-k-means.npz: not readable; remove it"):
        kmeans_of(share, 9, settings)
