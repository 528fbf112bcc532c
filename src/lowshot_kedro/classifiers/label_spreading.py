"""scikit-learn's semi-supervised label spreading, for collections that it can handle."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from lowshot_kedro.blocks import row_ranges
from lowshot_kedro.classifiers.vectors import require_every_class, unit_vectors
from lowshot_kedro.errors import InputError
from lowshot_kedro.progress import logged_step

if TYPE_CHECKING:
    from sklearn import semi_supervised

logger = logging.getLogger(__name__)

BLOCK_ROWS = 4096
_NO_LABEL = -1


class LabelSpreading:
    """Labels spread over the k-NN graph of labelled and unlabelled images until they settle.

    scikit-learn's implementation of Zhou, Bousquet, Lal, Weston and Schölkopf, "Learning with
    local and global consistency" (NIPS 2004), with its k-NN kernel: the graph is not symmetrised,
    and test images get the sum of the distributions of their nearest images. Every pair of images
    is compared, in one thread, so that the result does not depend on the number of threads.

    Args:
        n_classes: Number of classes C.
        unlabeled: float32 (u, d), vectors of the unlabelled images; u may be 0.
        n_neighbors: Neighbours in the graph; an image is the first of its own.
        alpha: What an image takes from its neighbours rather than from its own label, between 0
            and 1, both excluded.
        max_iterations: Steps at most.
        max_images: Labelled and unlabelled images at most. scikit-learn compares all pairs and
            takes 8 bytes for every image and class, several times.
        block_rows: Test images that are compared together.
    """

    def __init__(
        self,
        n_classes: int,
        *,
        unlabeled: NDArray[np.float32],
        n_neighbors: int,
        alpha: float,
        max_iterations: int,
        max_images: int = 20000,
        block_rows: int = BLOCK_ROWS,
    ) -> None:
        self.n_classes = n_classes
        self.unlabeled = unlabeled
        self.n_neighbors = n_neighbors
        self.alpha = alpha
        self.max_iterations = max_iterations
        self.max_images = max_images
        self.block_rows = block_rows
        self._model: semi_supervised.LabelSpreading | None = None

    def fit(self, features: NDArray[np.float32], classes: NDArray[np.int32]) -> None:
        """Spread the labels over labelled and unlabelled images.

        In memory: all vectors three times, and 40 bytes for each image and class.

        Args:
            features: float32 (n, d), for instance the vectors of the graph.
            classes: int32 (n,), 0..C-1, each present.

        Raises:
            ValueError: For more than max_images, no more than n_neighbors, a class without
                images, another d than that of the unlabelled vectors, NaN, infinity, or vectors
                that are all zero.
        """
        # They take a second to import, and most commands need another classifier.
        from sklearn import semi_supervised
        from sklearn.exceptions import ConvergenceWarning

        n_labeled, n_unlabeled = len(features), len(self.unlabeled)
        n_images = n_labeled + n_unlabeled
        counts = f"{n_images} images ({n_labeled} labelled, {n_unlabeled} unlabelled)"
        if n_images > self.max_images:
            raise InputError(
                f"but there are {counts}; use fewer, or allow more and wait",
                parameter="max_images",
                found=self.max_images,
            )
        if self.n_neighbors > n_images:
            raise InputError(
                f"but there are only {counts}", parameter="n_neighbors", found=self.n_neighbors
            )
        require_every_class(classes, n_labeled, self.n_classes, "label spreading")
        vectors = np.concatenate(
            [
                unit_vectors(features, "labelled features"),
                unit_vectors(self.unlabeled, "unlabelled vectors", features.shape[1]),
            ]
        )
        labels = np.concatenate([classes, np.full(n_unlabeled, _NO_LABEL, classes.dtype)])
        model = semi_supervised.LabelSpreading(
            kernel="knn",
            n_neighbors=self.n_neighbors,
            alpha=self.alpha,
            max_iter=self.max_iterations,
        )
        with (
            threadpool_limits(1),
            warnings.catch_warnings(),
            logged_step(f"label spreading over {n_images} images"),
        ):
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(vectors, labels)
        if model.n_iter_ == self.max_iterations:
            logger.info("label spreading: not settled after %d steps", model.n_iter_)
        self._model = model

    def scores(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities of the classes.

        Args:
            features: float32 (m, d).

        Returns:
            float32 (m, C), rows sum to 1; zeros where no label reached any neighbour. In memory
            besides: a block of rows.

        Raises:
            RuntimeError: Before :meth:`fit`.
            ValueError: For another d than that of the labelled vectors, NaN, infinity, or vectors
                that are all zero.
        """
        if self._model is None:
            raise RuntimeError("LabelSpreading: fit it before asking for scores")
        n_columns = self._model.n_features_in_
        result = np.empty((len(features), self.n_classes), dtype=np.float32)
        with threadpool_limits(1), np.errstate(invalid="ignore"):
            for first, last in row_ranges(len(features), self.block_rows):
                unit = unit_vectors(features[first:last], "features to score", n_columns, first)
                # Nothing divided by nothing, where no label arrived.
                result[first:last] = np.nan_to_num(self._model.predict_proba(unit), nan=0.0)
        return result
