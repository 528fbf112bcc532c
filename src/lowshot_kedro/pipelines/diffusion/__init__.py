"""Label propagation over the graph with labelled images."""

from lowshot_kedro.pipelines.diffusion.pipeline import create_pipeline

__all__ = ["create_pipeline"]
