"""From feature vectors to the vectors of the graph."""

from lowshot_kedro.pipelines.pca.pipeline import create_pipeline

__all__ = ["create_pipeline"]
