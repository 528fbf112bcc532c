"""A network trained by SNCA, and what its embeddings are worth."""

from lowshot_kedro.pipelines.snca.pipeline import create_pipeline

__all__ = ["create_pipeline"]
