"""The methods side by side: their combination, tables and plots."""

from lowshot_kedro.pipelines.evaluation.pipeline import create_pipeline

__all__ = ["create_pipeline"]
