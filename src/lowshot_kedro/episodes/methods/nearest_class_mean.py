"""Nearest class mean by the cosine."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.classifiers import NearestClassMean
from lowshot_kedro.episodes.episode import Episode
from lowshot_kedro.episodes.methods.method import EpisodeMethod


class NearestClassMeanMethod(EpisodeMethod):
    """Cosines between a query image and the mean of each class, all vectors of length 1."""

    name = "nearest_class_mean"
    title = "nearest class mean"
    source = (
        "T. Mensink, J. Verbeek, F. Perronnin and G. Csurka, Distance-Based Image Classification: "
        "Generalizing to New Classes at Near-Zero Cost, TPAMI 2013"
    )

    def scores(self, episode: Episode) -> NDArray[np.floating[Any]]:
        """Cosines, -1..1."""
        support, query = episode.vectors
        classifier = NearestClassMean(episode.n_way)
        classifier.fit(support, episode.support_classes.astype(np.int32))
        return classifier.scores(query)
