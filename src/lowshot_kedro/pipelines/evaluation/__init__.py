"""The methods side by side."""

from lowshot_kedro.pipelines.evaluation.pipeline import create_pipeline

__all__ = ["create_pipeline"]
