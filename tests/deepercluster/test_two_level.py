"""Super-clusters and the clusters of each."""

import re

import numpy as np
import pytest

from lowshot_kedro.deepercluster import hierarchical_kmeans, kmeans
from lowshot_kedro.deepercluster.lloyd import min_bytes
from lowshot_kedro.deepercluster.two_level import numbers_of_clusters
from lowshot_kedro.errors import InputError, NotEnoughMemoryError

from .published import whitened_mixture

ROWS = whitened_mixture()


def mean_squared_distance(rows, labels):
    means = np.stack([rows[labels == label].mean(0) for label in range(labels.max() + 1)])
    return ((rows - means[labels]) ** 2).sum(1).mean()


@pytest.mark.parametrize("clusters_per_super", ["fixed", "proportional"])
def test_as_good_as_the_reference(clusters_per_super):
    found = hierarchical_kmeans(ROWS, 2, 40, clusters_per_super=clusters_per_super)
    assert len(found) == 2
    super_labels, sub_labels = found
    assert super_labels.dtype == sub_labels.dtype == np.int64
    # Last losses of the original on two and on four processes; that of a stage is of one process.
    assert mean_squared_distance(ROWS, super_labels) == pytest.approx(0.9384, rel=0.03)
    stages = [
        mean_squared_distance(ROWS[super_labels == label], sub_labels[super_labels == label])
        for label in range(2)
    ]
    assert np.mean(stages) == pytest.approx((0.3349 + 0.3617) / 2, rel=0.06)


def test_each_super_cluster_is_clustered_by_itself(tmp_path):
    super_labels, sub_labels = hierarchical_kmeans(ROWS, 3, 30)
    assert super_labels.tolist() == kmeans(ROWS, 3).labels.tolist()
    for label in range(3):
        own = sub_labels[super_labels == label]
        assert sorted(set(own.tolist())) == list(range(10))
    # With memory for no super-cluster at a time, and from a file.
    file = np.memmap(tmp_path / "rows", np.float32, "w+", shape=ROWS.shape)
    file[:] = ROWS
    budget = (min_bytes(10, 16) + 1000) / 1e9
    for rows in (ROWS, file):
        again = hierarchical_kmeans(rows, 3, 30, memory_budget_gb=budget)
        assert again.super_labels.tolist() == super_labels.tolist()
        assert again.sub_labels.tolist() == sub_labels.tolist()


def test_one_super_cluster():
    super_labels, sub_labels = hierarchical_kmeans(ROWS, 1, 20)
    assert not super_labels.any()
    assert len(np.unique(sub_labels)) == 20


@pytest.mark.parametrize(
    ("sizes", "k", "how", "expected"),
    [
        ([100, 100], 10, "fixed", [5, 5]),
        ([100, 3, 0], 15, "fixed", [5, 3, 0]),
        ([100, 100], 10, "proportional", [5, 5]),
        ([70, 20, 10], 10, "proportional", [7, 2, 1]),
        # 5.6, 2.4, 2: the largest remainder gets what is left.
        ([56, 24, 20], 10, "proportional", [6, 2, 2]),
        # One at least, which the smallest remainder pays for: 4.95, 4.95, 0.1.
        ([99, 99, 2], 10, "proportional", [5, 4, 1]),
        ([997, 1, 1, 1], 4, "proportional", [1, 1, 1, 1]),
        ([4, 0, 4], 8, "proportional", [4, 0, 4]),
        ([3, 5], 8, "proportional", [3, 5]),
        ([1, 0], 1, "proportional", [1, 0]),
    ],
)
def test_numbers_of_clusters(sizes, k, how, expected):
    assert numbers_of_clusters(np.array(sizes), k, how) == expected


def test_numbers_of_clusters_are_always_as_many():
    rng = np.random.default_rng(0)
    for _ in range(300):
        sizes = rng.integers(0, 10 ** rng.integers(1, 5), rng.integers(1, 9))
        filled = np.count_nonzero(sizes)
        if not filled:
            continue
        k = int(rng.integers(filled, sizes.sum() + 1))
        numbers = np.array(numbers_of_clusters(sizes, k, "proportional"))
        assert numbers.sum() == k
        assert (numbers <= sizes).all()
        assert (numbers[sizes > 0] >= 1).all()
        # Never a whole cluster from one's share but for those who would have none.
        if (k * sizes[sizes > 0] >= sizes.sum()).all():
            assert (np.abs(numbers - k * sizes / sizes.sum()) < 1).all()


def test_what_does_not_go_together():
    def refused(message, *arguments, **others):
        with pytest.raises(InputError, match=re.escape(message)):
            hierarchical_kmeans(*arguments, **others)

    refused("k: got 41, expected a multiple of n_super, 2, or ", ROWS, 2, 41)
    refused("k: got 1, expected an integer from 2", ROWS, 2, 1)
    refused("n_super: got 0", ROWS, 0, 10)
    refused("clusters_per_super: got 'fix'", ROWS, 2, 10, clusters_per_super="fix")
    refused("features: found 4000 rows, expected at least as many as clusters, 4002", ROWS, 2, 4002)
    with pytest.raises(NotEnoughMemoryError, match=r"memory_budget_gb: got 0\.001 GB"):
        hierarchical_kmeans(ROWS, 2, 10, memory_budget_gb=0.001)
