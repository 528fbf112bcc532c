"""A label for every image, and how sure it is."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.blocks import FeatureMatrix, row_ranges
from lowshot_kedro.diffusion import links_from, propagation_matrix
from lowshot_kedro.errors import InputError
from lowshot_kedro.images.folders import some_of
from lowshot_kedro.labeling.calibration import (
    CalibratedMethod,
    accuracy_above,
    calibration_error,
    calibration_sentence,
    most_probable,
    reliability,
)
from lowshot_kedro.labeling.choice import accuracies, choose_method, judged_methods
from lowshot_kedro.labeling.class_frequencies import estimate_frequencies, weigh
from lowshot_kedro.labeling.given_labels import GivenLabels
from lowshot_kedro.labeling.held_out import deal_labels
from lowshot_kedro.labeling.methods import Work
from lowshot_kedro.labeling.nodes import LabelingGraph
from lowshot_kedro.labeling.parameters import LabelingParameters
from lowshot_kedro.labeling.reach import nearest_labeled
from lowshot_kedro.labeling.threshold import choose_threshold, require_no_class
from lowshot_kedro.methods.logistic_regression import LogisticRegressionParameters
from lowshot_kedro.progress import Stopwatch, logged_step

logger = logging.getLogger(__name__)

# As many links of each image as LabelDiffusion has.
N_NEIGHBORS = 10
_BLOCK_ROWS = 16384


class HeldOutLabels(NamedTuple):
    """Given labels that were predicted from the others.

    Attributes:
        nodes: int32 (H,), increasing.
        probabilities: float32 (H, C), what was predicted, calibrated as the confidence is; rows
            sum to 1, or to 0 where nothing has reached them.
    """

    nodes: NDArray[np.int32]
    probabilities: NDArray[np.float32]


@dataclass(frozen=True)
class Labeling:
    """A label for every image.

    Attributes:
        given: The labels that people gave.
        labels: int32 (N,), the class of every image, 0..C-1: the one given, or the most probable
            one; -1 where no label has reached it.
        confidence: float32 (N,), the probability of that class; 1 where it was given, 0 where there
            is none.
        second: int32 (N,), the next probable class, -1 where there is none.
        margin: float32 (N,), the probability of the class without that of the second.
        n_steps: int32 (N,), over how many links the nearest label is away, 0 for a given one, -1
            where there is none.
        nearest_labeled: int32 (N,), the labelled image, other than itself, that is most similar,
            of those that methods learn from; -1 where there is none.
        is_unknown: bool (N,), whether the confidence is below the threshold, and the label is to be
            written as unknown; never where one was given.
        held_out: Given labels that were predicted from the others.
        report: What was chosen and why, and what is known of the accuracy, as JSON holds it.
        broken: int64 (B,), images that cannot be read: blank ones, to which no label is found.
    """

    given: GivenLabels
    labels: NDArray[np.int32]
    confidence: NDArray[np.float32]
    second: NDArray[np.int32]
    margin: NDArray[np.float32]
    n_steps: NDArray[np.int32]
    nearest_labeled: NDArray[np.int32]
    is_unknown: NDArray[np.bool_]
    held_out: HeldOutLabels
    report: dict[str, Any]
    broken: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))


def label_images(
    graph: LabelingGraph,
    features: FeatureMatrix,
    given: GivenLabels,
    parameters: LabelingParameters,
    logistic_regression: LogisticRegressionParameters,
    *,
    n_neighbors: int = N_NEIGHBORS,
) -> Labeling:
    """Find a label for every image, and say how sure it is.

    Labels are held out, fold by fold, to choose the method and to calibrate its confidence. Given
    labels stay as they are. A blank image, whose file is broken, gets no label, and one that was
    given for it teaches nothing, unless its class has no other.

    Args:
        graph: The graph of all N images.
        features: N rows, in the same order.
        given: The labels that people gave, of two classes at least.
        parameters: What is wanted.
        logistic_regression: Parameters of that method.
        n_neighbors: How many links of each image count, itself included.

    Returns:
        The labels. In memory: the links twice, a score matrix of N × C, with diffusion three of
        them at most while it spreads, and with the combination two; besides, blocks.

    Raises:
        InputError: For labels of fewer than two classes, a class that is called `unknown`, or a
            method that needs a library which is missing.
    """
    require_no_class(parameters.unknown, given.classes)
    _require_sizes(graph, features, given)
    seconds: dict[str, float] = {}
    broken = np.array([number for number, _ in features.broken_images or ()], np.int64)
    is_broken = np.zeros(features.n_rows, np.bool_)
    is_broken[broken] = True
    nodes = _teaching(given, is_broken)
    with _timed(seconds, "graph"):
        k = min(n_neighbors, graph.neighbors.shape[1])
        matrix = propagation_matrix(np.ascontiguousarray(graph.neighbors[:, :k]))
    classes = given.labels[nodes]
    groups = None if given.groups is None else given.groups[nodes]
    work = Work(
        matrix,
        features,
        nodes,
        classes,
        given.n_classes,
        deal_labels(classes, groups, parameters.seed),
        logistic_regression,
        parameters.seed,
    )
    with _timed(seconds, "held-out labels"):
        judged, left_out = judged_methods(work, parameters.method)
    name, reason = choose_method(judged, parameters.method, len(work.tested))
    reason += left_out
    logger.info("labelling: %s", reason)
    chosen, table = judged[name], accuracies(judged)
    # What the others say of held-out labels is not needed any more.
    judged.clear()
    with _timed(seconds, chosen.method.title):
        probabilities = chosen.everyone()
    is_open = (given.labels < 0) & ~is_broken
    held_out = chosen.held_out
    frequencies = np.full(given.n_classes, 1 / given.n_classes)
    if parameters.class_prior == "estimated":
        with _timed(seconds, "class frequencies"):
            rows = np.flatnonzero(is_open)
            frequencies = estimate_frequencies(probabilities, rows, len(nodes))
            weigh(probabilities, frequencies)
            held_out = weigh(held_out.copy(), frequencies)
    found = _most_probable_two(probabilities, given, is_broken)
    del probabilities
    with _timed(seconds, "reach"):
        # As labels come: not from a blank image that teaches nothing, nor to one.
        n_steps = links_from(matrix, nodes)
        n_steps[broken] = -1
        n_steps[given.nodes] = 0
        nearest = nearest_labeled(graph.vectors, nodes)
        nearest[broken] = -1
    tested_classes = classes[work.tested]
    right = most_probable(held_out) == tested_classes
    held_out_confidence = held_out.max(axis=1, initial=0)
    threshold = choose_threshold(
        parameters, found.confidence, is_open & (found.labels >= 0), held_out_confidence, right
    )
    report = {
        "n_images": len(given.labels),
        "n_labeled": len(given.nodes),
        "n_classes": given.n_classes,
        "n_broken": len(broken),
        "method": name,
        "title": chosen.method.title,
        "reason": reason,
        "methods": table,
        "n_neighbors": k,
        "n_iterations": None,
        **chosen.method.described(),
        "class_prior": parameters.class_prior,
        "class_frequencies": frequencies.tolist(),
        **_known_of_confidence(chosen, held_out_confidence, right),
        "threshold": threshold.confidence,
        "threshold_sentence": threshold.sentence,
        "n_unknown": int(threshold.is_unknown.sum()),
        "n_unreached": int(((found.labels < 0) & ~is_broken).sum()),
        "expected_accuracy": _mean(found.confidence[is_open & (found.labels >= 0)]),
        **_per_class(given, found.labels, tested_classes, most_probable(held_out)),
        "label_notes": list(given.notes),
        "notes": _notes(given, found.labels, is_broken, nodes),
        "seconds": seconds,
    }
    order = np.argsort(nodes[work.tested], kind="stable")
    return Labeling(
        given,
        found.labels,
        found.confidence,
        found.second,
        found.margin,
        n_steps,
        nearest,
        threshold.is_unknown,
        HeldOutLabels(nodes[work.tested][order], held_out[order]),
        report,
        broken,
    )


class _Found(NamedTuple):
    """The two most probable classes of every image, as :class:`Labeling` holds them."""

    labels: NDArray[np.int32]
    confidence: NDArray[np.float32]
    second: NDArray[np.int32]
    margin: NDArray[np.float32]


def _most_probable_two(
    probabilities: NDArray[np.float32], given: GivenLabels, is_broken: NDArray[np.bool_]
) -> _Found:
    n_images, n_classes = probabilities.shape
    found = _Found(
        np.full(n_images, -1, np.int32),
        np.zeros(n_images, np.float32),
        np.full(n_images, -1, np.int32),
        np.zeros(n_images, np.float32),
    )
    for first, last in row_ranges(n_images, _BLOCK_ROWS):
        block = probabilities[first:last]
        rows = np.arange(last - first)
        least = block.min(axis=1)
        labels = most_probable(block)
        confidence = block[rows, labels]
        block[rows, labels] = -1
        second = block.argmax(axis=1)
        of_second = block[rows, second]
        # Of three classes or more, equal ones behind the first are those that have not arrived.
        if n_classes > 2:
            second[of_second == least] = -1
        nothing = (labels < 0) | is_broken[first:last]
        labels[nothing] = second[nothing] = -1
        confidence[nothing] = of_second[nothing] = 0
        known = given.labels[first:last]
        is_known = known >= 0
        labels[is_known], second[is_known] = known[is_known], -1
        confidence[is_known], of_second[is_known] = 1, 0
        for whole, part in zip(
            found, (labels, confidence, second, confidence - of_second), strict=True
        ):
            whole[first:last] = part
    return found


def _teaching(given: GivenLabels, is_broken: NDArray[np.bool_]) -> NDArray[np.int32]:
    """The labelled images that methods learn from."""
    nodes = given.nodes
    whole = nodes[~is_broken[nodes]]
    lost = ~np.isin(given.labels[nodes], given.labels[whole])
    return np.union1d(whole, nodes[lost])


def _known_of_confidence(
    chosen: CalibratedMethod, confidence: NDArray[np.float32], right: NDArray[np.bool_]
) -> dict[str, Any]:
    """What held-out labels say of the confidence."""
    return {
        "n_held_out": len(right),
        "is_calibrated": chosen.is_calibrated,
        "temperature": chosen.temperature,
        "calibration_error": calibration_error(confidence, right),
        "calibration_error_before": calibration_error(chosen.raw_confidence, chosen.right),
        "calibration_sentence": calibration_sentence(confidence, right, chosen.is_calibrated),
        "reliability": reliability(confidence, right),
        "accuracy_above": accuracy_above(confidence, right),
    }


def _per_class(
    given: GivenLabels,
    labels: NDArray[np.int32],
    held_out_classes: NDArray[np.int32],
    predicted: NDArray[np.int64],
) -> dict[str, Any]:
    """The list of classes, and which are taken for which; nothing predicted counts nowhere."""
    n_classes = given.n_classes
    n_given = np.bincount(given.labels[given.nodes], minlength=n_classes)
    n_labels = np.bincount(labels[labels >= 0], minlength=n_classes)
    n_held_out = np.bincount(held_out_classes, minlength=n_classes)
    confusion = np.zeros((n_classes, n_classes), np.int64)
    there = predicted >= 0
    np.add.at(confusion, (held_out_classes[there], predicted[there]), 1)
    return {
        "classes": [
            {
                "name": given.classes[number],
                "n_given": int(n_given[number]),
                "n_labels": int(n_labels[number]),
                "n_held_out": int(n_held_out[number]),
                "recall": float(confusion[number, number] / n_held_out[number])
                if n_held_out[number]
                else None,
            }
            for number in range(n_classes)
        ],
        "confusion": confusion.tolist() if len(held_out_classes) else None,
    }


def _notes(
    given: GivenLabels,
    labels: NDArray[np.int32],
    is_broken: NDArray[np.bool_],
    teaching: NDArray[np.int32],
) -> list[str]:
    """What people should know besides what is said of the given labels, a line each."""
    notes = []
    n_open = int((given.labels < 0).sum())
    if n_open == 0:
        notes.append("All images have a label: there is nothing to find.")
    n_broken = len(given.nodes) - len(teaching)
    if n_broken:
        notes.append(f"Labelled images that cannot be read, and so teach nothing: {n_broken}.")
    lost = sorted({given.classes[label] for label in given.labels[teaching[is_broken[teaching]]]})
    if lost:
        notes.append(
            f"All labelled images are broken of {some_of(lost)}: what gets such a label looks like "
            "a blank image, and nothing more is known. Label another image of each."
        )
    n_unreached = int(((labels < 0) & ~is_broken).sum())
    if n_unreached:
        notes.append(
            f"{n_unreached} images were reached by no label: they are linked to no labelled image. "
            "A label for some of them helps."
        )
    return notes


def _require_sizes(graph: LabelingGraph, features: FeatureMatrix, given: GivenLabels) -> None:
    sizes = {
        "graph": len(graph.neighbors),
        "vectors": len(graph.vectors),
        "features": features.n_rows,
        "labels": len(given.labels),
    }
    if len(set(sizes.values())) > 1:
        found = ", ".join(f"{name} of {size}" for name, size in sizes.items())
        raise InputError(f"labelling: found {found} images; expected as many of each")
    if given.n_classes < 2:
        found = ", ".join(given.classes) or "none"
        raise InputError(
            f"labels: found {given.n_classes} classes ({found}), expected images of at least two"
        )


def _mean(values: NDArray[np.float32]) -> float | None:
    return float(values.mean(dtype=np.float64)) if len(values) else None


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    watch = Stopwatch()
    with logged_step(f"labelling: {part}"):
        yield
    seconds[part] = round(watch.seconds, 3)
