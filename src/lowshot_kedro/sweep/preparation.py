"""What a sweep looks at before its runs begin."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any, Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from lowshot_kedro import graph as graph_domain
from lowshot_kedro.errors import InputError
from lowshot_kedro.experiment import choose_images
from lowshot_kedro.matrices import FeatureMatrix
from lowshot_kedro.parameters import ExperimentParameters, GraphParameters, SweepParameters
from lowshot_kedro.pca import describe_features, describe_transform
from lowshot_kedro.sweep.plan import ImageCounts, Settings, SweepData, largest_k


class Catalog(Protocol):
    """Datasets by name."""

    def load(self, name: str) -> Any:
        """Open a dataset."""
        ...

    def save(self, name: str, data: Any) -> None:
        """Write a dataset."""
        ...


def build_background_graph(catalog: Catalog, parameters: GraphParameters) -> None:
    """Build index and graph over a background, as far as they are not there.

    Args:
        catalog: Its `background_vectors` are those of this background.
        parameters: How they are built.
    """
    vectors = catalog.load("background_vectors")
    if len(vectors) == 0:
        return
    how = (parameters.method, parameters.target_recall, parameters.memory_budget_bytes)
    stored_k = catalog.load("params:graph").stored_k
    catalog.save("background_index", graph_domain.build_index(vectors, *how))
    index = catalog.load("background_index")
    catalog.save("background_graph", graph_domain.background_graph(index, vectors, stored_k, *how))


def describe_data(
    class_split: Mapping[str, Any],
    train_features: FeatureMatrix,
    test_features: FeatureMatrix,
    pca_transform: faiss.VectorTransform,
    backgrounds: Mapping[int | None, graph_domain.UnlabeledNodes],
    settings: Settings,
) -> SweepData:
    """Sizes and checksums of the data, after a look whether all runs are possible.

    Args:
        class_split: Content of the class split file.
        train_features: The training set.
        test_features: The test set.
        pca_transform: The PCA.
        backgrounds: By `graph.n_background`.
        settings: Parameters.

    Raises:
        ValueError: If classes have too few images, or a graph too few nodes.
    """
    sweep = settings.sweep
    counts = {}
    for mode in ("val", "test"):
        for n_labeled in sweep.n_labeled:
            experiment = ExperimentParameters(mode, n_labeled, sweep.seeds[0], "none")
            selection = choose_images(class_split, train_features, test_features, experiment)
            counts[mode, n_labeled] = ImageCounts(
                len(selection.labeled_positions),
                len(selection.unlabeled_positions),
                len(selection.test_positions),
                selection.n_classes,
            )
            _require_enough_images(counts[mode, n_labeled], n_labeled, backgrounds, sweep)
    facts = {
        "class_split": _checksum(json.dumps(class_split, sort_keys=True).encode()),
        "train_features": _describe_labeled(train_features),
        "test_features": _describe_labeled(test_features),
        "pca_transform": describe_transform(pca_transform),
    }
    return SweepData(
        counts,
        {n_background: len(nodes.vectors) for n_background, nodes in backgrounds.items()},
        train_features.n_columns,
        pca_transform.d_out,
        facts,
        {
            n_background: {
                "vectors": graph_domain.describe_vectors(nodes.vectors),
                "index": graph_domain.describe_index(nodes.search_index),
                "graph": graph_domain.describe_vectors(nodes.neighbors.indices),
            }
            for n_background, nodes in backgrounds.items()
        },
    )


def _require_enough_images(
    counts: ImageCounts,
    n_labeled: int,
    backgrounds: Mapping[int | None, graph_domain.UnlabeledNodes],
    sweep: SweepParameters,
) -> None:
    """Refuse more neighbours than there are images, before the first run."""

    def require(name: str, k: int, n_images: int, images: str) -> None:
        if k > n_images:
            raise InputError(
                f"sweep.{name}: got {k}, but with n_labeled = {n_labeled} there are only "
                f"{n_images} {images}"
            )

    if "nearest_neighbors" in sweep.methods:
        most = max(sweep.nearest_neighbors.k)
        require("nearest_neighbors.k", most, counts.n_labeled, "labelled images")
    for unlabeled in sweep.unlabeled_images:
        n_training = counts.n_labeled
        if unlabeled.kind != "background":
            n_training += counts.n_unlabeled
        nodes = None if unlabeled.kind == "train" else backgrounds[unlabeled.n_background]
        n_images = n_training + (0 if nodes is None else len(nodes.vectors))
        images = f"labelled and unlabelled images ({unlabeled.name})"
        if "label_spreading" in sweep.methods:
            require(
                "label_spreading.n_neighbors", sweep.label_spreading.n_neighbors, n_images, images
            )
        if "diffusion" in sweep.methods:
            k = largest_k(sweep)
            require("diffusion.k", k, n_images, images)
            if nodes is not None:
                graph_domain.require_sizes(n_training, *nodes, k=k)


def _describe_labeled(features: FeatureMatrix) -> dict[str, Any]:
    labels: NDArray[np.int32] = np.ascontiguousarray(features.labels)
    return {**describe_features(features), "labels": _checksum(labels.tobytes())}


def _checksum(content: bytes) -> str:
    return f"{zlib.crc32(content):08x}"
