"""From feature vectors to the vectors of the graph."""

from kedro.pipeline import Pipeline, node, pipeline

from lowshot_kedro.pipelines.pca.nodes import apply_pca, plot_pca_spectrum, train_pca


def create_pipeline() -> Pipeline:
    """Background features → transform, with a plot of its spectrum → background vectors."""
    return pipeline(
        [
            node(
                train_pca,
                inputs=["background_features", "params:pca"],
                outputs="pca_transform",
                name="train_pca",
            ),
            node(
                plot_pca_spectrum,
                inputs="pca_transform",
                outputs="pca_spectrum_plot",
                name="plot_pca_spectrum",
            ),
            node(
                apply_pca,
                inputs=["pca_transform", "background_features"],
                outputs="background_vectors",
                name="apply_pca",
            ),
        ],
        namespace="pca",
        prefix_datasets_with_namespace=False,
    )
