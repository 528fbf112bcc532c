"""A y in which nothing, or the wrong thing, says that rows have no label."""

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import GridSearchCV, cross_val_score

from lowshot_kedro import LabelDiffusion

from .making import clusters, few_labels


def messages_of(y, X=None):
    X = clusters(len(y))[0] if X is None else X
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        LabelDiffusion(5, 3).fit(X, y)
    return [str(warning.message) for warning in caught]


def texts(none, n=60):
    """Two labels of each of three classes, and `none` for the others."""
    _, classes = clusters(n)
    y = few_labels(classes)
    return np.where(y == -1, none, np.array(["cat", "dog", "owl"])[y])


@pytest.mark.parametrize(
    "y",
    [np.arange(60) % 3, (np.arange(60) % 3).astype(float), np.arange(60) % 2 == 0,
     np.array(["cat", "dog", "owl"])[np.arange(60) % 3], ["cat"] * 60,
     pd.Series(np.arange(60) % 3, dtype="Int64")],
    ids=["numbers", "floats", "truth values", "texts", "one class", "nullable"],
)  # fmt: skip
def test_a_y_without_unlabelled_rows_warns_once_and_says_how_to_write_them(y):
    (message,) = messages_of(y)
    assert message.startswith("LabelDiffusion: y: every row has a label")
    assert "-1, None or NaN" in message
    assert "most rows" not in message and "looks as if" not in message


@pytest.mark.parametrize("label", [0, -2, 999, 7.0, False, "background"], ids=repr)
def test_a_class_of_most_rows_of_such_a_y_is_named(label):
    others = {bool: [True, True], str: ["cat", "dog"]}.get(type(label), [1, 2])
    y = [*others, *[label] * 58]
    (message,) = messages_of(y)
    assert f"most rows have the label {label!r}" in message
    assert "-1, None or NaN" in message


@pytest.mark.parametrize(
    "none",
    ["", " ", "\t", "nan", "NaN", "<NA>", "NaT", "None", "none", "null", "NULL", "N/A", "n/a", "NA",
     "?", "-", "unknown", "Unknown", "unlabeled", "Unlabelled", "no  label", "missing",
     "-1.0", " -1"],
)  # fmt: skip
@pytest.mark.parametrize("n_none", [54, 53])
def test_a_text_that_means_none_is_named(none, n_none):
    y = texts(none)
    # With one of them missing in the usual way, too, it is as suspicious.
    y[np.flatnonzero(y == none)[: 54 - n_none]] = "-1"
    (message,) = messages_of(y)
    assert f"the label {none!r} looks as if it meant none" in message
    assert "-1, None or NaN" in message
    assert ("every row" in message) == (n_none == 54)
    assert "most rows" not in message


@pytest.mark.parametrize("none", ["", "nan", "<NA>", "unlabeled", "-1.0"])
def test_texts_that_are_no_class_are_named_even_in_one_row(none):
    y = texts("-1")
    y = y.astype("<U9")
    y[np.flatnonzero(y == "-1")[7]] = none
    (message,) = messages_of(y)
    assert f"the label {none!r} looks as if it meant none" in message


def test_what_numpy_and_pandas_make_of_missing_labels_is_named():
    missing = [np.nan] * 54
    y = ["cat", "dog", "owl"] * 2
    (message,) = messages_of(np.array(y + missing))
    assert "'nan'" in message
    (message,) = messages_of(np.array(y + [None] * 54, object).astype(str))
    assert "'None'" in message
    (message,) = messages_of(pd.Series([0.0, 1, 2] * 2 + [-1] * 54).astype(str))
    assert "'-1.0'" in message


@pytest.mark.parametrize(
    "name", ["none", "unknown", "?", "missing", "cat", "background", "-2", "0"]
)
def test_a_small_class_may_have_any_name(name):
    y = texts("-1").astype("<U10")
    y[np.flatnonzero(y == "cat")[0]] = name
    assert messages_of(y) == []


def test_classes_may_be_of_any_size_where_others_are_unlabelled():
    X, _ = clusters()
    y = np.where(np.arange(60) < 50, 0, -1)
    y[:4] = [1, 1, 2, 2]
    assert messages_of(y, X) == []


def test_two_classes_of_minus_one_and_one_are_warned_of_once():
    (message,) = messages_of(np.where(np.arange(60) % 2, 1, -1))
    assert "two classes" in message


def test_the_warning_points_to_the_caller():
    with pytest.warns(UserWarning, match="every row") as caught:
        LabelDiffusion(5, 3).fit(clusters()[0], clusters()[1])
    assert caught[0].filename == __file__


def test_cross_validation_is_silent_where_rows_are_unlabelled():
    X, classes = clusters(150)
    y = few_labels(classes, 15)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        GridSearchCV(LabelDiffusion(), {"n_neighbors": [4, 6]}, cv=3).fit(X, y)
        cross_val_score(LabelDiffusion(5), X, np.where(y == -1, "-1", classes.astype(str)), cv=3)
    assert [str(each.message) for each in caught if "y:" in str(each.message)] == []
