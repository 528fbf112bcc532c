"""Rows of numbers as :class:`~lowshot_kedro.LabelDiffusion` takes them, in float32 in the end."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils.validation import validate_data

from lowshot_kedro.blocks import require_finite, row_ranges
from lowshot_kedro.errors import InputError
from lowshot_kedro.graph.vectors import release

_BLOCK_ROWS = 16384
# Rows of a block where rows are only looked at.
_FEW_ROWS = 512
# Squares of smaller differences, and lengths of shorter rows, lose digits in float32.
_SMALLEST_SPREAD, _SHORTEST = 1e-18, 1e-34


def checked_rows(estimator: Any, X: Any, reset: bool) -> Any:
    """X checked as scikit-learn checks its input.

    Args:
        estimator: Remembers number and names of the columns.
        X: (N, d), an array, memmap, table, list or sparse matrix of real numbers.
        reset: Whether to remember them; otherwise X has to have the same.

    Returns:
        X or, where it is no array, one of its numbers, or a CSR matrix; not yet known to be finite.

    Raises:
        ValueError: For what is no table of real numbers.
        TypeError: For objects that are none, as everywhere in scikit-learn.
    """
    if getattr(getattr(X, "dtype", None), "kind", "") == "c":
        raise InputError("X: Complex data not supported, expected real numbers")
    if np.ma.is_masked(X):
        # scikit-learn takes what is below the mask.
        raise InputError("X: found masked entries, expected an array without a mask")
    try:
        checked = validate_data(
            estimator, X, accept_sparse="csr", dtype="numeric", ensure_all_finite=False, reset=reset
        )
    except (TypeError, ValueError, OverflowError) as error:
        message = _of_one_line(str(error))
        # scikit-learn's checks of estimators tell them apart.
        kind = TypeError if isinstance(error, TypeError) else InputError
        raise kind(message if message.startswith("X ") else f"X: {message}") from error
    if checked.dtype.kind not in "biuf":
        raise InputError(f"X: found values of type {checked.dtype}, expected real numbers")
    return _same_memory(X, checked)


def is_plain(X: Any) -> bool:
    """Whether searches can use X as it is."""
    return isinstance(X, np.ndarray) and X.dtype == np.float32 and X.flags.c_contiguous


def is_zero(vectors: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which rows are all zeros, bool (m,)."""
    return np.asarray(~vectors.any(axis=1))


def require_finite_entries(block: sparse.csr_array, first: int) -> None:
    """Refuse rows of a sparse block that hold NaN or infinity; its first row is row `first`."""
    is_finite = np.isfinite(block.data)
    if not is_finite.all():
        # NaN in one column for each row that holds any, since sums of finite numbers may overflow.
        rows = np.repeat(np.arange(block.shape[0]), np.diff(block.indptr))
        found = np.zeros((block.shape[0], 1))
        found[rows[~is_finite]] = np.nan
        require_finite(found, np.arange(first, first + len(found)), "X")


def require_no_overflow(vectors: NDArray[np.float32], numbers: NDArray[np.int64]) -> None:
    """Refuse rows of finite numbers that became infinite as float32."""
    is_finite = np.isfinite(vectors).all(axis=1)
    if not is_finite.all():
        raise InputError(
            f"X: row {numbers[~is_finite][0]} holds numbers too large for float32, expected at "
            "most 1e+38; divide X by a number"
        )


def require_directions(X: NDArray[Any], number: int = 0) -> None:
    """Refuse rows other than zeros that are so short that float32 loses their direction.

    Args:
        X: (m, d), before it becomes float32.
        number: Number of the first of these rows in the whole matrix.
    """
    for first, last in row_ranges(len(X), _FEW_ROWS):
        largest = np.abs(X[first:last]).max(axis=1)
        is_lost = (largest > 0) & (largest < _SHORTEST)
        if is_lost.any():
            row = int(is_lost.argmax())
            raise InputError(
                f"X: row {number + first + row} holds no number above {largest[row]:.3g}, too "
                f"small for a cosine in float32, expected {_SHORTEST:g}, or zeros; multiply X by a "
                "number"
            )


def require_spread(X: Any) -> None:
    """Refuse rows that differ by so little that float32 has no squares of the differences."""
    if sparse.issparse(X):
        largest = max(float(X.data.max(initial=0)), -float(X.data.min(initial=0)))
    else:
        largest = 0.0
        with np.errstate(over="ignore", invalid="ignore"):
            for first, last in row_ranges(len(X), _FEW_ROWS):
                differences = np.subtract(X[first:last], X[0], dtype=np.float64)
                largest = np.maximum(largest, np.abs(differences, out=differences).max())
                # As in nearly all data at once, or NaN, which is reported elsewhere.
                if not largest < _SMALLEST_SPREAD:
                    return
    if 0 < largest < _SMALLEST_SPREAD:
        raise InputError(
            f"X: rows differ by {largest:.3g} at most, too little for squares in float32, expected "
            f"{_SMALLEST_SPREAD:g}, or no difference; multiply X by a number"
        )


def _of_one_line(message: str) -> str:
    """A message of scikit-learn's without the contents of the array that it is about."""
    if message.startswith("The feature names"):
        return message  # A list of names.
    without = re.sub(r"\n(array=)?\[.*\]\.?\n?", " ", message, flags=re.DOTALL)
    return " ".join(without.split())


def _same_memory(given: Any, checked: Any) -> Any:
    """The memmap that was given rather than the array over it that scikit-learn makes of it."""
    is_same = isinstance(given, np.memmap) and np.shares_memory(given, checked)
    return given if is_same and given.dtype == checked.dtype else checked


def center_of(X: NDArray[Any]) -> NDArray[np.float64] | None:
    """The mean of the rows, where float32 would round them; else None."""
    if np.can_cast(X.dtype, np.float32, "safe"):
        return None
    total = np.zeros(X.shape[1], np.float64)
    for first, last in row_ranges(len(X), _BLOCK_ROWS):
        require_finite(X[first:last], np.arange(first, last), "X")
        # Numbers as large as that are refused as float32.
        with np.errstate(over="ignore", invalid="ignore"):
            total += X[first:last].sum(axis=0, dtype=np.float64)
        release(X)
    return total / len(X)
