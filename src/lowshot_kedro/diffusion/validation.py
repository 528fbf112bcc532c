"""How many steps to take if nobody has said so: held-out labels decide.

A few held-out labels decide little, so they only overrule a number that follows from the graph and
the labels alone if they speak clearly against it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.blocks import row_ranges, spread_rows
from lowshot_kedro.deprecated import gathers_keywords
from lowshot_kedro.diffusion.matrix import PropagationMatrix
from lowshot_kedro.diffusion.options import DEFAULT_OPTIONS, PropagationOptions
from lowshot_kedro.diffusion.propagation import (
    Steps,
    bytes_at_once,
    propagate,
    scores_when_reached,
)
from lowshot_kedro.diffusion.variants import class_priors
from lowshot_kedro.progress import Progress, logged_step

logger = logging.getLogger(__name__)

MAX_STEPS = 300
_MIN_TRIED = 10
_FOLDS = 5
# Where so many labels are held out, further folds would say the same.
_ENOUGH_HELD_OUT = 1000
# Columns that are propagated together, if one fold has not more.
MAX_COLUMNS = 128
# Scores of held-out nodes that are kept.
_MAX_RESULT_BYTES = 2**28
# Steps whose scores are copied at a time.
_STEPS_AT_ONCE = 16
_SAMPLED_NODES = 4096
_SAMPLED_CLASSES = 16
_WIDEST_SPREAD = 0.5
# Twice the steps spread a class over so much more where it is still spreading.
_HARDLY_MORE = 1.05


class ChosenSteps(NamedTuple):
    """A number of steps, and why.

    Attributes:
        n_iterations: The number of steps.
        expected: What :func:`expected_steps` says.
        accuracy: float64 (S + 1,), part of the held-out labels that are right after 0..S steps;
            None if no label could be held out.
        scores: float32 (N, C), what :func:`~lowshot_kedro.diffusion.propagate` finds for every node
            after n_iterations steps, if that was asked for and found on the way; else None.
    """

    n_iterations: int
    expected: int
    accuracy: NDArray[np.float64] | None
    scores: NDArray[np.float32] | None = None


class Fold(NamedTuple):
    """Labels that are held out together.

    Attributes:
        held_out: int64, positions of labels, increasing.
        tested: int64, those of them that are looked for; None: all, or as many, evenly spread, as
            there is room for.
    """

    held_out: NDArray[np.int64]
    tested: NDArray[np.int64] | None = None


@gathers_keywords(PropagationOptions)
def choose_steps(
    matrix: PropagationMatrix,
    labeled_nodes: NDArray[np.int32],
    labeled_classes: NDArray[np.int32],
    n_classes: int,
    options: PropagationOptions = DEFAULT_OPTIONS,
    *,
    seed: int = 0,
    keep_scores: bool = False,
    held_out: Sequence[NDArray[np.int64]] | None = None,
) -> ChosenSteps:
    """Choose the number of steps by labels that are held out.

    The labels of each class are dealt over five folds, each of which is held out once; a class with
    one label keeps it. Of the numbers of steps that are not worse than the best by more than a
    standard error of the difference, the one nearest to :func:`expected_steps` is taken, on a
    logarithmic scale: with few labels that is as a rule the expected number itself. The
    one-standard-error rule is that of L. Breiman, J. Friedman, R. Olshen and C. Stone,
    "Classification and Regression Trees", 1984, section 3.4.3; the error is that of Q. McNemar,
    "Note on the sampling error of the difference between correlated proportions or percentages",
    Psychometrika 12, 1947: √(b + c) labels, if b are right only here and c only there.

    Args:
        matrix: W, over N nodes.
        labeled_nodes: int32 (L,), each at most once.
        labeled_classes: int32 (L,), 0..n_classes-1.
        n_classes: C.
        options: As for :func:`~lowshot_kedro.diffusion.propagate`.
        seed: Seed of the folds.
        keep_scores: Whether to keep the scores of all nodes where they come for nothing: with up to
            16 classes, if the number chosen is the expected one.
        held_out: The labels that each fold holds out, as positions 0..L-1, of which as many folds
            are taken as hold out enough; None: those of :func:`folds`.

    Returns:
        At least one step, at most 300. In memory: as for a propagation of up to 128 classes, or of
        all if there are more, and up to 256 MB of scores of held-out nodes; and the scores kept.
    """
    expected, scores = _expected_steps(
        matrix, labeled_nodes, labeled_classes, n_classes, options, keep_scores
    )
    n_steps = steps_to_try(expected)
    if scores is not None and options.memory_budget_bytes is not None:
        left = options.memory_budget_bytes - scores.nbytes
        options = replace(options, memory_budget_bytes=left)
    all_right = right_labels(
        matrix,
        labeled_nodes,
        labeled_classes,
        n_classes,
        n_steps,
        _enough_folds(folds(labeled_classes, seed) if held_out is None else held_out),
        labeled_nodes[:, None],
        options,
    )
    if all_right.shape[1] == 0:
        logger.info("validation: no class has two labels; %d steps, as the graph says", expected)
        return ChosenSteps(expected, expected, None, scores)
    chosen = _nearest_of_the_best(all_right, expected)
    accuracy: NDArray[np.float64] = all_right.mean(axis=1)
    logger.info(
        "validation: %d steps, with which %.1f %% of %d held-out labels are right (expected %d "
        "steps, best %d with %.1f %%)",
        chosen,
        100 * accuracy[chosen],
        all_right.shape[1],
        expected,
        accuracy[1:].argmax() + 1,
        100 * accuracy[1:].max(),
    )
    return ChosenSteps(chosen, expected, accuracy, scores if chosen == expected else None)


def steps_to_try(expected: int) -> int:
    """How many steps are tried where a number is expected."""
    return min(max(2 * expected, _MIN_TRIED), MAX_STEPS)


def right_labels(
    matrix: PropagationMatrix,
    labeled_nodes: NDArray[np.int32],
    labeled_classes: NDArray[np.int32],
    n_classes: int,
    n_steps: int,
    held_out: Sequence[Fold],
    readings: NDArray[np.int32],
    options: PropagationOptions,
) -> NDArray[np.bool_]:
    """Whether held-out labels are found again, fold after fold.

    Args:
        matrix: W, over N nodes.
        labeled_nodes: As for :func:`choose_steps`.
        labeled_classes: As for :func:`choose_steps`.
        n_classes: As for :func:`choose_steps`.
        n_steps: Steps to take.
        held_out: The labels in each fold.
        readings: int32 (L, m), the nodes whose scores are added up for each label, -1 for none.
        options: As for :func:`choose_steps`.

    Returns:
        bool (n_steps + 1, H), after 0, 1, 2 … steps.
    """
    right = [np.empty((n_steps + 1, 0), np.bool_)]
    # Several folds at a time: wide steps are faster than many narrow ones. But an adjustment would
    # see what one fold holds out among the labels of another.
    at_a_time = 1 if options.adjustments else folds_at_a_time(n_classes)
    for first, last in row_ranges(len(held_out), at_a_time):
        folds_of_part = held_out[first:last]
        n_folds = len(folds_of_part)
        room = max(_MAX_RESULT_BYTES // (4 * (n_steps + 1) * n_folds**2 * n_classes), 1)
        looked_for = [
            Fold(labels, labels[spread_rows(len(labels), room)] if tested is None else tested)
            for labels, tested in folds_of_part
        ]
        with logged_step(f"validation: folds {first + 1} to {last} of {len(held_out)}"):
            right.append(
                _right_labels(
                    matrix,
                    labeled_nodes,
                    labeled_classes,
                    n_classes,
                    n_steps,
                    looked_for,
                    readings,
                    options,
                )
            )
    return np.concatenate(right, axis=1)


def folds_at_a_time(n_classes: int) -> int:
    """How many folds are propagated together."""
    return max(1, MAX_COLUMNS // n_classes)


def _right_labels(
    matrix: PropagationMatrix,
    labeled_nodes: NDArray[np.int32],
    labeled_classes: NDArray[np.int32],
    n_classes: int,
    n_steps: int,
    held_out: Sequence[Fold],
    readings: NDArray[np.int32],
    options: PropagationOptions,
) -> NDArray[np.bool_]:
    """:func:`right_labels` of some folds at once."""
    tested = [fold.held_out if fold.tested is None else fold.tested for fold in held_out]
    shared = _SharedColumns(labeled_classes, n_classes, held_out, options)
    scores = propagate(
        matrix,
        shared.classes,
        readings[np.concatenate(tested)],
        shared.n_columns,
        n_steps,
        replace(options, class_prior="uniform"),
        labeled_nodes=labeled_nodes[shared.labels],
    )
    right = []
    first = 0
    for fold, labels in enumerate(tested):
        of_fold = scores[:, first : first + len(labels)]
        parts = []
        for begin, end in row_ranges(n_steps + 1, _STEPS_AT_ONCE):
            own = of_fold[begin:end, :, shared.column_of[fold]] * shared.priors[fold]
            found = np.where(own.max(axis=2) > 0, own.argmax(axis=2), -1)
            parts.append(found == labeled_classes[labels])
        right.append(np.concatenate(parts))
        first += len(labels)
    return np.concatenate(right, axis=1)


class _SharedColumns:
    """Columns with which several folds are propagated together.

    A fold has a column of its own for each class of which it holds out labels; it shares those of
    all other classes with the folds that hold out nothing of them either.

    Args:
        labeled_classes: As for :func:`right_labels`.
        n_classes: C.
        held_out: F folds.
        options: Their class prior counts.

    Attributes:
        labels: int64 (m,), positions of labels, the label of each entry of a column.
        classes: int32 (m,), the column of each entry.
        n_columns: Number of columns.
        column_of: int32 (F, C), the column of each class in each fold.
        priors: float32 (F, C), the priors of the classes in each fold.
    """

    def __init__(
        self,
        labeled_classes: NDArray[np.int32],
        n_classes: int,
        held_out: Sequence[Fold],
        options: PropagationOptions,
    ) -> None:
        n_folds, n_labels = len(held_out), len(labeled_classes)
        kept = [np.setdiff1d(np.arange(n_labels), fold.held_out) for fold in held_out]
        classes = np.concatenate(
            [labeled_classes[labels] + fold * n_classes for fold, labels in enumerate(kept)]
        )
        prior = options.class_prior
        if not isinstance(prior, str):
            prior = np.tile(prior, n_folds).tolist()
        priors = class_priors(prior, classes, n_folds * n_classes)
        self.priors = priors.reshape(n_folds, n_classes)
        is_own = np.zeros((n_folds, n_classes), np.bool_)
        for fold, (labels, _) in enumerate(held_out):
            is_own[fold, labeled_classes[labels]] = True
        # The first fold that has a column stands for all that share it.
        first_fold = np.where(is_own, np.arange(n_folds)[:, None], is_own.argmin(axis=0))
        self.column_of, self.n_columns = _numbered(first_fold * n_classes + np.arange(n_classes))
        is_first = (first_fold == np.arange(n_folds)[:, None]).ravel()[classes]
        self.labels = np.concatenate(kept)[is_first]
        self.classes = self.column_of.ravel()[classes[is_first]]


@gathers_keywords(PropagationOptions)
def held_out_scores(
    matrix: PropagationMatrix,
    labeled_nodes: NDArray[np.int32],
    labeled_classes: NDArray[np.int32],
    n_classes: int,
    n_iterations: int,
    held_out: Sequence[NDArray[np.int64]],
    options: PropagationOptions = DEFAULT_OPTIONS,
) -> NDArray[np.float32]:
    """Scores of labelled nodes, found without the labels of their fold.

    A node that these steps do not reach gets the scores of the step that does, as
    :func:`~lowshot_kedro.diffusion.scores_when_reached` finds them.

    Args:
        matrix: W, over N nodes.
        labeled_nodes: As for :func:`choose_steps`.
        labeled_classes: As for :func:`choose_steps`.
        n_classes: As for :func:`choose_steps`.
        n_iterations: Steps to take.
        held_out: The labels that each fold holds out, as positions 0..L-1.
        options: As for :func:`choose_steps`.

    Returns:
        float32 (H, C), fold after fold, each in the order given; zero where nothing arrives. In
        memory besides: as for :func:`choose_steps`, but for one step.
    """
    found = [np.empty((0, n_classes), np.float32)]
    at_a_time = 1 if options.adjustments else folds_at_a_time(n_classes)
    for first, last in row_ranges(len(held_out), at_a_time):
        part = [Fold(labels) for labels in held_out[first:last]]
        shared = _SharedColumns(labeled_classes, n_classes, part, options)
        with logged_step(f"held-out labels: folds {first + 1} to {last} of {len(held_out)}"):
            (scores,) = propagate(
                matrix,
                shared.classes,
                labeled_nodes[np.concatenate([fold.held_out for fold in part])][:, None],
                shared.n_columns,
                n_iterations,
                replace(options, class_prior="uniform"),
                every_step=False,
                labeled_nodes=labeled_nodes[shared.labels],
            )
        begin = 0
        for fold, (labels, _) in enumerate(part):
            of_fold = scores[begin : begin + len(labels)][:, shared.column_of[fold]]
            begin += len(labels)
            of_fold *= shared.priors[fold]
            unreached = np.flatnonzero(of_fold.max(axis=1, initial=0) == 0)
            if len(unreached):
                kept = np.setdiff1d(np.arange(len(labeled_classes)), labels)
                of_fold[unreached] = scores_when_reached(
                    matrix,
                    labeled_classes[kept],
                    labeled_nodes[labels[unreached]],
                    n_classes,
                    n_iterations,
                    n_iterations + MAX_STEPS,
                    options,
                    labeled_nodes=labeled_nodes[kept],
                )
            found.append(of_fold)
    return np.concatenate(found)


def _numbered(keys: NDArray[np.int64]) -> tuple[NDArray[np.int32], int]:
    """Numbers 0, 1, 2 … in place of keys, the same for the same, and how many there are."""
    distinct, numbers = np.unique(keys, return_inverse=True)
    return numbers.reshape(keys.shape).astype(np.int32), len(distinct)


def _enough_folds(dealt: Iterable[NDArray[np.int64]]) -> list[Fold]:
    """The first folds, up to the one with which enough labels are held out."""
    chosen: list[Fold] = []
    for held_out in dealt:
        chosen.append(Fold(held_out))
        if sum(len(fold.held_out) for fold in chosen) >= _ENOUGH_HELD_OUT:
            break
    return chosen


def folds(labeled_classes: NDArray[np.int32], seed: int) -> Iterator[NDArray[np.int64]]:
    """Labels to hold out, those of each class dealt over up to five folds.

    Args:
        labeled_classes: int32 (L,), 0..C-1.
        seed: Seed of the order in which they are dealt, and of the fold that gets the first.

    Yields:
        int64, positions 0..L-1, increasing; each position is in one fold, but for classes with one
        label, which are in none. No fold is empty, or has all labels of a class.
    """
    rng = np.random.RandomState(seed)
    fold_of = np.full(len(labeled_classes), -1)
    order = np.argsort(labeled_classes, kind="stable")
    ends = np.flatnonzero(np.diff(labeled_classes[order])) + 1
    for members in np.split(order, ends):
        if len(members) > 1:
            dealt = (rng.randint(_FOLDS) + np.arange(len(members))) % _FOLDS
            fold_of[rng.permutation(members)] = dealt
    for fold in range(_FOLDS):
        held_out = np.flatnonzero(fold_of == fold)
        if len(held_out):
            yield held_out


@gathers_keywords(PropagationOptions)
def expected_steps(
    matrix: PropagationMatrix,
    labeled_nodes: NDArray[np.int32],
    labeled_classes: NDArray[np.int32],
    n_classes: int,
    options: PropagationOptions = DEFAULT_OPTIONS,
) -> int:
    """The steps after which a class has spread as far as it should, by graph and labels alone.

    How many nodes a class has spread over is the perplexity of its column, e^{-Σ_i L_ic log L_ic}.
    A class should have spread over its share of the nodes, N / C, and beyond, since it has to meet
    the others wherever the border is: over (1 + 3 / √n) N / C nodes, n being the labels of a class
    on average, for more labels have less to bridge; and over half of the nodes at most. Where it
    cannot spread so far, since nothing leads out of a cluster, the steps count after which it
    hardly spreads on. This is a rule of thumb of this project, whose numbers were found on
    handwritten digits and Fashion-MNIST (docs/label_diffusion.md).

    Args:
        matrix: W, over N nodes.
        labeled_nodes: int32 (L,), each at most once.
        labeled_classes: int32 (L,), 0..n_classes-1.
        n_classes: C.
        options: As for :func:`~lowshot_kedro.diffusion.propagate`; slices and priors of classes do
            not count.

    Returns:
        1..300. Perplexities are estimated on 4096 nodes and 16 classes, the labels of all other
        classes being put into one. In memory: the scores of these 17.
    """
    return _expected_steps(
        matrix, labeled_nodes, labeled_classes, n_classes, options, keep_scores=False
    )[0]


def _expected_steps(
    matrix: PropagationMatrix,
    labeled_nodes: NDArray[np.int32],
    labeled_classes: NDArray[np.int32],
    n_classes: int,
    options: PropagationOptions,
    keep_scores: bool,
) -> tuple[int, NDArray[np.float32] | None]:
    """:func:`expected_steps`, and what :class:`ChosenSteps` says of the scores after so many."""
    present, counts = np.unique(labeled_classes, return_counts=True)
    sampled = present[spread_rows(len(present), _SAMPLED_CLASSES)]
    column_of = np.full(n_classes, len(sampled), np.int32)
    column_of[sampled] = np.arange(len(sampled), dtype=np.int32)
    nodes = spread_rows(matrix.n_nodes, _SAMPLED_NODES).astype(np.int32)
    rows = matrix.rows_of(nodes[:, None])
    share = (1 + 3 / np.sqrt(counts.mean())) / len(present)
    wanted = min(share, _WIDEST_SPREAD)
    are_all = len(sampled) == n_classes
    keep_scores = keep_scores and are_all and _has_room(matrix, n_classes, options)
    steps = Steps(
        matrix,
        column_of[labeled_classes],
        n_classes if are_all else len(sampled) + 1,
        matrix.n_nodes if keep_scores else len(nodes),
        replace(options, class_prior="uniform"),
        labeled_nodes=labeled_nodes,
    )
    spreads: list[float] = []
    with Progress(MAX_STEPS, "spread of the classes", unit="step") as bar:
        while True:
            columns = steps.scores(rows)[:, : len(sampled)].astype(np.float64)
            logarithms = np.log(columns, where=columns > 0, out=np.zeros_like(columns))
            entropies = -(columns * logarithms).sum(axis=0) * (matrix.n_nodes / len(nodes))
            spreads.append(float(np.exp(entropies).mean() / matrix.n_nodes))
            found = _enough(spreads, wanted)
            if found is not None:
                logger.info(
                    "validation: after %d steps a class has spread over %.2g of the nodes, which "
                    "should be best at %.2g",
                    found,
                    spreads[found],
                    wanted,
                )
                if not keep_scores or found < len(spreads) - 1:
                    return found, None
                everyone = np.arange(matrix.n_nodes, dtype=np.int32)[:, None]
                priors = class_priors(options.class_prior, labeled_classes, n_classes)
                return found, steps.scores(matrix.rows_of(everyone)) * priors
            steps.take()
            bar.update(1)


def _has_room(matrix: PropagationMatrix, n_classes: int, options: PropagationOptions) -> bool:
    """Whether the scores of all nodes can be kept while others are computed."""
    n_bytes = bytes_at_once(matrix, matrix.n_nodes, n_classes, options)
    budget = options.memory_budget_bytes
    return n_bytes is not None and (budget is None or 2 * n_bytes <= budget)


def _enough(spreads: Sequence[float], wanted: float) -> int | None:
    """The number of steps to take, if the spread after 0, 1, 2 … steps tells already."""
    step = len(spreads) - 1
    if step == MAX_STEPS or (step > 0 and spreads[step] >= wanted):
        return step
    half = step // 2
    if step >= _MIN_TRIED and step % 2 == 0 and spreads[step] < _HARDLY_MORE * spreads[half]:
        return half
    return None


def _nearest_of_the_best(right: NDArray[np.bool_], expected: int) -> int:
    """Steps as good as the best but for a standard error, the nearest to what is expected.

    Args:
        right: bool (S + 1, H), whether each held-out label is right after 0..S steps.
        expected: A number of steps.
    """
    tried = right[1:].astype(np.float64)
    difference = tried - tried[tried.mean(axis=1).argmax()]
    error = np.sqrt((difference**2).mean(axis=1) / difference.shape[1])
    steps = 1 + np.flatnonzero(difference.mean(axis=1) >= -error)
    return nearest_number(steps, expected)


def nearest_number(numbers: NDArray[np.int64], expected: int) -> int:
    """The one of some positive numbers that is nearest to what is expected, by ratio."""
    return int(numbers[np.abs(np.log(numbers / expected)).argmin()])
