"""Nearest neighbours by the cosine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.classifiers import NearestNeighbors
from lowshot_kedro.episodes.episode import Episode
from lowshot_kedro.episodes.methods.method import EpisodeMethod, MethodOptions


class NearestNeighborsMethod(EpisodeMethod):
    """Votes of the k support images that are most similar, each as heavy as its cosine.

    Args:
        options: What all methods follow.
        k: Neighbours; all support images where there are fewer. With one support image a class
            every k gives the class of the nearest one, and with five 1 has been better than more.
    """

    name = "nearest_neighbors"
    title = "nearest neighbours"
    source = (
        "S. A. Dudani, The Distance-Weighted k-Nearest-Neighbor Rule, IEEE Transactions on "
        "Systems, Man, and Cybernetics, 1976"
    )

    def __init__(self, options: MethodOptions, k: int = 1) -> None:
        super().__init__(options)
        self.k = k

    def scores(self, episode: Episode) -> NDArray[np.floating[Any]]:
        """Sums of cosines, at least 0; the cosine of the nearest where all point the other way."""
        support, query = episode.vectors
        k = min(self.k, len(support))
        classifier = NearestNeighbors(episode.n_way, k=k)
        classifier.fit(support, episode.support_classes.astype(np.int32))
        votes = classifier.scores(query)
        without = np.flatnonzero(votes.max(axis=1) == 0)
        if len(without):
            votes[without] = _largest_cosines(episode, without)
        return votes

    def parameters(self) -> Mapping[str, Any]:
        """The number of neighbours."""
        return {"k": self.k}


def _largest_cosines(episode: Episode, queries: NDArray[np.int64]) -> NDArray[np.float32]:
    """Cosine with the most similar support image of each class, float32 (m, n_way)."""
    support, query = (
        vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in episode.vectors
    )
    cosines = query[queries] @ support.T
    largest: NDArray[np.float32] = cosines.reshape(len(queries), episode.n_shot, episode.n_way).max(
        axis=1
    )
    return largest
