"""The k-NN graph over the background."""

from lowshot_kedro.pipelines.graph.pipeline import create_pipeline

__all__ = ["create_pipeline"]
