"""Logistic regression on the labelled images."""

from kedro.pipeline import Pipeline, node, pipeline

from lowshot_kedro.pipelines.baseline.nodes import train_logistic_regression
from lowshot_kedro.pipelines.selection import select_images_node


def create_pipeline() -> Pipeline:
    """Features of the chosen images → a linear classifier, its scores and its metrics."""
    return pipeline(
        [
            select_images_node(),
            node(
                train_logistic_regression,
                inputs=[
                    "image_selection",
                    "train_features",
                    "test_features",
                    "params:experiment",
                    "params:logistic_regression",
                    "params:evaluation",
                ],
                outputs=["logistic_regression", "baseline_scores", "baseline_metrics"],
                name="train_logistic_regression",
            ),
        ],
        namespace="baseline",
        prefix_datasets_with_namespace=False,
        outputs={"image_selection": "baseline.image_selection"},
    )
