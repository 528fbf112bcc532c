"""What classifiers that compare directions ask of the vectors and classes they get."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.errors import InputError
from lowshot_kedro.graph import normalize

_SHOWN_ROWS = 5


def unit_vectors(
    features: NDArray[np.float32],
    name: str,
    n_columns: int | None = None,
    first_row: int = 0,
) -> NDArray[np.float32]:
    """A copy with rows of length 1.

    Args:
        features: float32 (m, d).
        name: What an error message calls them.
        n_columns: How many columns they must have; None: any number.
        first_row: Number of the first of these rows in the whole matrix.

    Raises:
        ValueError: For another number of columns, NaN, infinity, or a row of zeros, which has no
            direction.
    """
    if n_columns is not None and features.shape[1] != n_columns:
        raise InputError(
            f"{name}: {features.shape[1]} columns, but the labelled features have {n_columns}"
        )
    unit = normalize(features, first_row, name)
    zero = first_row + np.flatnonzero(~unit.any(axis=1))
    if len(zero):
        shown = ", ".join(map(str, zero[:_SHOWN_ROWS])) + (", …" if len(zero) > _SHOWN_ROWS else "")
        raise InputError(
            f"{name}: found nothing but zeros in {len(zero)} row(s), numbers {shown}; expected "
            "vectors that have a direction"
        )
    return unit


def require_every_class(
    classes: NDArray[np.int32], n_rows: int, n_classes: int, method: str
) -> None:
    """Refuse labels of which a class has none, or that do not belong to the features.

    Args:
        classes: int32, of the labelled images.
        n_rows: Labelled features.
        n_classes: Number of classes C.
        method: What an error message calls the classifier.

    Raises:
        ValueError: Unless there are n_rows classes, in 0..C-1, each at least once.
    """
    if len(classes) != n_rows:
        raise InputError(f"{method}: {n_rows} labelled features, but {len(classes)} classes")
    found = np.unique(classes)
    if not np.array_equal(found, np.arange(n_classes)):
        range_found = f" in {found[0]}..{found[-1]}" if len(found) else ""
        raise InputError(
            f"{method}: found images of {len(found)} classes{range_found}, expected at least one "
            f"of each of {n_classes}"
        )
