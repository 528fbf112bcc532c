"""Few-shot episodes: every method over the same ones."""

from lowshot_kedro.pipelines.episodes.pipeline import create_pipeline

__all__ = ["create_pipeline"]
