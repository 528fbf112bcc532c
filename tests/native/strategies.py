"""Random neighbour lists and score matrices, and scipy's view of them."""

from typing import Any

import numpy as np
import scipy.sparse
from hypothesis import strategies as st
from numpy.typing import NDArray


@st.composite
def neighbor_lists(draw: st.DrawFn, max_rows: int = 60) -> NDArray[np.int32]:
    """Lists with missing neighbours, duplicates, self loops, empty rows and isolated nodes."""
    rows = draw(st.integers(1, max_rows))
    width = draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    # A small range of targets makes duplicates, self loops, mutual links and hubs.
    targets = draw(st.integers(1, rows))
    neighbors = rng.integers(0, targets, (rows, width), dtype=np.int32)
    neighbors[rng.random((rows, width)) < draw(st.sampled_from([0.0, 0.3, 1.0]))] = -1
    neighbors[rng.random(rows) < draw(st.sampled_from([0.0, 0.3]))] = -1
    if draw(st.booleans()):
        wide = rng.integers(-5, 10**6, (rows, width + draw(st.integers(1, 4))), dtype=np.int32)
        wide[:, :width] = neighbors
        neighbors = wide[:, :width]
    return neighbors


@st.composite
def scores_for(draw: st.DrawFn, rows: int) -> NDArray[np.float32]:
    columns = draw(st.integers(1, 70))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scores = rng.random((rows, columns), dtype=np.float32)
    scores[rng.random(scores.shape) < draw(st.sampled_from([0.0, 0.9]))] = 0
    scores[:, rng.random(columns) < 0.1] = 0
    return scores


def adjacency(neighbors: NDArray[np.int32]) -> Any:
    """The 0/1 neighbour matrix, in double precision."""
    rows, width = neighbors.shape
    sources = np.repeat(np.arange(rows), width)[neighbors.ravel() >= 0]
    targets = neighbors.ravel()[neighbors.ravel() >= 0]
    matrix = scipy.sparse.csr_matrix(
        (np.ones(len(targets)), (sources, targets)), shape=(rows, rows)
    )
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


def random_neighbors(rows: int, width: int, seed: int = 0) -> NDArray[np.int32]:
    rng = np.random.default_rng(seed)
    neighbors = rng.integers(-1, rows, (rows, width), dtype=np.int32)
    # A hub, whose row is long enough for every branch of the sorting.
    neighbors[:, 0] = rows // 3
    return neighbors
