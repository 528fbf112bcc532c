"""A network trained by SNCA, and what its embeddings are worth."""

from kedro.pipeline import Pipeline, node, pipeline

from lowshot_kedro.pipelines.snca.nodes import (
    embed_images,
    evaluate_snca,
    plot_snca_curves,
    plot_snca_neighbors,
    train_snca,
)


def create_pipeline() -> Pipeline:
    """Images → network, bank and table of epochs → embeddings → accuracies and plots."""
    return pipeline(
        [
            node(
                train_snca,
                inputs=[
                    "train_images",
                    "test_images",
                    "class_split",
                    "params:snca",
                    "params:experiment",
                    "snca_checkpoints",
                ],
                outputs=["snca_network", "snca_bank", "snca_training"],
                name="train_snca",
            ),
            *(
                node(
                    embed_images,
                    inputs=[f"{collection}_images", "snca_network", "params:snca"],
                    outputs=f"snca_{collection}_features",
                    name=f"embed_{collection}_images",
                )
                for collection in ("train", "test")
            ),
            node(
                evaluate_snca,
                inputs=[
                    "snca_network",
                    "snca_bank",
                    "snca_train_features",
                    "snca_test_features",
                    "train_images",
                    "test_images",
                    "class_split",
                    "params:snca",
                    "params:experiment",
                ],
                outputs="snca_metrics",
                name="evaluate_snca",
            ),
            node(
                plot_snca_curves,
                inputs="snca_training",
                outputs="snca_curves_plot",
                name="plot_snca_curves",
            ),
            node(
                plot_snca_neighbors,
                inputs=[
                    "snca_train_features",
                    "snca_test_features",
                    "train_images",
                    "test_images",
                    "class_split",
                    "params:snca",
                    "params:experiment",
                ],
                outputs="snca_neighbors_plot",
                name="plot_snca_neighbors",
            ),
        ],
        namespace="snca",
        prefix_datasets_with_namespace=False,
    )
