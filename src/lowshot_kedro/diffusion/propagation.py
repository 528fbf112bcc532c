"""The propagation: start, steps, and the scores of the test points after each.

M. Douze, A. Szlam, B. Hariharan and H. Jégou, "Low-shot learning with large-scale diffusion",
CVPR 2018, section 3.
"""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lowshot_kedro.diffusion.backends import create_backend
from lowshot_kedro.diffusion.matrix import PropagationMatrix
from lowshot_kedro.errors import InputError
from lowshot_kedro.matrices import row_ranges
from lowshot_kedro.resources import format_bytes

logger = logging.getLogger(__name__)

PRECISIONS = ("float32",)


def initial_scores(
    labeled_classes: NDArray[np.int32], first_class: int, last_class: int, n_nodes: int
) -> NDArray[np.float32]:
    """L₀: column c is 1 on the labelled images of class c, scaled to sum 1.

    Args:
        labeled_classes: int32 (L,), classes of nodes 0..L-1.
        first_class: Class of the first column.
        last_class: Class after the last column.
        n_nodes: Rows.

    Returns:
        float32 (n_nodes, last_class - first_class); the column of a class without labelled images
        is zero.
    """
    scores = np.zeros((n_nodes, last_class - first_class), dtype=np.float32)
    nodes = np.flatnonzero((labeled_classes >= first_class) & (labeled_classes < last_class))
    columns = labeled_classes[nodes] - first_class
    counts = np.bincount(columns, minlength=scores.shape[1])
    scores[nodes, columns] = 1 / counts[columns]
    return scores


def propagate(
    matrix: PropagationMatrix,
    labeled_classes: NDArray[np.int32],
    test_neighbors: NDArray[np.int32],
    n_classes: int,
    n_iterations: int,
    class_slice: int = 0,
    backend: str = "auto",
) -> NDArray[np.float32]:
    """Spread the labels and read off the scores of the test points.

    L₀ from :func:`initial_scores`; each step L ← W L, then every column scaled to sum 1. The score
    of a test point is the unweighted sum of L over its neighbours.

    Args:
        matrix: W, over N nodes.
        labeled_classes: int32 (L,), 0..n_classes-1, of nodes 0..L-1.
        test_neighbors: int32 (T, k), nodes, -1 for none.
        n_classes: Number of classes C.
        n_iterations: Steps S.
        class_slice: Classes propagated at once, which bounds memory; 0: all.
        backend: One of :data:`~lowshot_kedro.diffusion.backends.BACKENDS`.

    Returns:
        float32 (S + 1, T, C): the scores before the first step and after each. In memory: this
        array, W, and two float32 score matrices of N × class_slice.

    Raises:
        ValueError: For classes or neighbours out of range, or an unknown back end.
    """
    n_nodes = matrix.n_nodes
    if class_slice < 0:
        raise InputError(f"class_slice: got {class_slice}, expected an integer of at least 0")
    if len(labeled_classes) > n_nodes:
        raise InputError(f"labeled_classes: {len(labeled_classes)} labels for {n_nodes} nodes")
    if len(labeled_classes) and not 0 <= labeled_classes.min() <= labeled_classes.max() < n_classes:
        raise InputError(
            f"labeled_classes: found {labeled_classes.min()}..{labeled_classes.max()}, expected "
            f"0..{n_classes - 1}"
        )
    engine = create_backend(backend, matrix)
    slice_width = min(class_slice or n_classes, n_classes)
    result = np.empty((n_iterations + 1, len(test_neighbors), n_classes), dtype=np.float32)
    logger.info(
        "diffusion over %d nodes and %d edges, %d classes, %d at a time, back end %s: matrix %s, "
        "score matrices 2 × %s, test scores %s",
        n_nodes,
        len(matrix.indices),
        n_classes,
        slice_width,
        engine.name,
        format_bytes(matrix.n_bytes),
        format_bytes(4 * n_nodes * slice_width),
        format_bytes(result.nbytes),
    )
    n_slices = -(-n_classes // slice_width)
    with tqdm(total=n_slices * n_iterations, unit="step", desc="diffusion", disable=None) as bar:
        for first, last in row_ranges(n_classes, slice_width):
            scores = initial_scores(labeled_classes, first, last, n_nodes)
            result[0, :, first:last] = engine.sum_neighbors(test_neighbors, scores)
            for iteration in range(1, n_iterations + 1):
                scores = engine.step(scores)
                result[iteration, :, first:last] = engine.sum_neighbors(test_neighbors, scores)
                bar.update()
    return result
