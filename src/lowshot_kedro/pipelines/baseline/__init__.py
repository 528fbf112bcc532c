"""A classifier of the labelled images alone, to compare with: as a rule logistic regression."""

from lowshot_kedro.pipelines.baseline.pipeline import create_pipeline

__all__ = ["create_pipeline"]
