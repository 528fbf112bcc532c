"""How frequent the classes are among unlabelled images.

M. Saerens, P. Latinne and C. Decaestecker, "Adjusting the outputs of a classifier to new a priori
probabilities: a simple procedure", Neural Computation 14, 2002.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.blocks import row_ranges, spread_rows
from lowshot_kedro.labeling.methods.method import BLOCK_ROWS, to_shares

_MAX_ROWS = 100_000
_MAX_ITERATIONS = 200
_TOLERANCE = 1e-5


def estimate_frequencies(
    probabilities: NDArray[np.float32], rows: NDArray[np.int64], n_labels: int
) -> NDArray[np.float64]:
    """Frequencies of the classes by expectation maximisation.

    In each iteration w_c becomes the mean over the images of w_c p_c / Σ w p, where p are
    probabilities that hold for classes of equal frequency; then it is drawn to equal frequencies by
    C / (C + L), as far as C further labels, one of each class, beside the L given ones would: the
    fewer labels there are, the less is known of how well p separates the classes, and a class that
    is confused with another would take it over.

    Args:
        probabilities: float32 (N, C).
        rows: int64 (m,), unlabelled images; rows of zeros do not count.
        n_labels: L.

    Returns:
        float64 (C,), above 0, summing to 1. In memory: 100 thousand rows.
    """
    n_classes = probabilities.shape[1]
    uniform = np.full(n_classes, 1 / n_classes)
    chosen = probabilities[rows[spread_rows(len(rows), _MAX_ROWS)]]
    chosen = chosen[chosen.any(axis=1)]
    if len(chosen) == 0:
        return uniform
    drawn = n_classes / (n_classes + n_labels)
    frequencies = uniform
    for _ in range(_MAX_ITERATIONS):
        sums = np.zeros(n_classes)
        for first, last in row_ranges(len(chosen), BLOCK_ROWS):
            weighted = chosen[first:last] * frequencies
            sums += (weighted / weighted.sum(axis=1, keepdims=True)).sum(axis=0)
        found = drawn * uniform + (1 - drawn) * sums / len(chosen)
        change = np.abs(found - frequencies).max()
        frequencies = found
        if change < _TOLERANCE:
            break
    return frequencies


def weigh(
    probabilities: NDArray[np.float32], frequencies: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Probabilities for classes of such frequencies, written over those for equal ones."""
    factors = frequencies.astype(np.float32)
    for first, last in row_ranges(len(probabilities), BLOCK_ROWS):
        probabilities[first:last] *= factors
    return to_shares(probabilities)
