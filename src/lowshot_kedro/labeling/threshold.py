"""The confidence below which a label is unknown."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.errors import InputError
from lowshot_kedro.labeling.calibration import MIN_HELD_OUT, wilson_error
from lowshot_kedro.labeling.parameters import LabelingParameters


class Threshold(NamedTuple):
    """A threshold, and what it does.

    Attributes:
        confidence: Labels below it are unknown; None: none is.
        is_unknown: bool (N,), whether a label found is below it.
        sentence: For people.
    """

    confidence: float | None
    is_unknown: NDArray[np.bool_]
    sentence: str


def require_no_class(unknown: str, classes: tuple[str, ...]) -> None:
    """Refuse a class that is called as labels below the threshold are.

    Raises:
        InputError: If there is one.
    """
    if unknown in classes:
        raise InputError(
            "which is also a class",
            parameter="unknown",
            found=unknown,
            expected="a text that is no class",
        )


def choose_threshold(
    parameters: LabelingParameters,
    confidence: NDArray[np.float32],
    is_found: NDArray[np.bool_],
    held_out_confidence: NDArray[np.float32],
    right: NDArray[np.bool_],
) -> Threshold:
    """The threshold that was asked for, or the one with which as many labels are right as wanted.

    It is the smallest confidence t for which r / (n + 1) is at least the accuracy wanted, where r
    of the n held-out labels with a confidence of at least t are right. One more label counts as
    wrong, as in conformal risk control (A. Angelopoulos, S. Bates, A. Fisch, L. Lei and T.
    Schuster, ICLR 2024), so that the accuracy wanted holds for the next label too, and a few lucky
    ones say nothing. Where there are too few for that, the mean confidence has to be the accuracy.

    Args:
        parameters: `accuracy`, `threshold` and `unknown` count.
        confidence: float32 (N,).
        is_found: bool (N,), which labels have been found rather than given.
        held_out_confidence: float32 (H,).
        right: bool (H,), which of the held-out labels are right.

    Returns:
        The threshold.
    """
    wanted = parameters.accuracy
    if parameters.threshold is None and wanted is None:
        return Threshold(None, np.zeros(len(confidence), np.bool_), "All labels are kept.")
    why = ""
    if wanted is None:
        assert parameters.threshold is not None
        chosen = parameters.threshold
    else:
        found = _of_held_out(held_out_confidence, right, wanted)
        if found is not None:
            chosen = found
        else:
            chosen = _of_mean(confidence[is_found], wanted)
            few = len(right) < MIN_HELD_OUT
            why = (
                " There are too few held-out labels to choose it by: it is where the mean "
                f"confidence of the labels kept is at least {wanted:g}."
                if few
                else " At no confidence are enough held-out labels right to promise "
                f"{wanted:g}, so it is where the mean confidence of the labels kept is at least "
                f"{wanted:g}, which nothing confirms."
            )
    is_unknown = is_found & (confidence < chosen)
    n_found, n_kept = int(is_found.sum()), int((is_found & ~is_unknown).sum())
    sentence = (
        f"Labels with a confidence below {chosen:.3g} are {parameters.unknown}: {n_kept} of "
        f"{n_found} found labels are kept.{why}"
    )
    above = held_out_confidence >= chosen
    if len(right) >= MIN_HELD_OUT and above.any():
        accuracy = float(right[above].mean())
        error = wilson_error(accuracy, int(above.sum()))
        sentence += (
            f" Of {int(above.sum())} held-out labels above it {100 * accuracy:.1f} % are right "
            f"(± {100 * error:.1f})."
        )
    return Threshold(float(chosen), is_unknown, sentence)


def _of_held_out(
    confidence: NDArray[np.float32], right: NDArray[np.bool_], wanted: float
) -> float | None:
    if len(right) < MIN_HELD_OUT:
        return None
    order = np.argsort(-confidence, kind="stable")
    ranked = confidence[order]
    counts = np.arange(1, len(right) + 1)
    # Labels of one confidence are above a threshold together.
    is_last = np.append(ranked[1:] != ranked[:-1], True)
    good = np.flatnonzero(is_last & (right[order].cumsum() / (counts + 1) >= wanted))
    return float(ranked[good[-1]]) if len(good) else None


def _of_mean(confidence: NDArray[np.float32], wanted: float) -> float:
    ranked = -np.sort(-confidence)
    means = ranked.cumsum(dtype=np.float64) / np.arange(1, len(ranked) + 1)
    good = np.flatnonzero(means >= wanted)
    return float(ranked[good[-1]]) if len(good) else wanted
