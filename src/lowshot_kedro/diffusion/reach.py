"""How many steps labels need to reach a node."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.blocks import row_ranges
from lowshot_kedro.diffusion.matrix import PropagationMatrix

# Nodes whose links are followed at a time.
_BLOCK_NODES = 2**18


def links_from(matrix: PropagationMatrix, nodes: NDArray[np.int32]) -> NDArray[np.int32]:
    """Over how many links each node is away from the nearest of some nodes.

    A breadth-first search over the entries of W. So many steps bring the first mass.

    Args:
        matrix: W, over N nodes.
        nodes: int32 (m,), where to start.

    Returns:
        int32 (N,), 0 for the nodes themselves, -1 where no links lead. In memory besides: 10 bytes
        a node, and the links of 262 thousand nodes.
    """
    indptr, indices = matrix.rows.indptr, matrix.rows.indices
    found = np.full(matrix.n_nodes, -1, np.int32)
    frontier = np.unique(matrix.rows_of(nodes))
    found[frontier] = 0
    n_links = 0
    while len(frontier):
        n_links += 1
        is_new = np.zeros(matrix.n_nodes, np.bool_)
        for first, last in row_ranges(len(frontier), _BLOCK_NODES):
            begins = indptr[frontier[first:last]].astype(np.int64)
            counts = indptr[frontier[first:last] + 1] - begins
            shifts = np.repeat(begins - np.cumsum(counts) + counts, counts)
            is_new[indices[shifts + np.arange(len(shifts))]] = True
        is_new &= found < 0
        frontier = np.flatnonzero(is_new).astype(np.int32)
        found[frontier] = n_links
    return found if matrix.rank is None else found[matrix.rank]
