"""Logistic regression on the labelled images."""

from lowshot_kedro.pipelines.baseline.pipeline import create_pipeline

__all__ = ["create_pipeline"]
