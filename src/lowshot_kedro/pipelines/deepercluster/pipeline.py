"""A network that learns from images without labels, and the clusters that it makes of them."""

from kedro.pipeline import Pipeline, node, pipeline
from kedro.pipeline.node import Node

from lowshot_kedro.pipelines.deepercluster.nodes import (
    cluster_images,
    plot_cluster_panel,
    plot_deepercluster_curves,
    train_deepercluster,
)


def create_pipeline(images: str = "background_images", has_clusters: bool = True) -> Pipeline:
    """Images → network and table of epochs → clusters of the trained network → plots.

    Args:
        images: The dataset of the images: `unlabeled_images` where the parameter
            `deepercluster.images_path` names a folder.
        has_clusters: Whether there are any: RotNet, with `deepercluster.n_clusters` 1, has none.
    """
    return pipeline(
        [
            node(
                train_deepercluster,
                inputs=[images, "params:deepercluster", "deepercluster_checkpoints"],
                outputs=["deepercluster_network", "deepercluster_training"],
                name="train_deepercluster",
            ),
            node(
                plot_deepercluster_curves,
                inputs="deepercluster_training",
                outputs="deepercluster_curves_plot",
                name="plot_deepercluster_curves",
            ),
            *(_clusters(images) if has_clusters else ()),
        ],
        namespace="deepercluster",
        prefix_datasets_with_namespace=False,
    )


def _clusters(images: str) -> tuple[Node, ...]:
    return (
        node(
            cluster_images,
            inputs=[
                images,
                "deepercluster_network",
                "params:deepercluster",
                "deepercluster_checkpoints",
            ],
            outputs=[
                "deepercluster_clustering",
                "cluster_assignments",
                "cluster_centroids",
                "cluster_report",
            ],
            name="cluster_images",
        ),
        node(
            plot_cluster_panel,
            inputs=[images, "deepercluster_clustering", "params:deepercluster"],
            outputs="cluster_panel_plot",
            name="plot_cluster_panel",
        ),
    )
