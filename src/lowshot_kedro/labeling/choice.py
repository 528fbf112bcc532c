"""Which method is taken: held-out labels decide where there are enough."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np

from lowshot_kedro.extras import require
from lowshot_kedro.labeling.calibration import MIN_HELD_OUT, CalibratedMethod, binomial_error
from lowshot_kedro.labeling.methods import METHODS, Work
from lowshot_kedro.progress import logged_step

logger = logging.getLogger(__name__)

_USUAL = next(iter(METHODS))


def judged_methods(work: Work, method: str) -> tuple[dict[str, CalibratedMethod], str]:
    """The methods that are asked about held-out labels, and why no others are.

    Args:
        work: The images and their labels.
        method: The one to take, or `auto`.

    Returns:
        By name; with `auto` and enough labels all that are installed, else the one and its parts.
        And a sentence about what was left out, or nothing.

    Raises:
        MissingLibraryError: If a library is missing that the method asked for needs.
    """
    left_out = ""
    if method != "auto":
        wanted = {method, *METHODS[method].parts}
        for name in wanted:
            library = METHODS[name].library
            if library is not None:
                require(library, parameter="method", found=method)
    elif len(work.tested) < MIN_HELD_OUT:
        wanted = {_USUAL}
    else:
        wanted = {name for name, each in METHODS.items() if _is_installed(each.library)}
        missing = [name for name in METHODS if name not in wanted]
        if missing:
            left_out = f" Not tried, as a library is missing: {', '.join(missing)}."
    judged: dict[str, CalibratedMethod] = {}
    for name, each in METHODS.items():
        if name in wanted:
            with logged_step(f"held-out labels: {name}"):
                judged[name] = CalibratedMethod(each(work, judged))
    return judged, left_out


def choose_method(
    judged: Mapping[str, CalibratedMethod], method: str, n_held_out: int
) -> tuple[str, str]:
    """The method to take, and why.

    With `auto` the one with the best accuracy for held-out labels is taken if it beats diffusion
    by more than a standard error of the difference, √(b + c) labels, if b are right only here and c
    only there (Q. McNemar, Psychometrika 12, 1947).

    Args:
        judged: Methods by name.
        method: The one to take, or `auto`.
        n_held_out: H.

    Returns:
        Name and a sentence.
    """
    if method != "auto":
        return method, f"The parameters ask for {judged[method].method.title}."
    usual = judged[_USUAL]
    title = usual.method.title
    if n_held_out < MIN_HELD_OUT:
        return _USUAL, (
            f"{n_held_out} labels could be held out, too few to choose by ({MIN_HELD_OUT} are "
            f"needed): {title}, which is as a rule best with few labels."
        )
    best = max(judged, key=lambda name: (int(judged[name].right.sum()), name == _USUAL))
    figures = ", ".join(
        f"{each.method.title} {100 * each.right.mean():.1f} %" for each in judged.values()
    )
    start = f"Of {n_held_out} held-out labels are right: {figures}."
    if best == _USUAL:
        return best, f"{start} None is better than {title}."
    difference = judged[best].right.astype(np.int64) - usual.right
    gain, error = int(difference.sum()), float(np.sqrt((difference**2).sum()))
    said = (
        f"{judged[best].method.title} finds {gain} more than {title}, with a standard error of "
        f"{error:.1f}"
    )
    if gain > error:
        return best, f"{start} {said[0].upper()}{said[1:]}."
    return _USUAL, f"{start} {said[0].upper()}{said[1:]}, which is no reason to leave {title}."


def accuracies(judged: Mapping[str, CalibratedMethod]) -> dict[str, dict[str, Any]]:
    """Accuracy for held-out labels and its standard error, as JSON holds it."""
    found: dict[str, dict[str, Any]] = {}
    for name, each in judged.items():
        right = each.right
        accuracy = float(right.mean()) if len(right) else None
        found[name] = {
            "title": each.method.title,
            "accuracy": accuracy,
            "error": None if accuracy is None else binomial_error(accuracy, len(right)),
            "temperature": each.temperature,
        }
    return found


def _is_installed(library: str | None) -> bool:
    return library is None or find_spec(library) is not None
