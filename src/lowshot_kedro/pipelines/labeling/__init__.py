"""Labels for all images, a page to look at them, and files for other tools."""

from lowshot_kedro.pipelines.labeling.pipeline import create_pipeline

__all__ = ["create_pipeline"]
