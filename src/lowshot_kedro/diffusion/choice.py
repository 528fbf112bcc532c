"""How many neighbours and steps, where novel classes have few labels and base classes many.

A held-out label of a base class is found again by the many that stay, so it speaks for few
neighbours and a single step, which would never reach the images of a class with one label. Hence
base classes take turns in the part of a novel class: they keep as many labels as those have.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.blocks import spread_rows
from lowshot_kedro.deprecated import gathers_keywords
from lowshot_kedro.diffusion.matrix import PropagationMatrix
from lowshot_kedro.diffusion.options import DEFAULT_OPTIONS, PropagationOptions
from lowshot_kedro.diffusion.validation import (
    MAX_STEPS,
    ChosenSteps,
    Fold,
    expected_steps,
    folds,
    folds_at_a_time,
    nearest_number,
    right_labels,
    steps_to_try,
)
from lowshot_kedro.progress import logged_step

logger = logging.getLogger(__name__)

# Neighbours without held-out labels, and where these do not speak against it: LabelDiffusion's
# default.
USUAL_NEIGHBORS = 10
_ROUNDS = 5
# Labels that are looked for in a round, and scores that are kept of them.
_MAX_TESTED = 1000
_MAX_RESULT_BYTES = 2**28
# Differences that are smaller than this are rounding.
_ROUNDING = 1e-9


class Round(NamedTuple):
    """Labels that are held out at once.

    Attributes:
        held_out: int64, positions of labels, increasing.
        tested: int64, those of them that are looked for.
        cells: int64 (len(tested),), a number for every class of every round.
        is_few: bool (len(tested),), whether the class has few labels in this round.
    """

    held_out: NDArray[np.int64]
    tested: NDArray[np.int64]
    cells: NDArray[np.int64]
    is_few: NDArray[np.bool_]


class ChosenDiffusion(NamedTuple):
    """Neighbours and steps, and why.

    Attributes:
        k: Neighbours of each node.
        steps: Steps, with the accuracy for held-out labels after each, weighted as
            :func:`choose_diffusion` says.
        accuracy_per_k: For each number of neighbours that was tried, that accuracy after the steps
            that are best for it; None without held-out labels.
    """

    k: int
    steps: ChosenSteps
    accuracy_per_k: dict[int, float | None]

    def as_metrics(self) -> dict[str, Any]:
        """What a metrics file says of the choice."""
        accuracy = self.steps.accuracy
        return {
            "k": self.k,
            "n_iterations": self.steps.n_iterations,
            "validation_accuracy": None if accuracy is None else accuracy.tolist(),
            "validation_accuracy_per_k": {str(k): of_k for k, of_k in self.accuracy_per_k.items()},
        }


@gathers_keywords(PropagationOptions)
def choose_diffusion(
    matrix_of: Callable[[int], PropagationMatrix],
    neighbors: NDArray[np.int32],
    candidates: Sequence[int],
    labeled_classes: NDArray[np.int32],
    is_novel: NDArray[np.bool_],
    options: PropagationOptions = DEFAULT_OPTIONS,
    *,
    n_iterations: int | None = None,
    seed: int = 0,
) -> ChosenDiffusion:
    """Choose neighbours and steps by labels that are held out in five rounds.

    In each round a fifth of the base classes keeps as many labels as a novel class has, and the
    rest of theirs are held out; every other class holds out a fifth of its labels, or none if it
    has one. What is asked for a held-out label is what is asked for a test image: the scores of its
    neighbours. The accuracy is the mean over novel classes, real and acting ones, and the mean over
    base classes, weighted by how many classes are novel.

    For each number of neighbours, of the numbers of steps that are not worse than the best by more
    than a standard error, the one nearest to :func:`~lowshot_kedro.diffusion.expected_steps` is
    taken; then likewise the number of neighbours nearest to 10. The error is that of a sum over
    classes and rounds, √Σ δ², with δ what one class in one round adds to the difference.

    Args:
        matrix_of: W of the first k columns of `neighbors`.
        neighbors: int32 (N, K), most similar first, the labelled nodes being 0..L-1.
        candidates: Numbers of neighbours to try, up to K.
        labeled_classes: int32 (L,), 0..C-1.
        is_novel: bool (C,).
        options: As for :func:`~lowshot_kedro.diffusion.propagate`.
        n_iterations: The number of steps; None: chosen.
        seed: Seed of the choice of labels that are held out.

    Returns:
        The choice. In memory: one W at a time, and what a propagation of up to 128 classes takes,
        or of all if there are more, and up to 256 MB of scores of held-out nodes.
    """
    n_classes, n_labels = len(is_novel), len(labeled_classes)
    nodes = np.arange(n_labels, dtype=np.int32)
    rounds = rounds_of(labeled_classes, is_novel, seed)
    weights, cells = weights_of(rounds, labeled_classes, is_novel)
    chosen: dict[int, ChosenSteps] = {}
    parts = []
    for k in candidates:
        with logged_step(f"validation: k = {k}"):
            matrix = matrix_of(k)
            expected = n_iterations
            if expected is None:
                expected = expected_steps(matrix, nodes, labeled_classes, n_classes, options)
            if not rounds:
                chosen[k] = ChosenSteps(expected, expected, None)
                continue
            right = right_labels(
                matrix,
                nodes,
                labeled_classes,
                n_classes,
                steps_to_try(expected) if n_iterations is None else n_iterations,
                [Fold(part.held_out, part.tested) for part in rounds],
                _others(neighbors[:n_labels, :k]),
                options,
            )
        sums = _sums(right, weights, cells)
        n_steps = expected
        if n_iterations is None:
            n_steps = nearest_number(1 + np.flatnonzero(_as_good_as_the_best(sums[1:])), expected)
        chosen[k] = ChosenSteps(n_steps, expected, sums.sum(axis=1))
        parts.append(sums[n_steps])
        logger.info(
            "validation: k = %d, %d steps (expected %d): %.1f %% of the held-out labels are right",
            k, n_steps, expected, 100 * parts[-1].sum(),
        )  # fmt: skip
    tried = np.array(candidates)
    best = nearest_number(
        tried[_as_good_as_the_best(np.stack(parts))] if parts else tried, USUAL_NEIGHBORS
    )
    logger.info(
        "validation: chose k = %d and %d steps%s",
        best, chosen[best].n_iterations, "" if rounds else ", as no label could be held out",
    )  # fmt: skip
    accuracies = {
        k: None if steps.accuracy is None else float(steps.accuracy[steps.n_iterations])
        for k, steps in chosen.items()
    }
    return ChosenDiffusion(best, chosen[best], accuracies)


def rounds_of(
    labeled_classes: NDArray[np.int32], is_novel: NDArray[np.bool_], seed: int
) -> list[Round]:
    """What is held out in each round.

    Args:
        labeled_classes: int32 (L,), 0..C-1, classes of the labelled nodes.
        is_novel: bool (C,), whether each class is novel.
        seed: Seed of the choice of labels that are held out.

    Returns:
        Up to five rounds. A base class with more labels than a novel one acts as novel in one of
        them. No round holds out all labels of a class; at most 1000 labels of a round are looked
        for, as many of each class, but at least one.
    """
    n_classes = len(is_novel)
    counts = np.bincount(labeled_classes, minlength=n_classes)
    n_few = int(counts[is_novel].max(initial=1))
    acting = np.flatnonzero(~is_novel & (counts > n_few))
    rng = np.random.RandomState(seed)
    kept = {
        number: rng.permutation(np.flatnonzero(labeled_classes == number))[:n_few]
        for number in acting
    }
    dealt = np.full(len(labeled_classes), -1)
    for number, fold in enumerate(folds(labeled_classes, seed)):
        dealt[fold] = number
    per_round = folds_at_a_time(n_classes)
    room = _MAX_RESULT_BYTES // (4 * (MAX_STEPS + 1) * per_round**2 * n_classes)
    found = []
    for number in range(_ROUNDS):
        of_round = acting[np.arange(len(acting)) % _ROUNDS == number]
        is_acting = np.isin(labeled_classes, of_round)
        is_held_out = (dealt == number) & ~is_acting
        is_held_out |= is_acting & ~np.isin(
            np.arange(len(labeled_classes)),
            np.concatenate([np.empty(0, np.int64), *(kept[each] for each in of_round)]),
        )
        held_out = np.flatnonzero(is_held_out)
        if len(held_out) == 0:
            continue
        classes = labeled_classes[held_out]
        most = max(min(_MAX_TESTED, room) // len(np.unique(classes)), 1)
        members = (np.flatnonzero(classes == label) for label in np.unique(classes))
        tested = np.sort(np.concatenate([held_out[m[spread_rows(len(m), most)]] for m in members]))
        classes = labeled_classes[tested]
        found.append(
            Round(
                held_out,
                tested,
                number * n_classes + classes.astype(np.int64),
                is_novel[classes] | np.isin(classes, of_round),
            )
        )
    return found


def weights_of(
    rounds: Sequence[Round], labeled_classes: NDArray[np.int32], is_novel: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """How much each label that is looked for counts, and which class and round it belongs to.

    Args:
        rounds: Rounds that :func:`rounds_of` returns.
        labeled_classes: int32 (L,).
        is_novel: bool (C,).

    Returns:
        float64 and int64, both (H,), round after round. Weights sum to 1: those of a class alike,
        those of labels that are looked for among few to the part of the classes that are novel.
    """
    empty = np.empty(0, np.int64)
    tested = np.concatenate([empty, *(part.tested for part in rounds)])
    cells = np.concatenate([empty, *(part.cells for part in rounds)])
    is_few = np.concatenate([empty.astype(bool), *(part.is_few for part in rounds)])
    classes = labeled_classes[tested]
    weights = np.zeros(len(tested))
    novel_part = is_novel.mean()
    for few, part in ((True, novel_part), (False, 1 - novel_part)):
        members = np.flatnonzero(is_few == few)
        present, inverse, counts = np.unique(
            classes[members], return_inverse=True, return_counts=True
        )
        if len(members):
            weights[members] = part / len(present) / counts[inverse]
    return weights / max(weights.sum(), np.finfo(float).tiny), cells


def _others(neighbors: NDArray[np.int32]) -> NDArray[np.int32]:
    """The neighbours of the first nodes without these themselves: what a test image would have."""
    own = np.arange(len(neighbors), dtype=np.int32)[:, None]
    return np.where(neighbors == own, np.int32(-1), neighbors)


def _sums(
    right: NDArray[np.bool_], weights: NDArray[np.float64], cells: NDArray[np.int64]
) -> NDArray[np.float64]:
    """What each class in each round adds to the accuracy, float64 (S + 1, number of cells)."""
    present, inverse = np.unique(cells, return_inverse=True)
    return np.stack(
        [np.bincount(inverse, weights * of_step, minlength=len(present)) for of_step in right]
    )


def _as_good_as_the_best(sums: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows sum to as much as the largest, but for a standard error of the difference."""
    differences = sums - sums[sums.sum(axis=1).argmax()]
    error = np.sqrt((differences**2).sum(axis=1))
    return np.asarray(differences.sum(axis=1) >= -error * (1 + _ROUNDING) - _ROUNDING)
