"""How much a link between two nodes weighs: the values of the neighbour matrix A.

To add a kind, write a function of :class:`LinkBlock` and add a line to :data:`EDGE_WEIGHTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.blocks import require_finite, require_nodes, row_ranges
from lowshot_kedro.errors import InputError

BLOCK_ROWS = 65536


def squared_distances(similarities: NDArray[np.float32]) -> NDArray[np.float32]:
    """‖x − y‖² = 2 − 2 xᵀy, for vectors of length 1; never below 0.

    Args:
        similarities: float32 (n, k), inner products.

    Returns:
        float32 (n, k).
    """
    return np.maximum(2 - 2 * similarities, 0, dtype=np.float32)


def gaussian(squared: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """A_ij = exp(−‖x_i − x_j‖² / σ²), with one σ for all nodes.

    Args:
        squared: float32 (n, k), squared distances.
        sigma: σ, in the unit of the distances; vectors have length 1.

    Returns:
        float32 (n, k).
    """
    weights: NDArray[np.float32] = np.exp(squared / np.float32(-(sigma**2)))
    return weights


def locally_scaled(
    squared: NDArray[np.float32],
    scale: NDArray[np.float32],
    neighbor_scales: NDArray[np.float32],
) -> NDArray[np.float32]:
    """A_ij = exp(−‖x_i − x_j‖² / (σ_i σ_j)), with σ_i the distance to a near neighbour of i.

    L. Zelnik-Manor and P. Perona, "Self-tuning spectral clustering", NIPS 2004, section 3, with σ_i
    from the 7th other point. Between nodes at distance 0 the weight is 1 even where σ_i or σ_j is
    0.

    Args:
        squared: float32 (n, k), squared distances.
        scale: float32 (n,), σ_i.
        neighbor_scales: float32 (n, k), σ_j.

    Returns:
        float32 (n, k).
    """
    product = np.maximum(scale[:, None] * neighbor_scales, np.finfo(np.float32).tiny)
    with np.errstate(over="ignore"):  # to infinity, whose exponential is the right 0
        weights: NDArray[np.float32] = np.exp(-squared / product)
    return weights


def local_scales(
    neighbors: NDArray[np.int32], similarities: NDArray[np.float32], rank: int
) -> NDArray[np.float32]:
    """σ_i: the distance of node i to its neighbour number `rank`, or to its last if it has fewer.

    Args:
        neighbors: int32 (n, k), -1 for none, at the end of a row.
        similarities: float32 (n, k).
        rank: 1 is the most similar entry of a list, as a rule the node itself.

    Returns:
        float32 (n,), 0 for a node without neighbours.
    """
    last = np.minimum((neighbors >= 0).sum(axis=1), rank) - 1
    rows = np.flatnonzero(last >= 0)
    scales = np.zeros(len(neighbors), np.float32)
    scales[rows] = np.sqrt(squared_distances(similarities[rows, last[rows]]))
    return scales


class _Scales:
    """σ_i of all nodes, computed when a kind of weight asks for them.

    Args:
        neighbors: int32 (n, k), -1 for none.
        similarities: float32 (n, k).
        rank: Which entry of a list has the distance σ_i.
    """

    def __init__(
        self, neighbors: NDArray[np.int32], similarities: NDArray[np.float32], rank: int
    ) -> None:
        self._arguments = (neighbors, similarities, rank)

    @cached_property
    def values(self) -> NDArray[np.float32]:
        """float32 (n,)."""
        return local_scales(*self._arguments)


@dataclass(frozen=True)
class LinkBlock:
    """The links of some nodes, from which their weights are computed.

    Attributes:
        squared: float32 (b, k), squared distances; 0 where there is no link.
        sigma: σ of :func:`gaussian`.
        rows: The nodes whose links these are.
        targets: int32 (b, k), the nodes that they are linked to, -1 for none.
        scales: σ_i of all nodes.
    """

    squared: NDArray[np.float32]
    sigma: float
    rows: slice
    targets: NDArray[np.int32]
    scales: _Scales

    @property
    def own_scales(self) -> NDArray[np.float32]:
        """σ_i: float32 (b,)."""
        return self.scales.values[self.rows]

    @property
    def target_scales(self) -> NDArray[np.float32]:
        """σ_j: float32 (b, k)."""
        found: NDArray[np.float32] = self.scales.values[self.targets]
        return found


# The kinds of weights by name; None: every link weighs 1, and nothing has to be computed.
EDGE_WEIGHTS: Mapping[str, Callable[[LinkBlock], NDArray[np.float32]] | None] = {
    "constant": None,
    "gaussian": lambda links: gaussian(links.squared, links.sigma),
    "locally_scaled": lambda links: locally_scaled(
        links.squared, links.own_scales, links.target_scales
    ),
}


def link_weights(
    kind: str,
    neighbors: NDArray[np.int32],
    similarities: NDArray[np.float32] | None,
    sigma: float,
    local_neighbor: int,
    block_rows: int = BLOCK_ROWS,
) -> NDArray[np.float32] | None:
    """The weight of every link.

    Args:
        kind: One of :data:`EDGE_WEIGHTS`.
        neighbors: int32 (n, k), most similar first, -1 for none.
        similarities: float32 (n, k), inner products of vectors of length 1; not looked at beside
            -1. Not needed for `constant`.
        sigma: σ of :func:`gaussian`.
        local_neighbor: Which neighbour's distance is σ_i of :func:`locally_scaled`.
        block_rows: Rows whose weights are computed together.

    Returns:
        float32 (n, k), 0 beside -1; None for `constant`, where every link weighs 1. In memory: the
        result and a block of rows.

    Raises:
        ValueError: For an unknown kind, missing or misshapen similarities, NaN among them, or a
            neighbour out of range.
    """
    if kind not in EDGE_WEIGHTS:
        expected = f"one of: {', '.join(EDGE_WEIGHTS)}"
        raise InputError(parameter="edge_weight", found=kind, expected=expected)
    weigh = EDGE_WEIGHTS[kind]
    if weigh is None:
        return None
    if similarities is None or similarities.shape != neighbors.shape:
        found = "none" if similarities is None else f"shape {similarities.shape}"
        raise InputError(
            f"similarities: got {found}; edge_weight {kind} needs them in shape {neighbors.shape}"
        )
    # Before all else: weights of a row follow from the similarities of its neighbours, too.
    for first, last in row_ranges(len(neighbors), block_rows):
        of_links = np.where(neighbors[first:last] >= 0, similarities[first:last], 1)
        require_finite(of_links, np.arange(first, last), "similarities")
    weights = np.empty(neighbors.shape, np.float32)
    scales = _Scales(neighbors, similarities, local_neighbor)
    for first, last in row_ranges(len(neighbors), block_rows):
        targets = neighbors[first:last]
        require_nodes(targets, len(neighbors), "neighbors", first)
        squared = squared_distances(np.where(targets >= 0, similarities[first:last], 1))
        links = LinkBlock(squared, sigma, slice(first, last), targets, scales)
        block = np.where(targets >= 0, weigh(links), 0)
        require_finite(block, np.arange(first, last), "weights of links")
        weights[first:last] = block
    return weights
