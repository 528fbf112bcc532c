"""Nodes of labelling."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lowshot_kedro import reporting
from lowshot_kedro.blocks import FeatureMatrix, KnnGraph
from lowshot_kedro.errors import InputError
from lowshot_kedro.graph.background import UnlabeledNodes
from lowshot_kedro.graph.parameters import GraphParameters
from lowshot_kedro.images import ImageSource, JoinedImages
from lowshot_kedro.images.label_files import LabelTable
from lowshot_kedro.labeling.attention import Duplicates, NextImages, SuspiciousLabels
from lowshot_kedro.labeling.duplicates import near_duplicates
from lowshot_kedro.labeling.exports.fiftyone import fiftyone_frame, fiftyone_labels
from lowshot_kedro.labeling.exports.folder_tree import write_folder_tree
from lowshot_kedro.labeling.exports.label_studio import label_studio_config, label_studio_tasks
from lowshot_kedro.labeling.exports.table import (
    duplicates_frame,
    labels_frame,
    next_frame,
    suspicious_frame,
)
from lowshot_kedro.labeling.given_labels import GivenLabels, collect_labels
from lowshot_kedro.labeling.labels import Labeling, label_images
from lowshot_kedro.labeling.layout import layout_images
from lowshot_kedro.labeling.next_images import images_to_label_next
from lowshot_kedro.labeling.nodes import JoinedFeatures, LabelingGraph, labeling_graph
from lowshot_kedro.labeling.parameters import LabelingParameters
from lowshot_kedro.labeling.suspicious import suspicious_labels
from lowshot_kedro.methods.logistic_regression import LogisticRegressionParameters
from lowshot_kedro.parameters import in_section
from lowshot_kedro.reporting.labels_page import LabelsPage


def join_images(
    train_images: ImageSource, background_images: ImageSource, label_file: LabelTable | None
) -> tuple[JoinedImages, GivenLabels]:
    """All images under one numbering, and which of them people have labelled."""
    images = JoinedImages([train_images, background_images])
    return images, collect_labels(images, images.class_names, label_file)


def link_images(
    train_features: FeatureMatrix,
    background_features: FeatureMatrix,
    pca_transform: faiss.VectorTransform,
    background_vectors: NDArray[np.float32],
    background_index: faiss.Index,
    background_graph: KnnGraph,
    all_images: JoinedImages,
    graph: GraphParameters,
) -> tuple[LabelingGraph, JoinedFeatures]:
    """The graph over all images, and their features.

    In memory: the vectors of the training images, 8 bytes for each link, and what inserting takes.

    Raises:
        ValueError: If features are not those of these images.
    """
    features = JoinedFeatures([train_features, background_features])
    for images, of_images in zip(all_images.sources, features.parts, strict=True):
        if len(images) != of_images.n_rows:
            raise InputError(
                f"{of_images.name}: features of {of_images.n_rows} images, expected those of the "
                f"{len(images)} of {images!r}",
                made_by="labeling",
            )
    background = UnlabeledNodes(background_vectors, background_index, background_graph)
    linked = in_section(
        "graph",
        lambda: labeling_graph(
            train_features, pca_transform, background, graph.max_k, graph.memory_budget_bytes
        ),
    )
    return linked, features


def find_labels(
    labeling_graph: LabelingGraph,
    labeling_features: JoinedFeatures,
    given_labels: GivenLabels,
    labeling: LabelingParameters,
    logistic_regression: LogisticRegressionParameters,
) -> Labeling:
    """A label for every image."""
    return in_section(
        "labeling",
        lambda: label_images(
            labeling_graph, labeling_features, given_labels, labeling, logistic_regression
        ),
    )


def find_images_to_look_at(
    labeling_graph: LabelingGraph, found_labels: Labeling, labeling: LabelingParameters
) -> tuple[NextImages, SuspiciousLabels, Duplicates]:
    """Images to label next, given labels that are probably wrong, and images that look the same."""
    return (
        images_to_label_next(labeling_graph, found_labels, labeling.n_next, labeling.seed),
        suspicious_labels(labeling_graph, found_labels),
        near_duplicates(labeling_graph, labeling.min_duplicate_similarity, found_labels.broken),
    )


def report_labels(
    found_labels: Labeling,
    next_images: NextImages,
    suspicious_images: SuspiciousLabels,
    duplicate_images: Duplicates,
) -> dict[str, Any]:
    """What was chosen and is known of the labels, and how much there is to look at."""
    return {
        **found_labels.report,
        "n_next": len(next_images.nodes),
        "n_suspicious": len(suspicious_images.nodes),
        "n_duplicates": len(duplicate_images.nodes),
    }


def tabulate_labels(
    all_images: JoinedImages,
    found_labels: Labeling,
    next_images: NextImages,
    suspicious_images: SuspiciousLabels,
    duplicate_images: Duplicates,
    labeling: LabelingParameters,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The labels of all images, and what to look at, with names of files."""
    return (
        labels_frame(all_images, found_labels, labeling.unknown),
        next_frame(all_images, found_labels, next_images),
        suspicious_frame(all_images, found_labels, suspicious_images),
        duplicates_frame(all_images, found_labels, duplicate_images),
    )


def plot_labels(
    labeling_graph: LabelingGraph, found_labels: Labeling, labeling: LabelingParameters
) -> tuple[Figure, Figure, Figure, dict[str, bytes]]:
    """Reliability, confusion and a map of all images, also as PNG files for the page."""
    figures = {
        "reliability": reporting.plot_reliability(found_labels.report),
        "confusion": reporting.plot_confusion(found_labels.report),
        "map": _map_of(labeling_graph, found_labels, labeling),
    }
    as_png = {
        name: reporting.png_of(figure)
        for name, figure in figures.items()
        if name != "map" or labeling.map != "none"
    }
    return figures["reliability"], figures["confusion"], figures["map"], as_png


def _map_of(graph: LabelingGraph, found: Labeling, labeling: LabelingParameters) -> Figure:
    if labeling.map == "none":
        return reporting.empty_figure("No map: labeling.map is none.")
    positions = layout_images(
        graph, max_images=labeling.max_map_images, seed=labeling.seed, always=found.given.nodes
    )
    return reporting.plot_image_map(positions, found, unknown=labeling.unknown)


def export_labels(
    all_images: JoinedImages, found_labels: Labeling, labeling: LabelingParameters
) -> tuple[Iterable[Mapping[str, Any]], str, dict[str, Any], pd.DataFrame]:
    """Tasks and configuration for Label Studio; classifications and a table for FiftyOne."""
    return (
        label_studio_tasks(all_images, found_labels),
        label_studio_config(found_labels.given.classes),
        fiftyone_labels(all_images, found_labels),
        fiftyone_frame(all_images, found_labels, labeling.unknown),
    )


def sort_images(
    all_images: JoinedImages,
    found_labels: Labeling,
    labeled_folders: Path,
    labeling: LabelingParameters,
) -> dict[str, Any]:
    """Links to, or copies of, the images in a folder for each label, if that is wanted."""
    if labeling.folder_tree == "none":
        return {"kind": "none"}
    written = write_folder_tree(
        labeled_folders, all_images, found_labels, labeling.folder_tree, labeling.unknown
    )
    return {"kind": labeling.folder_tree, **written._asdict()}


def make_labels_page(
    all_images: JoinedImages,
    labeling_features: JoinedFeatures,
    found_labels: Labeling,
    next_images: NextImages,
    suspicious_images: SuspiciousLabels,
    duplicate_images: Duplicates,
    labels_plots: dict[str, bytes],
    labeling: LabelingParameters,
) -> LabelsPage:
    """The page on which people look at labels and correct them; it is written when it is saved."""
    return LabelsPage(
        all_images,
        found_labels,
        next_images=next_images,
        suspicious=suspicious_images,
        duplicates=duplicate_images,
        broken=labeling_features.broken_images or (),
        plots=labels_plots,
        parameters=labeling,
    )
