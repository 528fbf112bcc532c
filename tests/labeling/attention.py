"""Graphs and labellings for the tests of what a person should look at."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.labeling.given_labels import GivenLabels
from lowshot_kedro.labeling.labels import HeldOutLabels, Labeling
from lowshot_kedro.labeling.nodes import LabelingGraph, NodeVectors


def graph_of(vectors: NDArray[np.floating], k: int, n_first: int = 0) -> LabelingGraph:
    """The k nearest of all vectors, by comparison with all; the first ones are labelled."""
    vectors = np.asarray(vectors, np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = vectors / np.where(lengths == 0, 1, lengths)
    cosines = vectors @ vectors.T
    neighbors = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    return LabelingGraph(
        neighbors.astype(np.int32),
        np.take_along_axis(cosines, neighbors, axis=1),
        NodeVectors(vectors[:n_first], vectors[n_first:]),
    )


def given_labels(
    labels: NDArray[np.integer], groups: NDArray[np.integer] | None = None
) -> GivenLabels:
    names = tuple(f"class {number}" for number in range(int(labels.max(initial=1)) + 1))
    return GivenLabels(
        names, labels.astype(np.int32), None if groups is None else groups.astype(np.int32)
    )


def labeling_of(
    given: GivenLabels,
    margin: NDArray[np.floating] | None = None,
    held_out: tuple[NDArray[np.integer], NDArray[np.floating]] | None = None,
) -> Labeling:
    """A labelling as far as somebody looks at it here."""
    n_images = len(given.labels)
    nothing = np.full(n_images, -1, np.int32)
    if margin is None:
        margin = (given.labels >= 0).astype(np.float32)
    if held_out is None:
        held_out = np.empty(0, np.int32), np.empty((0, given.n_classes), np.float32)
    return Labeling(
        given,
        given.labels,
        np.ones(n_images, np.float32),
        nothing,
        margin.astype(np.float32),
        nothing,
        nothing,
        np.zeros(n_images, np.bool_),
        HeldOutLabels(held_out[0].astype(np.int32), held_out[1].astype(np.float32)),
        {},
    )
