"""What nearness means: cosine or Euclidean, and all that follows from it.

Similarity is larger for what is nearer: the inner product of vectors scaled to length 1, or minus
the squared distance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.blocks import spread_rows
from lowshot_kedro.errors import InputError
from lowshot_kedro.graph.vectors import (
    checked_copy,
    lengths_of,
    mapped_blocks,
    mapped_rows,
    normalize,
)

METRICS = ("cosine", "euclidean")
_SAMPLE_ROWS = 16384
# Squares of distances up to twice as far, and sums of them, are numbers of single precision.
_FARTHEST = 1e18


@dataclass(frozen=True)
class Space:
    """How vectors are compared.

    A vector is compared in one of two forms. Its *query* is what a search is asked for, and what
    candidates are ranked by: the vector scaled to length 1, or, if distances count, as it is. Its
    *point* is what matrix products, k-means and faiss get: the same, but less the origin if
    distances count. Products would otherwise lose the distances of vectors far from 0.

    Attributes:
        origin: float32 (d,), about the mean of the vectors; None: the cosine counts.
    """

    origin: NDArray[np.float32] | None = None

    @property
    def is_euclidean(self) -> bool:
        """Whether distances count, not angles."""
        return self.origin is not None

    @property
    def faiss_metric(self) -> int:
        """The number by which faiss knows the metric of this space."""
        metric: int = faiss.METRIC_L2 if self.is_euclidean else faiss.METRIC_INNER_PRODUCT
        return metric

    def flat_index(self, dimension: int) -> faiss.Index:
        """A faiss index over d columns that compares a query with everything."""
        kind = faiss.IndexFlatL2 if self.is_euclidean else faiss.IndexFlatIP
        return kind(dimension)

    def similarities(self, of_faiss: NDArray[np.float32]) -> NDArray[np.float32]:
        """Similarities from what faiss finds: distances are turned round."""
        return np.negative(of_faiss) if self.is_euclidean else of_faiss

    def without_direction(self, queries: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Which queries are equally similar to everything: zeros, where the cosine counts."""
        if self.is_euclidean:
            return np.zeros(len(queries), np.bool_)
        return np.asarray(~queries.any(axis=1))

    def squared_distances(self, similarities: NDArray[np.float64]) -> NDArray[np.float64]:
        """The squared distances of points that are so similar; infinity for minus infinity."""
        return -similarities if self.is_euclidean else 2 - 2 * similarities

    def queries(
        self, vectors: NDArray[np.float32], first_row: int, name: str
    ) -> NDArray[np.float32]:
        """The queries of vectors, as a copy: what they are ranked by.

        Args:
            vectors: float32 (m, d).
            first_row: Number of the first of these rows in the whole matrix.
            name: What an error message calls the matrix.

        Raises:
            ValueError: For NaN or infinity, and if distances count for numbers so large that they
                would leave the range of single precision.
        """
        if self.origin is None:
            return normalize(vectors, first_row, name)
        self.points(vectors, first_row, name)
        return np.array(vectors, dtype=np.float32, order="C")

    def points(
        self, vectors: NDArray[np.float32], first_row: int, name: str
    ) -> NDArray[np.float32]:
        """The points of vectors, as a copy; arguments and errors are those of :meth:`queries`."""
        if self.origin is None:
            return normalize(vectors, first_row, name)
        copy = checked_copy(vectors, first_row, name)
        copy -= self.origin
        lengths = lengths_of(copy)
        if not lengths.max(initial=0) <= _FARTHEST:
            row = int(lengths.argmax())
            raise InputError(
                f"{name}: row {first_row + row} is {lengths[row]:.3g} away from the mean of the "
                f"rows; expected at most {_FARTHEST:g}"
            )
        return copy

    def points_of_queries(self, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """The points of vectors from their queries."""
        return queries if self.origin is None else queries - self.origin

    def query_blocks(
        self, vectors: NDArray[np.float32], name: str, first_row: int = 0
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """The queries of all vectors, as :func:`~lowshot_kedro.graph.vectors.mapped_blocks`."""
        return mapped_blocks(vectors, self.queries, name, first_row)

    def point_blocks(
        self, vectors: NDArray[np.float32], name: str, first_row: int = 0
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """The points of all vectors, as :func:`~lowshot_kedro.graph.vectors.mapped_blocks`."""
        return mapped_blocks(vectors, self.points, name, first_row)

    def query_rows(
        self, vectors: NDArray[np.float32], rows: NDArray[np.integer[Any]], name: str
    ) -> NDArray[np.float32]:
        """The queries of some vectors, as :func:`~lowshot_kedro.graph.vectors.mapped_rows`."""
        return mapped_rows(vectors, rows, self.queries, name)

    def point_rows(
        self, vectors: NDArray[np.float32], rows: NDArray[np.integer[Any]], name: str
    ) -> NDArray[np.float32]:
        """The points of some vectors, as :func:`~lowshot_kedro.graph.vectors.mapped_rows`."""
        return mapped_rows(vectors, rows, self.points, name)


COSINE = Space()


def space_of(metric: str, vectors: NDArray[np.float32], name: str) -> Space:
    """The space of a metric for these vectors.

    Args:
        metric: One of METRICS.
        vectors: float32 (n, d), a memmap or array; 16384 of them are looked at.
        name: What messages call them.

    Raises:
        ValueError: For another metric, or NaN.
    """
    if metric not in METRICS:
        expected = f"one of: {', '.join(METRICS)}"
        raise InputError(parameter="metric", found=metric, expected=expected)
    if metric == "cosine":
        return COSINE
    rows = spread_rows(len(vectors), _SAMPLE_ROWS)
    sample = mapped_rows(vectors, rows, checked_copy, name)
    return Space(sample.mean(axis=0, dtype=np.float64).astype(np.float32))
