"""The images that are linked to an image, in one direction or the other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from lowshot_kedro.blocks import row_ranges
from lowshot_kedro.labeling.nodes import LabelingGraph

_BLOCK_ROWS = 16384


class Links(NamedTuple):
    """The links of some nodes.

    Attributes:
        rows: int64 (m,), the position of the node among those asked for, in no order.
        nodes: int32 (m,), the node at the other end: itself once, any other at most once.
        similarities: float32 (m,), cosines.
    """

    rows: NDArray[np.int64]
    nodes: NDArray[np.int32]
    similarities: NDArray[np.float32]


class Neighborhoods:
    """The graph with its links in both directions.

    Links that go one way alone are also kept from their other end, 8 bytes each, which is as a rule
    less than half of what the graph takes. The graph itself is not copied.

    Args:
        graph: The graph.
        max_neighbors: Columns of it that are looked at.
    """

    def __init__(self, graph: LabelingGraph, max_neighbors: int) -> None:
        self._neighbors = graph.neighbors[:, :max_neighbors]
        self._similarities = graph.similarities[:, :max_neighbors]
        self._backward = self._one_way_links()

    def __len__(self) -> int:
        return len(self._neighbors)

    def of(self, nodes: NDArray[np.integer]) -> Links:
        """The links of some nodes, each of which is linked to itself with a cosine of 1."""
        neighbors = self._neighbors[nodes]
        rows, columns = np.nonzero((neighbors >= 0) & (neighbors != nodes[:, None]))
        begins = self._backward.indptr[nodes].astype(np.int64)
        counts = self._backward.indptr[nodes + 1] - begins
        more = np.repeat(np.arange(len(nodes)), counts)
        places = np.arange(len(more)) + np.repeat(begins - np.cumsum(counts) + counts, counts)
        return Links(
            np.concatenate([np.arange(len(nodes)), rows, more]),
            np.concatenate(
                [nodes.astype(np.int32), neighbors[rows, columns], self._backward.indices[places]]
            ),
            np.concatenate(
                [
                    np.ones(len(nodes), np.float32),
                    self._similarities[nodes[rows], columns],
                    self._backward.data[places],
                ]
            ),
        )

    def _one_way_links(self) -> sparse.csr_array:
        """Links from the node that they lead to, where that one has no link back."""
        n_nodes = len(self)
        sources, targets = [np.empty(0, np.int32)], [np.empty(0, np.int32)]
        similarities = [np.empty(0, np.float32)]
        for first, last in row_ranges(n_nodes, _BLOCK_ROWS):
            block = self._neighbors[first:last]
            for column in range(block.shape[1]):
                ends = block[:, column]
                numbers = np.arange(first, last, dtype=np.int32)
                goes_back = (self._neighbors[ends] == numbers[:, None]).any(axis=1)
                chosen = np.flatnonzero((ends >= 0) & (ends != numbers) & ~goes_back)
                sources.append(numbers[chosen])
                targets.append(ends[chosen])
                similarities.append(self._similarities[first:last][chosen, column])
        entries = np.concatenate(similarities)
        places = np.concatenate(targets), np.concatenate(sources)
        return sparse.coo_array((entries, places), shape=(n_nodes, n_nodes)).tocsr()
