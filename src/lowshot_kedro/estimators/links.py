"""Links that are given: a sparse matrix of weights, or neighbours with their similarities."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from lowshot_kedro.blocks import require_nodes
from lowshot_kedro.errors import InputError

# The smallest weight but 0: its reciprocal is finite.
_SMALLEST_WEIGHT = 1e-300


def is_pair(X: Any) -> bool:
    """Whether X is (indices, similarities), as a tuple or a list."""
    if not isinstance(X, tuple | list) or len(X) != 2:
        return False
    # A list of two lists of numbers is a matrix of two rows.
    return isinstance(X, tuple) or isinstance(X[0], np.ndarray) or np.ndim(X[0]) == 2


def count_rows(X: Any) -> int:
    """How many rows an X of any kind has that nobody has looked at yet."""
    rows = X[0] if is_pair(X) else X
    shape = getattr(rows, "shape", None)
    try:
        return int(shape[0] if shape else len(rows))
    except TypeError as error:
        raise InputError(f"X: got {type(rows).__name__}, expected rows of numbers") from error


def graph_rows(X: Any) -> int:
    """How many rows a graph has.

    Raises:
        ValueError: If X is neither a matrix nor a pair of some.
    """
    try:
        n_dimensions = np.ndim(X[0] if is_pair(X) else X)
    except ValueError:  # Lists of different lengths.
        n_dimensions = 0
    if n_dimensions == 0 or (n_dimensions != 2 and not is_pair(X)):
        raise InputError(_expected_graph(X))
    return count_rows(X)


def _expected_graph(X: Any) -> str:
    found = type(X).__name__
    if isinstance(X, tuple | list):
        found += f" of {len(X)}"
    return (
        "X: expected a sparse matrix, or a pair (indices, similarities), since metric is "
        f"precomputed; got {found}"
    )


def neighbors_of(indices: Any, n_nodes: int) -> NDArray[np.integer[Any]]:
    """Neighbours (m, k) among n_nodes rows, -1 for none."""
    _require_no_mask(indices)
    neighbors = np.asarray(indices)
    if neighbors.ndim != 2 or neighbors.dtype.kind not in "iu":
        raise InputError(
            f"X: neighbours of shape {neighbors.shape} and type {neighbors.dtype}, expected two "
            "dimensions and integers"
        )
    require_nodes(neighbors, n_nodes, "X: neighbours")
    return neighbors


def links_of(X: Any, n_nodes: int) -> sparse.csr_array:
    """The weights of the links to n_nodes rows of a graph."""
    links = _links_of_pair(X, n_nodes) if is_pair(X) else _links_of_matrix(X, n_nodes)
    if links.dtype.kind == "f" and 0 < links.data.max(initial=0) < _SMALLEST_WEIGHT:
        raise InputError(
            f"X: the largest weight is {links.data.max():.3g}, too small to divide by, expected "
            f"{_SMALLEST_WEIGHT:g}; multiply X by a number"
        )
    return links


def _links_of_pair(X: Any, n_nodes: int) -> sparse.csr_array:
    neighbors = neighbors_of(X[0], n_nodes)
    if X[1] is None:
        return link_matrix(neighbors, None, n_nodes)
    _require_no_mask(X[1])
    weights = np.asarray(X[1])
    if weights.shape != neighbors.shape:
        raise InputError(
            f"X: similarities of shape {weights.shape}, expected that of the neighbours, "
            f"{neighbors.shape}"
        )
    return link_matrix(neighbors, weights, n_nodes)


def _links_of_matrix(X: Any, n_nodes: int) -> sparse.csr_array:
    graph_rows(X)
    _require_no_mask(X)
    try:
        links = sparse.csr_array(X)
    except (TypeError, ValueError) as error:
        raise InputError(f"X: found no weights, expected real numbers: {error}") from error
    if links.shape[1] != n_nodes:
        raise InputError(
            f"X: got {links.shape[1]} columns, but the graph has {n_nodes} rows; with metric "
            "precomputed X holds the weight of a link to each of them"
        )
    return links


def link_matrix(
    neighbors: NDArray[np.integer[Any]], weights: NDArray[Any] | None, n_nodes: int
) -> sparse.csr_array:
    """Neighbours (m, k) and their weights, None for 1, as a matrix (m, n_nodes)."""
    present = neighbors >= 0
    indptr = np.concatenate([[0], np.cumsum(present.sum(axis=1))])
    values = np.ones(indptr[-1], np.float32) if weights is None else weights[present]
    shape = (len(neighbors), n_nodes)
    return sparse.csr_array((values, neighbors[present], indptr), shape=shape)


def _require_no_mask(values: Any) -> None:
    if np.ma.is_masked(values):
        raise InputError("X: found masked entries, expected arrays without a mask, -1 for none")
