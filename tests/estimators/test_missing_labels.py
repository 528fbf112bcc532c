"""None, NaN, NA and masks say what -1 says, whatever holds them."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from lowshot_kedro import LabelDiffusion

from .making import clusters, few_labels, two_islands

NAMES = np.array(["cat", "dog", "owl"])
NOTHING = [None, np.nan, pd.NA, pd.NaT, np.float32("nan"), np.datetime64("NaT")]


def problem():
    X, classes = clusters()
    return X, few_labels(classes)


def with_gaps(values, nothing=None):
    """Values for classes 0, 1 and 2, and `nothing` for rows without a label."""
    _, y = problem()
    found = np.empty(len(y), object)
    for row, label in enumerate(y):
        found[row] = values[label] if label != -1 else nothing
    return found


def columns():
    """Name: y, and the type of the classes."""
    numbers, texts = with_gaps([3, 4, 5]), with_gaps(NAMES.tolist())
    _, y = problem()
    nullable = {
        name: (pd.Series(numbers, dtype=name), name.lower())
        for name in ("Int8", "Int32", "Int64", "UInt8", "UInt64", "Float32", "Float64")
    }
    of_texts = {
        name: (pd.Series(texts, dtype=name), object)
        for name in ("object", "string", "string[python]", "category")
    }
    hidden = np.ma.MaskedArray(np.where(y == -1, 0, y + 3), y == -1)
    return {
        **nullable,
        **{f"{name} of texts": column for name, column in of_texts.items()},
        "column of objects": (pd.Series(numbers, dtype=object), "int64"),
        "column of floats": (pd.Series(numbers, dtype=float), "float64"),
        "categories that are numbers": (pd.Series(numbers, dtype="category"), "int64"),
        "categories that are nullable": (
            pd.Series(pd.Categorical(pd.Series(numbers, dtype="Int64"))), "int64"),
        "column of a sparse type": (pd.Series(numbers, dtype="Sparse[float64]"), "float64"),
        "inferred texts": (pd.Series(texts.tolist()), object),
        "index": (pd.Index(texts), object),
        "extension array": (pd.array(numbers, dtype="Int64"), "int64"),
        "Categorical": (pd.Categorical(texts), object),
        "frame": (pd.DataFrame({"y": pd.Series(numbers, dtype="Int64")}), "int64"),
        "column with an index": (
            pd.Series(numbers, np.arange(60)[::-1] * 7, dtype="Int64"), "int64"),
        "objects": (numbers, "int64"),
        "texts among objects": (texts, object),
        "floats": (numbers.astype(float), "float64"),
        "half precision": (numbers.astype(np.float16), "float16"),
        "list": (numbers.tolist(), "int64"),
        "tuple of texts": (tuple(texts), "<U3"),
        "list of texts": (texts.tolist(), "<U3"),
        "mask": (hidden, "int64"),
        "mask over texts": (np.ma.MaskedArray(NAMES[y], y == -1), "<U3"),
        "strings of numpy": (
            np.array(texts, np.dtypes.StringDType(na_object=None)), object),
    }  # fmt: skip


@pytest.mark.parametrize("name", columns())
def test_a_missing_label_is_none(name):
    X, y = problem()
    given, dtype = columns()[name]
    model = LabelDiffusion(5, 3).fit(X, given)
    plain = LabelDiffusion(5, 3).fit(X, y)
    classes = np.array([3, 4, 5] if model.classes_.dtype.kind in "iuf" else NAMES)
    np.testing.assert_array_equal(model.classes_, classes)
    assert model.classes_.dtype == dtype
    np.testing.assert_array_equal(model.label_distributions_, plain.label_distributions_)
    for found in (model.transduction_, model.predict(X)):
        assert found.dtype == dtype
    np.testing.assert_array_equal(model.transduction_, classes[plain.transduction_])
    assert model.score(X, given) == plain.score(X, y)


@pytest.mark.parametrize("nothing", NOTHING, ids=repr)
@pytest.mark.parametrize("values", [[7, 8, 9], NAMES.tolist(), [False, True, True]], ids=str)
def test_every_way_to_write_a_missing_label_is_one(values, nothing):
    X, y = problem()
    given = with_gaps(values, nothing)
    # Some are written -1, which says the same.
    also = given.copy()
    also[np.flatnonzero(y == -1)[::2]] = -1
    classes = np.unique(values)
    expected = [None if label == -1 else values[label] for label in y]
    for labels in (given, also, given.tolist(), pd.Series(also, dtype=object)):
        model = LabelDiffusion(5, 3).fit(X, labels)
        np.testing.assert_array_equal(model.classes_, classes)
        is_labeled = y != -1
        assert model.transduction_[is_labeled].tolist() == [x for x in expected if x is not None]
        assert model.n_unreached_ == 0


@pytest.mark.parametrize("nothing", [None, np.nan, pd.NA], ids=repr)
def test_labels_and_missing_ones_of_truth_values(nothing):
    X, y = two_islands()
    given = np.array([nothing if label == -1 else bool(label) for label in y], object)
    columns = [given, given.tolist(), pd.Series(given).astype("boolean")]
    for labels in columns:
        with pytest.warns(UserWarning, match="reached by no label"):
            model = LabelDiffusion(5, 10).fit(X, labels)
        assert model.classes_.tolist() == [False, True] and model.classes_.dtype == bool
        # There is no truth value for none: 0, 1 and -1.
        assert model.transduction_.dtype == np.int8
        assert model.transduction_[:2].tolist() == [0, 1]
        assert model.transduction_[20:].tolist() == [-1] * 10


def test_a_missing_label_and_minus_one_are_unlabelled_alike_in_score():
    X, y = problem()
    model = LabelDiffusion(5, 3).fit(X, y)
    truth = with_gaps([0, 1, 1])
    labeled = y != -1
    expected = np.mean(model.predict(X)[labeled] == truth[labeled])
    assert 0 < expected < 1
    for given in (truth, pd.Series(truth, dtype="Int64"), pd.Series(truth, dtype=float)):
        assert model.score(X, given) == pytest.approx(expected)


@pytest.mark.parametrize(
    "ids", [[2**53, 2**53 + 1], [-(2**63), 2**63 - 1], [2**63 + 1, 2**63 + 2]], ids=str
)
@pytest.mark.parametrize("kind", ["list", "objects", "nullable", "categories", "array"])
def test_large_numbers_keep_apart(ids, kind):
    X, y = two_islands()
    given = [ids[label] if label != -1 else None for label in y]
    unsigned = max(ids) >= 2**63
    as_kind = {
        "list": lambda: [-1 if label is None else label for label in given],
        "objects": lambda: np.array(given, object),
        "nullable": lambda: pd.Series(given, dtype="UInt64" if unsigned else "Int64"),
        "categories": lambda: pd.Series(np.array(given, object), dtype="category"),
        "array": lambda: np.ma.MaskedArray(
            np.where(y == 1, *np.array(ids[::-1], np.uint64 if unsigned else np.int64)), y == -1
        ),
    }
    labels = as_kind[kind]()
    with pytest.warns(UserWarning):
        model = LabelDiffusion(5, 10).fit(X, labels)
    assert model.classes_.tolist() == ids
    assert model.classes_.dtype == (np.uint64 if unsigned else np.int64)
    found = model.transduction_
    assert set(found.tolist()) == {-1, *ids} and found[:2].tolist() == ids
    # Only those that int64 has no room for need objects.
    assert found.dtype == (object if unsigned else np.int64)
    with pytest.warns(UserWarning):
        assert model.score(X, labels) == (model.predict(X)[:2] == ids).mean()


@pytest.mark.parametrize(
    "given",
    [pd.array([None] * 60, dtype="Int64"), [None] * 60, [np.nan, "-1", None, -1] * 15,
     np.ma.masked_all(60, int), pd.Series([pd.NaT] * 60), pd.Series([None] * 60, dtype="string")],
    ids=["nullable", "list", "mixed", "masked", "dates", "texts"],
)  # fmt: skip
def test_nothing_but_missing_labels_is_refused(given):
    X, y = problem()
    with pytest.raises(ValueError, match=r"^y: .*60.*label"):
        LabelDiffusion(5).fit(X, given)
    model = LabelDiffusion(5, 3).fit(X, y)
    with pytest.raises(ValueError, match=r"^y: .*60.*label"):
        model.score(X, given)


class Foreign:
    """A column as pyarrow or polars have it, whose arrays of integers with a gap are floats."""

    def __init__(self, values, method):
        setattr(self, method, lambda: list(values))

    def __array__(self, dtype=None, copy=None):
        raise AssertionError("integers would be rounded")


@pytest.mark.parametrize("method", ["to_pylist", "to_list"])
def test_columns_of_other_libraries_are_taken_entry_by_entry(method):
    X, _ = problem()
    column = Foreign(with_gaps([2**53, 2**53 + 1, 7]), method)
    assert LabelDiffusion(5, 3).fit(X, column).classes_.tolist() == [7, 2**53, 2**53 + 1]


def test_the_estimator_does_without_pandas():
    program = (
        "import sys\n"
        "sys.modules['pandas'] = None\n"
        "from lowshot_kedro import LabelDiffusion\n"
        "found = LabelDiffusion(2, 1).fit([[0.0], [0.1], [5.0], [5.1]], ['a', None, 'b', None])\n"
        "print(found.transduction_.tolist())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["['a', 'a', 'b', 'b']"], done.stderr
