"""8-bit codes of vectors: a quarter of their memory, and the speed of integer arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from lowshot_kedro import native
from lowshot_kedro.graph.spaces import COSINE, Space
from lowshot_kedro.graph.vectors import lengths_of

_SEED = 20180618
# A code covers so many standard deviations; what lies beyond is cut off.
_COVERED = 4.0
_LARGEST_CODE = 127
_MAX_STEPS = 9999.0
_MAX_STEPS_OF_DISTANCES = 1e35
# Largest error of a similarity that is reckoned with, in standard deviations of the rounding error.
_ERROR_DEVIATIONS = 5.0
# The part of the farthest links that is lost because first columns hold more than others.
_LOST_TO_PREFIXES = 1e-4


class VectorEncoder:
    """Encodes the vectors of one collection, and the queries that are searched in it.

    Args:
        sample: float32 (m, d), points of some vectors of the collection.
        space: Space in which they are compared.
    """

    def __init__(self, sample: NDArray[np.float32], space: Space = COSINE) -> None:
        self.space = space
        dimension = sample.shape[1]
        width = native.code_width(dimension)
        signs = np.random.default_rng(_SEED).integers(0, 2, width) * 2 - 1
        if space.origin is None:
            mean = (
                sample.mean(axis=0, dtype=np.float64)
                if len(sample)
                else np.zeros(dimension, np.float64)
            )
            spread = ((sample - mean) ** 2).sum(axis=1).mean() if len(sample) else 1.0
            deviation = np.sqrt(max(spread, 1e-12) / width)
            most_steps = _MAX_STEPS
        else:
            mean = space.origin
            spread = (lengths_of(sample) ** 2).mean() if len(sample) else 0.0
            deviation = np.sqrt((spread or 1.0) / width)
            most_steps = _MAX_STEPS_OF_DISTANCES
        self._encoder = native.Encoder(
            np.ascontiguousarray(mean, dtype=np.float32),
            signs.astype(np.float32),
            float(min(_LARGEST_CODE / (_COVERED * deviation), most_steps)),
            space.is_euclidean,
        )
        # Points lack the origin already.
        self._point_encoder = self._encoder
        if space.is_euclidean:
            self._point_encoder = self._encoder._replace(mean=np.zeros(dimension, np.float32))
        self._steps = float(self._encoder.scale) ** 2

    @property
    def width(self) -> int:
        """Columns of the codes."""
        return self._encoder.width

    def encode(
        self, vectors: NDArray[np.float32]
    ) -> tuple[native.Codes, NDArray[np.float32] | None]:
        """Codes of vectors as they are, or of their queries.

        Args:
            vectors: float32 (n, d).

        Returns:
            The codes, and float32 (n,), 1 / length of each vector; None if distances count.
        """
        return native.encode(self._encoder, np.ascontiguousarray(vectors))

    def encode_points(self, points: NDArray[np.float32]) -> native.Codes:
        """Codes of points, which float32 (n, d) hold."""
        return native.encode(self._point_encoder, np.ascontiguousarray(points))[0]

    def squared_distances(
        self, scores: NDArray[Any], query_biases: NDArray[np.int32]
    ) -> NDArray[np.float64]:
        """The squared distances that scores stand for, but for errors of rounding.

        Args:
            scores: Numbers (q, …), of vectors for queries.
            query_biases: int32 (q, …), of the queries' codes.

        Returns:
            float64 (q, …), those of points; in a cosine space twice 1 less the cosine.
        """
        return -2 * (scores + query_biases.astype(np.float64)) / self._steps

    def scores_at(
        self, squared_distances: NDArray[np.float64], query_biases: NDArray[np.int32] | int = 0
    ) -> NDArray[np.float64]:
        """The scores at squared distances; turns :meth:`squared_distances` round.

        Args:
            squared_distances: float64 (q,).
            query_biases: int32 (q,), of the queries' codes.
        """
        return -self._steps * squared_distances / 2 - query_biases

    def _margins(self, squared_distances: NDArray[np.float64]) -> NDArray[np.float64]:
        """By how much the score of a vector at a distance may be too small: five deviations.

        Args:
            squared_distances: float64 (q,).

        Returns:
            float64 (q,), in units of scores.
        """
        # The difference of two codes is wrong by e in each column, with E e² = 1/6 and E e⁴ = 1/15:
        # a squared distance D² by Σ e² + 2 D e. Of fewer columns than the codes have, each stands
        # in several, with the same error.
        alike = self.width / len(self._encoder.mean)
        deviations = np.sqrt(
            alike * (4 * self._steps * squared_distances / 6 + self.width * (1 / 15 - 1 / 36))
        )
        return (self.width / 6 + _ERROR_DEVIATIONS * deviations) / 2

    def least_scores(
        self, similarities: NDArray[np.float32], query_biases: NDArray[np.int32]
    ) -> NDArray[np.int32]:
        """Scores below which a similarity is smaller, leaving room for errors of rounding.

        Args:
            similarities: float32 (q,), one for each query; minus infinity: any score will do.
            query_biases: int32 (q,), of the queries' codes.

        Returns:
            int32 (q,).
        """
        squares = self.space.squared_distances(similarities.astype(np.float64))
        margins = self._margins(np.maximum(squares, 0))
        return as_scores(self.scores_at(squares, query_biases) - margins)


def as_scores(numbers: NDArray[np.float64]) -> NDArray[np.int32]:
    """Numbers rounded down to integers, and cut off where int32 ends."""
    limits = np.iinfo(np.int32)
    scores: NDArray[np.int32] = np.clip(np.floor(numbers), limits.min, limits.max).astype(np.int32)
    return scores


def usual_prefix_share(
    width: int, columns: int = native.CODE_WIDTH_UNIT, lost: float = _LOST_TO_PREFIXES
) -> float:
    """The part of a squared distance that the first columns of codes rotated at random hold.

    All vectors but a few, unless told otherwise one in ten thousand, hold no more than that.

    Args:
        width: Columns of the codes.
        columns: How many of them come first.
        lost: The part of the vectors that hold more.
    """
    if width <= columns:
        return 1.0
    # The part of its square that a vector has in a random subspace has a beta distribution.
    return float(betaincinv(columns / 2, (width - columns) / 2, 1 - lost))


def search_all(
    codes: native.Codes, queries: NDArray[np.int8], width: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The best of all vectors for each query, as :func:`~lowshot_kedro.native.search_lists` does.

    Args:
        codes: Codes of the vectors.
        queries: int8 (q, w), codes.
        width: How many vectors to find for each query.
    """
    everything = native.Lists(np.array([0, len(codes.values)], np.int64))
    probes = np.zeros((len(queries), 1), np.int32)
    return native.search_lists(codes, everything, queries, probes, width)
