"""The paper's experiments: a search on validation classes, then test runs over seeds."""

from lowshot_kedro.pipelines.sweep.pipeline import create_pipeline

__all__ = ["create_pipeline"]
