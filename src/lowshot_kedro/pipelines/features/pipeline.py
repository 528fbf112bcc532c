"""From images to feature vectors."""

from kedro.pipeline import Pipeline, node, pipeline

from lowshot_kedro.pipelines.features.nodes import extract_features, list_broken_images


def create_pipeline() -> Pipeline:
    """Images → features and labels for each of the three collections → broken images."""
    return pipeline(
        [
            *(
                node(
                    extract_features,
                    inputs=[f"{collection}_images", "params:features"],
                    outputs=f"{collection}_features",
                    name=f"extract_{collection}_features",
                )
                for collection in ("train", "test", "background")
            ),
            node(
                list_broken_images,
                inputs=["train_features", "test_features", "background_features"],
                outputs="broken_images",
                name="list_broken_images",
            ),
        ],
        namespace="features",
        prefix_datasets_with_namespace=False,
    )
