import inspect

import numpy as np
import pytest

from lowshot_kedro.classifiers import (
    Classifier,
    LabelSpreading,
    LogisticRegression,
    NearestClassMean,
    NearestNeighbors,
)

# What each of them needs besides the number of classes.
SETTINGS = {
    "nearest_class_mean": {},
    "nearest_neighbors": {"k": 2},
    "label_spreading": {
        "unlabeled": np.eye(4, dtype=np.float32), "n_neighbors": 3, "alpha": 0.5,
        "max_iterations": 30,
    },
    "logistic_regression": {
        "lr": 0.5, "weight_decay": 0.0, "batch_size": 16, "max_iterations": 100,
    },
}  # fmt: skip
CLASSIFIERS = {
    "nearest_class_mean": NearestClassMean,
    "nearest_neighbors": NearestNeighbors,
    "label_spreading": LabelSpreading,
    "logistic_regression": LogisticRegression,
}
COMPARE_DIRECTIONS = [name for name in CLASSIFIERS if name != "logistic_regression"]

FEATURES = np.concatenate([np.eye(4), np.eye(4) + 0.1]).astype(np.float32)
CLASSES = np.tile(np.arange(4, dtype=np.int32), 2)


def create(name, **changes):
    return CLASSIFIERS[name](4, **(SETTINGS[name] | changes))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_it_follows_the_protocol(name):
    for method in ("fit", "scores"):
        expected = list(inspect.signature(getattr(Classifier, method)).parameters)
        found = inspect.signature(getattr(CLASSIFIERS[name], method)).parameters
        assert list(found)[: len(expected)] == expected
        for parameter in list(found.values())[len(expected) :]:
            assert parameter.default is not inspect.Parameter.empty


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_it_recognises_what_is_easy(name):
    classifier = create(name)
    classifier.fit(FEATURES, CLASSES)
    found = classifier.scores(np.eye(4, dtype=np.float32)[::-1] * 3)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.argmax(axis=1), [3, 2, 1, 0])


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_arguments_stay_as_they_are(name):
    features, classes, test = FEATURES * 3, CLASSES.copy(), FEATURES * 2
    classifier = create(name)
    classifier.fit(features, classes)
    classifier.scores(test)
    np.testing.assert_array_equal(features, FEATURES * 3)
    np.testing.assert_array_equal(classes, CLASSES)
    np.testing.assert_array_equal(test, FEATURES * 2)


# --- faults that are all the same to them ---


@pytest.mark.parametrize("name", COMPARE_DIRECTIONS)
def test_nothing_can_be_asked_before_it_has_learned(name):
    with pytest.raises(RuntimeError, match=f"{CLASSIFIERS[name].__name__}: fit it before asking"):
        create(name).scores(FEATURES)


BAD_ROWS = [
    (0, r"found nothing but zeros in 2 row\(s\), numbers 1, 6; expected vectors that have"),
    (np.nan, r"found NaN or infinite values in 2 row\(s\), numbers 1, 6; expected finite"),
    (-np.inf, r"found NaN or infinite values in 2 row\(s\), numbers 1, 6; expected finite"),
]


@pytest.mark.parametrize("name", COMPARE_DIRECTIONS)
@pytest.mark.parametrize(("value", "message"), BAD_ROWS)
def test_features_that_are_no_directions_are_refused(name, value, message):
    features = FEATURES.copy()
    features[[1, 6]] = value
    classifier = create(name)
    with pytest.raises(ValueError, match="labelled features: " + message):
        classifier.fit(features, CLASSES)
    classifier.fit(FEATURES, CLASSES)
    with pytest.raises(ValueError, match="features to score: " + message):
        classifier.scores(features)


@pytest.mark.parametrize("name", COMPARE_DIRECTIONS)
def test_features_of_another_dimension_are_refused(name):
    classifier = create(name)
    classifier.fit(FEATURES, CLASSES)
    message = "features to score: 3 columns, but the labelled features have 4"
    with pytest.raises(ValueError, match=message):
        classifier.scores(FEATURES[:, :3])


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("missing", [0, 2, 3])
def test_a_class_without_images_is_refused(name, missing):
    left = np.flatnonzero(CLASSES - missing)
    with pytest.raises(ValueError, match=r"found images of 3 classes in .*expected at least one"):
        create(name).fit(FEATURES[left], CLASSES[left])


@pytest.mark.parametrize("name", COMPARE_DIRECTIONS)
@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([0, 1, 2, 3, 4, 0, 1, 2], r"found images of 5 classes in 0\.\.4, expected .* each of 4"),
        ([0, 1, 2, 3, -1, 0, 1, 2], r"found images of 5 classes in -1\.\.3, expected .* each of 4"),
        ([0, 1, 2, 3], "8 labelled features, but 4 classes"),
    ],
)
def test_classes_that_do_not_belong_to_the_features_are_refused(name, classes, message):
    with pytest.raises(ValueError, match=f"{name.replace('_', ' ')}: {message}"):
        create(name).fit(FEATURES, np.array(classes, dtype=np.int32))


@pytest.mark.parametrize("name", COMPARE_DIRECTIONS)
def test_no_labelled_images_at_all_are_refused(name):
    with pytest.raises(ValueError, match=r"found images of 0 classes, expected at least one"):
        create(name).fit(FEATURES[:0], CLASSES[:0])


@pytest.mark.parametrize("name", COMPARE_DIRECTIONS)
def test_a_faulty_row_of_a_later_block_has_its_own_number(name):
    features = FEATURES.copy()
    features[7] = 0
    classifier = create(name, block_rows=3)
    classifier.fit(FEATURES, CLASSES)
    with pytest.raises(ValueError, match=r"1 row\(s\), numbers 7;"):
        classifier.scores(features)
    with pytest.raises(ValueError, match=r"1 row\(s\), numbers 7;"):
        classifier.fit(features, CLASSES)
    features[7] = np.nan
    with pytest.raises(ValueError, match=r"1 row\(s\), numbers 7;"):
        classifier.scores(features)
