import json
import logging
import shutil
from collections import Counter
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from sklearn.metrics import normalized_mutual_info_score
from torch import nn

from lowshot_kedro.deepercluster import (
    clustering,
    feature_files,
    fit_whitening,
    hierarchical_kmeans,
)
from lowshot_kedro.deepercluster.assignments import FILES, SUPER_LABELS, Clustering
from lowshot_kedro.deepercluster.clustering import cluster_images
from lowshot_kedro.deepercluster.feature_files import BatchFile
from lowshot_kedro.deepercluster.parameters import DeeperClusterParameters
from lowshot_kedro.deepercluster.whitening import Whitening
from lowshot_kedro.errors import InputError
from lowshot_kedro.training import stopping
from lowshot_kedro.training.stopping import StoppedBySignal
from tests.deepercluster.threaded import in_threads
from tests.training.making import ALONE, MadeImages

N_IMAGES, BLANK = 203, (7, 130, 131)
ARRAYS = [name for name in FILES if name.endswith((".npy", ".npz"))]


class Images(MadeImages):
    """Images that count how often each was looked at."""

    def __init__(self):
        super().__init__(N_IMAGES, 8, BLANK)
        # Some of them are alike.
        kinds = 40 * (np.arange(N_IMAGES) % 5)[:, None, None, None]
        self.pixels = (self.pixels // 4 + kinds).astype(np.uint8)
        self.seen = Counter()

    def __getitem__(self, number):
        self.seen[number] += 1
        return super().__getitem__(number)


def parameters(**changes):
    values = {
        "augmentation": "none",
        "image_size": 8,
        "network": "small",
        "sobel": False,
        "dimension": 12,
        "n_super_classes": 12,
        "n_clusters": 24,
        "batch_size": 12,
        "n_components": 9,
        "n_iterations": 4,
        "num_workers": 0,
        "device": "cpu",
        "memory_budget_gb": 0.1,
    }
    return DeeperClusterParameters(**{**values, **changes})


@pytest.fixture(scope="module", autouse=True)
def threads_of_torch():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Linear(8 * 9, 12),
        )


def cluster(network, folder, processes=ALONE, images=None, previous=None, seed=5, **changes):
    images = Images() if images is None else images
    return cluster_images(network, images, parameters(**changes), processes, folder, previous, seed)


@pytest.fixture(scope="module")
def made(network, tmp_path_factory):
    return cluster(network, tmp_path_factory.mktemp("clustering") / "clustering-0")


def contents(found):
    return {name: (found.folder / name).read_bytes() for name in ARRAYS}


def report_but_seconds(found):
    report = json.loads(json.dumps(found.report))
    del report["seconds"]
    for stage in report["stages"]:
        del stage["seconds"]
    return report


def features_of(network, images):
    """What the network says of images, without anything of the house."""
    network = network.eval()
    pixels = [images[number].image.resize((8, 8)) for number in range(N_IMAGES)]
    with torch.inference_mode():
        found = network(torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2) / 255 * 2 - 1)
    network.train()
    return found.numpy()


def test_labels_are_those_of_features_whitened_and_clustered(network, made):
    features = features_of(network, Images())
    rows = fit_whitening(features, 9).apply(features)
    expected = hierarchical_kmeans(rows, 3, 24, n_iterations=4, seed=5)
    assert made.super_labels.tolist() == expected.super_labels.tolist()
    assert made.sub_labels.tolist() == expected.sub_labels.tolist()
    assert len(made) == N_IMAGES
    assert (made.super_labels.dtype, made.sub_labels.dtype) == (np.int32, np.int32)
    # Each image is where it is nearest to, among all centroids of its super-cluster.
    to_supers = np.linalg.norm(rows[:, None] - made.super_centroids, axis=2)
    assert np.array_equal(to_supers.argmin(axis=1), made.super_labels)
    for number in range(3):
        members = made.super_labels == number
        centroids = made.centroids[made.offsets[number] : made.offsets[number + 1]]
        away = np.linalg.norm(rows[members][:, None] - centroids, axis=2)
        assert np.array_equal(away.argmin(axis=1), made.sub_labels[members])
        np.testing.assert_allclose(made.distances[members], away.min(axis=1), atol=1e-5)
    np.testing.assert_allclose(made.whitening.apply(features), rows, atol=1e-5)
    assert np.array_equal(made.labels(3, 50), made.labels()[3:50])
    assert np.array_equal(made.labels(), made.offsets[made.super_labels] + made.sub_labels)


def mean_squared_distance(rows, labels):
    _, numbers = np.unique(labels, return_inverse=True)
    sums = np.zeros((numbers.max() + 1, rows.shape[1]))
    np.add.at(sums, numbers, rows)
    means = sums / np.bincount(numbers)[:, None]
    return np.mean(np.sum((rows - means[numbers]) ** 2, axis=1))


@pytest.mark.parametrize(("n_processes", "n_of_sample"), [(2, 140), (4, 80)])
def test_two_levels_are_no_worse_than_those_of_the_original(n_processes, n_of_sample):
    """Its start points differ, and its whitening follows from the first images of each process."""
    rs = np.random.RandomState(61)
    centres, kinds = rs.standard_normal((12, 24)) * 2, rs.randint(0, 12, 4000)
    features = (centres[kinds] + rs.standard_normal((4000, 24))).astype(np.float32)
    sample = features.reshape(n_processes, -1, 24)[:, :n_of_sample].reshape(-1, 24)
    rows = fit_whitening(sample, 16).apply(features)

    reference = np.load(Path(__file__).with_name("two_levels.npz"))
    original = {
        name.split("_")[-1]: reference[name].astype(int)
        for name in reference
        if name.startswith(f"hier_w{n_processes}s2") and not name.endswith("loss")
    }
    losses = reference[f"hier_w{n_processes}s2_loss"][:, -1]
    by_original = np.concatenate([20 * number + original[f"sub{number}"] for number in (0, 1)])
    kept = np.concatenate([original["idx0"], original["idx1"]])

    found = hierarchical_kmeans(rows, 2, 40, seed=0)
    first = mean_squared_distance(rows, found.super_labels)
    second = mean_squared_distance(rows, 20 * found.super_labels + found.sub_labels)
    assert first <= 1.005 * mean_squared_distance(rows, original["super"])
    assert second <= mean_squared_distance(rows[kept], by_original)
    assert first == pytest.approx(losses[0], rel=0.01)
    assert second <= 1.01 * losses[1]


def test_report(made):
    report = made.report
    sizes = np.bincount(made.labels(), minlength=24)
    assert report["n_images"] == report["n_whitening_images"] == N_IMAGES
    assert report["n_blank_images"] == len(BLANK)
    assert report["super_clusters"]["sizes"] == np.bincount(made.super_labels).tolist()
    assert report["clusters"] == {
        "n": 24,
        "n_empty": np.count_nonzero(sizes == 0),
        "min": sizes.min(),
        "median": np.median(sizes),
        "max": sizes.max(),
    }
    assert report["objective"] == pytest.approx(np.mean(made.distances.astype(float) ** 2))
    assert report["normalized_mutual_information"] is None
    names = ["super-clusters", *(f"clusters of super-cluster {number}" for number in range(3))]
    assert [stage["name"] for stage in report["stages"]] == names
    for stage in report["stages"]:
        assert len(stage["objectives"]) == len(stage["n_empty"]) == 5
    assert sum(stage["n_images"] for stage in report["stages"][1:]) == N_IMAGES
    assert sorted(each.name for each in made.folder.iterdir()) == sorted(FILES)


def test_the_network_is_left_as_it_is(network, tmp_path):
    network.train()
    before = {name: each.clone() for name, each in network.state_dict().items()}
    strides = [each.stride() for each in network.parameters()]
    cluster(network, tmp_path / "clustering")
    assert network.training
    assert all(torch.equal(before[name], each) for name, each in network.state_dict().items())
    assert [each.stride() for each in network.parameters()] == strides


@pytest.mark.parametrize("n_processes", [2, 3])
def test_any_number_of_processes_makes_the_same(network, made, tmp_path, n_processes):
    folder = tmp_path / "clustering"
    in_threads(n_processes, lambda processes: cluster(network, folder, processes))
    assert contents(Clustering(folder)) == contents(made)
    assert report_but_seconds(Clustering(folder)) == report_but_seconds(made)


@pytest.mark.parametrize("n_whitening_images", [50, 120, 190])
def test_whitening_from_a_sample(network, made, tmp_path, n_whitening_images):
    """Spread evenly over all images; the others are whitened as they come."""
    images = Images()
    found = cluster(network, tmp_path / "one", images=images, n_whitening_images=n_whitening_images)
    assert set(images.seen.values()) == {1}
    assert set(images.seen) == set(range(N_IMAGES))
    n_used = found.report["n_whitening_images"]
    assert n_whitening_images <= n_used < n_whitening_images + 16
    n_batches = -(-N_IMAGES // 16)
    batches = np.arange(n_used // 16) * n_batches // (n_used // 16)
    numbers = (batches[:, None] * 16 + np.arange(16)).ravel()
    features = features_of(network, images)
    whitening = fit_whitening(features[numbers], 9)
    np.testing.assert_allclose(found.whitening.mean, whitening.mean, atol=1e-5)
    np.testing.assert_allclose(found.whitening.variances, whitening.variances, rtol=1e-4)
    rows = found.whitening.apply(features)
    expected = hierarchical_kmeans(rows, 3, 24, n_iterations=4, seed=5)
    assert found.super_labels.tolist() == expected.super_labels.tolist()
    assert found.sub_labels.tolist() == expected.sub_labels.tolist()
    assert found.report["n_blank_images"] == len(BLANK)
    in_threads(
        3,
        lambda processes: cluster(
            network, tmp_path / "three", processes, n_whitening_images=n_whitening_images
        ),
    )
    assert contents(Clustering(tmp_path / "three")) == contents(found)


class Killed(Exception):
    """As if the process had been ended."""


def killed_at(owner, name, call, after=False):
    """The call with this number of a function ends the work, before it or when it is done."""
    original, calls = getattr(owner, name), Counter()

    def replacement(*arguments, **named):
        calls[name] += 1
        if calls[name] == call and not after:
            raise Killed
        result = original(*arguments, **named)
        if calls[name] == call and after:
            raise Killed
        return result

    return mock.patch.object(owner, name, replacement)


MOMENTS = {
    "features": (BatchFile, "write", 6),
    "whitening": (Whitening, "save", 1),
    "whitened": (BatchFile, "write", 13 + 5),
    "super-clusters": (clustering, "write_array", 1),
    "first clusters": (clustering, "write_array", 2),
    "second clusters, half written": (clustering, "write_array", 3),
    "centroids": (clustering, "write_array", 5),
    "report": (clustering._Work, "_write_report", 1),
    "end": (clustering._Work, "_finish", 1),
}


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_and_continued(network, made, tmp_path, moment, after):
    """In another number of processes, to the same bytes; no image is looked at again."""
    folder, images = tmp_path / "clustering", Images()
    owner, name, call = MOMENTS[moment]
    with killed_at(owner, name, call, after), pytest.raises(Killed):
        cluster(network, folder, images=images)
    assert folder.exists() == (moment == "end" and after)
    n_seen = sum(images.seen.values())
    in_threads(2, lambda processes: cluster(network, folder, processes, images=images))
    assert contents(Clustering(folder)) == contents(made)
    assert report_but_seconds(Clustering(folder)) == report_but_seconds(made)
    assert sorted(each.name for each in folder.iterdir()) == sorted(FILES)
    if moment != "features":
        assert sum(images.seen.values()) == n_seen == N_IMAGES
    else:
        # Of the batches that were being made some had been decoded and not written.
        assert all(images.seen[number] == 1 for number in range(5 * 16))


def test_finished_k_means_are_not_done_again(network, made, tmp_path):
    folder = tmp_path / "clustering"
    with killed_at(clustering, "write_array", 3), pytest.raises(Killed):
        cluster(network, folder)
    names = []
    original = clustering.second_level

    def seen(share, super_labels, n_clusters, settings, missing):
        names.extend(missing)
        return original(share, super_labels, n_clusters, settings, missing)

    with (
        mock.patch.object(clustering, "second_level", seen),
        mock.patch.object(clustering, "first_level", side_effect=AssertionError),
    ):
        cluster(network, folder)
    assert names == [1, 2]
    assert contents(Clustering(folder)) == contents(made)


def test_a_signal_stops_all_processes_and_they_go_on(network, made, tmp_path, monkeypatch):
    folder, images = tmp_path / "clustering", Images()
    monkeypatch.setattr(feature_files, "_ITEMS_OF_ROUND", 2)
    asked = Counter()

    def ask(processes, flag=False):
        asked[processes.rank] += 1
        return flag, 15 if asked[processes.rank] == 2 else 0

    monkeypatch.setattr(stopping, "ask", ask)
    with pytest.raises(StoppedBySignal, match="features of images"):
        in_threads(2, lambda processes: cluster(network, folder, processes, images=images))
    assert not folder.exists()
    # Four batches of each have been written, and are not made again.
    images.seen.clear()
    cluster(network, folder, images=images)
    assert len(images.seen) == N_IMAGES - 2 * 4 * 16
    assert contents(Clustering(folder)) == contents(made)


def test_a_signal_stops_a_whitening(network, made, tmp_path, monkeypatch):
    folder = tmp_path / "clustering"
    note = tmp_path / f".partial-{folder.name}" / "features.done"
    monkeypatch.setattr(stopping, "ask", lambda *_: (False, 15 * all(note.read_bytes())))
    with pytest.raises(StoppedBySignal, match="which are to be whitened"):
        in_threads(2, lambda processes: cluster(network, folder, processes))
    monkeypatch.undo()
    images = Images()
    cluster(network, folder, images=images)
    assert not images.seen
    assert contents(Clustering(folder)) == contents(made)


def test_a_signal_stops_between_the_passes_of_a_k_means(network, made, tmp_path, monkeypatch):
    folder = tmp_path / "clustering"
    # It is there when the features are.
    begun = tmp_path / f".partial-{folder.name}" / SUPER_LABELS
    monkeypatch.setattr(stopping, "ask", lambda _, flag=False: (flag, 15 * begun.exists()))
    with pytest.raises(StoppedBySignal, match="pass 1 of 5 over super-clusters"):
        in_threads(2, lambda processes: cluster(network, folder, processes))
    assert begun.exists()
    monkeypatch.undo()
    cluster(network, folder)
    assert contents(Clustering(folder)) == contents(made)


def test_another_network_begins_anew(network, made, tmp_path, caplog):
    folder = tmp_path / "clustering"
    other = nn.Sequential(nn.Flatten(), nn.Linear(192, 12))
    with killed_at(clustering, "write_array", 2), pytest.raises(Killed):
        cluster(other, folder)
    with caplog.at_level(logging.INFO):
        found = cluster(network, folder)
    assert "begun anew" in caplog.text
    assert contents(found) == contents(made)


def test_what_is_finished_is_taken(network, made):
    other = nn.Sequential(nn.Flatten(), nn.Linear(192, 12))
    images = Images()
    assert contents(cluster(other, made.folder, images=images)) == contents(made)
    assert not images.seen
    with pytest.raises(InputError, match="with other parameters; remove the folder"):
        cluster(network, made.folder, seed=6)


def test_mutual_information_with_the_round_before(network, made, tmp_path):
    same = cluster(network, tmp_path / "same", previous=made)
    assert same.report["normalized_mutual_information"] == pytest.approx(1)
    other = cluster(network, tmp_path / "other", previous=made, seed=8)
    expected = normalized_mutual_info_score(made.labels(), other.labels())
    assert other.report["normalized_mutual_information"] == pytest.approx(expected)
    assert expected < 1


def test_one_super_cluster_and_proportional_ones(network, tmp_path):
    one = cluster(network, tmp_path / "one", n_super_classes=4)
    assert one.offsets.tolist() == [0, 24]
    assert not one.super_labels.any()
    np.testing.assert_allclose(one.super_centroids.shape, (1, 9))
    shares = cluster(network, tmp_path / "shares", clusters_per_super="proportional", n_clusters=25)
    sizes = np.bincount(shares.super_labels)
    assert shares.offsets[-1] == 25
    assert np.abs(np.diff(shares.offsets) - 25 * sizes / N_IMAGES).max() < 1


def test_too_few_images_or_too_little_disk(network, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="n_clusters: got 204, expected at most 203"):
        cluster(network, tmp_path / "clustering", n_clusters=204)
    usage = shutil._ntuple_diskusage(10**6, 10**6 - 2000, 2000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(
        OSError, match=r"the disk is too full, .* KiB needed but only 2\.0 KiB free"
    ):
        cluster(network, tmp_path / "clustering")


def test_a_network_that_has_collapsed(tmp_path):
    collapsed = nn.Sequential(nn.Flatten(), nn.Linear(192, 12))
    nn.init.zeros_(collapsed[1].weight)
    with pytest.raises(InputError, match="all rows are equal"):
        cluster(collapsed, tmp_path / "clustering")
