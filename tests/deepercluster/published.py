"""What the original's k-means has made of some rows, and rows like those of its tests."""

from pathlib import Path

import numpy as np

# Rows, first centroids of two kinds, labels, centroids and losses: those of the original, run on a
# CPU with its seeds.
KMEANS = dict(np.load(Path(__file__).parent / "kmeans.npz"))


def whitened_mixture():
    """float32 (4000, 16): twelve clusters in 24 dimensions, whitened, of length 1."""
    generator = np.random.RandomState(61)
    centres = generator.standard_normal((12, 24)) * 2
    clusters = generator.randint(0, 12, 4000)
    rows = (centres[clusters] + generator.standard_normal((4000, 24))).astype(np.float32)
    centred = rows.astype(float) - rows.mean(0)
    variances, directions = np.linalg.eigh(centred.T @ centred / len(rows))
    kept = slice(None, -17, -1)
    white = centred @ (directions[:, kept] / np.sqrt(variances[kept]))
    return (white / np.linalg.norm(white, axis=1, keepdims=True)).astype(np.float32)
