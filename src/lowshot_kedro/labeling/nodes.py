"""The images of a labelling as nodes of a graph: those of the training set, then the background."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.blocks import FeatureMatrix, row_ranges, take_rows
from lowshot_kedro.graph import UnlabeledNodes, insert_labeled_nodes, normalize
from lowshot_kedro.graph.vectors import normalized_rows, release
from lowshot_kedro.pca import apply_transform

_BLOCK_ROWS = 16384
# What messages call the vectors of the background.
_BACKGROUND = "background_vectors"


class NodeVectors:
    """Normalised vectors of all nodes, read block by block.

    Args:
        first: float32 (n, d), normalised, those of the first nodes.
        background: float32 (m, d), an array or memmap, not normalised, those of the others.
    """

    def __init__(self, first: NDArray[np.float32], background: NDArray[np.float32]) -> None:
        self.first = first
        self.background = background

    def __len__(self) -> int:
        return len(self.first) + len(self.background)

    @property
    def dimension(self) -> int:
        """Numbers of a vector, d."""
        return int(self.first.shape[1])

    def read(self, first: int, last: int) -> NDArray[np.float32]:
        """Vectors of nodes first..last-1, float32 (last - first, d), normalised."""
        n_first = len(self.first)
        begin, end = max(first - n_first, 0), max(last - n_first, 0)
        others = normalize(self.background[begin:end], begin, _BACKGROUND)
        release(self.background)
        return np.concatenate([self.first[first:last], others])

    def take(self, nodes: NDArray[np.integer]) -> NDArray[np.float32]:
        """Vectors of some nodes, float32 (m, d), normalised, in the order asked for."""
        vectors = np.empty((len(nodes), self.dimension), np.float32)
        is_first = nodes < len(self.first)
        vectors[is_first] = self.first[nodes[is_first]]
        rows = nodes[~is_first] - len(self.first)
        vectors[~is_first] = normalized_rows(self.background, rows, _BACKGROUND)
        return vectors

    def blocks(self) -> Sequence[tuple[int, int]]:
        """Ranges of nodes to read one after the other."""
        return list(row_ranges(len(self), _BLOCK_ROWS))


class LabelingGraph(NamedTuple):
    """The k most similar images of every image.

    Attributes:
        neighbors: int32 (N, k), most similar first, as a rule with the image itself; -1 for none.
        similarities: float32 (N, k), cosines of vectors in the same order.
        vectors: The vectors themselves.
    """

    neighbors: NDArray[np.int32]
    similarities: NDArray[np.float32]
    vectors: NodeVectors


class JoinedFeatures:
    """Several collections of features as one, in this order.

    Args:
        parts: The collections, with as many columns each.
    """

    def __init__(self, parts: Sequence[FeatureMatrix]) -> None:
        self.parts = tuple(parts)
        self._ends = list(accumulate(part.n_rows for part in parts))

    @property
    def name(self) -> str:
        """What an error message calls them."""
        return " and ".join(part.name for part in self.parts if part.n_rows)

    @property
    def n_rows(self) -> int:
        """Number of rows of all."""
        return self._ends[-1]

    @property
    def n_columns(self) -> int:
        """Dimension of the features."""
        return self.parts[0].n_columns

    @property
    def labels(self) -> NDArray[np.int32]:
        """int32 (n_rows,), those of the files."""
        return np.concatenate([part.labels for part in self.parts])

    @property
    def broken_images(self) -> list[tuple[int, str]] | None:
        """Numbers of the images that were blank and why; None where nobody has kept a list."""
        found: list[tuple[int, str]] = []
        lists = [part.broken_images for part in self.parts]
        if all(each is None for each in lists):
            return None
        for part, end, each in zip(self.parts, self._ends, lists, strict=True):
            found += [(end - part.n_rows + number, why) for number, why in each or ()]
        return found

    def read(
        self, first: int, last: int, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Rows first..last-1, float32 (last - first, n_columns)."""
        result = np.empty((last - first, self.n_columns), np.float32) if out is None else out
        for part, end in zip(self.parts, self._ends, strict=True):
            start = end - part.n_rows
            low, high = max(first, start), min(last, end)
            if low < high:
                part.read(low - start, high - start, result[low - first : high - first])
        return result


def labeling_graph(
    train_features: FeatureMatrix,
    transform: faiss.VectorTransform,
    background: UnlabeledNodes,
    k: int,
    memory_budget_bytes: int | None = None,
) -> LabelingGraph:
    """Link all images: those of the training set are inserted into the graph of the background.

    Args:
        train_features: Features of the first nodes; there may be none.
        transform: The PCA that the background's vectors come from.
        background: Vectors, index and graph of the other nodes.
        k: Neighbours of each node, or as many as there are nodes.
        memory_budget_bytes: As for :func:`~lowshot_kedro.graph.insert_labeled_nodes`.

    Returns:
        The graph. In memory: the vectors of the first nodes, and 8 bytes for each link.
    """
    n_first = train_features.n_rows
    first = np.empty((0, background.vectors.shape[1]), np.float32)
    if n_first:
        vectors = take_rows(
            train_features,
            np.arange(n_first),
            lambda block: apply_transform(transform, block, train_features.name),
        )
        first = normalize(vectors, 0, f"{train_features.name} after the PCA")
    k = min(k, n_first + len(background.vectors))
    extended = insert_labeled_nodes(
        first,
        np.empty((0, first.shape[1]), np.float32),
        background,
        k,
        keep_similarities=True,
        memory_budget_bytes=memory_budget_bytes,
    )
    assert extended.similarities is not None
    vectors_of_nodes = NodeVectors(first, background.vectors)
    return LabelingGraph(extended.neighbors, extended.similarities, vectors_of_nodes)
