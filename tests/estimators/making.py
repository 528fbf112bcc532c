"""Small data with few labels."""

from functools import cache

import numpy as np
from sklearn.datasets import load_digits


def clusters(n=60, n_classes=3, dimension=4, seed=0, spread=0.6):
    """Points around corners of a cube, float64, and the classes 0..n_classes-1 in turns."""
    rng = np.random.default_rng(seed)
    classes = np.arange(n) % n_classes
    return 2 * np.eye(dimension)[classes] + spread * rng.standard_normal((n, dimension)), classes


def few_labels(classes, n_labeled=2, seed=0):
    """The same with all but n_labeled of each class, chosen at random, replaced by -1."""
    rng = np.random.default_rng(seed)
    labels = np.full(len(classes), -1)
    for label in np.unique(classes):
        chosen = rng.permutation(np.flatnonzero(classes == label))[:n_labeled]
        labels[chosen] = label
    return labels


def two_islands(n_first=20, n_second=10, seed=0):
    """Two groups far from each other; both classes are labelled in the first only."""
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((n_first + n_second, 3))
    points[n_first:] += 1000
    labels = np.full(len(points), -1)
    labels[:2] = [0, 1]
    return points, labels


@cache
def digits():
    """1797 scans of 64 pixels, float64, and their classes."""
    return load_digits(return_X_y=True)
