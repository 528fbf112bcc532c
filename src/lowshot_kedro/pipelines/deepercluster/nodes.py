"""Nodes of DeeperCluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from lowshot_kedro import reporting
from lowshot_kedro.deepercluster.assignments import Clustering
from lowshot_kedro.deepercluster.panel import choose_clusters
from lowshot_kedro.deepercluster.parameters import DeeperClusterParameters
from lowshot_kedro.images import ImageSource
from lowshot_kedro.parameters import in_section

# Tensors by name, and the header that says what they are of.
NetworkFile = tuple[dict[str, Any], dict[str, str]]


def train_deepercluster(
    images: ImageSource, deepercluster: DeeperClusterParameters, deepercluster_checkpoints: Path
) -> tuple[NetworkFile, pd.DataFrame]:
    """Train a network; if that has been stopped before, from the last checkpoint on."""
    from lowshot_kedro.deepercluster.training import DeeperClusterJob
    from lowshot_kedro.deepercluster.training import train_deepercluster as train

    job = DeeperClusterJob(images, deepercluster, deepercluster_checkpoints)
    trained = in_section("deepercluster", lambda: train(job))
    return (trained.network, trained.description.to_metadata()), pd.DataFrame(trained.table)


def cluster_images(
    images: ImageSource,
    deepercluster_network: NetworkFile,
    deepercluster: DeeperClusterParameters,
    deepercluster_checkpoints: Path,
) -> Any:
    """Clusters of all images by the trained network, as it clusters them while it is trained."""


def plot_deepercluster_curves(deepercluster_training: pd.DataFrame) -> Figure:
    """Losses and accuracies of the epochs, and what the clusterings between them were like."""
    return reporting.plot_training_curves(deepercluster_training)


def plot_cluster_panel(
    images: ImageSource,
    deepercluster_clustering: Clustering,
    deepercluster: DeeperClusterParameters,
) -> Figure:
    """Images of the largest clusters, and of the tightest."""
    chosen = choose_clusters(
        deepercluster_clustering, deepercluster.n_clusters_shown, deepercluster.n_images
    )
    return reporting.plot_cluster_panel(images, chosen)
