"""Probabilities that mean what they say: as many labels are right as the confidence promises.

C. Guo, G. Pleiss, Y. Sun and K. Weinberger, "On calibration of modern neural networks", ICML 2017.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from lowshot_kedro.blocks import row_ranges, spread_rows
from lowshot_kedro.labeling.methods.method import BLOCK_ROWS, LabelingMethod, to_shares

# With fewer held-out labels an accuracy has an error of a tenth, and a temperature is a guess.
MIN_HELD_OUT = 30
# What no class is less probable than, before a temperature: one that has not arrived is possible.
SMALLEST = 1e-3
_LIMITS = (1e-3, 1e3)
_MAX_FITTED = 20_000


def with_temperature(
    probabilities: NDArray[np.float32], temperature: float, in_place: bool = False
) -> NDArray[np.float32]:
    """q_c ∝ (p_c + δ)^(1/T), with δ = 0.001 for classes that a diffusion has not brought yet.

    Args:
        probabilities: float32 (n, C), rows summing to 1, or to 0.
        temperature: T; 1 changes nothing but for δ, a larger one makes probabilities more alike.
        in_place: Whether to write over them.

    Returns:
        float32 (n, C); rows of zeros stay. In memory besides: a block.
    """
    result = probabilities if in_place else probabilities.copy()
    for first, last in row_ranges(len(result), BLOCK_ROWS):
        block = result[first:last]
        nothing = ~block.any(axis=1)
        block += np.float32(SMALLEST)
        np.log(block, out=block)
        block /= np.float32(temperature)
        block -= block.max(axis=1, keepdims=True)
        np.exp(block, out=block)
        block[nothing] = 0
        to_shares(block)
    return result


def fit_temperature(
    probabilities: NDArray[np.float32],
    classes: NDArray[np.int32],
    default: float,
    spread: float,
) -> float:
    """The temperature that makes held-out labels most probable, near the default if they are few.

    The maximum of Σ log q_y - ½ (log T - log T₀)² / s², which is what a log-normal prior around the
    default T₀ adds to the likelihood.

    Args:
        probabilities: float32 (H, C); rows of zeros say nothing.
        classes: int32 (H,), what is right.
        default: T₀.
        spread: s, the standard deviation of log T that is expected.

    Returns:
        T, between 0.001 and 1000. In memory: 20 thousand rows of probabilities in double precision.
    """
    known = np.flatnonzero(probabilities.any(axis=1))
    rows = known[spread_rows(len(known), _MAX_FITTED)]
    weight = len(known) / max(len(rows), 1)
    logarithms = np.log(probabilities[rows].astype(np.float64) + SMALLEST)
    logarithms -= logarithms.max(axis=1, keepdims=True)
    right = logarithms[np.arange(len(rows)), classes[rows]]

    def loss(log_temperature: float) -> float:
        inverse = np.exp(-log_temperature)
        partition = np.log(np.exp(logarithms * inverse).sum(axis=1))
        distance = (log_temperature - np.log(default)) / spread
        return float(weight * (partition - right * inverse).sum() + distance**2 / 2)

    found = minimize_scalar(
        loss, bounds=np.log(_LIMITS).tolist(), method="bounded", options={"xatol": 1e-4}
    )
    return float(np.exp(found.x))


class CalibratedMethod:
    """A method with a temperature.

    The temperature with which held-out labels are judged is fitted without those of their fold. A
    few labels move it but little from the default one.

    Args:
        method: The method.

    Attributes:
        method: The method.
        is_calibrated: Whether there were enough held-out labels to say how right the confidence is.
        temperature: T.
        raw_confidence: float32 (H,), the largest probability before the temperature.
        right: bool (H,), which held-out labels are found.
        held_out: float32 (H, C), what the method says of held-out labels, calibrated.
    """

    def __init__(self, method: LabelingMethod) -> None:
        self.method = method
        work = method.work
        found = method.held_out()
        classes = work.classes[work.tested]
        expected = (method.default_temperature, method.temperature_spread)
        self.is_calibrated = len(classes) >= MIN_HELD_OUT
        self.temperature = fit_temperature(found, classes, *expected)
        self.raw_confidence: NDArray[np.float32] = found.max(axis=1, initial=0)
        self.right: NDArray[np.bool_] = most_probable(found) == classes
        ends = np.cumsum([len(fold) for fold in work.folds]).tolist()
        without = []
        for fold, last in zip(work.folds, ends, strict=True):
            others = np.delete(np.arange(len(classes)), np.s_[last - len(fold) : last])
            without.append(fit_temperature(found[others], classes[others], *expected))
        for fold, last, temperature in zip(work.folds, ends, without, strict=True):
            with_temperature(found[last - len(fold) : last], temperature, in_place=True)
        self.held_out = found

    def everyone(self) -> NDArray[np.float32]:
        """Calibrated probabilities of all images, float32 (N, C), anew whenever it is called."""
        return with_temperature(self.method.everyone(), self.temperature, in_place=True)


def most_probable(probabilities: NDArray[np.float32]) -> NDArray[np.int64]:
    """The first of the most probable classes of each row; -1 for rows of zeros."""
    found: NDArray[np.int64] = probabilities.argmax(axis=1)
    found[probabilities.max(axis=1, initial=0) == 0] = -1
    return found


def wilson_error(accuracy: float, n: float) -> float:
    """Half the width of the Wilson score interval of one standard error, of n answers.

    E. Wilson, "Probable inference, the law of succession, and statistical inference", Journal of
    the American Statistical Association 22, 1927. It is no error of 0 where all are right.
    """
    return float(np.sqrt(accuracy * (1 - accuracy) / n + 1 / (4 * n * n)) / (1 + 1 / n))


def binomial_error(accuracy: float, n: int) -> float:
    """The standard error of the accuracy of n answers."""
    return float(np.sqrt(accuracy * (1 - accuracy) / n))


_LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)
_BINS = 10


def reliability(confidence: NDArray[np.float32], right: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Confidence and accuracy of held-out labels in ten bins of equal width, as JSON holds it.

    Args:
        confidence: float32 (H,).
        right: bool (H,).

    Returns:
        For each bin with any labels: lower, upper, n, mean confidence, accuracy, Wilson error.
    """
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    return [
        {"lower": number / _BINS, "upper": (number + 1) / _BINS}
        | _counted(confidence[bins == number], right[bins == number])
        for number in np.unique(bins).tolist()
    ]


def calibration_error(confidence: NDArray[np.float32], right: NDArray[np.bool_]) -> float | None:
    """The expected calibration error: the mean of |confidence - accuracy| over the ten bins.

    Returns:
        0..1, each bin weighted by its labels; None without labels.
    """
    if len(right) == 0:
        return None
    found = reliability(confidence, right)
    total = sum(abs(each["confidence"] - each["accuracy"]) * each["n"] for each in found)
    return float(total) / len(right)


def accuracy_above(
    confidence: NDArray[np.float32], right: NDArray[np.bool_]
) -> list[dict[str, Any]]:
    """Accuracy of held-out labels with a confidence of at least 0.5, 0.8, 0.9, 0.95 and 0.99.

    Returns:
        For each level: confidence, n, accuracy, Wilson error; the last two None where n is 0.
    """
    levels = []
    for level in _LEVELS:
        above = confidence >= level
        counted = _counted(confidence[above], right[above])
        levels.append({**counted, "confidence": level})
    return levels


def _counted(confidence: NDArray[np.float32], right: NDArray[np.bool_]) -> dict[str, Any]:
    n = len(right)
    if n == 0:
        return {"n": 0, "confidence": None, "accuracy": None, "error": None}
    accuracy = float(right.mean())
    return {
        "n": n,
        "confidence": float(confidence.mean(dtype=np.float64)),
        "accuracy": accuracy,
        "error": wilson_error(accuracy, n),
    }


def calibration_sentence(
    confidence: NDArray[np.float32], right: NDArray[np.bool_], is_calibrated: bool
) -> str:
    """What is known of the accuracy at high confidence, for people."""
    if not is_calibrated:
        return (
            f"There are too few labels to know how many are right: {len(right)} could be held "
            f"out, and {MIN_HELD_OUT} are needed. The confidence is a guess."
        )
    for level in (0.9, 0.8, 0.5, 0.0):
        above = confidence >= level
        n = int(above.sum())
        if n >= MIN_HELD_OUT / 3:
            break
    accuracy = float(right[above].mean()) if n else 0.0
    # The middle of the interval: that all of a few are right does not mean that all others are.
    middle = (accuracy + 1 / (2 * n)) / (1 + 1 / n)
    which = f"labelled with a confidence above {level:g}" if level else "labelled"
    return (
        f"Of the images {which} about {100 * middle:.0f} % are right "
        f"(± {100 * wilson_error(accuracy, n):.0f}), as {n} held-out labels say."
    )
