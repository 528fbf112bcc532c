"""Label diffusion: labels propagated over the graph with labelled images inserted."""

from kedro.pipeline import Pipeline, node, pipeline

from lowshot_kedro.pipelines.diffusion.nodes import (
    choose_unlabeled_images,
    diffuse,
    insert_labeled_nodes,
    reduce_features,
)
from lowshot_kedro.pipelines.selection import select_images_node


def create_pipeline() -> Pipeline:
    """Chosen images and background graph → extended graph → scores and metrics."""
    return pipeline(
        [
            select_images_node(),
            node(
                reduce_features,
                inputs=[
                    "image_selection",
                    "train_features",
                    "test_features",
                    "pca_transform",
                    "params:experiment",
                ],
                outputs=["training_vectors", "test_vectors"],
                name="reduce_features",
            ),
            node(
                choose_unlabeled_images,
                inputs=[
                    "image_selection",
                    "train_features",
                    "pca_transform",
                    "background_vectors",
                    "background_index",
                    "background_graph",
                    "params:experiment",
                    "params:graph",
                ],
                outputs="unlabeled_images",
                name="choose_unlabeled_images",
            ),
            node(
                insert_labeled_nodes,
                inputs=[
                    "training_vectors",
                    "test_vectors",
                    "unlabeled_images",
                    "params:graph",
                    "params:diffusion",
                ],
                outputs=[
                    "extended_graph",
                    "test_neighbors",
                    "inserted_links_quality",
                    "graph_seconds",
                ],
                name="insert_labeled_nodes",
            ),
            node(
                diffuse,
                inputs=[
                    "extended_graph",
                    "test_neighbors",
                    "image_selection",
                    "graph_seconds",
                    "params:experiment",
                    "params:graph",
                    "params:diffusion",
                    "params:evaluation",
                ],
                outputs=["diffusion_scores", "diffusion_metrics"],
                name="diffuse",
            ),
        ],
        namespace="diffusion",
        prefix_datasets_with_namespace=False,
        outputs={"image_selection": "diffusion.image_selection"},
    )
