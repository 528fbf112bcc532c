"""Nodes of the diffusion."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from lowshot_kedro import graph as graph_domain
from lowshot_kedro.blocks import FeatureMatrix, KnnGraph
from lowshot_kedro.diffusion.parameters import DiffusionParameters
from lowshot_kedro.graph.parameters import GraphParameters
from lowshot_kedro.memory import peak_rss_bytes
from lowshot_kedro.methods import diffusion as diffusion_method
from lowshot_kedro.methods.images import (
    training_vectors,
    unlabeled_training_images,
    vectors_of_test_images,
)
from lowshot_kedro.metrics import EvaluationParameters, accuracies_per_iteration, build_metrics
from lowshot_kedro.progress import Stopwatch
from lowshot_kedro.protocol import ExperimentParameters, ImageSelection


def reduce_features(
    image_selection: ImageSelection,
    train_features: FeatureMatrix,
    test_features: FeatureMatrix,
    pca_transform: faiss.VectorTransform,
    experiment: ExperimentParameters,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Vectors of the training images that become nodes, labelled ones first, and of test images."""
    return (
        training_vectors(image_selection, train_features, pca_transform, experiment.unlabeled),
        vectors_of_test_images(image_selection, test_features, pca_transform),
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

    With `none` the background that the catalog hands out is empty. With `both` the training images
    not chosen come with the labelled ones from :func:`reduce_features`.

    Raises:
        ValueError: If labelled images cannot be inserted into their graph.
    """
    if experiment.unlabeled == "train":
        return unlabeled_training_images(image_selection, train_features, pca_transform, graph)
    background = graph_domain.UnlabeledNodes(background_vectors, background_index, background_graph)
    # Long before labelled images are inserted: the features have to be read first.
    n_first = len(image_selection.labeled_positions)
    if experiment.unlabeled == "both":
        n_first += len(image_selection.unlabeled_positions)
    k = diffusion_method.searched_neighbors(graph, n_first + len(background_vectors))
    graph_domain.require_sizes(n_first, background, k=k)
    return background


def insert_labeled_nodes(
    training_vectors: NDArray[np.float32],
    test_vectors: NDArray[np.float32],
    unlabeled_images: graph_domain.UnlabeledNodes,
    graph: GraphParameters,
    diffusion: DiffusionParameters,
) -> tuple[dict[str, NDArray[Any] | None], dict[str, NDArray[Any]], dict[str, Any], float]:
    """The graph with labelled nodes, links of the test images, part of links found, and seconds."""
    watch = Stopwatch()
    n_nodes = len(training_vectors) + len(unlabeled_images.vectors)
    extended = graph_domain.insert_labeled_nodes(
        training_vectors,
        test_vectors,
        unlabeled_images,
        k=diffusion_method.searched_neighbors(graph, n_nodes),
        keep_similarities=diffusion.edge_weight != "constant",
        memory_budget_bytes=graph.memory_budget_bytes,
    )
    nodes = {"neighbors": extended.neighbors, "similarities": extended.similarities}
    return nodes, extended.test_neighbors._asdict(), extended.quality, watch.seconds


def diffuse(
    extended_graph: dict[str, NDArray[Any]],
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
    scores, chosen = diffusion_method.chosen_scores(
        extended_graph["neighbors"],
        extended_graph["similarities"],
        test_neighbors["indices"],
        image_selection,
        graph,
        diffusion,
    )
    seconds = {"graph": graph_seconds, "diffusion": watch.seconds}
    metrics = build_metrics(
        scores,
        accuracies_per_iteration(scores, evaluation.top_k),
        experiment={
            **asdict(experiment),
            "graph": asdict(graph),
            "diffusion": asdict(diffusion),
        },
        n_nodes=len(extended_graph["neighbors"]),
        seconds=seconds,
        peak_rss_bytes=peak_rss_bytes(),
    )
    described = {"method": diffusion_method.DiffusionMethod.name, "chosen": chosen.as_metrics()}
    return scores.to_arrays(), {**metrics, **described}
