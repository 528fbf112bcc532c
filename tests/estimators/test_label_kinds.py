"""Labels are texts, truth values or whole numbers, and nothing turns one into another."""

import datetime
import decimal
import enum

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.metrics import accuracy_score

from lowshot_kedro import LabelDiffusion

from .making import clusters, few_labels, two_islands

ROWS = 60
DAY = datetime.date(2020, 2, 29)


def column(*labels):
    """60 rows, of which the first have these labels."""
    return np.array([*labels, *[-1] * (ROWS - len(labels))], object)


def filled(label):
    """60 rows of one thing that numpy would take apart."""
    found = np.empty(ROWS, object)
    for row in range(ROWS):
        found[row] = label
    return found


def fit(y, n_iterations=3):
    X, _ = clusters()
    return LabelDiffusion(5, n_iterations).fit(X, y)


class Colour(enum.Enum):
    RED = 1


class Shade(str, enum.Enum):
    LIGHT = "light"
    DARK = "dark"


def unusable():
    return {
        "dates of numpy": np.full(ROWS, "2020-02-29", "datetime64[D]"),
        "durations": np.full(ROWS, 3, "timedelta64[s]"),
        "dates of pandas": pd.Series([pd.Timestamp(DAY), pd.NaT] * 30),
        "dates with a time zone": pd.Series(pd.date_range("2020", periods=ROWS, tz="UTC")),
        "dates": column(DAY, DAY),
        "periods": pd.Series(pd.period_range("2020", periods=ROWS, freq="D")),
        "categories of dates": pd.Series([pd.Timestamp(DAY), pd.NaT] * 30, dtype="category"),
        "intervals": pd.cut(pd.Series(np.arange(ROWS)), 3),
        "complex": np.full(ROWS, 1j),
        "bytes": np.full(ROWS, b"cat"),
        "bytes among objects": column(b"cat", b"dog"),
        "tuples": filled((1, 2)),
        "column of lists": pd.Series([[1, 2]] * ROWS),
        "list of tuples": [(1, 2)] * ROWS,
        "lists of different lengths": [[1], [1, 2]] * 30,
        "sets": filled({1}),
        "arrays": filled(np.zeros(2)),
        "decimals": column(decimal.Decimal(1), decimal.Decimal(2)),
        "an enumeration": column(Colour.RED),
        "records": np.zeros(ROWS, [("label", int)]),
        "texts and numbers": column("cat", 3),
        "texts and numbers in a list": ["cat", 3, *[-1] * 58],
        "truth values and numbers": column(True, 2),
        "texts and truth values": column("cat", True),
        "integers beyond 64 bits": column(2**64, 1),
        "integers far beyond": column(-(10**400), 1),
        "an integer that cannot be written": column(10**5000, 1),
        "integers beyond both types": column(2**63, -5),
        "an integer that no float holds": column(10**400, 1.0),
        "infinity": np.where(np.arange(ROWS) == 3, np.inf, 1.0),
        "minus infinity among objects": column(-np.inf, 1.0),
        "fractions": np.where(np.arange(ROWS) == 3, 0.5, 1.0),
        "fractions in a nullable column": pd.Series([0.5, None] * 30, dtype="Float64"),
        "floats that may be rounded": np.where(np.arange(ROWS) == 3, 2.0**53, 1.0),
        "the same of single precision": np.where(np.arange(ROWS) == 3, 2.0**24, 1.0).astype("f4"),
        "huge floats": column(1e300, 1.0),
        "a text": "labels",
        "a number": 3,
        "a set": {1, 2},
        "a dictionary": dict.fromkeys(range(ROWS), 1),
        "a generator": iter(range(ROWS)),
        "a sparse matrix": sparse.csr_array(np.ones((ROWS, 1))),
        "two columns": np.ones((ROWS, 2)),
        "a frame of two columns": pd.DataFrame({"a": [1] * ROWS, "b": [2] * ROWS}),
        "a cube": np.ones((ROWS, 1, 1)),
        "one row": np.ones((1, ROWS)),
        "too few": [1] * 59,
        "none": [],
        "nothing": None,
    }


@pytest.mark.parametrize("name", unusable())
def test_labels_of_no_kind_are_refused_with_a_line_that_names_y(name):
    model = fit(few_labels(clusters()[1]))
    for use in (fit, lambda y: model.score(clusters()[0], y)):
        with pytest.raises(ValueError) as raised:
            use(unusable()[name])
        message = str(raised.value)
        assert message.startswith("y: "), message
        assert "\n" not in message
        assert "expected" in message or "should be" in message, message


def test_members_of_an_enumeration_that_are_texts_are_their_texts():
    X, y = clusters()[0], few_labels(clusters(n_classes=2)[1])
    members = [None if label == -1 else list(Shade)[label] for label in y]
    for given in (members, np.array(members, object)):
        model = LabelDiffusion(5, 3).fit(X, given)
        assert model.classes_.tolist() == ["dark", "light"]
        assert set(model.transduction_) == {"dark", "light"}


def test_numbers_of_several_types_are_of_the_type_that_holds_them():
    model = fit(column(np.int8(1), 2, np.uint16(3)))
    assert (model.classes_.dtype, model.classes_.tolist()) == (np.int64, [1, 2, 3])
    model = fit(column(np.float32(1), 2))
    assert (model.classes_.dtype, model.classes_.tolist()) == (np.float64, [1.0, 2.0])


# --- a row that no label reaches, among texts ---


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "given",
    [
        np.array(["a", "b", *["-1"] * 28]),
        ["a", "b", *[None] * 28],
        np.array(["a", "b", *[-1] * 28], object),
        pd.Series(["a", "b", *[None] * 28]),
        pd.Series(["a", "b", *[None] * 28], dtype="category"),
        pd.Series(["a", "b", *[None] * 28], dtype="string"),
    ],
    ids=["array", "list", "objects", "column", "categories", "strings"],
)
def test_texts_stay_texts_where_no_label_comes(given):
    X, _ = two_islands()
    model = LabelDiffusion(5, 10).fit(X, given)
    for found in (model.transduction_, model.predict(X)):
        assert found.dtype.kind == "U" or {type(label) for label in found} == {str}
        assert np.unique(found).tolist() == ["-1", "a", "b"]
        assert accuracy_score(model.transduction_, found) > 0.8
    # What came back can be given again.
    again = LabelDiffusion(5, 10).fit(X, model.transduction_)
    assert again.classes_.tolist() == ["a", "b"] and again.n_unreached_ == 10


def test_the_warning_says_what_such_a_row_gets():
    X, _ = two_islands()
    with pytest.warns(UserWarning, match="transduction_ is '-1'"):
        model = LabelDiffusion(5, 10).fit(X, np.array(["a", "b", *["-1"] * 28]))
    with pytest.warns(UserWarning, match="predict says '-1'"):
        model.predict(X[-2:])


# --- score ---


def kinds():
    _, classes = clusters(n_classes=2)
    return {
        "texts": np.array(["0", "1"])[classes],
        "text objects": np.array(["0", "1"], object)[classes],
        "strings": pd.Series(np.array(["0", "1"])[classes], dtype="string"),
        "categories of texts": pd.Series(np.array(["0", "1"])[classes], dtype="category"),
        "integers": classes,
        "unsigned": classes.astype(np.uint8),
        "floats": classes.astype(float),
        "nullable": pd.Series(classes, dtype="Int64"),
        "truth values": classes == 1,
        "nullable truth values": pd.Series(classes == 1, dtype="boolean"),
    }


@pytest.mark.filterwarnings("ignore:LabelDiffusion. y. every row")
@pytest.mark.parametrize("of_score", kinds())
@pytest.mark.parametrize("of_fit", kinds())
def test_score_compares_labels_of_one_kind_and_refuses_others(of_fit, of_score):
    X, _ = clusters(n_classes=2, spread=1.2)
    model = LabelDiffusion(5, 3).fit(X, kinds()[of_fit])
    plain = LabelDiffusion(5, 3).fit(X, kinds()["integers"])
    texts = ["texts" in name or name in ("text objects", "strings") for name in (of_fit, of_score)]
    if texts[0] == texts[1]:
        expected = plain.score(X, kinds()["integers"])
        assert 0.4 < expected < 1
        assert model.score(X, kinds()[of_score]) == expected
    else:
        with pytest.raises(ValueError, match=r"^y: .*texts") as raised:
            model.score(X, kinds()[of_score])
        assert ("truth values" in str(raised.value)) != ("numbers" in str(raised.value))


def test_truth_values_are_no_numbers_other_than_0_and_1():
    X, classes = clusters(n_classes=2)
    model = LabelDiffusion(5, 3).fit(X, few_labels(classes) + 3 * (few_labels(classes) >= 0))
    with pytest.raises(ValueError, match=r"^y: .*truth values.*numbers"):
        model.score(X, classes == 1)


def test_the_kinds_are_compared_before_anything_is_predicted():
    X, classes = clusters()
    model = LabelDiffusion(5, 3).fit(X, few_labels(classes))
    with pytest.raises(ValueError, match=r"^y: .*texts"):
        model.score(np.full_like(X, np.nan), classes.astype(str))


def test_a_label_that_fit_has_not_seen_is_a_wrong_one():
    X, classes = clusters()
    model = LabelDiffusion(5, 3).fit(X, few_labels(classes))
    right = model.predict(X) == classes
    assert model.score(X, np.where(classes == 2, 77, classes)) == pytest.approx(
        (right & (classes != 2)).mean()
    )
    names = np.array(["cat", "dog", "owl"])
    in_words = LabelDiffusion(5, 3).fit(X, np.where(few_labels(classes) < 0, "-1", names[classes]))
    truth = np.where(classes == 2, "rhinoceros", names[classes])
    assert in_words.score(X, truth) == pytest.approx((right & (classes != 2)).mean())


@pytest.mark.parametrize(
    "weights",
    [[1.0] * 59, [1.0] * 61, [-1.0] + [1.0] * 59, [np.nan] + [1.0] * 59, [np.inf] * 60,
     ["1"] * 60, [1j] * 60, 2.0, np.ones((60, 1)), [[1], [1, 2]] * 30, {},
     np.ma.masked_equal(np.arange(60.0), 3)],
    ids=["short", "long", "negative", "NaN", "infinite", "texts", "complex", "number", "column",
         "lists", "dictionary", "masked"],
)  # fmt: skip
def test_weights_that_are_none_are_named(weights):
    X, classes = clusters()
    model = LabelDiffusion(5, 3).fit(X, few_labels(classes))
    with pytest.raises(ValueError, match=r"^sample_weight: .*expected"):
        model.score(X, classes, sample_weight=weights)


def test_large_weights_weigh_as_small_ones():
    X, classes = clusters(spread=1.2)
    model = LabelDiffusion(5, 3).fit(X, few_labels(classes))
    weights = np.arange(1.0, 61)
    expected = np.average(model.predict(X) == classes, weights=weights)
    for scale in (1e306, 1e-300):
        assert model.score(X, classes, sample_weight=weights * scale) == pytest.approx(expected)
