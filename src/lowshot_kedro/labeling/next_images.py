"""Which images to label next."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.blocks import row_ranges
from lowshot_kedro.errors import InputError
from lowshot_kedro.labeling.attention import NextImages
from lowshot_kedro.labeling.labels import Labeling
from lowshot_kedro.labeling.neighborhoods import Neighborhoods
from lowshot_kedro.labeling.nodes import LabelingGraph
from lowshot_kedro.progress import Progress, logged_step

RULE = (
    "Each image is similar to most others that are similar to no labelled image and to none chosen "
    "before, uncertain ones counting up to twice: facility location over the graph (Wei, Iyer "
    "and Bilmes, ICML 2015), which covers images as ProbCover does (Yehuda, Dekel, Hacohen and "
    "Weinshall, NeurIPS 2022), weighted by the margin of their labels."
)

# More neighbours change little, and take longer.
_MAX_NEIGHBORS = 30
_BLOCK_ROWS = 16384


def images_to_label_next(
    graph: LabelingGraph, labeling: Labeling, n: int, seed: int = 0
) -> NextImages:
    """Unlabelled images whose labels would help most: typical of many, uncertain, and unlike.

    An image covers itself by 1, and those that it is linked to, in either direction, by their
    cosine. Chosen is, again and again, the image that adds most to Σ_u w_u max_v cover(v, u), v
    being the labelled images and those chosen before, with w_u = 2 − margin. The sum is
    submodular: gains only fall, so that few have to be looked at again, and the choice reaches
    1 − 1/e of the best there is.

    K. Wei, R. Iyer and J. Bilmes, "Submodularity in Data Subset Selection and Active Learning",
    ICML 2015, have such sums. With cosines and weights of 1 it would be O. Yehuda, A. Dekel, G.
    Hacohen and D. Weinshall, "Active Learning Through a Covering Lens", NeurIPS 2022, with links in
    place of balls of one radius.

    Args:
        graph: The graph over all images.
        labeling: Labels and margins.
        n: How many images are wanted.
        seed: Decides between images with the same gain.

    Returns:
        n images, or all that are neither labelled nor broken, the most helpful first. In memory
        besides: for each image 40 bytes, and 8 for each link that goes one way alone.

    Raises:
        ValueError: For a negative n.
    """
    if n < 0:
        raise InputError(parameter="n", found=n, expected="an integer of at least 0")
    is_labeled = labeling.given.labels >= 0
    candidates = np.setdiff1d(np.flatnonzero(~is_labeled), labeling.broken)
    if n == 0 or len(candidates) == 0:
        return NextImages(np.empty(0, np.int32), RULE)
    candidates = np.random.default_rng(seed).permutation(candidates)
    with logged_step(f"choice of {min(n, len(candidates))} images to label next"):
        coverage = _Coverage(Neighborhoods(graph, _MAX_NEIGHBORS), 2 - labeling.margin)
        coverage.add(np.flatnonzero(is_labeled))
        return NextImages(_greedy(coverage, candidates, min(n, len(candidates))), RULE)


def _greedy(coverage: _Coverage, candidates: NDArray[np.int64], count: int) -> NDArray[np.int32]:
    """Candidates that add most, one after the other; of equal ones the first."""
    gains = np.concatenate(
        [
            coverage.gains(candidates[first:last])
            for first, last in row_ranges(len(candidates), _BLOCK_ROWS)
        ]
    )
    chosen = np.empty(count, np.int32)
    with Progress(count, "images to label next") as progress:
        for number in range(count):
            while True:
                place = int(gains.argmax())
                node = candidates[place : place + 1]
                gain = coverage.gains(node)[0]
                if gain == gains[place]:
                    break
                gains[place] = gain
            coverage.add(node)
            gains[place] = -1
            chosen[number] = node[0]
            progress.update(1)
    return chosen


class _Coverage:
    """How well images are covered.

    Args:
        neighborhoods: The links.
        weights: (N,), how much each image counts.
    """

    def __init__(self, neighborhoods: Neighborhoods, weights: NDArray[np.floating]) -> None:
        self._neighborhoods = neighborhoods
        self._weights = weights.astype(np.float64)
        self._covered = np.zeros(len(weights), np.float32)

    def add(self, nodes: NDArray[np.int64]) -> None:
        """Cover what nodes are linked to."""
        for first, last in row_ranges(len(nodes), _BLOCK_ROWS):
            links = self._neighborhoods.of(nodes[first:last])
            np.maximum.at(self._covered, links.nodes, np.minimum(links.similarities, 1))

    def gains(self, nodes: NDArray[np.int64]) -> NDArray[np.float64]:
        """What each of some nodes would add, float64 (m,)."""
        links = self._neighborhoods.of(nodes)
        cosines = np.minimum(links.similarities, 1)
        added = self._weights[links.nodes] * np.maximum(cosines - self._covered[links.nodes], 0)
        return np.bincount(links.rows, added, minlength=len(nodes)).astype(np.float64)
