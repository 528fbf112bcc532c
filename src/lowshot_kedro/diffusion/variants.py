"""Variants of the propagation: changes of the scores L between two steps, and class priors.

An adjustment changes L in place. It gets a dense array whose columns sum to 1 (those of
classes without a label are zero); afterwards the engine scales the columns again. To add one, write
a class like :class:`Power` and add it to :func:`adjustments`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.blocks import row_ranges
from lowshot_kedro.deprecated import takes_old_keywords
from lowshot_kedro.errors import InputError

BLOCK_ROWS = 16384

CLASS_PRIORS = ("uniform", "labeled")


class LabeledRows(NamedTuple):
    """L₀ for a slice of the classes: an entry for every label of these.

    Column c of L₀ is 1 on the labelled images of class c, scaled to sum 1.

    Attributes:
        rows: int32 (m,).
        columns: int32 (m,), classes, from the first of the slice on. No pair of row and column
            occurs twice.
        values: float32 (m,); those of a class sum to 1.
        n_columns: Classes of the slice.
        all_rows: int32, the rows of the labelled images of all classes.
    """

    rows: NDArray[np.int32]
    columns: NDArray[np.int32]
    values: NDArray[np.float32]
    n_columns: int
    all_rows: NDArray[np.int32]


class Adjustment(Protocol):
    """A change of the scores after a step."""

    def __call__(self, scores: NDArray[np.floating[Any]], labeled: LabeledRows) -> None:
        """Change the scores in place.

        Args:
            scores: float32, or float64 with the back end scipy, (N, c), columns summing to 1.
            labeled: L₀ for these columns.
        """
        ...


@dataclass(frozen=True)
class Power:
    """L_ic ← L_ic^p: for p > 1 strong classes get stronger.

    What inflation does to the transition matrix in Markov clustering (S. van Dongen, "Graph
    clustering by flow simulation", 2000), done to the scores of each class.

    Attributes:
        exponent: p.
    """

    exponent: float

    def __call__(self, scores: NDArray[np.floating[Any]], labeled: LabeledRows) -> None:
        """Raise the scores to the power, relative to the largest of their column."""
        # A column's scale does not matter. This one keeps the powers of small scores above zero.
        largest = scores.max(axis=0, initial=0)
        factors = 1 / np.where(largest == 0, 1, largest)
        for first, last in row_ranges(len(scores), BLOCK_ROWS):
            block = scores[first:last]
            block *= factors
            np.power(block, float(self.exponent), out=block)


@dataclass(frozen=True)
class Clamping:
    """L_i ← (L₀)_i for every labelled image i: what is known is not forgotten.

    The clamping of X. Zhu and Z. Ghahramani, "Learning from labeled and unlabeled data with label
    propagation", 2002, for columns that sum to 1: the labelled images of a class then carry at
    least half of its column.
    """

    def __call__(self, scores: NDArray[np.floating[Any]], labeled: LabeledRows) -> None:
        """Write the rows of L₀ over those of the labelled images."""
        scores[labeled.all_rows] = 0
        scores[labeled.rows, labeled.columns] = labeled.values


@takes_old_keywords
def adjustments(power: float = 1.0, clamping: bool = False) -> tuple[Adjustment, ...]:
    """The adjustments that parameters ask for, in the order in which they are made.

    Args:
        power: Exponent of :class:`Power`; 1: none.
        clamping: Whether to make :class:`Clamping`.
    """
    chosen: list[Adjustment] = []
    if power != 1:
        chosen.append(Power(power))
    if clamping:
        chosen.append(Clamping())
    return tuple(chosen)


def require_class_prior(prior: str | Sequence[float]) -> None:
    """Refuse what can be no prior, whatever the classes are.

    Args:
        prior: As for :func:`class_priors`.

    Raises:
        ValueError: For an unknown name, or numbers that cannot be priors.
    """
    if isinstance(prior, str):
        if prior not in CLASS_PRIORS:
            expected = f"one of: {', '.join(CLASS_PRIORS)}, or a list"
            raise InputError(parameter="class_prior", found=prior, expected=expected)
        return
    try:
        weights = np.asarray(prior, dtype=np.float64)
    except (TypeError, ValueError):
        weights = np.empty(())
    if weights.ndim != 1:
        expected = f"one of: {', '.join(CLASS_PRIORS)}, or a list of numbers"
        raise InputError(parameter="class_prior", found=prior, expected=expected)
    are_priors = np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0
    if len(weights) and not are_priors:
        expected = "numbers of at least 0, not all of them 0"
        raise InputError(parameter="class_prior", found=prior, expected=expected)


def class_priors(
    prior: str | Sequence[float], labeled_classes: NDArray[np.int32], n_classes: int
) -> NDArray[np.float32]:
    """π_c: what the column of class c sums to wherever scores are read.

    Args:
        prior: `uniform`: π_c = 1. `labeled`: π_c = C n_c / n, n_c of all n labelled images being of
            class c. Or C numbers, scaled to sum to C.
        labeled_classes: int32 (n,).
        n_classes: C.

    Returns:
        float32 (C,), with mean 1.

    Raises:
        ValueError: For an unknown name, or numbers that cannot be priors.
    """
    require_class_prior(prior)
    if isinstance(prior, str):
        if prior == "uniform":
            return np.ones(n_classes, np.float32)
        if len(labeled_classes) == 0:
            raise InputError("but no image is labelled", parameter="class_prior", found=prior)
        prior = np.bincount(labeled_classes, minlength=n_classes).tolist()
    weights = np.asarray(prior, dtype=np.float64)
    if len(weights) != n_classes:
        raise InputError(
            f"got {weights.size} numbers, expected one for each of the {n_classes} classes",
            parameter="class_prior",
        )
    priors: NDArray[np.float32] = (weights * (n_classes / weights.sum())).astype(np.float32)
    return priors
