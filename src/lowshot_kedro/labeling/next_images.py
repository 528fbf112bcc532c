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
    "Each image is linked to most others that no labelled image and none chosen before is linked "
    "to, uncertain ones counting up to six times: ProbCover (Yehuda, Dekel, Hacohen and Weinshall, "
    "NeurIPS 2022) over the graph, weighted by the margin of the labels."
)

# More neighbours change little, and take longer.
_MAX_NEIGHBORS = 30
# What an image counts whose label is certain, beside 1 minus the margin.
_CERTAIN = 0.2
_BLOCK_ROWS = 16384


def images_to_label_next(
    graph: LabelingGraph, labeling: Labeling, n: int, seed: int = 0
) -> NextImages:
    """Unlabelled images whose labels would help most: typical of many, uncertain, and unlike.

    An image covers itself and those that it is linked to, in either direction. Chosen is, again and
    again, the image with the largest sum of w = 1.2 − margin over what it covers and no labelled
    image, and none chosen before, has covered; when all are covered, all count anew. The sum is
    submodular: gains only fall, so that few have to be looked at again, and the choice reaches
    1 − 1/e of the best there is.

    This is O. Yehuda, A. Dekel, G. Hacohen and D. Weinshall, "Active Learning Through a Covering
    Lens", NeurIPS 2022, with links in place of balls of one radius, so that it needs no radius, and
    with weights, as K. Wei, R. Iyer and J. Bilmes, "Submodularity in Data Subset Selection and
    Active Learning", ICML 2015, combine coverage and uncertainty.

    Args:
        graph: The graph over all images.
        labeling: Labels and margins.
        n: How many images are wanted.
        seed: Decides between images with the same gain.

    Returns:
        n images, or all that are not labelled, the most helpful first. In memory besides: for each
        image 40 bytes, and 8 for each link that goes one way alone.

    Raises:
        ValueError: For a negative n.
    """
    if n < 0:
        raise InputError(parameter="n", found=n, expected="an integer of at least 0")
    is_labeled = labeling.given.labels >= 0
    candidates = np.flatnonzero(~is_labeled)
    if n == 0 or len(candidates) == 0:
        return NextImages(np.empty(0, np.int32), RULE)
    candidates = np.random.default_rng(seed).permutation(candidates)
    with logged_step(f"choice of {min(n, len(candidates))} images to label next"):
        coverage = _Coverage(Neighborhoods(graph, _MAX_NEIGHBORS), 1 + _CERTAIN - labeling.margin)
        coverage.add(np.flatnonzero(is_labeled))
        return NextImages(_greedy(coverage, candidates, min(n, len(candidates))), RULE)


def _greedy(coverage: _Coverage, candidates: NDArray[np.int64], count: int) -> NDArray[np.int32]:
    """Candidates that add most, one after the other; of equal ones the first."""
    gains = _all_gains(coverage, candidates)
    chosen = np.empty(count, np.int32)
    with Progress(count, "images to label next") as progress:
        for number in range(count):
            while True:
                place = int(gains.argmax())
                if gains[place] == 0:
                    coverage.forget()
                    gains = np.where(gains < 0, gains, _all_gains(coverage, candidates))
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


def _all_gains(coverage: _Coverage, nodes: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.concatenate(
        [coverage.gains(nodes[first:last]) for first, last in row_ranges(len(nodes), _BLOCK_ROWS)]
    )


class _Coverage:
    """Which images are covered.

    Args:
        neighborhoods: The links.
        weights: (N,), how much each image counts.
    """

    def __init__(self, neighborhoods: Neighborhoods, weights: NDArray[np.floating]) -> None:
        self._neighborhoods = neighborhoods
        self._weights = weights.astype(np.float64)
        self._is_open = np.ones(len(weights), np.bool_)

    def add(self, nodes: NDArray[np.int64]) -> None:
        """Cover nodes and those that they are linked to."""
        for first, last in row_ranges(len(nodes), _BLOCK_ROWS):
            self._is_open[self._neighborhoods.of(nodes[first:last]).nodes] = False

    def forget(self) -> None:
        """Let nothing be covered."""
        self._is_open[:] = True

    def gains(self, nodes: NDArray[np.int64]) -> NDArray[np.float64]:
        """What each of some nodes would add, float64 (m,)."""
        links = self._neighborhoods.of(nodes)
        added = self._weights[links.nodes] * self._is_open[links.nodes]
        return np.bincount(links.rows, added, minlength=len(nodes)).astype(np.float64)
