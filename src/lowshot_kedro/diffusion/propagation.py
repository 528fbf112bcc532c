"""The propagation: start, steps, and the scores of the test points after each step.

M. Douze, A. Szlam, B. Hariharan and H. Jégou, "Low-shot learning with large-scale diffusion",
CVPR 2018, section 3.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro import native
from lowshot_kedro.blocks import require_nodes, row_ranges
from lowshot_kedro.deprecated import gathers_keywords
from lowshot_kedro.diffusion.backends.interface import Backend
from lowshot_kedro.diffusion.backends.registry import candidates, create_backend
from lowshot_kedro.diffusion.matrix import PropagationMatrix
from lowshot_kedro.diffusion.memory import MemoryPlan, plan_memory
from lowshot_kedro.diffusion.options import DEFAULT_OPTIONS, PropagationOptions
from lowshot_kedro.diffusion.reach import links_from
from lowshot_kedro.diffusion.variants import LabeledRows, class_priors
from lowshot_kedro.errors import InputError, NotEnoughMemoryError
from lowshot_kedro.memory import format_bytes
from lowshot_kedro.progress import Progress

logger = logging.getLogger(__name__)


def labeled_rows(
    labeled_classes: NDArray[np.int32],
    first_class: int,
    last_class: int,
    rank: NDArray[np.int32] | None = None,
    labeled_nodes: NDArray[np.int32] | None = None,
) -> LabeledRows:
    """L₀: column c is 1 on the labelled images of class c, scaled to sum 1.

    Args:
        labeled_classes: int32 (L,), classes of the labelled nodes.
        first_class: Class of the first column.
        last_class: Class after the last column.
        rank: int32 (N,), the row of each node; None: row i is node i.
        labeled_nodes: int32 (L,); None: nodes 0..L-1. A node may have labels of several classes.

    Returns:
        The entries; a class without labelled images has none.
    """
    rows = labeled_nodes
    if rows is None:
        rows = np.arange(len(labeled_classes), dtype=np.int32)
    if rank is not None:
        rows = rank[rows]
    nodes = np.flatnonzero((labeled_classes >= first_class) & (labeled_classes < last_class))
    columns = (labeled_classes[nodes] - first_class).astype(np.int32)
    counts = np.bincount(columns, minlength=last_class - first_class)
    values = (1 / counts[columns]).astype(np.float32)
    return LabeledRows(rows[nodes], columns, values, last_class - first_class, rows)


@gathers_keywords(PropagationOptions)
def propagate(
    matrix: PropagationMatrix,
    labeled_classes: NDArray[np.int32],
    test_neighbors: NDArray[np.int32],
    n_classes: int,
    n_iterations: int,
    options: PropagationOptions = DEFAULT_OPTIONS,
    *,
    every_step: bool = True,
    labeled_nodes: NDArray[np.int32] | None = None,
) -> NDArray[np.float32]:
    """Spread the labels and read off the scores of the test points.

    L₀ from :func:`labeled_rows`; each step L ← W L, then the adjustments; columns are scaled to sum
    1 after the product and after each adjustment. The score of a test point is the unweighted sum
    of L over its neighbours, times the prior of the class.

    Args:
        matrix: W, over N nodes.
        labeled_classes: int32 (L,), 0..n_classes-1, of the labelled nodes.
        test_neighbors: int32 (T, k), nodes, -1 for none. The scores of nodes themselves are those
            of points whose only neighbour is the node.
        n_classes: Number of classes C.
        n_iterations: Steps S.
        options: Back end, memory, and what happens to the scores.
        every_step: Whether the scores of every step are wanted, or only the last.
        labeled_nodes: int32 (L,); None: nodes 0..L-1. A node may have labels of several classes,
            each once.

    Returns:
        float32 (S + 1, T, C): the scores before the first step and after each; with every_step
        false (1, T, C): the last of them. In memory: this array, W, and with the native back
        end at most two score matrices of N × class_slice; the log says how much before the work
        starts.

    Raises:
        ValueError: For classes or neighbours out of range, or a memory budget that is too small.
    """
    _require_labels(matrix, labeled_classes, n_classes, labeled_nodes)
    require_nodes(test_neighbors, matrix.n_nodes, "test_neighbors")
    priors = class_priors(options.class_prior, labeled_classes, n_classes)
    adjustments = options.adjustments

    n_results = n_iterations + 1 if every_step else 1
    n_test = len(test_neighbors)
    engine, plan = _engine(matrix, n_test, n_classes, n_results, options)
    test_rows = matrix.rows_of(test_neighbors)
    # Where there is a test point for every node, most rows are read.
    is_cut_short = not adjustments and n_test < matrix.n_nodes
    result = np.empty((n_results, n_test, n_classes), dtype=np.float32)
    n_slices = -(-n_classes // plan.class_slice)
    with Progress(n_slices * n_iterations, "diffusion", unit="step") as bar:
        for first, last in row_ranges(n_classes, plan.class_slice):
            columns, prior = np.s_[first:last], priors[first:last]
            engine.start(labeled_rows(labeled_classes, first, last, matrix.rank, labeled_nodes))
            if every_step or n_iterations == 0:
                np.multiply(engine.read(test_rows), prior, out=result[0, :, columns])
            for iteration in range(1, n_iterations + 1):
                is_last = iteration == n_iterations
                position = iteration if every_step else 0
                if is_last and is_cut_short:
                    scores = engine.step_and_read(test_rows)
                    np.multiply(scores, prior, out=result[position, :, columns])
                else:
                    engine.step(adjustments)
                    if every_step or is_last:
                        scores = engine.read(test_rows)
                        np.multiply(scores, prior, out=result[position, :, columns])
                bar.update(1)
    return result


@gathers_keywords(PropagationOptions)
def scores_per_step(
    matrix: PropagationMatrix,
    labeled_classes: NDArray[np.int32],
    test_neighbors: NDArray[np.int32],
    n_classes: int,
    options: PropagationOptions = DEFAULT_OPTIONS,
    *,
    labeled_nodes: NDArray[np.int32] | None = None,
) -> Iterator[NDArray[np.float32]]:
    """The scores that :func:`propagate` finds, step after step without end, all classes at once.

    Args:
        matrix: W, over N nodes.
        labeled_classes: As for :func:`propagate`.
        test_neighbors: As for :func:`propagate`.
        n_classes: As for :func:`propagate`.
        options: As for :func:`propagate`; the slice of classes does not count.
        labeled_nodes: As for :func:`propagate`.

    Yields:
        float32 (T, C), before the first step and after each.

    Raises:
        ValueError: As :func:`propagate`, and if scores of all classes at once do not fit.
    """
    require_nodes(test_neighbors, matrix.n_nodes, "test_neighbors")
    steps = Steps(
        matrix,
        labeled_classes,
        n_classes,
        len(test_neighbors),
        options,
        labeled_nodes=labeled_nodes,
    )
    test_rows = matrix.rows_of(test_neighbors)
    while True:
        yield steps.scores(test_rows)
        steps.take()


class Steps:
    """A propagation of all classes at once, to be read between its steps.

    Args:
        matrix: W, over N nodes.
        labeled_classes: As for :func:`propagate`.
        n_classes: As for :func:`propagate`.
        n_test: How many test points will be read at a time.
        options: As for :func:`propagate`; the slice of classes does not count.
        labeled_nodes: As for :func:`propagate`.

    Raises:
        ValueError: As :func:`propagate`, and if scores of all classes at once do not fit.
    """

    def __init__(
        self,
        matrix: PropagationMatrix,
        labeled_classes: NDArray[np.int32],
        n_classes: int,
        n_test: int,
        options: PropagationOptions,
        *,
        labeled_nodes: NDArray[np.int32] | None = None,
    ) -> None:
        _require_labels(matrix, labeled_classes, n_classes, labeled_nodes)
        self._priors = class_priors(options.class_prior, labeled_classes, n_classes)
        self._adjustments = options.adjustments
        at_once = replace(options, class_slice=0)
        self._engine, _ = _engine(matrix, n_test, n_classes, 1, at_once)
        self._engine.start(labeled_rows(labeled_classes, 0, n_classes, matrix.rank, labeled_nodes))

    def take(self) -> None:
        """Take one more step."""
        self._engine.step(self._adjustments)

    def scores(self, test_rows: NDArray[np.int32]) -> NDArray[np.float32]:
        """The scores of test points after the steps taken so far, float32 (T, C).

        Args:
            test_rows: int32 (T, k), the rows of W of their neighbours, -1 for none.
        """
        return self._engine.read(test_rows) * self._priors


@gathers_keywords(PropagationOptions)
def scores_when_reached(
    matrix: PropagationMatrix,
    labeled_classes: NDArray[np.int32],
    nodes: NDArray[np.int32],
    n_classes: int,
    n_iterations: int,
    max_iterations: int,
    options: PropagationOptions = DEFAULT_OPTIONS,
    *,
    labeled_nodes: NDArray[np.int32] | None = None,
) -> NDArray[np.float32]:
    """Scores of nodes that n_iterations steps do not reach, after the step that does.

    Args:
        matrix: W, over N nodes.
        labeled_classes: As for :func:`propagate`.
        nodes: int32 (m,), nodes whose scores are 0 after n_iterations steps.
        n_classes: As for :func:`propagate`.
        n_iterations: Steps taken so far.
        max_iterations: Steps to take at most.
        options: As for :func:`propagate`; the slice of classes does not count.
        labeled_nodes: As for :func:`propagate`.

    Returns:
        float32 (m, C); zero in the rows of nodes that are not reached.

    Raises:
        NotEnoughMemoryError: If scores of all classes at once do not fit.
        ValueError: As :func:`scores_per_step`.
    """
    _require_labels(matrix, labeled_classes, n_classes, labeled_nodes)
    priors = class_priors(options.class_prior, labeled_classes, n_classes)
    result = np.zeros((len(nodes), n_classes), np.float32)
    steps = scores_per_step(
        matrix,
        labeled_classes,
        nodes[:, None],
        n_classes,
        # A class whose prior is 0 reaches nodes, too.
        replace(options, class_prior="uniform"),
        labeled_nodes=labeled_nodes,
    )
    is_reached = np.zeros(len(nodes), np.bool_)
    starts = np.arange(len(labeled_classes)) if labeled_nodes is None else labeled_nodes
    farthest = int(links_from(matrix, starts.astype(np.int32))[nodes].max(initial=0))
    for scores in islice(steps, n_iterations + 1, min(max_iterations, farthest) + 1):
        is_new = ~is_reached & (scores.max(axis=1, initial=0) > 0)
        result[is_new] = scores[is_new]
        is_reached |= is_new
    result *= priors
    return result


def _engine(
    matrix: PropagationMatrix,
    n_test: int,
    n_classes: int,
    n_results: int,
    options: PropagationOptions,
) -> tuple[Backend, MemoryPlan]:
    """The first back end that has the memory, ready to start, and how it will use it."""
    name, plan = _choose_backend(matrix, n_test, n_classes, n_results, options)
    logger.info(
        "diffusion over %d nodes and %d edges, %d classes, %d at a time, back end %s, kernels "
        "%s, %s: will hold %s (matrix %s, scores %s, test scores %s)",
        matrix.n_nodes,
        matrix.n_edges,
        n_classes,
        plan.class_slice,
        name,
        native.kernels_in_use(),
        options.precision,
        *map(format_bytes, (plan.total, plan.matrix, plan.scores, plan.results)),
    )
    return create_backend(name, matrix, options.precision), plan


def bytes_at_once(
    matrix: PropagationMatrix, n_test: int, n_classes: int, options: PropagationOptions
) -> int | None:
    """What a propagation holds that reads test points once and takes all classes at once.

    Args:
        matrix: W.
        n_test: Test points.
        n_classes: Classes.
        options: As for :func:`propagate`.

    Returns:
        Bytes; None if it would take them slice by slice, or there is no memory for one of them.
    """
    try:
        _, plan = _choose_backend(matrix, n_test, n_classes, 1, options)
    except NotEnoughMemoryError:
        return None
    return plan.total if plan.class_slice >= n_classes else None


def _choose_backend(
    matrix: PropagationMatrix,
    n_test: int,
    n_classes: int,
    n_results: int,
    options: PropagationOptions,
) -> tuple[str, MemoryPlan]:
    def plan_for(name: str) -> MemoryPlan:
        return plan_memory(matrix, n_test, n_classes, n_results, replace(options, backend=name))

    name, *others = candidates(options.backend, options.precision)
    try:
        return name, plan_for(name)
    except NotEnoughMemoryError:
        if not others:
            raise
        return others[0], plan_for(others[0])


def _require_labels(
    matrix: PropagationMatrix,
    labeled_classes: NDArray[np.int32],
    n_classes: int,
    labeled_nodes: NDArray[np.int32] | None,
) -> None:
    if labeled_nodes is None and len(labeled_classes) > matrix.n_nodes:
        raise InputError(
            f"labeled_classes: {len(labeled_classes)} labels for {matrix.n_nodes} nodes"
        )
    if len(labeled_classes) and not 0 <= labeled_classes.min() <= labeled_classes.max() < n_classes:
        raise InputError(
            f"labeled_classes: found {labeled_classes.min()}..{labeled_classes.max()}, expected "
            f"0..{n_classes - 1}"
        )
    if labeled_nodes is None:
        return
    if len(labeled_nodes) != len(labeled_classes):
        raise InputError(
            f"labeled_nodes: got {len(labeled_nodes)} nodes for {len(labeled_classes)} labels"
        )
    if len(labeled_nodes) and not 0 <= labeled_nodes.min() <= labeled_nodes.max() < matrix.n_nodes:
        raise InputError(
            f"labeled_nodes: found {labeled_nodes.min()}..{labeled_nodes.max()}, expected "
            f"0..{matrix.n_nodes - 1}"
        )
    pairs = labeled_nodes.astype(np.int64) * n_classes + labeled_classes
    if len(np.unique(pairs)) != len(pairs):
        raise InputError(
            "labeled_nodes: a node has a label twice, expected each of its labels once"
        )
