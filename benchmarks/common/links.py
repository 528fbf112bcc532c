"""The links of labelled nodes and test images in the exact graph, and how many of them were found.

Similarities are computed in float64, from the definition: a node keeps its k most similar nodes
among all, itself included. Links that rounding may decide are not counted: a link counts if it is
more similar than the best node that is left out, by more than a tie.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.truth import TIE
from lowshot_kedro.blocks import KnnGraph, row_ranges
from lowshot_kedro.protocol import ImageSelection

BLOCK_ROWS = 2048

INTO_LABELED, OUT_OF_LABELED, OF_TEST = "into labelled", "out of labelled", "of test images"
INTO_NOVEL, OUT_OF_NOVEL = "into novel", "out of novel"
KINDS = (INTO_LABELED, INTO_NOVEL, OUT_OF_LABELED, OUT_OF_NOVEL, OF_TEST)


class Count(NamedTuple):
    """Links of a kind.

    Attributes:
        found: Of the true ones.
        true: How many there are.
    """

    found: int
    true: int

    @property
    def share(self) -> float:
        """Part that was found; 1 where there is none."""
        return self.found / self.true if self.true else 1.0


class TrueLinks(NamedTuple):
    """Of one choice of labelled images, each as row · (number of columns) + column.

    Attributes:
        into: int64, from background images, by their number, to labelled nodes.
        allowed_into: int64, the same and those that rounding may decide.
        out: int64, from labelled nodes to other nodes.
        of_test: int64, from test images to nodes.
        is_novel: bool (L,), which labelled nodes are of novel classes.
        n_nodes: N.
    """

    into: NDArray[np.int64]
    allowed_into: NDArray[np.int64]
    out: NDArray[np.int64]
    of_test: NDArray[np.int64]
    is_novel: NDArray[np.bool_]
    n_nodes: int

    def counts(self, nodes: NDArray[np.int32], test: NDArray[np.int32]) -> dict[str, Count]:
        """How many of them a graph has, by :data:`KINDS`.

        Args:
            nodes: int32 (N, k), neighbours of all nodes, the labelled first; -1 for none.
            test: int32 (T, k), neighbours of the test images.

        Raises:
            ValueError: If a row names a node twice.
        """
        n_labeled = len(self.is_novel)
        for rows in (nodes, test):
            require_different(rows)
        found_into = np.isin(self.into, self._found_into(nodes))
        into_novel = self.is_novel[self.into % n_labeled]
        found_out = np.isin(self.out, _keys(nodes[:n_labeled], self.n_nodes))
        out_of_novel = self.is_novel[self.out // self.n_nodes]
        found_test = np.isin(self.of_test, _keys(test, self.n_nodes))
        return {
            INTO_LABELED: _count(found_into),
            INTO_NOVEL: _count(found_into[into_novel]),
            OUT_OF_LABELED: _count(found_out),
            OUT_OF_NOVEL: _count(found_out[out_of_novel]),
            OF_TEST: _count(found_test),
        }

    def n_wrong(self, nodes: NDArray[np.int32]) -> int:
        """How many links from background images to labelled nodes the exact graph has not.

        Where the background graph lacks neighbours, labelled nodes take their places.

        Args:
            nodes: As for :meth:`counts`.
        """
        found = self._found_into(nodes)
        return int(np.count_nonzero(~np.isin(found, self.allowed_into)))

    def _found_into(self, nodes: NDArray[np.int32]) -> NDArray[np.int64]:
        n_labeled = len(self.is_novel)
        return _keys(nodes[n_labeled:], n_labeled)


class Collection:
    """What the true links of every choice of labelled images are taken from.

    Args:
        background: float32 (n, d), not normalised, n > k.
        exact: (n, ≥ k), the exact graph among them.
        train: float32 (P, d), normalised: all images that may be labelled.
        test: float32 (Q, d), normalised: all test images.
        k: Neighbours of a node, itself included.
    """

    def __init__(
        self,
        background: NDArray[np.float32],
        exact: KnnGraph,
        train: NDArray[np.float32],
        test: NDArray[np.float32],
        k: int,
    ) -> None:
        self._k, self._n_background = k, len(background)
        self._stored = np.asarray(exact.similarities[:, :k], np.float64)
        self._train, self._test = train.astype(np.float64), test.astype(np.float64)
        of_train, of_test = _Nearest(self._train, k + 1), _Nearest(self._test, k + 1)
        pairs = []
        for first, block in _normalized_blocks(background):
            similarities = of_train.add(block, first)
            of_test.add(block, first)
            # No labelled node that is less similar can be among the first k.
            least = self._stored[first : first + len(block), k - 1] - 2 * TIE
            rows, images = np.nonzero(least[:, None] <= similarities.T)
            pairs.append((first + rows, images, similarities[images, rows]))
        self._of_train, self._of_test = of_train, of_test
        rows, images, found = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
        self._rows, self._images, self._similarities = rows, images, found

    def true_links(self, selection: ImageSelection) -> TrueLinks:
        """Of a choice of labelled images."""
        labeled = selection.labeled_positions
        n_labeled = len(labeled)
        n_nodes = n_labeled + self._n_background
        into, allowed_into = self._into(labeled)
        vectors = self._train[labeled]
        out = self._out(vectors, self._of_train, labeled, vectors)
        itself = out // n_nodes == out % n_nodes
        test = selection.test_positions
        return TrueLinks(
            into=into,
            allowed_into=allowed_into,
            out=out[~itself],
            of_test=self._out(self._test[test], self._of_test, test, vectors),
            is_novel=selection.is_novel[selection.labeled_classes],
            n_nodes=n_nodes,
        )

    def _into(self, labeled: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """From background images: what is true, and what may be."""
        k = self._k
        number_of = np.full(len(self._train), -1)
        number_of[labeled] = np.arange(len(labeled))
        taken = number_of[self._images] >= 0
        # Rows come in increasing order.
        rows, starts, counts = np.unique(self._rows[taken], return_index=True, return_counts=True)
        number = np.repeat(np.arange(len(rows)), counts)
        place = np.arange(len(number)) - np.repeat(starts, counts)
        similarities = self._similarities[taken]
        nodes = np.full((len(rows), k + counts.max(initial=1)), -np.inf)
        nodes[:, :k] = self._stored[rows]
        nodes[number, k + place] = similarities
        nodes.partition((nodes.shape[1] - k - 1, nodes.shape[1] - k), axis=1)
        left_out, last = nodes[:, -k - 1], nodes[:, -k]
        keys = self._rows[taken] * len(labeled) + number_of[self._images[taken]]
        true = similarities > left_out[number] + TIE
        allowed = similarities >= last[number] - TIE
        return keys[true], keys[allowed]

    def _out(
        self,
        points: NDArray[np.float64],
        nearest: _Nearest,
        positions: NDArray[np.int64],
        labeled: NDArray[np.float64],
    ) -> NDArray[np.int64]:
        """From points, of which the most similar background images are known, to nodes."""
        k, n_labeled = self._k, len(labeled)
        similarities = np.concatenate([points @ labeled.T, nearest.similarities[positions]], axis=1)
        background = n_labeled + nearest.nodes[positions]
        nodes = np.concatenate(
            [np.broadcast_to(np.arange(n_labeled), (len(points), n_labeled)), background], axis=1
        )
        similarities, nodes = _largest(similarities, nodes, k + 1)
        rows, places = np.nonzero(similarities[:, :k] > similarities[:, k:] + TIE)
        keys: NDArray[np.int64] = rows * (n_labeled + self._n_background) + nodes[rows, places]
        return keys


class _Nearest:
    """The most similar background images of some points, found block by block.

    Attributes:
        similarities: float64 (p, m), most similar first.
        nodes: int64 (p, m).
    """

    def __init__(self, points: NDArray[np.float64], m: int) -> None:
        self._points, self._m = points, m
        self.similarities = np.empty((len(points), 0))
        self.nodes = np.empty((len(points), 0), np.int64)

    def add(self, block: NDArray[np.float64], first: int) -> NDArray[np.float64]:
        """Compare with a block; returns all similarities, float64 (p, rows of the block)."""
        similarities = self._points @ block.T
        nodes = np.broadcast_to(np.arange(first, first + len(block)), similarities.shape)
        of_block = _largest(similarities, nodes, self._m)
        both = zip((self.similarities, self.nodes), of_block, strict=True)
        joined = [np.concatenate(parts, axis=1) for parts in both]
        self.similarities, self.nodes = _largest(joined[0], joined[1], self._m)
        return similarities


def require_different(rows: NDArray[np.int32]) -> None:
    """Refuse rows that name a node twice.

    Raises:
        ValueError: With the first of them.
    """
    in_order = np.sort(rows, axis=1)
    twice = (in_order[:, 1:] == in_order[:, :-1]) & (in_order[:, 1:] >= 0)
    if twice.any():
        row = int(np.flatnonzero(twice.any(axis=1))[0])
        raise ValueError(f"a node twice in row {row}: {rows[row].tolist()}")


def _normalized_blocks(
    vectors: NDArray[np.float32],
) -> Iterator[tuple[int, NDArray[np.float64]]]:
    for first, last in row_ranges(len(vectors), BLOCK_ROWS):
        block = vectors[first:last].astype(np.float64)
        lengths = np.linalg.norm(block, axis=1, keepdims=True)
        yield first, block / np.where(lengths == 0, 1, lengths)


def _largest(
    similarities: NDArray[np.float64], nodes: NDArray[np.int64], m: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The m largest of every row, or all, in decreasing order, and their nodes."""
    if similarities.shape[1] > m:
        places = np.argpartition(similarities, -m, axis=1)[:, -m:]
        similarities = np.take_along_axis(similarities, places, axis=1)
        nodes = np.take_along_axis(nodes, places, axis=1)
    order = np.argsort(-similarities, axis=1)
    return np.take_along_axis(similarities, order, axis=1), np.take_along_axis(nodes, order, axis=1)


def _keys(neighbors: NDArray[np.int32], n_columns: int) -> NDArray[np.int64]:
    """Every link to one of the first nodes, as row · n_columns + node."""
    rows, places = np.nonzero((neighbors >= 0) & (neighbors < n_columns))
    keys: NDArray[np.int64] = rows * n_columns + neighbors[rows, places].astype(np.int64)
    return keys


def _count(found: NDArray[np.bool_]) -> Count:
    return Count(int(np.count_nonzero(found)), len(found))
