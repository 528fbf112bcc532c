"""Label diffusion: labels propagated over the graph with labelled images inserted."""

from lowshot_kedro.pipelines.diffusion.pipeline import create_pipeline

__all__ = ["create_pipeline"]
