"""Random neighbour lists, matrices and score matrices, and plain views of them."""

from typing import Any

import numpy as np
import scipy.sparse
from hypothesis import strategies as st
from numpy.typing import NDArray

from lowshot_kedro import native

SEEDS = st.integers(0, 2**32 - 1)

# Around the widths in which columns are summed, and around the words of a bitmap of columns.
COLUMN_COUNTS = st.integers(1, 300) | st.sampled_from(
    [1, 2, 7, 8, 9, 15, 16, 17, 63, 64, 65, 127, 128, 129, 256, 257]
)


@st.composite
def neighbor_lists(draw: st.DrawFn, max_rows: int = 60) -> NDArray[np.int32]:
    """Lists with missing neighbours, duplicates, self loops, empty rows and isolated nodes."""
    rows = draw(st.integers(1, max_rows))
    width = draw(st.integers(1, 9) | st.integers(30, 70))
    rng = np.random.default_rng(draw(SEEDS))
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
def matrices(draw: st.DrawFn, max_rows: int = 40) -> native.SparseMatrix:
    """Columns in no order, some twice in a row; values of either sign; rows without entries."""
    rows = draw(st.integers(1, max_rows))
    rng = np.random.default_rng(draw(SEEDS))
    counts = rng.integers(0, draw(st.integers(1, 40)), rows)
    counts[rng.random(rows) < 0.2] = 0
    return random_matrix(rng, counts, with_values=draw(st.booleans()))


def random_matrix(
    rng: np.random.Generator, counts: NDArray[np.int64], with_values: bool
) -> native.SparseMatrix:
    rows = len(counts)
    indptr = np.concatenate([[0], np.cumsum(counts)])
    indices = rng.integers(0, rows, indptr[-1], dtype=np.int32)
    if with_values:
        values = rng.normal(size=indptr[-1]).astype(np.float32)
        return native.SparseMatrix(indptr, indices, None, values)
    mutual = rng.integers(0, counts + 1, dtype=np.int32)
    return native.SparseMatrix(indptr, indices, mutual, None)


@st.composite
def scores_for(
    draw: st.DrawFn, rows: int, columns: st.SearchStrategy[int] = COLUMN_COUNTS
) -> NDArray[np.float32]:
    """Dense or sparse, of either sign, some the first columns of a wider matrix."""
    width = draw(columns)
    rng = np.random.default_rng(draw(SEEDS))
    scores = rng.random((rows, width), dtype=np.float32) - np.float32(
        draw(st.sampled_from([0, 0.5]))
    )
    scores[rng.random(scores.shape) < draw(st.sampled_from([0.0, 0.9]))] = 0
    scores[:, rng.random(width) < 0.1] = 0
    return widened(scores, draw(st.sampled_from([0, 1, 7])))


def widened(array: NDArray[Any], more: int) -> NDArray[Any]:
    """The same numbers as the first columns of a wider matrix, with the largest ones beyond."""
    wide = np.full((len(array), array.shape[1] + more), largest(array.dtype), array.dtype)
    wide[:, : array.shape[1]] = array
    return wide[:, : array.shape[1]]


def largest(dtype: np.dtype[Any]) -> Any:
    return np.inf if dtype == np.float32 else np.iinfo(dtype).max


def positive_factors(columns: int, seed: int = 5) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random(columns, dtype=np.float32) + np.float32(0.1)


def to_sparse(scores: NDArray[Any], seed: int = 6, gap: int = 2) -> native.SparseScores:
    """Rows in random order, with entries that belong to nobody between them."""
    rng = np.random.default_rng(seed)
    values = native.from_bfloat16(scores) if scores.dtype == np.uint16 else scores
    spans = np.zeros(len(scores), np.uint64)
    entries = []
    for row in rng.permutation(len(scores)):
        columns = np.flatnonzero(values[row])
        spans[row] = len(entries) << 24 | len(columns)
        entries += [(values[row, column], column) for column in columns]
        entries += [(np.nan, -1)] * int(rng.integers(0, gap + 1))
    entry = np.dtype([("value", np.float32), ("column", np.int32)])
    return native.SparseScores(spans, np.array(entries, entry), scores.shape[1], scores.dtype)


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


def as_scipy(matrix: native.SparseMatrix) -> Any:
    """A native matrix in double precision."""
    nodes = matrix.n_nodes
    rows = np.repeat(np.arange(nodes), np.diff(matrix.indptr))
    if matrix.values is None:
        place = np.arange(len(rows)) - matrix.indptr[rows]
        data = np.where(place < matrix.mutual[rows], 2.0, 1.0)
        data /= np.bincount(rows, data, nodes)[rows]
    else:
        data = matrix.values.astype(float)
    # Copies, because scipy adds up duplicates in place.
    return scipy.sparse.csr_matrix(
        (data, matrix.indices, matrix.indptr), shape=(nodes, nodes), copy=True
    )


def unsigned(matrix: native.SparseMatrix) -> native.SparseMatrix:
    return matrix if matrix.values is None else matrix._replace(values=np.abs(matrix.values))


def random_neighbors(rows: int, width: int, seed: int = 0) -> NDArray[np.int32]:
    rng = np.random.default_rng(seed)
    neighbors = rng.integers(-1, rows, (rows, width), dtype=np.int32)
    # A hub, to which everybody is linked.
    neighbors[:, 0] = rows // 3
    return neighbors
