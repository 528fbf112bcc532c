"""Made-up collections of images, and episodes of them."""

import numpy as np

from lowshot_kedro.blocks import RegionFeatures
from lowshot_kedro.episodes.episode import Episode
from tests.features import MemoryFeatures


def collection(n_classes=5, n_images=8, shape=(12, 2, 2), noise=0.1, seed=0, mean=0.0):
    """Regions of n_images images of each class, one class after the other, and their classes."""
    rng = np.random.default_rng(seed)
    n_columns = int(np.prod(shape))
    centers = np.abs(rng.normal(size=(n_classes, n_columns)))
    classes = np.repeat(np.arange(n_classes), n_images)
    rows = np.abs(centers[classes] + noise * rng.normal(size=(len(classes), n_columns))) + mean
    return RegionFeatures(MemoryFeatures(rows, "images"), shape), classes


def episode(
    regions, classes, n_way=5, n_shot=1, n_query=3, views=("map", "grid", "sampling"), number=0
):
    """An episode of the first classes; every class gives its first images, support before query."""
    rows = np.stack(
        [np.flatnonzero(classes == name)[: n_shot + n_query] for name in range(n_way)], axis=1
    )
    return Episode(
        number,
        rows[:n_shot].ravel(),
        rows[n_shot:].ravel(),
        n_way,
        dict.fromkeys(views, regions),
    )
