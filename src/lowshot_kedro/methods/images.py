"""One choice of images, from which a method takes what it needs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from lowshot_kedro import graph
from lowshot_kedro.blocks import FeatureMatrix, require_finite, take_rows
from lowshot_kedro.errors import InputError
from lowshot_kedro.graph.parameters import GraphParameters
from lowshot_kedro.pca import apply_transform
from lowshot_kedro.protocol import ImageSelection


class VectorSource(Protocol):
    """The source of vectors: the PCA, and the background with its index and graph."""

    @property
    def pca_transform(self) -> faiss.VectorTransform:
        """The PCA that turns features into vectors."""
        ...

    def background(self, n_background: int | None) -> graph.UnlabeledNodes:
        """The first background images with index and graph, None being all."""
        ...


@dataclass(frozen=True)
class ChosenImages:
    """The images of an experiment, with what is known of them.

    Nothing is read before it is asked for.

    Attributes:
        selection: Which they are.
        train_features: The training set.
        test_features: The test set.
        seed: Seed of their choice, and of what a method draws.
        unlabeled: Which unlabelled images are used: a value of `experiment.unlabeled`.
        n_background: How many images of the background are used; None: all.
        source: For methods that need vectors or a graph.
    """

    selection: ImageSelection
    train_features: FeatureMatrix
    test_features: FeatureMatrix
    seed: int
    unlabeled: str = "none"
    n_background: int | None = None
    source: VectorSource | None = None

    @property
    def n_classes(self) -> int:
        """Number of classes C."""
        return self.selection.n_classes

    @property
    def labeled_classes(self) -> NDArray[np.int32]:
        """Classes of the labelled images: int32 (L,), 0..C-1, each present."""
        return self.selection.labeled_classes

    def labeled_features(self) -> NDArray[np.float32]:
        """Features of the labelled images: float32 (L, d)."""
        return take_rows(self.train_features, self.selection.labeled_positions)

    def test_images_features(self) -> NDArray[np.float32]:
        """Features of the test images: float32 (T, d)."""
        return take_rows(self.test_features, self.selection.test_positions)

    def training_vectors(self) -> NDArray[np.float32]:
        """:func:`training_vectors` of these images."""
        return training_vectors(
            self.selection, self.train_features, self._transform, self.unlabeled
        )

    def test_vectors(self) -> NDArray[np.float32]:
        """Vectors of the test images: float32 (T, n_components), normalised."""
        return vectors_of_test_images(self.selection, self.test_features, self._transform)

    def labeled_and_unlabeled_vectors(self) -> NDArray[np.float32]:
        """Vectors of the labelled images, then of the unlabelled ones, normalised.

        Returns:
            float32 (L + U, n_components). In memory: this matrix twice.
        """
        kind = "background" if self.unlabeled == "background" else "both"
        vectors = training_vectors(self.selection, self.train_features, self._transform, kind)
        if self.unlabeled in ("background", "both"):
            vectors = np.concatenate([vectors, np.asarray(self._background().vectors)])
        return vectors

    def unlabeled_nodes(self, parameters: GraphParameters) -> graph.UnlabeledNodes:
        """The background, or what stands in its place, with index and graph.

        Args:
            parameters: How a graph over unlabelled training images is built.
        """
        if self.unlabeled == "train":
            return unlabeled_training_images(
                self.selection, self.train_features, self._transform, parameters
            )
        return self._background()

    @cached_property
    def _transform(self) -> faiss.VectorTransform:
        return self._require_source().pca_transform

    def _background(self) -> graph.UnlabeledNodes:
        return self._require_source().background(self.n_background)

    def _require_source(self) -> VectorSource:
        if self.source is None:
            raise InputError("a method that needs vectors was given features alone")
        return self.source


def vectors_of(
    features: FeatureMatrix,
    positions: NDArray[np.int64],
    transform: faiss.VectorTransform,
    name: str,
) -> NDArray[np.float32]:
    """Normalised vectors of some images, transformed while their features are read.

    Args:
        features: Features of the collection.
        positions: int64 (n,), rows in any order.
        transform: The PCA.
        name: What an error message calls them.

    Returns:
        float32 (n, d). In memory: this matrix, and a block of features.

    Raises:
        ValueError: For NaN or infinity.
    """
    return graph.normalize(_transformed(features, positions, transform), 0, name)


def _transformed(
    features: FeatureMatrix, positions: NDArray[np.int64], transform: faiss.VectorTransform
) -> NDArray[np.float32]:
    """Some rows after the PCA; a message about them names the rows of the features."""
    vectors = take_rows(
        features, positions, lambda block: apply_transform(transform, block, features.name)
    )
    require_finite(vectors, positions, f"{features.name} after pca_transform")
    return vectors


def training_vectors(
    selection: ImageSelection,
    train_features: FeatureMatrix,
    transform: faiss.VectorTransform,
    unlabeled: str,
) -> NDArray[np.float32]:
    """The nodes that stand before the stored graph: labelled images, for `both` also others.

    Args:
        selection: The images of the experiment.
        train_features: The training set.
        transform: The PCA.
        unlabeled: A value of `experiment.unlabeled`. With `both` the training images that were not
            chosen follow the labelled ones; propagation treats nodes without a label alike,
            wherever they stand.

    Returns:
        float32 (n, d), normalised. In memory: this matrix, and a block of features.
    """
    positions, name = selection.labeled_positions, "vectors of the labelled images"
    if unlabeled == "both":
        positions = np.concatenate([positions, selection.unlabeled_positions])
        name = "vectors of the training images"
    return vectors_of(train_features, positions, transform, name)


def vectors_of_test_images(
    selection: ImageSelection, test_features: FeatureMatrix, transform: faiss.VectorTransform
) -> NDArray[np.float32]:
    """Vectors of the test images: float32 (T, d), normalised."""
    return vectors_of(
        test_features, selection.test_positions, transform, "vectors of the test images"
    )


def unlabeled_training_images(
    selection: ImageSelection,
    train_features: FeatureMatrix,
    transform: faiss.VectorTransform,
    parameters: GraphParameters,
) -> graph.UnlabeledNodes:
    """The training images that were not chosen, with a graph over them, in place of a background.

    In memory: their vectors, and what building an index and a graph takes.
    """
    vectors = _transformed(train_features, selection.unlabeled_positions, transform)
    return graph.unlabeled_nodes(
        vectors,
        parameters.max_k,
        parameters.method,
        "vectors of the unlabelled training images",
        parameters.target_recall,
        parameters.memory_budget_bytes,
    )
