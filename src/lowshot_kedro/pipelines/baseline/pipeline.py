"""A classifier of the labelled images alone: logistic regression, or another that needs no more."""

from kedro.pipeline import Pipeline, node, pipeline

from lowshot_kedro.pipelines.baseline.nodes import train_baseline
from lowshot_kedro.pipelines.selection import select_images_node


def create_pipeline() -> Pipeline:
    """Features of the chosen images → a classifier, its scores and its metrics."""
    return pipeline(
        [
            select_images_node(),
            node(
                train_baseline,
                inputs=[
                    "image_selection",
                    "train_features",
                    "test_features",
                    "params:experiment",
                    "params:evaluation",
                    "parameters",
                ],
                outputs=["logistic_regression", "baseline_scores", "baseline_metrics"],
                name="train_baseline",
            ),
        ],
        namespace="baseline",
        prefix_datasets_with_namespace=False,
        outputs={"image_selection": "baseline.image_selection"},
    )
