"""k nearest labelled images, compared one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import faiss
import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.blocks import KnnGraph, row_ranges
from lowshot_kedro.classifiers.vectors import require_every_class, unit_vectors
from lowshot_kedro.errors import InputError
from lowshot_kedro.graph import search

BLOCK_ROWS = 16384
# Ties that go on behind so many times k neighbours are settled by looking at all vectors in order,
# so many of them, and of the queries, at a time.
_MAX_FOUND = 8
_SCANNED = 2048


class NearestNeighbors:
    """Votes of the k most similar labelled images, each as heavy as it is similar.

    Similarity is the cosine. The score of a class is the sum of the similarities of those of the k
    nearest that belong to it; a neighbour that points the other way (cosine below 0) has no vote.
    Votes weighted by nearness are Dudani's (IEEE Transactions on Systems, Man, and Cybernetics,
    1976); with the cosine itself as the weight they need no parameter. Classes are not weighted:
    one with a thousand labelled images has a better chance to be among the neighbours than one
    with two.

    Of equally similar images the ones that come first among the labelled ones are the neighbours.

    Args:
        n_classes: Number of classes C.
        k: Neighbours that :meth:`scores` counts.
        block_rows: Images that are searched for together.
    """

    def __init__(self, n_classes: int, *, k: int, block_rows: int = BLOCK_ROWS) -> None:
        self.n_classes = n_classes
        self.k = k
        self.block_rows = block_rows
        self._index: faiss.IndexFlat | None = None
        self._classes = np.empty(0, np.int32)

    def fit(self, features: NDArray[np.float32], classes: NDArray[np.int32]) -> None:
        """Keep the labelled images. In memory: at most 8·n·d bytes, from then on 4·n·d.

        Args:
            features: float32 (n, d).
            classes: int32 (n,), 0..C-1, each present.

        Raises:
            ValueError: For a class without images, k > n, NaN, infinity, or features that are all
                zero.
        """
        require_every_class(classes, len(features), self.n_classes, "nearest neighbors")
        _require_k(self.k, len(features))
        index = faiss.IndexFlatIP(features.shape[1])
        for first, last in row_ranges(len(features), self.block_rows):
            index.add(unit_vectors(features[first:last], "labelled features", first_row=first))
        self._index, self._classes = index, np.array(classes)

    def scores(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Votes of the k nearest labelled images.

        Args:
            features: float32 (m, d).

        Returns:
            float32 (m, C), at least 0.

        Raises:
            RuntimeError: Before :meth:`fit`.
            ValueError: For another d than that of the labelled features, NaN, infinity, or
                features that are all zero.
        """
        return next(self.scores_per_k(features, [self.k]))

    def scores_per_k(
        self, features: NDArray[np.float32], ks: Sequence[int]
    ) -> Iterator[NDArray[np.float32]]:
        """The scores for several numbers of neighbours, from one search.

        Args:
            features: float32 (m, d).
            ks: Numbers of neighbours.

        Returns:
            For each k, in the order given, float32 (m, C). The search is done before this
            returns. In memory: 8 bytes for each image and neighbour of the largest k, and while it
            searches a block of features.

        Raises:
            RuntimeError: Before :meth:`fit`.
            ValueError: For a k larger than the number of labelled images, and as for
                :meth:`scores`.
        """
        if self._index is None:
            raise RuntimeError("NearestNeighbors: fit it before asking for scores")
        index = self._index
        for k in ks:
            _require_k(k, index.ntotal)
        most = max(ks)
        blocks = (
            unit_vectors(features[first:last], "features to score", index.d, first)
            for first, last in row_ranges(len(features), self.block_rows)
        )
        neighbors = KnnGraph.joined((nearest_vectors(index, block, most) for block in blocks), most)
        return (self._votes(neighbors, k) for k in ks)

    def _votes(self, neighbors: KnnGraph, k: int) -> NDArray[np.float32]:
        n_images = len(neighbors.indices)
        result = np.empty((n_images, self.n_classes), dtype=np.float32)
        for first, last in row_ranges(n_images, self.block_rows):
            nearest = neighbors.part(first, last, k)
            rows = np.arange(last - first)[:, None]
            votes = np.bincount(
                (rows * self.n_classes + self._classes[nearest.indices]).ravel(),
                np.maximum(nearest.similarities, 0).ravel(),
                minlength=(last - first) * self.n_classes,
            )
            result[first:last] = votes.reshape(last - first, self.n_classes)
        return result


def _require_k(k: int, n_labeled: int) -> None:
    if k > n_labeled:
        raise InputError(f"but there are only {n_labeled} labelled images", parameter="k", found=k)


def nearest_vectors(
    index: faiss.IndexFlat, queries: NDArray[np.float32], k: int, n_found: int | None = None
) -> KnnGraph:
    """The k most similar vectors of each query, of equally similar ones the first.

    Args:
        index: A flat index of at least k vectors, for inner products.
        queries: float32 (m, d).
        k: How many.
        n_found: How many are looked at to tell which are equally similar; None: k + 1. More are
            where these do not suffice.

    Returns:
        indices (m, k) and similarities (m, k), most similar first.
    """
    # faiss knows no integers of numpy.
    k = int(k)
    n_found = min(n_found or k + 1, index.ntotal)
    found = search(index, queries, n_found)
    order = np.lexsort((found.indices, -found.similarities))
    indices = np.take_along_axis(found.indices, order, axis=1)
    similarities = np.take_along_axis(found.similarities, order, axis=1)
    nearest = KnnGraph(indices[:, :k], similarities[:, :k])
    # Where the last one found is as similar as the k-th, there may be others, and earlier ones.
    open_ended = np.flatnonzero(similarities[:, k - 1] == similarities[:, -1])
    if n_found < index.ntotal and len(open_ended):
        among_more = (
            nearest_vectors(index, queries[open_ended], k, 2 * n_found)
            if n_found <= _MAX_FOUND * k
            else _first_nearest(index, queries[open_ended], k)
        )
        nearest.indices[open_ended] = among_more.indices
        nearest.similarities[open_ended] = among_more.similarities
    return nearest


def _first_nearest(index: faiss.IndexFlat, queries: NDArray[np.float32], k: int) -> KnnGraph:
    """What :func:`nearest_vectors` returns, where many vectors may be equally similar.

    Vectors pass by in order, and one that is only as similar as those before it changes nothing. A
    network that makes all images equal so costs one pass.
    """
    vectors = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d).reshape(-1, index.d)
    nearest = KnnGraph(
        np.full((len(queries), k), -1, np.int32), np.full((len(queries), k), -np.inf, np.float32)
    )
    blocks = product(row_ranges(len(vectors), _SCANNED), row_ranges(len(queries), _SCANNED))
    for (first, last), (first_query, last_query) in blocks:
        similarities = queries[first_query:last_query] @ vectors[first:last].T
        least = nearest.similarities[first_query:last_query, -1:]
        better = np.flatnonzero((similarities > least).any(axis=1))
        rows = first_query + better
        joined = np.hstack([nearest.similarities[rows], similarities[better]])
        order = np.argsort(-joined, axis=1, kind="stable")[:, :k]
        numbers = np.broadcast_to(
            np.arange(first, last, dtype=np.int32), similarities[better].shape
        )
        numbers = np.hstack([nearest.indices[rows], numbers])
        nearest.indices[rows] = np.take_along_axis(numbers, order, axis=1)
        nearest.similarities[rows] = np.take_along_axis(joined, order, axis=1)
    return nearest
