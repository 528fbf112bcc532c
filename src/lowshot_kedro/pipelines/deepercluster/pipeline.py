"""A network that learns from images without labels, and the clusters that it makes of them."""

from kedro.pipeline import Pipeline, node, pipeline

from lowshot_kedro.pipelines.deepercluster.nodes import (
    cluster_images,
    plot_cluster_panel,
    plot_deepercluster_curves,
    train_deepercluster,
)


def create_pipeline(images: str = "background_images") -> Pipeline:
    """Images → network and table of epochs → clusters of the trained network → plots.

    Nodes with the tag `clusters` have nothing to do for RotNet, which has none.

    Args:
        images: The dataset of the images: `deepercluster_images` where the parameter
            `deepercluster.images_path` names a folder.
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
                tags="clusters",
            ),
            node(
                plot_deepercluster_curves,
                inputs="deepercluster_training",
                outputs="deepercluster_curves_plot",
                name="plot_deepercluster_curves",
            ),
            node(
                plot_cluster_panel,
                inputs=[images, "deepercluster_clustering", "params:deepercluster"],
                outputs="cluster_panel_plot",
                name="plot_cluster_panel",
                tags="clusters",
            ),
        ],
        namespace="deepercluster",
        prefix_datasets_with_namespace=False,
    )
