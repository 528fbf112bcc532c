"""Handwritten digits to try everything on."""

from kedro.pipeline import Pipeline, node, pipeline

from lowshot_kedro.pipelines.demonstration.nodes import write_digits


def create_pipeline() -> Pipeline:
    """Parameters → images in the layout of the published experiment."""
    return pipeline(
        [
            node(
                write_digits,
                inputs="params:demonstration",
                outputs=["train_images", "test_images", "background_images", "class_split"],
                name="write_digits",
            )
        ],
        namespace="demonstration",
        prefix_datasets_with_namespace=False,
    )
