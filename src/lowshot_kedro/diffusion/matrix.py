"""From neighbour lists to the matrix W that spreads labels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from lowshot_kedro import native
from lowshot_kedro.blocks import row_ranges
from lowshot_kedro.deprecated import takes_old_keywords
from lowshot_kedro.diffusion.edge_weights import link_weights
from lowshot_kedro.errors import InputError

NODE_ORDERINGS = ("auto", "given", "clustered")

# Of graphs this large, `auto` expects that their scores do not stay in cache.
LARGE_GRAPH_NODES = 100_000

# Ordering nodes costs about as much as gathering this many scores of every node at random.
ORDERING_COST_SCORES = 64
# Below this the scores of all nodes stay in cache anyway.
CACHE_BYTES = 32 * 2**20

BLOCK_ENTRIES = 2**22


@dataclass(frozen=True)
class PropagationMatrix:
    """W (N, N), with its rows and columns in an order of its own.

    Attributes:
        rows: W in compressed sparse rows. With constant edge weights there is no array of values.
        rank: int32 (N,), the row of each node; None: row i is node i.
    """

    rows: native.SparseMatrix
    rank: NDArray[np.int32] | None = None

    @property
    def n_nodes(self) -> int:
        """N."""
        return self.rows.n_nodes

    @property
    def n_edges(self) -> int:
        """Entries of W."""
        return len(self.rows.indices)

    @property
    def n_bytes(self) -> int:
        """Memory of the matrix, its node ordering and its column totals (which are made later)."""
        rank_bytes = 0 if self.rank is None else self.rank.nbytes
        return self.rows.n_bytes + rank_bytes + 4 * self.n_nodes

    @cached_property
    def column_totals(self) -> NDArray[np.float32]:
        """Float32 (N,): Σ_i W_ij. The columns of W L sum to Σ_j (Σ_i W_ij) L_jc."""
        return native.column_totals(self.rows)

    def rows_of(self, nodes: NDArray[np.int32]) -> NDArray[np.int32]:
        """The rows of nodes; -1 stays -1.

        Args:
            nodes: int32, any shape, -1..N-1.

        Returns:
            int32, same shape.
        """
        if self.rank is None:
            return nodes
        return np.where(nodes < 0, nodes, self.rank[nodes])

    def values(self) -> NDArray[np.float32]:
        """Float32 (nnz,): the value of every entry, made for matrices that do not keep them."""
        indptr, indices, mutual, values = self.rows
        if values is not None:
            return values
        assert mutual is not None
        counts = np.diff(indptr)
        with np.errstate(divide="ignore"):
            scales = (1 / (counts + mutual)).astype(np.float32)
        values = np.repeat(scales, counts)
        # +1 where the entries that count twice begin, -1 where they end.
        edges = np.zeros(len(indices) + 1, np.int8)
        occupied = counts > 0
        np.add.at(edges, indptr[:-1][occupied], 1)
        np.add.at(edges, (indptr[:-1] + mutual)[occupied], -1)
        values[np.cumsum(edges[:-1], dtype=np.int8) > 0] *= 2
        return values

    def to_scipy(self) -> sparse.csr_array:
        """W as a float64 matrix of scipy, in the order of its rows."""
        values = self.values().astype(np.float64)
        shape = (self.n_nodes, self.n_nodes)
        return sparse.csr_array((values, self.rows.indices, self.rows.indptr), shape=shape)


def choose_node_ordering(n_nodes: int, n_classes: int, n_iterations: int) -> str:
    """How to order the nodes: whether ordering them by clusters saves more time than it takes.

    Args:
        n_nodes: N.
        n_classes: Classes, of all slices together.
        n_iterations: Steps.

    Returns:
        `clustered` or `given`.
    """
    pays = 4 * n_nodes * n_classes > CACHE_BYTES
    pays = pays and n_classes * n_iterations > ORDERING_COST_SCORES
    return "clustered" if pays else "given"


@takes_old_keywords
def propagation_matrix(
    neighbors: NDArray[np.int32],
    edge_weight: str = "constant",
    similarities: NDArray[np.float32] | None = None,
    *,
    sigma: float = 0.5,
    local_neighbor: int = 8,
    reciprocal: bool = False,
    sinkhorn_rounds: int = 0,
    node_ordering: str = "auto",
) -> PropagationMatrix:
    """W = D⁻¹(A + Aᵀ) of a neighbour list.

    Args:
        neighbors: int32 (N, k), -1 for none, in memory or mapped from a file. A_ij is the weight of
            the link if j is a neighbour of i, else 0.
        edge_weight: One of :data:`~lowshot_kedro.diffusion.edge_weights.EDGE_WEIGHTS`. With
            `constant` a link weighs 1, and W keeps no values.
        similarities: float32 (N, k), inner products of vectors of length 1; for the other weights.
        sigma: σ in the unit of the distances, for `gaussian`.
        local_neighbor: Which neighbour's distance is the scale of a node, for `locally_scaled`.
        reciprocal: Keep only links between nodes that list each other.
        sinkhorn_rounds: How often :func:`sinkhorn` scales columns and rows of W.
        node_ordering: `given`, or `clustered`: rows are ordered so that neighbours are near in
            memory, which makes products on large graphs several times faster. `auto`: clustered
            from 100 000 nodes on; :func:`choose_node_ordering` chooses better if the number of
            classes is known.

    Returns:
        The matrix, rows summing to 1; the row of a node without any neighbour is zero. In memory:
        at most 2·k·4 + 24 bytes a node, with weights as much again for the values; while its
        nodes are ordered, a copy of the neighbours and of their weights.

    Raises:
        ValueError: For a neighbour out of range, or an unknown name.
    """
    if node_ordering not in NODE_ORDERINGS:
        expected = f"one of: {', '.join(NODE_ORDERINGS)}"
        raise InputError(parameter="node_ordering", found=node_ordering, expected=expected)
    if node_ordering == "auto":
        node_ordering = "clustered" if len(neighbors) >= LARGE_GRAPH_NODES else "given"
    weights = link_weights(edge_weight, neighbors, similarities, sigma, local_neighbor)
    if weights is None and sinkhorn_rounds > 0:
        weights = np.ones(neighbors.shape, np.float32)
    rank = None
    if node_ordering == "clustered":
        order = native.cluster_nodes(neighbors)
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order), dtype=np.int32)
        neighbors = native.renumber(neighbors, order, rank)
        weights = None if weights is None else weights[order]
        del order
    matrix = native.symmetrize(neighbors, weights, reciprocal)
    del neighbors, weights
    if matrix.values is not None:
        native.normalize_rows(matrix.indptr, matrix.values)
        sinkhorn(matrix, sinkhorn_rounds)
    return PropagationMatrix(matrix, rank)


def matrix_of_weights(weights: sparse.csr_array, name: str = "graph") -> PropagationMatrix:
    """W = D⁻¹(A + Aᵀ) of a graph whose links have weights of their own.

    Args:
        weights: A (N, N), at least 0 and finite; entries given twice are added.
        name: What messages call it.

    Returns:
        The matrix, rows summing to 1; the row of a node without any link is zero. In memory:
        8 bytes an entry, and while it is made three times as much.

    Raises:
        ValueError: For a matrix that is not square, or a weight below 0 or not finite, with its
            place.
    """
    n_rows, n_columns = weights.shape
    if n_rows != n_columns:
        raise InputError(f"{name}: got shape {weights.shape}, expected as many columns as rows")
    require_weights(weights, name)
    # Scaled, so that no weight that is finite leaves the range of float32.
    largest = weights.data.max(initial=0)
    links = (weights / largest if largest > 0 else weights).astype(np.float32)
    links = sparse.csr_array(links + links.T)
    links.eliminate_zeros()
    links.sort_indices()
    matrix = native.SparseMatrix(
        links.indptr.astype(np.int64, copy=False),
        links.indices.astype(np.int32, copy=False),
        None,
        links.data,
    )
    native.normalize_rows(matrix.indptr, links.data)
    return PropagationMatrix(matrix)


def require_weights(weights: sparse.csr_array, name: str) -> sparse.csr_array:
    """Refuse weights below 0 or not finite.

    Args:
        weights: Weights of links.
        name: What the message calls the matrix.

    Returns:
        The weights.

    Raises:
        ValueError: With the place of the first of them.
    """
    if weights.dtype.kind not in "biuf":
        raise InputError(f"{name}: weights of type {weights.dtype}, expected real numbers")
    wrong = np.flatnonzero(~(np.isfinite(weights.data) & (weights.data >= 0)))
    if len(wrong):
        row = int(np.searchsorted(weights.indptr, wrong[0], side="right")) - 1
        raise InputError(
            f"{name}: the weight at row {row}, column {weights.indices[wrong[0]]} is "
            f"{weights.data[wrong[0]]}, expected finite numbers of at least 0"
        )
    return weights


def sinkhorn(matrix: native.SparseMatrix, rounds: int, block_entries: int = BLOCK_ENTRIES) -> None:
    """Alternately scale columns and rows of W to sum 1, in place: towards a doubly stochastic W.

    One round: W ← W C⁻¹ with C = diag(Σ_i W_ij), then W ← R⁻¹ W with R = diag(Σ_j W_ij).
    R. Sinkhorn and P. Knopp, "Concerning nonnegative matrices and doubly stochastic matrices",
    Pacific Journal of Mathematics 21, 1967.

    Args:
        matrix: W, with values; rows sum to 1 afterwards.
        rounds: How often; 0 leaves W as it is.
        block_entries: Entries that are divided together.
    """
    indptr, indices, _, values = matrix
    if values is None:
        raise ValueError("matrix: expected values, got a matrix without")
    for _ in range(rounds):
        totals = native.column_totals(matrix)
        for first, last in row_ranges(len(values), block_entries):
            divisors = totals[indices[first:last]]
            values[first:last] /= np.where(divisors == 0, 1, divisors)
        native.normalize_rows(indptr, values)
