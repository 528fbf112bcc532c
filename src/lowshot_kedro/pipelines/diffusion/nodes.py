"""Nodes of the diffusion."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from lowshot_kedro import graph as graph_domain
from lowshot_kedro.diffusion import (
    adjustments,
    numbering_for,
    propagate,
    propagation_matrix,
)
from lowshot_kedro.matrices import FeatureMatrix, KnnGraph, take_rows
from lowshot_kedro.metrics import Scores, accuracies_per_iteration, build_metrics
from lowshot_kedro.parameters import (
    DiffusionParameters,
    EvaluationParameters,
    ExperimentParameters,
    GraphParameters,
)
from lowshot_kedro.pca import apply_transform
from lowshot_kedro.protocol import ImageSelection
from lowshot_kedro.resources import Stopwatch, logged_step, peak_rss_bytes


def reduce_features(
    image_selection: ImageSelection,
    train_features: FeatureMatrix,
    test_features: FeatureMatrix,
    pca_transform: faiss.VectorTransform,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Normalised vectors of the labelled and of the test images, PCA'd while they are read."""
    labeled = _take_vectors(train_features, image_selection.labeled_positions, pca_transform)
    test = _take_vectors(test_features, image_selection.test_positions, pca_transform)
    return (
        graph_domain.normalize(labeled, 0, "vectors of the labelled images"),
        graph_domain.normalize(test, 0, "vectors of the test images"),
    )


def _take_vectors(
    features: FeatureMatrix, positions: NDArray[np.int64], transform: faiss.VectorTransform
) -> NDArray[np.float32]:
    return take_rows(
        features, positions, lambda block: apply_transform(transform, block, features.name)
    )


def choose_unlabeled_images(
    image_selection: ImageSelection,
    train_features: FeatureMatrix,
    pca_transform: faiss.VectorTransform,
    background_vectors: NDArray[np.float32],
    background_index: faiss.Index,
    background_graph: KnnGraph,
    experiment: ExperimentParameters,
    graph: GraphParameters,
) -> graph_domain.UnlabeledNodes:
    """The background; or, for `experiment.unlabeled: train`, the training images not chosen.

    With `none` the background that the catalog hands out is empty.

    Raises:
        ValueError: If the graph of this run cannot be completed with them.
    """
    if experiment.unlabeled != "train":
        background = graph_domain.UnlabeledNodes(
            background_vectors, background_index, background_graph
        )
        # Long before the graph is completed: the features have to be read first.
        n_labeled = len(image_selection.labeled_positions)
        graph_domain.require_sizes(n_labeled, *background, k=graph.k)
        return background
    vectors = _take_vectors(train_features, image_selection.unlabeled_positions, pca_transform)
    return graph_domain.unlabeled_nodes(
        vectors,
        graph.k,
        graph.method,
        "vectors of the unlabelled training images",
        graph.target_recall,
        graph.memory_budget_bytes,
    )


def complete_graph(
    labeled_vectors: NDArray[np.float32],
    test_vectors: NDArray[np.float32],
    unlabeled_images: graph_domain.UnlabeledNodes,
    graph: GraphParameters,
    diffusion: DiffusionParameters,
) -> tuple[dict[str, NDArray[Any] | None], dict[str, NDArray[Any]], float]:
    """The graph of this run, the links of the test images to it, and the seconds it took."""
    watch = Stopwatch()
    completed = graph_domain.complete_graph(
        labeled_vectors,
        test_vectors,
        *unlabeled_images,
        k=graph.k,
        keep_similarities=diffusion.edge_weight != "constant",
        memory_budget=graph.memory_budget_bytes,
    )
    nodes = {"neighbors": completed.neighbors, "similarities": completed.similarities}
    return nodes, completed.test_neighbors._asdict(), watch.seconds


def diffuse(
    completed_graph: dict[str, NDArray[Any]],
    test_neighbors: dict[str, NDArray[Any]],
    image_selection: ImageSelection,
    graph_seconds: float,
    experiment: ExperimentParameters,
    graph: GraphParameters,
    diffusion: DiffusionParameters,
    evaluation: EvaluationParameters,
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Scores of the test images after every step, and their metrics."""
    watch = Stopwatch()
    n_nodes, n_classes = len(completed_graph["neighbors"]), image_selection.n_classes
    with logged_step("symmetrised graph"):
        matrix = propagation_matrix(
            **completed_graph,
            edge_weight=diffusion.edge_weight,
            sigma=diffusion.sigma,
            local_neighbor=diffusion.local_neighbor,
            reciprocal=diffusion.reciprocal,
            sinkhorn_rounds=diffusion.sinkhorn_rounds,
            numbering=numbering_for(n_nodes, n_classes, diffusion.n_iterations),
        )
    per_step = propagate(
        matrix,
        image_selection.labeled_classes,
        test_neighbors["indices"],
        n_classes,
        diffusion.n_iterations,
        diffusion.class_slice,
        diffusion.backend,
        precision=diffusion.precision,
        adjustments=adjustments(diffusion.power, diffusion.restore_labeled),
        class_prior=diffusion.class_prior,
        memory_budget_bytes=diffusion.memory_budget_bytes,
    )
    seconds = {"graph": graph_seconds, "diffusion": watch.seconds}
    scores = Scores.of_selection(per_step, range(len(per_step)), image_selection)
    metrics = build_metrics(
        scores,
        accuracies_per_iteration(scores, evaluation.top_k),
        experiment={
            **asdict(experiment),
            "graph": asdict(graph),
            "diffusion": asdict(diffusion),
        },
        n_nodes=matrix.n_nodes,
        seconds=seconds,
        peak_rss_bytes=peak_rss_bytes(),
    )
    return scores.to_arrays(), metrics
