"""A network that learns from images without labels, and the clusters that it makes of them."""

from lowshot_kedro.pipelines.deepercluster.pipeline import create_pipeline

__all__ = ["create_pipeline"]
