"""Label propagation over the completed graph."""

from lowshot_kedro.pipelines.diffusion.pipeline import create_pipeline

__all__ = ["create_pipeline"]
