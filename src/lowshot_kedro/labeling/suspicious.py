"""Given labels that are probably wrong."""

from __future__ import annotations

import numpy as np

from lowshot_kedro.labeling.attention import SuspiciousLabels
from lowshot_kedro.labeling.labels import Labeling
from lowshot_kedro.labeling.nodes import LabelingGraph

RULE = (
    "Labels less probable, when they are held out, than another class, those with the largest "
    "difference first (the margin of confident learning: Northcutt, Jiang and Chuang, JAIR 2021)."
)


def suspicious_labels(graph: LabelingGraph, labeling: Labeling) -> SuspiciousLabels:
    """Labelled images that their neighbours contradict, most suspicious first.

    Args:
        graph: The graph over all images.
        labeling: Given labels, and what was predicted for those that were held out.

    Returns:
        Those for which another class is more probable.
    """
    held_out = labeling.held_out
    given = labeling.given.labels[held_out.nodes]
    probabilities = held_out.probabilities
    suggested = probabilities.argmax(axis=1).astype(np.int32)
    rows = np.arange(len(given))
    suspicion = (probabilities[rows, suggested] - probabilities[rows, given] + 1) / 2
    found = np.flatnonzero(probabilities.any(axis=1) & (suggested != given))
    order = found[np.argsort(-suspicion[found], kind="stable")]
    return SuspiciousLabels(
        held_out.nodes[order], suspicion[order].astype(np.float32), suggested[order], RULE
    )
