"""The methods side by side: their combination, tables and plots."""

from kedro.pipeline import Pipeline, node, pipeline

from lowshot_kedro.pipelines.evaluation.nodes import (
    combine_methods,
    compare_methods,
    plot_accuracy_per_step,
    plot_methods,
    plot_neighbors,
)


def create_pipeline() -> Pipeline:
    """Scores and metrics of both methods → combination, table and plots."""
    return pipeline(
        [
            node(
                combine_methods,
                inputs=[
                    "diffusion_scores",
                    "baseline_scores",
                    "diffusion_metrics",
                    "baseline_metrics",
                    "params:experiment",
                    "params:evaluation",
                ],
                outputs="combined_metrics",
                name="combine_methods",
            ),
            node(
                compare_methods,
                inputs=[
                    "baseline_metrics",
                    "diffusion_metrics",
                    "combined_metrics",
                    "params:evaluation",
                ],
                outputs="metrics_table",
                name="compare_methods",
            ),
            node(
                plot_accuracy_per_step,
                inputs=["diffusion_metrics", "baseline_metrics", "params:evaluation"],
                outputs="accuracy_per_step_plot",
                name="plot_accuracy_per_step",
            ),
            node(
                plot_methods,
                inputs=["metrics_table", "params:evaluation"],
                outputs="methods_plot",
                name="plot_methods",
            ),
            node(
                plot_neighbors,
                inputs=[
                    "class_split",
                    "train_features",
                    "test_features",
                    "test_neighbors",
                    "diffusion_scores",
                    "train_images",
                    "test_images",
                    "background_images",
                    "params:experiment",
                    "params:evaluation",
                ],
                outputs="neighbors_plot",
                name="plot_neighbors",
            ),
        ],
        namespace="evaluation",
        prefix_datasets_with_namespace=False,
    )
