"""One experiment, from the choice of images to scores: what single runs and sweeps both do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from lowshot_kedro import graph
from lowshot_kedro.diffusion import (
    adjustments,
    numbering_for,
    propagate,
    propagation_matrix,
)
from lowshot_kedro.matrices import FeatureMatrix, take_rows
from lowshot_kedro.metrics import Scores
from lowshot_kedro.parameters import DiffusionParameters, ExperimentParameters, GraphParameters
from lowshot_kedro.pca import apply_transform
from lowshot_kedro.protocol import ImageSelection, read_class_split, select_images
from lowshot_kedro.resources import logged_step


def choose_images(
    class_split: Mapping[str, Any],
    train_features: FeatureMatrix,
    test_features: FeatureMatrix,
    experiment: ExperimentParameters,
) -> ImageSelection:
    """The labelled, unlabelled and test images of an experiment.

    Raises:
        ValueError: If classes, labels and the number of labelled images do not go together.
    """
    return select_images(
        read_class_split(class_split, experiment.mode),
        train_features.labels,
        test_features.labels,
        experiment.n_labeled,
        experiment.seed,
    )


def vectors_of(
    features: FeatureMatrix,
    positions: NDArray[np.int64],
    transform: faiss.VectorTransform,
    name: str,
) -> NDArray[np.float32]:
    """Normalised vectors of some images, transformed while their features are read.

    Args:
        features: Of the collection.
        positions: int64 (n,), rows in any order.
        transform: The PCA.
        name: What an error message calls them.

    Returns:
        float32 (n, d). In memory: this matrix, and a block of features.

    Raises:
        ValueError: For NaN or infinity.
    """
    vectors = take_rows(
        features, positions, lambda block: apply_transform(transform, block, features.name)
    )
    return graph.normalize(vectors, 0, name)


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
        unlabeled: As `experiment.unlabeled`. With `both` the training images that were not chosen
            follow the labelled ones; propagation treats nodes without a label alike, wherever
            they stand.

    Returns:
        float32 (n, d), normalised. In memory: this matrix, and a block of features.
    """
    positions, name = selection.labeled_positions, "vectors of the labelled images"
    if unlabeled == "both":
        positions = np.concatenate([positions, selection.unlabeled_positions])
        name = "vectors of the training images"
    return vectors_of(train_features, positions, transform, name)


def unlabeled_training_images(
    selection: ImageSelection,
    train_features: FeatureMatrix,
    transform: faiss.VectorTransform,
    parameters: GraphParameters,
) -> graph.UnlabeledNodes:
    """The training images that were not chosen, with a graph over them, in place of a background.

    In memory: their vectors, and what building an index and a graph takes.
    """
    vectors = take_rows(
        train_features,
        selection.unlabeled_positions,
        lambda block: apply_transform(transform, block, train_features.name),
    )
    return graph.unlabeled_nodes(
        vectors,
        parameters.k,
        parameters.method,
        "vectors of the unlabelled training images",
        parameters.target_recall,
        parameters.memory_budget_bytes,
    )


def diffusion_scores(
    neighbors: NDArray[np.int32],
    similarities: NDArray[np.float32] | None,
    test_neighbors: NDArray[np.int32],
    selection: ImageSelection,
    parameters: DiffusionParameters,
    every_step: bool = True,
) -> Scores:
    """Scores of the test images after every step, or after the last.

    Args:
        neighbors: int32 (N, k), the completed graph.
        similarities: float32 (N, k); not needed for constant edge weights.
        test_neighbors: int32 (T, k), nodes near each test image.
        selection: The images of the experiment.
        parameters: Of the propagation.
        every_step: Whether the scores of every step are wanted.

    Returns:
        The scores. In memory: as :func:`~lowshot_kedro.diffusion.propagate` says.
    """
    n_classes, n_iterations = selection.n_classes, parameters.n_iterations
    with logged_step("symmetrised graph"):
        matrix = propagation_matrix(
            neighbors=neighbors,
            similarities=similarities,
            edge_weight=parameters.edge_weight,
            sigma=parameters.sigma,
            local_neighbor=parameters.local_neighbor,
            reciprocal=parameters.reciprocal,
            sinkhorn_rounds=parameters.sinkhorn_rounds,
            numbering=numbering_for(len(neighbors), n_classes, n_iterations),
        )
    per_step = propagate(
        matrix,
        selection.labeled_classes,
        test_neighbors,
        n_classes,
        n_iterations,
        parameters.class_slice,
        parameters.backend,
        precision=parameters.precision,
        adjustments=adjustments(parameters.power, parameters.restore_labeled),
        class_prior=parameters.class_prior,
        memory_budget_bytes=parameters.memory_budget_bytes,
        every_step=every_step,
    )
    steps = range(n_iterations + 1) if every_step else [n_iterations]
    return Scores.of_selection(per_step, steps, selection)
