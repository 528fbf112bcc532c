"""One experiment, from the choice of images to scores: what single runs and sweeps both do."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from lowshot_kedro import graph
from lowshot_kedro.blocks import FeatureMatrix, require_finite, take_rows
from lowshot_kedro.diffusion import (
    MAX_COLUMNS,
    MAX_STEPS,
    ChosenDiffusion,
    ChosenSteps,
    PropagationMatrix,
    PropagationOptions,
    adjustments,
    choose_diffusion,
    choose_node_ordering,
    propagate,
    propagation_matrix,
)
from lowshot_kedro.metrics import Scores
from lowshot_kedro.parameters import DiffusionParameters, ExperimentParameters, GraphParameters
from lowshot_kedro.pca import apply_transform
from lowshot_kedro.progress import logged_step
from lowshot_kedro.protocol import ImageSelection, read_class_split, select_images

logger = logging.getLogger(__name__)

_MAX_CLASSES_NAMED = 5


class Labeled(Protocol):
    """A collection whose labels are known."""

    @property
    def labels(self) -> NDArray[np.int32]:
        """int32 (n,), 0-based."""
        ...


def choose_images(
    class_split: Mapping[str, Any],
    train: Labeled,
    test: Labeled,
    experiment: ExperimentParameters,
) -> ImageSelection:
    """The labelled, unlabelled and test images of an experiment.

    Args:
        class_split: Content of the class split file.
        train: The training set, features or images.
        test: The test set.
        experiment: Which classes and how many labelled images.

    Raises:
        ValueError: If classes and labels do not go together.
    """
    return select_images(
        read_class_split(class_split, experiment.mode),
        train.labels,
        test.labels,
        experiment.n_labeled,
        experiment.seed,
    )


def log_choice(selection: ImageSelection, n_train: int, experiment: ExperimentParameters) -> None:
    """Say in one line how many labelled images are used, how many are not, and why.

    A warning where novel classes have fewer than were asked for.

    Args:
        selection: The images of the experiment.
        n_train: Images of the training set.
        experiment: Which classes and how many labelled images.
    """
    counts = np.bincount(selection.labeled_classes, minlength=selection.n_classes)
    n_left = len(selection.unlabeled_positions)
    n_used = len(selection.labeled_positions)
    n_others = n_train - n_used - n_left
    n_labeled = experiment.n_labeled
    parts = [f"{n_used} of {n_train} labelled images are used, of {selection.n_classes} classes"]
    if n_left:
        fate = "without their labels" if experiment.unlabeled in ("train", "both") else "left out"
        parts.append(
            f"{n_left} {fate}, as experiment.n_labeled = {n_labeled} for every novel class (null: "
            "all)"
        )
    if n_others:
        parts.append(f"{n_others} of classes that mode {experiment.mode} does not have")
    few = selection.is_novel & (counts < (n_labeled or 0))
    if few.any():
        named = [
            f"{selection.class_names[number]} ({counts[number]})"
            for number in np.flatnonzero(few)[:_MAX_CLASSES_NAMED]
        ]
        n_more = int(few.sum()) - len(named)
        parts.append(
            f"fewer than experiment.n_labeled = {n_labeled} have {', '.join(named)}"
            + (f" and {n_more} more" if n_more else "")
        )
    logger.log(logging.WARNING if few.any() else logging.INFO, "%s", "; ".join(parts))


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
    vectors = _transformed(train_features, selection.unlabeled_positions, transform)
    return graph.unlabeled_nodes(
        vectors,
        parameters.max_k,
        parameters.method,
        "vectors of the unlabelled training images",
        parameters.target_recall,
        parameters.memory_budget_bytes,
    )


def max_neighbors(parameters: GraphParameters, n_nodes: int) -> int:
    """How many neighbours are looked for: k, or for `auto` as many as may be chosen.

    Args:
        parameters: Of the graph.
        n_nodes: N. `auto` chooses from no more than that.
    """
    return min(parameters.max_k, n_nodes) if isinstance(parameters.k, str) else parameters.k


def choose_parameters(
    neighbors: NDArray[np.int32],
    similarities: NDArray[np.float32] | None,
    selection: ImageSelection,
    graph_parameters: GraphParameters,
    parameters: DiffusionParameters,
) -> ChosenDiffusion:
    """Neighbours and steps as the parameters say them, or chosen where they say `auto`.

    Args:
        neighbors: int32 (N, K), the completed graph, K as :func:`max_neighbors` says.
        similarities: float32 (N, K); not needed for constant edge weights.
        selection: The images of the experiment.
        graph_parameters: Of the graph.
        parameters: Of the propagation.

    Returns:
        Numbers that are given are taken as they are, without held-out labels if both are. In
        memory: as :func:`~lowshot_kedro.diffusion.choose_diffusion` says.
    """
    k, n_iterations = graph_parameters.k, parameters.n_iterations
    if not isinstance(k, str) and not isinstance(n_iterations, str):
        return ChosenDiffusion(k, ChosenSteps(n_iterations, n_iterations, None), {})
    node_ordering = choose_node_ordering(
        len(neighbors), max(selection.n_classes, MAX_COLUMNS), MAX_STEPS
    )
    return choose_diffusion(
        lambda k: _matrix(neighbors, similarities, k, parameters, node_ordering),
        neighbors,
        graph_parameters.candidates(neighbors.shape[1]),
        selection.labeled_classes,
        selection.is_novel,
        _options(parameters),
        n_iterations=None if isinstance(n_iterations, str) else n_iterations,
    )


def _options(parameters: DiffusionParameters) -> PropagationOptions:
    """What the parameters say of the propagation itself."""
    return PropagationOptions(
        class_slice=parameters.class_slice,
        backend=parameters.backend,
        precision=parameters.precision,
        adjustments=adjustments(parameters.power, parameters.clamping),
        class_prior=parameters.class_prior,
        memory_budget_bytes=parameters.memory_budget_bytes,
    )


def chosen_scores(
    neighbors: NDArray[np.int32],
    similarities: NDArray[np.float32] | None,
    test_neighbors: NDArray[np.int32],
    selection: ImageSelection,
    graph_parameters: GraphParameters,
    parameters: DiffusionParameters,
) -> tuple[Scores, ChosenDiffusion]:
    """:func:`diffusion_scores` with what :func:`choose_parameters` says, and that."""
    chosen = choose_parameters(neighbors, similarities, selection, graph_parameters, parameters)
    scores = diffusion_scores(
        first_columns(neighbors, chosen.k),
        None if similarities is None else first_columns(similarities, chosen.k),
        first_columns(test_neighbors, chosen.k),
        selection,
        replace(parameters, n_iterations=chosen.steps.n_iterations),
    )
    return scores, chosen


def first_columns(matrix: NDArray[Any], k: int) -> NDArray[Any]:
    """The k most similar neighbours, or their similarities: the graph with fewer links."""
    return matrix if matrix.shape[1] == k else np.ascontiguousarray(matrix[:, :k])


def _matrix(
    neighbors: NDArray[np.int32],
    similarities: NDArray[np.float32] | None,
    k: int,
    parameters: DiffusionParameters,
    node_ordering: str,
) -> PropagationMatrix:
    """W of the first k neighbours."""
    with logged_step("symmetrised graph"):
        return propagation_matrix(
            neighbors=first_columns(neighbors, k),
            similarities=None if similarities is None else first_columns(similarities, k),
            edge_weight=parameters.edge_weight,
            sigma=parameters.sigma,
            local_neighbor=parameters.local_neighbor,
            reciprocal=parameters.reciprocal,
            sinkhorn_rounds=parameters.sinkhorn_rounds,
            node_ordering=node_ordering,
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
        parameters: Of the propagation, with a number of steps.
        every_step: Whether the scores of every step are wanted.

    Returns:
        The scores. In memory: as :func:`~lowshot_kedro.diffusion.propagate` says.
    """
    n_classes, n_iterations = selection.n_classes, parameters.n_iterations
    assert not isinstance(n_iterations, str)
    node_ordering = choose_node_ordering(len(neighbors), n_classes, n_iterations)
    matrix = _matrix(neighbors, similarities, neighbors.shape[1], parameters, node_ordering)
    per_step = propagate(
        matrix,
        selection.labeled_classes,
        test_neighbors,
        n_classes,
        n_iterations,
        _options(parameters),
        every_step=every_step,
    )
    steps = range(n_iterations + 1) if every_step else [n_iterations]
    return Scores.of_selection(per_step, steps, selection)
