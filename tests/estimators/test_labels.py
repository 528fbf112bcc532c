import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import confusion_matrix

from lowshot_kedro import LabelDiffusion

from .making import clusters, few_labels, two_islands

NAMES = np.array(["cat", "dog", "owl"])


def hidden_and_classes():
    X, classes = clusters()
    return X, few_labels(classes)


def with_minus_one(values):
    """Objects instead of class numbers, -1 for the others."""
    _, y = hidden_and_classes()
    found = np.full(len(y), -1, object)
    found[y != -1] = np.asarray(values, object)[y[y != -1]]
    return found


def kinds_of_labels():
    _, y = hidden_and_classes()
    texts = with_minus_one(NAMES)
    return {
        "int64": (y, [0, 1, 2]),
        "int8": (y.astype(np.int8), [0, 1, 2]),
        "numbers with gaps": (np.where(y < 0, -1, y * 7 - 20), [-20, -13, -6]),
        "float64": (y.astype(float), [0.0, 1.0, 2.0]),
        "list": (y.tolist(), [0, 1, 2]),
        "texts": (np.where(y < 0, "-1", NAMES[y]), NAMES),
        "list of texts": (np.where(y < 0, "-1", NAMES[y]).tolist(), NAMES),
        "mixed list": (texts.tolist(), NAMES),
        "objects": (texts, NAMES),
        "objects that are numbers": (with_minus_one([0, 1, 2]), [0, 1, 2]),
        "Series": (pd.Series(y), [0, 1, 2]),
        "Series of texts": (pd.Series(np.where(y < 0, "-1", NAMES[y])), NAMES),
        "Series of objects": (pd.Series(texts, dtype=object), NAMES),
        "Series of categories": (pd.Series(np.where(y < 0, "-1", NAMES[y]), dtype="category"),
                                 NAMES),
        "column": (y[:, None], [0, 1, 2]),
    }  # fmt: skip


@pytest.mark.filterwarnings("ignore:A column-vector y")
@pytest.mark.parametrize("kind", kinds_of_labels())
def test_labels_of_any_kind_come_back_as_they_were(kind):
    X, y = hidden_and_classes()
    given, classes = kinds_of_labels()[kind]
    model = LabelDiffusion(5, 3).fit(X, given)
    plain = LabelDiffusion(5, 3).fit(X, y)
    np.testing.assert_array_equal(model.classes_, classes)
    np.testing.assert_array_equal(model.label_distributions_, plain.label_distributions_)
    for found, expected in (
        (model.transduction_, plain.transduction_),
        (model.predict(X), plain.predict(X)),
    ):
        assert (expected != -1).all()
        np.testing.assert_array_equal(found, np.asarray(classes)[expected])
        assert found.dtype == model.classes_.dtype


@pytest.mark.filterwarnings("ignore:LabelDiffusion. y. every row")
def test_classes_that_are_true_and_false():
    X, classes = clusters(n_classes=2)
    model = LabelDiffusion(5, 3).fit(X, classes == 1)
    assert model.classes_.tolist() == [False, True]
    assert model.transduction_.dtype == model.predict(X).dtype == bool
    np.testing.assert_array_equal(model.transduction_, classes == 1)
    np.testing.assert_array_equal(model.label_distributions_, np.eye(2)[classes])


@pytest.mark.parametrize("n_iterations", [0, 3, "auto"])
def test_one_class_is_what_every_row_gets(n_iterations):
    X, _ = clusters(20)
    y = np.where(np.arange(20) < 5, 4, -1)
    if n_iterations == 0:
        with pytest.warns(UserWarning):
            model = LabelDiffusion(8, 0).fit(X, y)
        assert model.transduction_.tolist() == [4] * 5 + [-1] * 15
    else:
        model = LabelDiffusion(8, n_iterations).fit(X, y)
        assert model.transduction_.tolist() == [4] * 20
    assert model.predict(X[:5]).tolist() == [4] * 5
    np.testing.assert_array_equal(model.predict_proba(X[:5]), np.ones((5, 1)))


@pytest.mark.filterwarnings("ignore:LabelDiffusion. y. every row")
@pytest.mark.parametrize("n_iterations", [3, "auto"])
def test_without_unlabelled_rows_every_row_keeps_its_label(n_iterations):
    X, classes = clusters(spread=3.0)
    model = LabelDiffusion(5, n_iterations).fit(X, classes)
    np.testing.assert_array_equal(model.transduction_, classes)
    np.testing.assert_array_equal(model.label_distributions_, np.eye(3)[classes])
    # Labelled rows are kept, new ones in the same place need not agree.
    assert (model.predict(X) != classes).any()


@pytest.mark.filterwarnings("ignore:LabelDiffusion. y. every row")
def test_one_labelled_row_of_one():
    with pytest.warns(UserWarning, match="n_neighbors"):
        model = LabelDiffusion().fit([[1.0, 2.0]], [3])
    assert model.predict([[5.0, 5.0]]).tolist() == [3]


def test_minus_one_and_one_alone_are_two_classes():
    X, classes = clusters(40, n_classes=2)
    with pytest.warns(UserWarning, match="-1 and 1.*two classes"):
        model = LabelDiffusion(5, 3).fit(X, 2 * classes - 1)
    assert model.classes_.tolist() == [-1, 1]
    np.testing.assert_array_equal(model.predict(X), 2 * classes - 1)
    assert model.score(X, 2 * classes - 1) == 1


def as_kinds(numbers, missing):
    """Labels -1 and 1 as whatever they may be given, without some of them."""
    texts = np.where(missing, None, numbers.astype(str).astype(object))
    floats = np.where(missing, np.nan, numbers)
    return {
        "objects": (np.where(missing, None, numbers.astype(object)), -1, 0),
        "list": (np.where(missing, None, numbers.astype(object)).tolist(), -1, 0),
        "floats": (floats, -1.0, 0.0),
        "nullable": (pd.Series(floats).astype("Int64"), -1, 0),
        "texts": (texts, "-1", "0"),
        "categories": (pd.Series(texts).astype("category"), "-1", "0"),
    }


@pytest.mark.filterwarnings("ignore:LabelDiffusion. 10 of 30 rows were reached")
@pytest.mark.parametrize("kind", as_kinds(np.array([-1]), np.array([False])))
def test_beside_missing_labels_minus_one_and_one_are_two_classes_and_zero_is_neither(kind):
    X, y = two_islands()
    missing = y == -1
    given, minus_one, neither = as_kinds(2 * y - 1, missing)[kind]
    with pytest.warns(UserWarning, match="two classes"):
        model = LabelDiffusion(5, 10).fit(X, given)
    assert model.classes_.tolist() == [minus_one, -minus_one if minus_one != "-1" else "1"]
    assert model.transduction_[20:].tolist() == [neither] * 10
    with pytest.warns(UserWarning, match="predict says '?0'? for them"):
        found = model.predict(X)
    assert found[20:].tolist() == [neither] * 10
    # A row that nothing reaches is no row of class -1.
    truth = [minus_one] * 30
    with pytest.warns(UserWarning):
        assert model.score(X, truth) == pytest.approx((found == minus_one).sum() / 30)


# --- rows that no label reaches ---


def test_rows_that_no_label_reaches_are_counted_in_one_warning():
    X, y = two_islands()
    with pytest.warns(UserWarning, match=r"\b10 of (the )?30\b") as warned:
        model = LabelDiffusion(5, 10).fit(X, y)
    assert len(warned) == 1
    assert model.n_unreached_ == 10
    assert set(model.transduction_[:20].tolist()) == {0, 1}
    assert model.transduction_[20:].tolist() == [-1] * 10
    np.testing.assert_array_equal(model.label_distributions_[20:], np.zeros((10, 2)))
    np.testing.assert_allclose(model.label_distributions_[:20].sum(axis=1), 1, rtol=1e-6)


def test_a_new_row_among_them_is_of_no_class_either():
    X, y = two_islands()
    with pytest.warns(UserWarning):
        model = LabelDiffusion(5, 10).fit(X, y)
    new = np.concatenate([X[:3] + 0.01, X[-2:] + 0.01])
    with pytest.warns(UserWarning, match=r"\b2\b") as warned:
        found = model.predict(new)
    assert len(warned) == 1
    assert (found[:3] != -1).all() and found[3:].tolist() == [-1, -1]
    assert found.dtype == np.int64
    with pytest.warns(UserWarning, match=r"\b2\b"):
        shares = model.predict_proba(new)
    np.testing.assert_array_equal(shares[3:], np.zeros((2, 2)))


def test_where_every_row_is_reached_nobody_is_warned(recwarn):
    X, y = hidden_and_classes()
    model = LabelDiffusion(5, 10).fit(X, y)
    model.predict(X)
    model.score(X, y)
    assert model.n_unreached_ == 0
    assert [str(warning.message) for warning in recwarn] == []


def test_without_a_step_only_labelled_rows_have_a_label():
    X, y = hidden_and_classes()
    with pytest.warns(UserWarning, match=r"\b54 of (the )?60\b"):
        model = LabelDiffusion(5, 0).fit(X, y)
    assert model.n_unreached_ == 54
    np.testing.assert_array_equal(model.transduction_, y)


@pytest.mark.parametrize("n_iterations", [10, "auto"])
@pytest.mark.parametrize(
    ("names", "dtype"),
    [
        (np.array(["cat", "dog"]), "<U3"),
        (np.array(["a", "b"]), "<U2"),
        (np.array(["cat", "dog"], object), object),
        (np.array([3, 4], np.int8), np.int8),
        (np.array([3.0, 4.0], np.float32), np.float32),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_minus_one_fits_into_the_type_of_the_result(names, dtype, n_iterations):
    X, _ = two_islands()
    none = "-1" if isinstance(names[0], str) else -1
    given = np.full(30, none, object)
    given[:2] = names
    given = given.astype(object if names.dtype == object else np.array([*names, none]).dtype)
    model = LabelDiffusion(5, n_iterations).fit(X, given.astype(dtype))
    np.testing.assert_array_equal(model.classes_, names)
    for found in (model.transduction_, model.predict(X)):
        assert found.dtype == dtype
        assert found[20:].tolist() == [none] * 10
        assert set(found[:20].tolist()) == set(names.tolist())
        assert np.unique(found).tolist() == [none, *names.tolist()]
        assert confusion_matrix(found, found).diagonal().tolist() == [
            (found == label).sum() for label in (none, *names)
        ]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("classes", "dtype"),
    [
        (np.array([3, 4], np.uint8), np.int16),
        (np.array([3, 4], np.uint32), np.int64),
        (np.array([3, 4], np.uint64), np.int64),
        (np.array([2**63, 2**63 + 1], np.uint64), object),
        (np.array([False, True]), np.int8),
    ],
    ids=str,
)
def test_minus_one_does_not_become_a_class_where_the_type_has_none(classes, dtype):
    # Two rows that list each other, and of new ones the second lists nothing.
    lists = (np.array([[0, 1], [1, 0]]), None)
    model = LabelDiffusion(2, 1, metric="precomputed").fit(lists, classes)
    assert model.transduction_.dtype == classes.dtype
    assert model.transduction_.tolist() == classes.tolist()
    found = model.predict((np.array([[0, 0], [-1, -1]]), None))
    assert found.dtype == dtype
    assert found.tolist() == [classes[0].item(), -1]
    assert np.unique(found).tolist() == [-1, classes[0].item()]


# --- faults ---


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.full(60, -1), "label"),
        (np.full(60, -1.0), "label"),
        (np.full(60, "-1"), "label"),
        (np.full(60, -1, object), "label"),
        (np.arange(59), r"60.*59|59.*60"),
        (np.arange(61), r"60.*61|61.*60"),
        (np.zeros((60, 2), int), "y"),
        (np.full(60, np.nan), "label"),
        (np.linspace(0, 1, 60), "continuous"),
        (None, "y"),
    ],
    ids=["no label", "no label of floats", "no label of texts", "no label of objects", "short",
         "long", "two columns", "NaN", "continuous", "no y"],
)  # fmt: skip
def test_labels_that_make_no_sense_are_refused(given, message):
    X, _ = clusters()
    with pytest.raises(ValueError, match=message):
        LabelDiffusion(5).fit(X, given)


def test_that_no_row_is_labelled_is_said_with_what_was_expected():
    X, _ = clusters()
    with pytest.raises(ValueError, match=r"^y: .*60.*-1"):
        LabelDiffusion(5).fit(X, np.full(60, -1))
