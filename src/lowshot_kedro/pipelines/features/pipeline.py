"""From pictures to feature vectors."""

from kedro.pipeline import Pipeline, node, pipeline

from lowshot_kedro.pipelines.features.nodes import extract_features, list_broken_pictures


def create_pipeline() -> Pipeline:
    """Pictures → features and labels for each of the three collections → broken pictures."""
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
                list_broken_pictures,
                inputs=["train_features", "test_features", "background_features"],
                outputs="broken_pictures",
                name="list_broken_pictures",
            ),
        ],
        namespace="features",
        prefix_datasets_with_namespace=False,
    )
