"""The y of `LabelDiffusion`: which rows have a label, which classes there are, labels for the rest.

-1, None, NaN and the NA of pandas all say that a row has no label, whatever holds them. Labels are
of one kind: texts, truth values or whole numbers. No array that is given back mixes kinds.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils.validation import column_or_1d

from lowshot_kedro.errors import InputError, shown, warn_caller

UNLABELED = -1
# What stands for no class in results if -1 is one, and 1 the other.
_NEITHER = 0
_HOW_TO_WRITE_NO_LABEL = "rows without a label are written -1, None or NaN"
# Texts that other libraries make of a missing value, and such as nobody calls a class.
_NEVER_A_CLASS = frozenset(
    ("", "nan", "<na>", "nat", "-1", "-1.0", "unlabeled", "unlabelled", "no label")
)
# Texts that may be the name of a class, but seldom that of the largest.
_SELDOM_A_CLASS = frozenset(
    ("-", "--", "?", ".", "na", "n/a", "#n/a", "n.a.", "nil", "none", "null", "missing",
     "undefined", "unknown", "unassigned", "not available", "todo", "tbd")
)  # fmt: skip


class EncodedLabels(NamedTuple):
    """The labels that fit has been given.

    Attributes:
        classes: (C,), the labels that occur, in increasing order.
        rows: int32 (n,), the rows that have a label, in increasing order.
        row_classes: int32 (n,), the position of each of their labels in `classes`.
    """

    classes: NDArray[Any]
    rows: NDArray[np.int32]
    row_classes: NDArray[np.int32]


class _Entries(NamedTuple):
    """What y holds apart from None, NaN and the like; -1 is still among it.

    Attributes:
        are_there: bool (N,), False for rows with None and the like.
        values: (m,), the entries of the others.
        are_of_list: Whether they come from a list, which has no type.
    """

    are_there: NDArray[np.bool_]
    values: NDArray[Any]
    are_of_list: bool

    def but(self, are_none: NDArray[np.bool_] | None) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """Rows and labels, of one kind, without the entries that are none."""
        labels = _of_one_kind(self.values if are_none is None else self.values[~are_none])
        if self.are_of_list and labels.dtype.kind == "O":
            # Texts as numpy has them. Of the members of an enumeration str makes other texts.
            labels = np.array([str.__str__(label) for label in labels], dtype=str)
        are_labeled = self.are_there.copy()
        if are_none is not None:
            are_labeled[are_labeled] = ~are_none
        return np.flatnonzero(are_labeled), labels


def encode_labels(y: Any, n_rows: int) -> EncodedLabels:
    """Classes and labelled rows, and a warning for a y in which no label seems to be one.

    Args:
        y: (n_rows,), labels, and -1, None, NaN, NA or a mask for rows that have none: an array, a
            list, or a column of pandas of any type. A y of nothing but -1 and 1 has two classes.
        n_rows: Rows of X.

    Returns:
        Classes of the type that the labels have in y: of lists and columns of objects int64 (uint64
        for what does not fit), float64, bool or texts.

    Raises:
        ValueError: For labels of several kinds or none that can be used, or if there is none.
    """
    entries = _read(y, n_rows)
    are_none = _is_minus_one(entries.values)
    rows, labels = entries.but(are_none)
    if len(labels) == 0:
        raise InputError(
            f"y: none of the {n_rows} rows has a label, expected at least one label other than "
            f"{UNLABELED}, None and NaN"
        )
    are_two_classes = _are_two_classes(entries.values, are_none, labels)
    if are_two_classes:
        rows, labels = entries.but(None)
    classes, row_classes = np.unique(labels, return_inverse=True)
    if are_two_classes:
        warn_caller(
            "LabelDiffusion: y holds no labels but -1 and 1, which are taken for two classes with "
            "every row labelled (but those of None or NaN); with a single class there is nothing "
            "to tell apart"
        )
    else:
        _warn_of_unlikely_labels(classes, np.bincount(row_classes), n_rows)
    return EncodedLabels(classes, rows.astype(np.int32), row_classes.astype(np.int32))


def comparable_labels(
    y: Any, n_rows: int, classes: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Labels to compare with what has been predicted.

    Args:
        y: (n_rows,), as for :func:`encode_labels`. -1 is a label if it is one of the classes.
        n_rows: Rows of X.
        classes: (C,), of :func:`encode_labels`.

    Returns:
        The rows that have a label, int64 (n,), and their labels. Labels that are no class are among
        them.

    Raises:
        ValueError: If no row has a label, or labels are of another kind than the classes.
    """
    entries = _read(y, n_rows)
    rows, labels = entries.but(None if _has_minus_one(classes) else _is_minus_one(entries.values))
    if len(labels) == 0:
        raise InputError(f"y: none of the {n_rows} rows has a label, nothing to score")
    of_labels, of_classes = _kind(labels), _kind(classes)
    if of_labels != of_classes and not _are_truth_values(labels, classes):
        raise InputError(
            f"y: found {of_labels}, such as {_shown(labels[0])}, but the labels of fit were "
            f"{of_classes}, such as {_shown(classes[0])}; expected the same kind"
        )
    return rows, labels


def labels_of(classes: NDArray[Any], found: NDArray[np.int64]) -> NDArray[Any]:
    """Labels for rows, in an array that has one kind of entries.

    Args:
        classes: (C,), of :func:`encode_labels`.
        found: int64 (m,), positions in `classes`; -1 for none.

    Returns:
        (m,), :func:`no_label` where there is none. Of the type of `classes`, unless that has no
        room for it: then unsigned integers become the next signed type, truth values int8, and
        integers of 2⁶³ and more, for which there is no type, Python's.
    """
    labels = classes[np.maximum(found, 0)]
    are_none = found < 0
    if not are_none.any():
        return labels
    labels = labels.astype(_type_with_none(classes))
    labels[are_none] = no_label(classes)
    return labels


def no_label(classes: NDArray[Any]) -> int | str:
    """What stands for no label beside these classes: -1 or "-1", or 0 if -1 is a class."""
    is_text = _kind(classes) == "texts"
    value = _NEITHER if _has_minus_one(classes) else UNLABELED
    return str(value) if is_text else value


def _has_minus_one(classes: NDArray[Any]) -> bool:
    return bool(_is_minus_one(classes).any())


def _type_with_none(classes: NDArray[Any]) -> np.dtype[Any]:
    kind = classes.dtype.kind
    if kind == "b":
        return np.dtype(np.int8)
    if kind == "u":
        if classes.max() > np.iinfo(np.int64).max:
            return np.dtype(object)
        signed = np.promote_types(classes.dtype, np.int8)
        return signed if signed.kind == "i" else np.dtype(np.int64)
    # A text of one letter has no room for "-1".
    return np.promote_types(classes.dtype, "U2") if kind == "U" else classes.dtype


# Reading y.


def _read(y: Any, n_rows: int) -> _Entries:
    """The y without entries that are missing."""
    column = _column(y)
    is_pandas = hasattr(column, "isna")
    are_there = ~np.asarray(column.isna() if is_pandas else np.ma.getmaskarray(column), dtype=bool)
    if len(are_there) != n_rows:
        raise InputError(
            f"y: got {len(are_there)} labels, expected {n_rows}, one for each row of X"
        )
    if not are_there.all():
        column = column[are_there]
    # Of a column without gaps pandas makes an array of the type that it holds.
    values = np.asarray(column) if is_pandas else np.ma.getdata(column)
    if values.dtype.kind == "T":
        values = values.astype(object)
    is_something = ~_is_nothing(values)
    if not is_something.all():
        are_there[are_there] = is_something
        values = values[is_something]
    return _Entries(are_there, values, isinstance(y, Sequence))


def _column(y: Any) -> Any:
    """The y in one dimension: a column of pandas, or an array that may be masked."""
    if y is None:
        raise InputError("y: got None, but y should be a 1d array of labels, -1 for none")
    if hasattr(y, "iloc") and np.ndim(y) == 2 and y.shape[1] == 1:
        y = y.iloc[:, 0]
    if hasattr(y, "isna") and np.ndim(y) == 1:
        return y
    if hasattr(y, "to_pylist") or hasattr(y, "to_list"):
        # Of pyarrow and polars, which make floats of integers with a gap.
        return _objects(y.to_pylist() if hasattr(y, "to_pylist") else y.to_list())
    if isinstance(y, Sequence) and not isinstance(y, str | bytes):
        y = _objects(y)
    elif sparse.issparse(y) or not hasattr(y, "__array__"):
        raise InputError(f"y: got {type(y).__name__}, but y should be a 1d array of labels")
    array = y if isinstance(y, np.ma.MaskedArray) else np.asarray(y)
    if array.ndim == 1:
        return array
    try:
        values = column_or_1d(np.ma.getdata(array), warn=True)
    except ValueError as error:
        raise InputError(
            f"y: got shape {array.shape}, but y should be a 1d array, a label for a row"
        ) from error
    return np.ma.MaskedArray(values, np.ma.getmaskarray(array).ravel())


def _objects(items: Sequence[Any]) -> NDArray[Any]:
    """Items of a list as they are, not of the type that numpy would find for all of them."""
    try:
        return np.array(items, dtype=object)
    except ValueError as error:
        raise InputError(
            "y: got a list of arrays of several shapes, but y should be a 1d array, a label for a "
            "row"
        ) from error


def _is_nothing(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether values are None, NaN, NaT or NA."""
    if values.dtype.kind == "O":
        return np.fromiter(map(_is_no_object, values), bool, len(values))
    if values.dtype.kind in "fcmM":
        return np.asarray(values != values)
    return np.zeros(len(values), bool)


def _is_no_object(value: Any) -> bool:
    if value is None:
        return True
    unequal = value != value
    if isinstance(unequal, bool | np.bool_):
        return bool(unequal)
    # The NA of pandas compared with anything is NA.
    return unequal is value


def _is_minus_one(values: NDArray[Any]) -> NDArray[np.bool_]:
    kind = values.dtype.kind
    if kind == "U":
        return np.asarray(values == str(UNLABELED))
    if kind in "if":
        return np.asarray(values == UNLABELED)
    if kind != "O":
        return np.zeros(len(values), bool)
    of_type = {cls: _minus_one_of(cls) for cls in set(map(type, values))}
    found = (of_type[type(value)] == value for value in values)
    return np.fromiter((each is True or each is np.True_ for each in found), bool, len(values))


def _minus_one_of(cls: type) -> Any:
    """-1 as objects of a class have it, None if they have none."""
    if issubclass(cls, str):
        return str(UNLABELED)
    return UNLABELED if issubclass(cls, Integral | float | np.floating) else None


def _of_one_kind(values: NDArray[Any]) -> NDArray[Any]:
    """Labels in an array of one type; texts that are objects stay so."""
    kind = values.dtype.kind
    if kind in "biuU" or len(values) == 0:
        return values
    if kind == "f":
        return _whole_numbers(values)
    types = sorted(set(map(type, values)), key=lambda cls: cls.__name__)
    if kind == "O":
        if all(issubclass(cls, str) for cls in types):
            return values
        if all(issubclass(cls, bool | np.bool_) for cls in types):
            return values.astype(bool)
        if not any(issubclass(cls, bool | np.bool_) for cls in types):
            if all(issubclass(cls, Integral) for cls in types):
                return _integers(values)
            if all(issubclass(cls, Integral | float | np.floating) for cls in types):
                return _floats(values)
    names = ", ".join(cls.__name__ for cls in types) if kind == "O" else values.dtype.name
    raise InputError(
        f"y: found labels of the types {names}, expected whole numbers, truth values or str, one "
        "kind for all rows, and -1, None or NaN for rows without a label. Dates, bytes and other "
        "objects can be given as texts, such as str(label)"
    )


def _integers(values: NDArray[Any]) -> NDArray[Any]:
    numbers = [int(value) for value in values]
    for dtype in (np.int64, np.uint64):
        limits = np.iinfo(dtype)
        if limits.min <= min(numbers) and max(numbers) <= limits.max:
            return np.array(numbers, dtype)
    largest = max(numbers, key=abs)
    raise InputError(
        f"y: found the label {_shown(largest)}, expected integers of 64 bits; larger ones can be "
        "given as texts"
    )


def _floats(values: NDArray[Any]) -> NDArray[Any]:
    try:
        return _whole_numbers(values.astype(np.float64))
    except OverflowError as error:
        raise InputError(
            "y: found integers among floats that no float can hold, expected integers of 64 bits"
        ) from error


def _whole_numbers(labels: NDArray[Any]) -> NDArray[Any]:
    """Refuse floats that are no number of a class, or that may be rounded ones."""
    if not np.isfinite(labels).all():
        raise InputError("y: found infinity, expected whole numbers as labels, or NaN for none")
    is_fraction = labels != np.trunc(labels)
    if is_fraction.any():
        raise InputError(
            f"y: found the label {labels[is_fraction][0]}, expected whole numbers, truth values or "
            "texts; for continuous targets there is no class"
        )
    exact = 2 ** (np.finfo(labels.dtype).nmant + 1)
    is_rounded = np.abs(labels) >= exact
    if is_rounded.any():
        raise InputError(
            f"y: found the label {labels[is_rounded][0]} as {labels.dtype}, which cannot tell "
            f"whole numbers from {exact} on apart; expected integers, for instance of type int64 "
            "or, where labels are missing, Int64 of pandas"
        )
    return labels


def _kind(labels: NDArray[Any]) -> str:
    if labels.dtype.kind in "UO":
        return "texts"
    return "truth values" if labels.dtype.kind == "b" else "numbers"


def _are_truth_values(*parts: NDArray[Any]) -> bool:
    """Whether all are True, False, 1 or 0."""
    return all(_kind(part) != "texts" and np.isin(part, [0, 1]).all() for part in parts)


def _shown(label: Any) -> str:
    """A label in a message."""
    return shown(label.item() if isinstance(label, np.generic) else label)


# What y should perhaps not be.


def _are_two_classes(values: NDArray[Any], are_none: NDArray[np.bool_], labels: Any) -> bool:
    """Whether nothing but -1 and 1 occurs, which is a usual way to write two classes."""
    if _kind(labels) == "truth values" or not are_none.any():
        return False
    is_text = _kind(labels) == "texts"
    if not (labels == ("1" if is_text else 1)).all():
        return False
    # Beside the text "1" the number -1 is no class.
    return values.dtype.kind != "O" or len({isinstance(value, str) for value in values}) == 1


def _warn_of_unlikely_labels(classes: NDArray[Any], counts: NDArray[np.int64], n_rows: int) -> None:
    """Warn once of a y that has no row without label, or a class that seems to mean none."""
    largest = classes[counts.argmax()]
    holds_most = counts.max() > n_rows / 2 and len(classes) > 1
    doubts = []
    suspects = [name for name in classes if looks_like_none(name, name == largest)]
    if counts.sum() == n_rows:
        doubts.append("every row has a label, so there is no row to find one for")
        if holds_most and largest not in suspects:
            doubts.append(f"most rows have the label {_shown(largest)}")
    doubts += [f"the label {_shown(name)} looks as if it meant none" for name in suspects]
    if doubts:
        warn_caller(f"LabelDiffusion: y: {'; '.join(doubts)}; {_HOW_TO_WRITE_NO_LABEL}")


def looks_like_none(label: Any, is_largest: bool) -> bool:
    """Whether a label may be meant to say that there is none.

    Args:
        label: A label of any kind; only texts look like that.
        is_largest: Whether texts count too that may name a class, but seldom the largest one.
    """
    if not isinstance(label, str):
        return False
    plain = " ".join(label.split()).casefold()
    return plain in _NEVER_A_CLASS or (is_largest and plain in _SELDOM_A_CLASS)
