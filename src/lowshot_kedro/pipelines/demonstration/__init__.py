"""Handwritten digits to try everything on."""

from lowshot_kedro.pipelines.demonstration.pipeline import create_pipeline

__all__ = ["create_pipeline"]
