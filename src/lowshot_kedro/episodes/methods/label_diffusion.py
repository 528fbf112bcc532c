"""Label diffusion over the graph of one episode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.classifiers import NearestClassMean, nearest_vectors
from lowshot_kedro.classifiers.vectors import unit_vectors
from lowshot_kedro.diffusion import create_backend, labeled_rows, propagation_matrix
from lowshot_kedro.episodes.episode import Episode
from lowshot_kedro.episodes.methods.method import EpisodeMethod, MethodOptions


class LabelDiffusionMethod(EpisodeMethod):
    """Support and query images are the nodes of one k-NN graph over which labels spread.

    Neighbours are the most similar by the cosine. Classes have the same mass. Query images that no
    label has reached are classified by the nearest class mean.

    Args:
        options: What all methods follow.
        k: Neighbours of each image, itself included; all images where there are fewer.
        n_iterations: Steps.
    """

    name = "label_diffusion"
    title = "label diffusion"
    is_transductive = True
    source = (
        "M. Douze, A. Szlam, B. Hariharan and H. Jégou, Low-Shot Learning with Large-Scale "
        "Diffusion, CVPR 2018"
    )

    def __init__(self, options: MethodOptions, k: int = 8, n_iterations: int = 5) -> None:
        super().__init__(options)
        self.k, self.n_iterations = k, n_iterations

    def scores(self, episode: Episode) -> NDArray[np.floating[Any]]:
        """Mass of each class that has come to a query image; cosines where none has."""
        support, query = episode.vectors
        classes = episode.support_classes.astype(np.int32)
        nodes = unit_vectors(np.concatenate([support, query]), "features of the episode")
        index = faiss.IndexFlatIP(nodes.shape[1])
        index.add(nodes)
        graph = nearest_vectors(index, nodes, min(self.k, len(nodes)))
        matrix = propagation_matrix(graph.indices, node_ordering="given")
        # Made here, and not by `propagate`: that logs a line for every graph.
        engine = create_backend("native", matrix)
        engine.start(labeled_rows(classes, 0, episode.n_way))
        for _ in range(self.n_iterations):
            engine.step()
        queries = np.arange(len(support), len(nodes), dtype=np.int32)[:, None]
        scores = engine.read(queries)
        unreached = np.flatnonzero(scores.max(axis=1) == 0)
        if len(unreached):
            means = NearestClassMean(episode.n_way)
            means.fit(support, classes)
            scores[unreached] = means.scores(query[unreached])
        return scores

    def parameters(self) -> Mapping[str, Any]:
        """Neighbours and steps."""
        return {"k": self.k, "n_iterations": self.n_iterations}
