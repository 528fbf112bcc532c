"""Which clusters are shown, against a choice made image by image."""

from types import SimpleNamespace

import numpy as np
import pytest

from lowshot_kedro.deepercluster import panel
from lowshot_kedro.deepercluster.panel import choose_clusters
from lowshot_kedro.errors import InputError


def clustered(*images):
    """(super-cluster, cluster, distance) of each image."""
    supers, subs, distances = zip(*images, strict=True) if images else ((), (), ())
    return SimpleNamespace(
        super_labels=np.array(supers, np.int32),
        sub_labels=np.array(subs, np.int32),
        distances=np.array(distances, np.float32),
    )


def names(shown):
    return [(cluster.super_cluster, cluster.cluster) for cluster in shown]


def random_clustering(n_images=3_000, seed=0):
    rng = np.random.default_rng(seed)
    of_super, of_sub = rng.integers(0, 3, n_images), (10 * rng.beta(1, 4, n_images)).astype(int)
    spread = rng.random((3, 10))[of_super, of_sub]
    of_super[::50] = -1
    distances = spread * rng.random(n_images)
    return clustered(*zip(of_super, of_sub, distances, strict=True))


def by_hand(clustering):
    found = {}
    for number, (s, c, d) in enumerate(
        zip(
            clustering.super_labels.tolist(),
            clustering.sub_labels.tolist(),
            clustering.distances.tolist(),
            strict=True,
        )
    ):
        if s >= 0:
            found.setdefault((s, c), []).append((d, number))
    return found


@pytest.mark.parametrize("block_rows", [7, 2**20])
def test_clusters_and_images_are_those_of_a_choice_by_hand(monkeypatch, block_rows):
    monkeypatch.setattr(panel, "_BLOCK_ROWS", block_rows)
    monkeypatch.setattr(panel, "_MAX_GATHERED", 100 * block_rows)
    clustering = random_clustering()
    chosen = choose_clusters(clustering, 4, 6)
    of = by_hand(clustering)
    assert chosen.n_images == 3_000 - 60
    assert (chosen.n_clusters, chosen.n_super_clusters) == (len(of), 3)
    sizes = {name: len(images) for name, images in of.items()}
    means = {name: np.mean([d for d, _ in images]) for name, images in of.items()}
    assert names(chosen.largest) == sorted(of, key=lambda name: (-sizes[name], name))[:4]
    enough = [name for name in of if sizes[name] >= np.median([*sizes.values()]) / 2]
    assert len(enough) < len(of)
    assert names(chosen.tightest) == sorted(enough, key=means.get)[:4]
    for shown in (*chosen.largest, *chosen.tightest):
        name = shown.super_cluster, shown.cluster
        assert shown.size == sizes[name]
        assert shown.mean_distance == pytest.approx(means[name])
        assert shown.repeats < 0.05
        nearest = [number for _, number in sorted(of[name])[:6]]
        assert shown.numbers.tolist() == nearest


def test_small_clusters_are_not_tight():
    ten = [(0, 0, 0.5 + 0.01 * n) for n in range(10)]
    twelve = [(0, 1, 0.7 + 0.01 * n) for n in range(12)]
    alone, pair = [(0, 2, 0.0)], [(0, 3, 0.1), (0, 3, 0.11)]
    chosen = choose_clusters(clustered(*ten, *twelve, *alone, *pair), 4, 3)
    assert names(chosen.largest) == [(0, 1), (0, 0), (0, 3), (0, 2)]
    # The median is 6.
    assert names(chosen.tightest) == [(0, 0), (0, 1)]


def test_a_cluster_of_repeats_is_large_but_not_tight():
    rng = np.random.default_rng(0)
    # Equal but for the last bits, as of features computed in other batches.
    repeats = [(0, 0, 0.001 + 1e-7 * rng.random()) for _ in range(30)]
    others = [(0, c, 0.3 * c + 0.2 * rng.random()) for c in (1, 2) for _ in range(25)]
    half = [(0, 3, 0.25)] * 10 + [(0, 3, 0.01 * n) for n in range(15)]
    chosen = choose_clusters(clustered(*repeats, *others, *half), 3, 5)
    assert names(chosen.largest) == [(0, 0), (0, 1), (0, 2)]
    first = chosen.largest[0]
    assert first.repeats == pytest.approx(29 / 30)
    assert first.numbers.tolist() == [int(np.argmin([d for *_, d in repeats]))]
    assert names(chosen.tightest) == [(0, 3), (0, 1), (0, 2)]
    assert chosen.tightest[0].repeats == pytest.approx(9 / 25)


def test_of_many_clusters_of_repeats_the_first_other_one_is_found():
    repeats = [(0, c, 1e-5 * c) for c in range(40) for _ in range(4)]
    other = [(1, 5, 0.5 + 0.1 * n) for n in range(4)]
    chosen = choose_clusters(clustered(*repeats, *other), 2, 3)
    assert names(chosen.tightest) == [(1, 5)]
    assert chosen.tightest[0].numbers.tolist() == [160, 161, 162]
    far = [(2, 0, 0.9)]
    assert choose_clusters(clustered(*repeats, *far), 2, 3).tightest == ()


def test_images_that_are_equally_far_from_their_mean_need_not_be_repeats():
    pair, three = [(0, 0, 0.7071068)] * 2, [(0, 1, 0.8164966)] * 3
    copies, near = [(0, 2, 0.0)] * 2, [(0, 3, 2e-4)] * 4
    chosen = choose_clusters(clustered(*pair, *three, *copies, *near), 4, 3)
    assert {shown.cluster: (shown.repeats, len(shown.numbers)) for shown in chosen.largest} == {
        0: (0, 2), 1: (0, 3), 2: (0.5, 1), 3: (0.75, 1),
    }  # fmt: skip


def test_repeats_are_seen_by_some_images_of_a_large_cluster(monkeypatch):
    monkeypatch.setattr(panel, "_LOOKED_AT", 10)
    cluster = [(0, 0, 0.01 * n) for n in range(10)] + [(0, 0, 0.2)] * 90
    (shown,) = choose_clusters(clustered(*cluster), 1, 12).largest
    assert (shown.repeats, len(shown.numbers)) == (0, 11)


def test_no_image_and_images_in_one_place():
    empty = choose_clusters(clustered(), 2, 3)
    assert (empty.largest, empty.tightest, empty.n_images, empty.n_clusters) == ((), (), 0, 0)
    without = choose_clusters(clustered((-1, -1, 0.0)), 2, 3)
    assert (without.largest, without.n_images) == ((), 0)
    one_place = choose_clusters(clustered(*[(0, 0, 0.0)] * 5), 2, 3)
    assert one_place.largest[0].numbers.tolist() == [0]


def test_labels_may_be_mapped(tmp_path):
    clustering = random_clustering()
    mapped = {}
    for name, array in vars(clustering).items():
        np.save(tmp_path / f"{name}.npy", array)
        mapped[name] = np.load(tmp_path / f"{name}.npy", mmap_mode="r")
    of_arrays, of_files = (
        choose_clusters(found, 3, 4) for found in (clustering, SimpleNamespace(**mapped))
    )
    assert repr(of_arrays) == repr(of_files)


@pytest.mark.parametrize("n_clusters, n_images, name", [(0, 1, "n_clusters"), (1, 0, "n_images")])
def test_numbers_below_1_are_refused(n_clusters, n_images, name):
    with pytest.raises(InputError, match=f"{name}: got 0, expected an integer from 1"):
        choose_clusters(clustered((0, 0, 1.0)), n_clusters, n_images)
