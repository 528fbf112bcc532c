"""From images to feature vectors."""

from lowshot_kedro.pipelines.features.pipeline import create_pipeline

__all__ = ["create_pipeline"]
