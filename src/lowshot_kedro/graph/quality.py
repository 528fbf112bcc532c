"""How good a graph is: its neighbours beside those of an exact search, for some rows."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from itertools import groupby, product
from operator import attrgetter
from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.blocks import KnnGraph, row_ranges
from lowshot_kedro.graph.spaces import COSINE, Space
from lowshot_kedro.graph.vectors import normalize, normalized_blocks, normalized_rows
from lowshot_kedro.progress import Progress
from lowshot_kedro.threads import MIN_ROWS, map_in_threads, rows_at_once

logger = logging.getLogger(__name__)

# Neighbours as similar as the k-th but for rounding are as good as it.
ROUNDING = 1e-6
_SEED = 7
_CHUNK_ROWS = 8192
_MIN_CHUNK_ROWS = 1024

_Range = tuple[int, int]


class _Found(NamedTuple):
    """Neighbours (m, k) of some queries in a part of a block, and the first of these queries."""

    first_query: int
    similarities: NDArray[np.float32]
    indices: NDArray[np.int32]


class ExactSearch:
    """The most similar vectors of a few queries, found while all vectors pass by once.

    Similarities are those of matrix products, which differ in their last digits from those that
    candidates are ranked by.

    Args:
        queries: float32 (q, d), points.
        k: How many to find for each.
        space: Space in which points are compared.
    """

    def __init__(self, queries: NDArray[np.float32], k: int, space: Space = COSINE) -> None:
        self._queries = queries
        self._k = k
        self._space = space
        self.similarities = np.full((len(queries), k), -np.inf, np.float32)
        self.indices = np.full((len(queries), k), -1, np.int32)

    def add(self, block: NDArray[np.float32], first_row: int) -> None:
        """Compare the queries with a block of points, the first being first_row."""
        if len(self._queries) == 0:
            return
        dimension = block.shape[1]
        chunk_rows = rows_at_once(MIN_ROWS * dimension, _CHUNK_ROWS, _MIN_CHUNK_ROWS)
        query_rows = rows_at_once(chunk_rows * dimension, len(self._queries))
        parts = product(
            row_ranges(len(self._queries), query_rows), row_ranges(len(block), chunk_rows)
        )
        found = map_in_threads(partial(self._nearest, block, first_row), parts)
        for first, same in groupby(found, key=attrgetter("first_query")):
            self._merge(first, list(same))

    def _merge(self, first: int, parts: Sequence[_Found]) -> None:
        """Keep the best of what there is for some queries, and of what has been found."""
        rows = slice(first, first + len(parts[0].indices))
        similarities = [self.similarities[rows], *(part.similarities for part in parts)]
        numbers = [self.indices[rows], *(part.indices for part in parts)]
        joined, of_joined = np.concatenate(similarities, axis=1), np.concatenate(numbers, axis=1)
        # A stable sort keeps earlier rows first among equals.
        order = np.argsort(-joined, axis=1, kind="stable")[:, : self._k]
        self.similarities[rows] = np.take_along_axis(joined, order, axis=1)
        self.indices[rows] = np.take_along_axis(of_joined, order, axis=1)

    def _nearest(
        self, block: NDArray[np.float32], first_row: int, ranges: tuple[_Range, _Range]
    ) -> _Found:
        (first_query, last_query), (first, last) = ranges
        found, columns = faiss.knn(
            self._queries[first_query:last_query],
            block[first:last],
            min(self._k, last - first),
            metric=self._space.faiss_metric,
        )
        numbers = (columns + (first_row + first)).astype(np.int32)
        return _Found(first_query, self._space.similarities(found), numbers)


def sample_rows(n_rows: int, count: int, seed: int = _SEED) -> NDArray[np.int64]:
    """Row numbers drawn without repetition, in increasing order, always the same."""
    rng = np.random.default_rng(seed)
    return np.sort(rng.choice(n_rows, min(count, n_rows), replace=False))


def recall(
    found: NDArray[np.float32], wanted: NDArray[np.float32], k: int, space: Space = COSINE
) -> NDArray[np.float64]:
    """For each row, the part of its k nearest neighbours that has been found.

    A neighbour counts if it is as similar as the k-th of the exact search, so that it does not
    matter which of several equal vectors is found.

    Args:
        found: float32 (m, ≥ k), similarities of the neighbours found, -inf for none.
        wanted: float32 (m, ≥ k), similarities of the nearest neighbours, most similar first.
        k: How many neighbours count.
        space: Space whose similarities these are. What is lost to rounding is a part of a distance.

    Returns:
        float64 (m,), fractions.
    """
    hits, possible = neighbors_found(found, wanted, k, space)
    return np.where(possible > 0, hits / np.maximum(possible, 1), 1.0)


def neighbors_found(
    found: NDArray[np.float32], wanted: NDArray[np.float32], k: int, space: Space = COSINE
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each row, how many of its k nearest neighbours have been found, and how many there are.

    Args:
        found: As for :func:`recall`.
        wanted: As for :func:`recall`.
        k: As for :func:`recall`.
        space: As for :func:`recall`.

    Returns:
        int64 (m,), twice.
    """
    possible = np.isfinite(wanted[:, :k]).sum(axis=1)
    last = np.where(np.isfinite(wanted[:, :k]), wanted[:, :k], np.inf).min(axis=1, initial=np.inf)
    rounding = ROUNDING * np.abs(last) if space.is_euclidean else np.full_like(last, ROUNDING)
    hits = (found[:, :k] >= (last - rounding)[:, None]).sum(axis=1)
    return np.minimum(hits, possible), possible


def measure_quality(
    graph: KnnGraph,
    vectors: NDArray[np.float32],
    k: int,
    n_sampled: int = 1000,
    name: str = "background_vectors",
) -> dict[str, Any]:
    """Compare some rows of a graph with an exact search over all vectors.

    Similarities of the neighbours in the graph are computed anew, so that the figure does not rest
    on what the graph says of itself.

    Args:
        graph: (n, ≥ k), as a rule memmaps.
        vectors: float32 (n, d), a memmap or array, not normalised.
        k: How many neighbours count.
        n_sampled: How many rows to compare.
        name: What messages call the vectors.

    Returns:
        For JSON: `recall`, the mean over the rows; `recall_error`, its standard error;
        `worst_row_recall`; `rows_below_half`; and what was measured. In memory: a block of vectors
        and the sample's neighbours.
    """
    n_vectors = len(vectors)
    rows = sample_rows(n_vectors, n_sampled)
    queries = normalized_rows(vectors, rows, name)
    exact = ExactSearch(queries, k)
    with Progress(n_vectors, "recall") as bar:
        for first, block in normalized_blocks(vectors, name):
            exact.add(block, first)
            bar.update(len(block))
    neighbors = np.asarray(graph.indices[rows, :k])
    found = np.full(neighbors.shape, -np.inf, np.float32)
    for row, numbers in enumerate(neighbors):
        # A neighbour that stands in a row twice counts once.
        numbers = np.unique(numbers[numbers >= 0])
        of_row = normalize(vectors[numbers], 0, name) @ queries[row]
        found[row, : len(numbers)] = of_row
    of_rows = recall(found, exact.similarities, k)
    quality = {
        "recall": float(of_rows.mean()) if len(rows) else 1.0,
        "recall_error": float(of_rows.std() / np.sqrt(len(rows))) if len(rows) else 0.0,
        "worst_row_recall": float(of_rows.min()) if len(rows) else 1.0,
        "rows_below_half": int((of_rows < 0.5).sum()),
        "k": k,
        "n_vectors": n_vectors,
        "n_sampled": len(rows),
        "compared_with": "exact search over all vectors",
    }
    logger.info(
        "recall@%d against exact search: %.4f ± %.4f (%d of %d rows, worst row %.2f)",
        k,
        quality["recall"],
        quality["recall_error"],
        len(rows),
        n_vectors,
        quality["worst_row_recall"],
    )
    return quality
