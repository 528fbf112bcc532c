"""Nodes of DeeperCluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lowshot_kedro import reporting
from lowshot_kedro.blocks import TableBlocks
from lowshot_kedro.deepercluster.assignment_table import assignment_table
from lowshot_kedro.deepercluster.assignments import Clustering
from lowshot_kedro.deepercluster.panel import choose_clusters
from lowshot_kedro.deepercluster.parameters import DeeperClusterParameters
from lowshot_kedro.images import ImageSource
from lowshot_kedro.parameters import in_section

# And the header that says what they are of.
TensorsAndHeader = tuple[dict[str, Any], dict[str, str]]


def train_deepercluster(
    images: ImageSource, deepercluster: DeeperClusterParameters, deepercluster_checkpoints: Path
) -> tuple[TensorsAndHeader, pd.DataFrame]:
    """Train a network; if that has been stopped before, from the last checkpoint on."""
    # Whoever runs another pipeline may have no PyTorch.
    from lowshot_kedro.deepercluster import DeeperClusterJob
    from lowshot_kedro.deepercluster import train_deepercluster as train

    job = DeeperClusterJob(images, deepercluster, deepercluster_checkpoints)
    trained = in_section("deepercluster", lambda: train(job))
    return (trained.network, trained.description.to_metadata()), pd.DataFrame(trained.table)


def cluster_images(
    images: ImageSource,
    deepercluster_network: TensorsAndHeader,
    deepercluster: DeeperClusterParameters,
    deepercluster_checkpoints: Path,
) -> tuple[Clustering, TableBlocks, dict[str, NDArray[Any]], dict[str, Any]]:
    """The clusters of all images by the trained network.

    Args:
        images: The images that it was trained on.
        deepercluster_network: Not looked at: the network is in the last checkpoint. When it is
            there, the training is done.
        deepercluster: How it was trained.
        deepercluster_checkpoints: Where checkpoints and clusterings lie.
    """
    from lowshot_kedro.deepercluster import DeeperClusterJob, cluster_trained

    job = DeeperClusterJob(images, deepercluster, deepercluster_checkpoints)
    clustering = in_section("deepercluster", lambda: cluster_trained(job))
    table = assignment_table(images, clustering)
    return clustering, table, clustering.centroid_arrays(), clustering.report


def plot_deepercluster_curves(deepercluster_training: pd.DataFrame) -> Figure:
    """Losses and accuracies of the epochs, and what the clusterings between them were like."""
    return reporting.plot_clustering_curves(deepercluster_training)


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
