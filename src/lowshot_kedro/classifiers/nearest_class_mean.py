"""Nearest class mean: every class is one direction, its prototype."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from lowshot_kedro.blocks import row_ranges
from lowshot_kedro.classifiers.vectors import require_every_class, unit_vectors
from lowshot_kedro.errors import InputError

BLOCK_ROWS = 16384


class NearestClassMean:
    """Scores are cosines between an image's features and the mean of each class.

    The nearest class mean classifier, to which Mensink, Verbeek, Perronnin and Csurka (TPAMI 2013)
    add new classes without training; Snell, Swersky and Zemel (NeurIPS 2017) call the means
    prototypes. They measure distances, Gidaris and Komodakis (CVPR 2018) the cosine. Features are
    scaled to length 1 before the mean is taken, and the mean is scaled to length 1 too. A class of
    two images counts as much as one of a thousand.

    Args:
        n_classes: Number of classes C.
        block_rows: Images that are scaled to length 1 together.
    """

    def __init__(self, n_classes: int, *, block_rows: int = BLOCK_ROWS) -> None:
        self.n_classes = n_classes
        self.block_rows = block_rows
        self._means: NDArray[np.float32] | None = None

    def fit(self, features: NDArray[np.float32], classes: NDArray[np.int32]) -> None:
        """Compute the means. In memory: the means in double precision, and a block of features.

        Args:
            features: float32 (n, d).
            classes: int32 (n,), 0..C-1, each present.

        Raises:
            ValueError: For a class without images or whose features cancel out, NaN, infinity,
                or features that are all zero.
        """
        require_every_class(classes, len(features), self.n_classes, "nearest class mean")
        sums = np.zeros((self.n_classes, features.shape[1]))
        for first, last in row_ranges(len(features), self.block_rows):
            unit = unit_vectors(features[first:last], "labelled features", first_row=first)
            of_block = classes[first:last]
            for number in np.unique(of_block):
                sums[number] += unit[of_block == number].sum(axis=0, dtype=np.float64)
        lengths = np.linalg.norm(sums, axis=1)
        if not lengths.all():
            raise InputError(
                f"nearest class mean: the features of class {np.flatnonzero(lengths == 0)[0]} "
                "cancel out; expected a mean that has a direction"
            )
        self._means = (sums / lengths[:, None]).astype(np.float32)

    def scores(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Cosine of every image and class, -1..1.

        Args:
            features: float32 (m, d).

        Returns:
            float32 (m, C). In memory besides: a block of features.

        Raises:
            RuntimeError: Before :meth:`fit`.
            ValueError: For another d than that of the labelled features, NaN, infinity, or
                features that are all zero.
        """
        if self._means is None:
            raise RuntimeError("NearestClassMean: fit it before asking for scores")
        result = np.empty((len(features), self.n_classes), dtype=np.float32)
        # A product that is spread over threads is rounded differently for every number of them.
        with threadpool_limits(1, user_api="blas"):
            for first, last in row_ranges(len(features), self.block_rows):
                unit = unit_vectors(
                    features[first:last], "features to score", self._means.shape[1], first
                )
                np.matmul(unit, self._means.T, out=result[first:last])
        return result
