"""Clusters of images that have not been clustered."""

import numpy as np
import pytest

from lowshot_kedro.deepercluster import assign_clusters
from lowshot_kedro.errors import InputError

random = np.random.default_rng(0)
SIZES = (3, 0, 4)
CENTROIDS = {
    "mean": random.normal(size=9),
    "projection": random.normal(size=(5, 9)),
    "super_centroids": random.normal(size=(3, 5)).astype(np.float32) / 4,
    "centroids": random.normal(size=(7, 5)).astype(np.float32) / 4,
    "super_clusters": np.repeat(np.arange(3, dtype=np.int32), SIZES),
}
# No image is nearest to the super-cluster that has no cluster.
CENTROIDS["super_centroids"][1] = 9
FEATURES = random.normal(size=(200, 9)).astype(np.float32)


def test_images_go_to_the_nearest_centroids():
    found = assign_clusters(FEATURES, CENTROIDS)
    rows = (FEATURES - CENTROIDS["mean"]) @ CENTROIDS["projection"].T
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    first = np.cumsum([0, *SIZES])
    for number, row in enumerate(rows):
        of_super = np.linalg.norm(CENTROIDS["super_centroids"] - row, axis=1).argmin()
        own = CENTROIDS["centroids"][first[of_super] : first[of_super + 1]]
        distances = np.linalg.norm(own - row, axis=1)
        assert found.super_labels[number] == of_super
        assert found.sub_labels[number] == distances.argmin()
        assert found.distances[number] == pytest.approx(distances.min(), rel=1e-5)
    assert set(found.super_labels) == {0, 2}


def test_what_cannot_be_assigned_is_named():
    with pytest.raises(InputError, match="found no array mean; expected mean, projection"):
        assign_clusters(FEATURES, {"centroids": CENTROIDS["centroids"]})
    with pytest.raises(InputError, match="got 8 columns, expected 9"):
        assign_clusters(FEATURES[:, :8], CENTROIDS)
    assert len(assign_clusters(FEATURES[:0], CENTROIDS).distances) == 0
