"""From pictures to feature vectors."""

from kedro.pipeline import Pipeline, node, pipeline

from lowshot_kedro.pipelines.features.nodes import extract_features


def create_pipeline() -> Pipeline:
    """Pictures → features and labels, for each of the three collections."""
    return pipeline(
        [
            node(
                extract_features,
                inputs=[f"{collection}_images", "params:features"],
                outputs=f"{collection}_features",
                name=f"extract_{collection}_features",
            )
            for collection in ("train", "test", "background")
        ]
    )
