"""Few-shot episodes (n-way n-shot): data sets, sampler, methods, evaluation with intervals."""

from __future__ import annotations

from lowshot_kedro.episodes.confidence import RunningConfidence, confidence_interval
from lowshot_kedro.episodes.sampler import EpisodeSampler

__all__ = ["EpisodeSampler", "RunningConfidence", "confidence_interval"]
