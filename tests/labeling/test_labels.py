"""Labels for all images, end to end."""

import json
import sys
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score, confusion_matrix, recall_score
from threadpoolctl import threadpool_limits

from lowshot_kedro.diffusion import links_from, propagation_matrix
from lowshot_kedro.errors import InputError
from lowshot_kedro.estimators import LabelDiffusion
from lowshot_kedro.graph import build_knn_graph, normalize
from lowshot_kedro.labeling import choice
from lowshot_kedro.labeling.given_labels import GivenLabels
from lowshot_kedro.labeling.labels import Labeling, label_images
from lowshot_kedro.labeling.methods import METHODS
from lowshot_kedro.labeling.nodes import LabelingGraph, NodeVectors
from lowshot_kedro.labeling.parameters import METHODS as NAMES
from lowshot_kedro.labeling.parameters import LabelingParameters
from lowshot_kedro.methods import METHODS as ALL_METHODS
from lowshot_kedro.methods.logistic_regression import LogisticRegressionParameters
from tests.features import MemoryFeatures

LAYER = LogisticRegressionParameters(
    lr=1.0, weight_decay=0.001, batch_size=32, max_iterations=150, momentum=0.0, eval_every=50
)
ROUND = LabelingParameters()


def graph_of(points, k=10):
    graph, _ = build_knn_graph(points, k)
    nothing = np.empty((0, points.shape[1]), np.float32)
    return LabelingGraph(graph.indices, graph.similarities, NodeVectors(nothing, points))


def named(labels, groups=None):
    classes = tuple(f"class {number}" for number in range(labels.max() + 1))
    return GivenLabels(classes, labels.astype(np.int32), groups)


def label(points, given, k=10, features=None, **parameters):
    return label_images(
        graph_of(points, k),
        MemoryFeatures(points, "features") if features is None else features,
        given,
        replace(ROUND, **parameters),
        LAYER,
    )


@pytest.fixture(scope="module")
def digits():
    """Features, classes and graph of the first 1000 digits."""
    images, classes = load_digits(return_X_y=True)
    points = normalize(images[:1000].astype(np.float32), 0, "digits")
    return points, classes[:1000].astype(np.int32), graph_of(points)


def some_labels(classes, per_class, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.full(len(classes), -1, np.int32)
    for number in range(classes.max() + 1):
        chosen = rng.permutation(np.flatnonzero(classes == number))
        n = per_class if isinstance(per_class, int) else per_class[number]
        labels[chosen[:n]] = number
    return labels


def labeled_digits(digits, per_class, seed=0, layer=LAYER, **parameters):
    points, classes, graph = digits
    labels = some_labels(classes, per_class, seed)
    features = MemoryFeatures(points, "features")
    labeling = label_images(graph, features, named(labels), replace(ROUND, **parameters), layer)
    is_open = labels < 0
    return labeling, float((labeling.labels == classes)[is_open].mean())


def clusters(*sizes, seed=0, width=0.05):
    """Points near the axes, which are the classes."""
    rng = np.random.default_rng(seed)
    classes = np.repeat(np.arange(len(sizes)), sizes).astype(np.int32)
    points = np.eye(len(sizes), 6)[classes] + width * rng.standard_normal((len(classes), 6))
    return points.astype(np.float32), classes


def same(first: Labeling, second: Labeling) -> None:
    for field in fields(Labeling):
        if field.name not in ("given", "report", "held_out"):
            np.testing.assert_array_equal(
                getattr(first, field.name), getattr(second, field.name), err_msg=field.name
            )
    for one, other in zip(first.held_out, second.held_out, strict=True):
        np.testing.assert_array_equal(one, other)
    reports = [{**each.report, "seconds": None} for each in (first, second)]
    assert reports[0] == reports[1]


def test_methods_are_those_that_the_parameters_name():
    assert set(METHODS) == set(NAMES) - {"auto"}
    assert set(METHODS) <= set(ALL_METHODS)
    for name, method in METHODS.items():
        assert method.name == name
        assert set(method.parts) <= set(METHODS)


# Measured over ten draws: 0.775 to 0.89 with one label a class, 0.93 to 0.98 with ten.
@pytest.mark.parametrize(("per_class", "at_least"), [(1, 0.75), (10, 0.91)])
def test_digits(digits, per_class, at_least):
    labeling, accuracy = labeled_digits(digits, per_class)
    assert accuracy > at_least
    assert labeling.report["n_labeled"] == 10 * per_class
    given = labeling.given.labels >= 0
    np.testing.assert_array_equal(labeling.labels[given], labeling.given.labels[given])
    assert (labeling.confidence[given] == 1).all()
    assert (labeling.second[given] == -1).all()
    found = ~given
    confidence, second = labeling.confidence[found], labeling.confidence - labeling.margin
    assert (confidence < 1).all()
    assert (labeling.margin[found] >= 0).all()
    assert (second[found] >= 0).all()
    assert (labeling.labels != labeling.second).all()
    # As many are right as the confidence says.
    assert abs(confidence.mean() - accuracy) < 0.2


def test_it_finds_what_the_estimator_finds(digits):
    points, _, _ = digits
    labeling, _ = labeled_digits(digits, 4, method="diffusion")
    estimator = LabelDiffusion(class_prior="uniform", metric="cosine").fit(
        points, labeling.given.labels
    )
    assert estimator.n_iterations_ == labeling.report["n_iterations"]
    np.testing.assert_array_equal(estimator.transduction_, labeling.labels)


@pytest.mark.parametrize("method", list(METHODS))
def test_every_method_can_be_asked_for(digits, method):
    labeling, accuracy = labeled_digits(digits, 5, method=method)
    # Measured over ten draws: logistic regression 0.78 to 0.86, all others more.
    assert accuracy > 0.7
    report = labeling.report
    assert report["method"] == method
    assert report["title"] == ALL_METHODS[method].title
    assert report["title"] in report["reason"]
    assert set(report["methods"]) == {method, *METHODS[method].parts}
    assert report["n_held_out"] == 50
    assert report["calibration_error"] < 0.2
    # The part of held-out labels that is right says how many others are.
    assert abs(report["methods"][method]["accuracy"] - accuracy) < 0.15


def test_the_report_is_what_scikit_learn_says_of_held_out_labels(digits):
    labeling, _ = labeled_digits(digits, (10, 9, 8, 7, 6, 5, 4, 3, 2, 1), method="diffusion")
    report, (nodes, probabilities) = labeling.report, labeling.held_out
    assert (np.diff(nodes) > 0).all()
    truth, found = labeling.given.labels[nodes], probabilities.argmax(axis=1)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert report["n_held_out"] == len(nodes) == 54
    assert report["methods"]["diffusion"]["accuracy"] == accuracy_score(truth, found)
    expected = confusion_matrix(truth, found, labels=range(10))
    assert report["confusion"] == expected.tolist()
    recalls = recall_score(truth, found, labels=range(9), average=None)
    assert [c["recall"] for c in report["classes"]] == [*recalls.tolist(), None]
    assert [c["n_given"] for c in report["classes"]] == list(range(10, 0, -1))
    assert [c["n_labels"] for c in report["classes"]] == np.bincount(labeling.labels).tolist()
    assert sum(b["n"] for b in report["reliability"]) == 54
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_n_steps_and_nearest_labelled_image(digits):
    _, _, graph = digits
    labeling, _ = labeled_digits(digits, 1)
    nodes = labeling.given.nodes
    expected = links_from(propagation_matrix(graph.neighbors), nodes)
    np.testing.assert_array_equal(labeling.n_steps, expected)
    assert np.isin(labeling.nearest_labeled, nodes).all()
    assert (labeling.nearest_labeled != np.arange(1000)).all()


def test_threads_change_nothing(digits):
    wishes = {"method": "combined", "class_prior": "estimated", "accuracy": 0.9}
    several = labeled_digits(digits, 5, **wishes)[0]
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            one = labeled_digits(digits, 5, **wishes)[0]
    finally:
        torch.set_num_threads(n_threads)
    same(several, one)


# --- which method is taken ---


def test_logistic_regression_is_taken_where_it_is_better():
    # A direction that counts little for the cosine tells the classes apart.
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 2, 600).astype(np.int32)
    points = rng.standard_normal((600, 8)).astype(np.float32)
    points[:, 0] = (2 * classes - 1) * rng.uniform(0.3, 0.6, 600)
    given = named(some_labels(classes, 60))
    labeling = label(points, given)
    report = labeling.report
    accuracies = {name: each["accuracy"] for name, each in report["methods"].items()}
    assert report["method"] != "diffusion"
    assert accuracies[report["method"]] == max(accuracies.values())
    assert "with a standard error of" in report["reason"]
    is_open = given.labels < 0
    diffusion = label(points, given, method="diffusion")
    assert (labeling.labels == classes)[is_open].mean() > (
        (diffusion.labels == classes)[is_open].mean() + 0.05
    )


class Judged:
    def __init__(self, title, right):
        self.method, self.right = self, np.array(right, np.bool_)
        self.title = title


def test_a_better_method_has_to_be_better_by_more_than_an_error():
    usual = Judged("diffusion", [True] * 30 + [False] * 10)
    # Two more, but four differ: the error is two.
    hardly = Judged("other", [True] * 29 + [False] + [True] * 3 + [False] * 7)
    name, reason = choice.choose_method({"diffusion": usual, "other": hardly}, "auto", 40)
    assert name == "diffusion"
    assert "Other finds 2 more than diffusion, with a standard error of 2.0" in reason
    clearly = Judged("other", [True] * 33 + [False] * 7)
    name, reason = choice.choose_method({"diffusion": usual, "other": clearly}, "auto", 40)
    assert name == "other"
    assert "other 82.5 %" in reason
    alike = {"other": usual, "diffusion": usual}
    assert choice.choose_method(alike, "auto", 40)[0] == "diffusion"
    assert choice.choose_method(alike, "other", 40)[0] == "other"


def test_with_few_labels_only_the_diffusion_is_asked():
    points, classes = clusters(20, 20)
    labeling = label(points, named(some_labels(classes, 3)))
    assert set(labeling.report["methods"]) == {"diffusion"}
    assert "6 labels could be held out, too few to choose by" in labeling.report["reason"]
    assert not labeling.report["is_calibrated"]
    assert "too few labels" in labeling.report["calibration_sentence"]


def test_without_torch_its_methods_are_left_out(monkeypatch, digits):
    monkeypatch.setattr(choice, "find_spec", lambda module: None)
    report = labeled_digits(digits, 5)[0].report
    assert set(report["methods"]) == {"diffusion", "nearest_class_mean"}
    assert "logistic_regression, combined" in report["reason"]


@pytest.mark.parametrize("method", ["logistic_regression", "combined"])
def test_a_method_without_its_library_names_what_brings_it(monkeypatch, method):
    monkeypatch.setattr("lowshot_kedro.extras.find_spec", lambda module: None)
    monkeypatch.setitem(sys.modules, "torch", None)
    points, classes = clusters(8, 8)
    with pytest.raises(InputError) as caught:
        label(points, named(some_labels(classes, 2)), method=method)
    assert f"method: got '{method}', needs torch" in str(caught.value)
    assert "lowshot-kedro[torch]" in str(caught.value)


def test_a_training_that_diverges_is_said(digits):
    layer = replace(LAYER, lr=1e17, weight_decay=10.0)
    with pytest.raises(InputError, match=r"lr: got 1e\+17.*diverged"):
        labeled_digits(digits, 5, layer=layer, method="logistic_regression")
    report = labeled_digits(digits, 5, layer=layer)[0].report
    assert report["method"] in ("diffusion", "nearest_class_mean")


# --- few labels, odd labels ---


def test_one_label_each_of_two_classes():
    points, classes = clusters(15, 12)
    labeling = label(points, named(some_labels(classes, 1)))
    np.testing.assert_array_equal(labeling.labels, classes)
    report = labeling.report
    assert report["n_held_out"] == 0
    assert report["confusion"] is None
    assert report["methods"]["diffusion"]["accuracy"] is None
    assert report["reliability"] == []
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert labeling.held_out.probabilities.shape == (0, 2)


@pytest.mark.parametrize("method", list(METHODS))
def test_a_class_with_one_label_beside_one_with_a_hundred(method):
    points, classes = clusters(150, 40)
    labeling = label(points, named(some_labels(classes, (100, 1))), method=method)
    np.testing.assert_array_equal(labeling.labels, classes)
    assert labeling.report["n_held_out"] == 100
    assert labeling.report["classes"][1]["recall"] is None


def test_what_nothing_reaches_has_no_label():
    points, classes = clusters(20, 20, 20)
    labels = some_labels(classes, (3, 3, 0))
    labeling = label(points, named(labels), k=4, method="diffusion")
    alone = classes == 2
    assert (labeling.labels[alone] == -1).all()
    assert (labeling.confidence[alone] == 0).all()
    assert (labeling.second[alone] == -1).all()
    assert (labeling.n_steps[alone] == -1).all()
    assert (labeling.nearest_labeled[alone] >= 0).all()
    np.testing.assert_array_equal(labeling.labels[~alone], classes[~alone])
    assert labeling.report["n_unreached"] == 20
    assert any("20 images were reached by no label" in note for note in labeling.report["notes"])
    # Where diffusion says nothing, the combination says what logistic regression does.
    combined = label(points, named(labels), k=4, method="combined")
    regression = label(points, named(labels), k=4, method="logistic_regression")
    np.testing.assert_array_equal(combined.labels[alone], regression.labels[alone])


def test_all_images_labelled():
    points, classes = clusters(20, 20)
    labeling = label(points, named(classes), class_prior="estimated", accuracy=0.9)
    np.testing.assert_array_equal(labeling.labels, classes)
    assert (labeling.confidence == 1).all()
    assert (labeling.n_steps == 0).all()
    assert labeling.report["n_held_out"] == 40
    assert labeling.report["expected_accuracy"] is None
    assert any("nothing to find" in note for note in labeling.report["notes"])
    assert json.loads(json.dumps(labeling.report, allow_nan=False)) == labeling.report


def test_fewer_images_than_neighbours():
    points, classes = clusters(3, 3)
    labeling = label(points, named(some_labels(classes, 1)), k=10)
    assert (labeling.labels >= 0).all()
    assert labeling.report["n_neighbors"] == 10


def test_images_of_a_group_are_held_out_together():
    points, classes = clusters(30, 30)
    groups = (np.arange(60) // 5).astype(np.int32)
    # One burst of each class is labelled: nothing can be held out without its likes.
    labels = np.where(np.isin(groups, (0, 8)), classes, -1)
    assert label(points, named(labels, groups)).report["n_held_out"] == 0
    assert label(points, named(labels)).report["n_held_out"] == 10


def test_broken_images_get_no_label_and_teach_nothing():
    points, classes = clusters(20, 20)
    labels = some_labels(classes, 3)
    blank = np.flatnonzero(labels == 0)[0], np.flatnonzero(labels < 0)[0]
    points[list(blank)] = 0
    features = MemoryFeatures(points, "features")
    features.broken_images = [(int(number), "no image") for number in blank]
    for method in METHODS:
        labeling = label(points, named(labels), features=features, method=method)
        assert labeling.labels[blank[1]] == -1
        assert labeling.labels[blank[0]] == 0
        expected = classes.copy()
        expected[blank[1]] = -1
        np.testing.assert_array_equal(labeling.labels, expected)
        assert blank[0] not in labeling.held_out.nodes
        assert labeling.report["n_broken"] == 2
        assert "cannot be read, and so teach nothing: 1." in labeling.report["notes"][-1]


def test_no_label_comes_from_a_blank_image_that_teaches_nothing():
    points, classes = clusters(20, 20)
    labels = some_labels(classes, 3)
    given = np.flatnonzero(labels == 0)
    others = np.setdiff1d(np.flatnonzero(labels < 0), given)
    # The blank one lies among images without a label, and would be the nearest to some.
    points[given[0]] = points[others[0]]
    features = MemoryFeatures(points, "features")
    features.broken_images = [(int(given[0]), "no image")]
    labeling = label(points, named(labels), features=features)
    assert not np.isin(labeling.nearest_labeled, given[0]).any()
    without = np.where(np.arange(40) == given[0], -1, labels)
    expected = label(points, named(without), features=features).n_steps
    np.testing.assert_array_equal(
        labeling.n_steps, np.where(np.arange(40) == given[0], 0, expected)
    )


def test_classes_of_which_all_labelled_images_are_broken_are_named():
    points, classes = clusters(20, 20)
    labels = some_labels(classes, 3)
    blank = np.flatnonzero(labels == 0)
    points[blank] = 0
    features = MemoryFeatures(points, "features")
    features.broken_images = [(int(number), "no image") for number in blank]
    labeling = label(points, named(labels), features=features)
    notes = labeling.report["notes"]
    name = labeling.given.classes[0]
    assert any(f"All labelled images are broken of {name}:" in note for note in notes)
    assert not any("teach nothing" in note for note in notes)


def test_images_without_features_stop_nothing():
    points, classes = clusters(20, 20)
    points[[3, 25]] = 0
    labels = some_labels(classes, 4)
    labels[[3, 25]] = [0, -1]
    for method in METHODS:
        labeling = label(points, named(labels), method=method)
        rest = np.delete(np.arange(40), [3, 25])
        np.testing.assert_array_equal(labeling.labels[rest], classes[rest])


@pytest.mark.parametrize("labels", [[-1] * 6, [0] * 3 + [-1] * 3])
def test_labels_of_two_classes_are_needed(labels):
    points, _ = clusters(3, 3)
    with pytest.raises(InputError, match=r"^labels: found \d classes \(.*expected images of at"):
        label(points, named(np.array(labels)))


def test_what_does_not_belong_together_is_refused():
    points, classes = clusters(3, 3)
    with pytest.raises(InputError, match="features of 5, labels of 6 images"):
        label(points, named(classes), features=MemoryFeatures(points[:5], "features"))


def test_a_class_called_unknown_is_refused():
    points, classes = clusters(3, 3)
    with pytest.raises(InputError, match=r"^unknown: got 'class 1'"):
        label(points, named(classes), unknown="class 1")


# --- class frequencies and threshold ---


def test_frequencies_are_estimated_from_unlabelled_images(digits):
    points, classes, _ = digits
    # Many zeros and ones, few of all others; as many labels of each.
    rows = np.concatenate([np.flatnonzero(classes == c)[: 80 if c < 2 else 15] for c in range(10)])
    true = np.bincount(classes[rows]) / len(rows)
    labels = some_labels(classes[rows], 5)
    labeling = label(points[rows], named(labels), class_prior="estimated", method="diffusion")
    found = np.array(labeling.report["class_frequencies"])
    assert found.sum() == pytest.approx(1)
    assert np.abs(found - true).sum() < np.abs(0.1 - true).sum() / 2
    uniform = label(points[rows], named(labels), method="diffusion").report["class_frequencies"]
    assert uniform == [0.1] * 10


def test_labels_below_the_threshold_are_unknown(digits):
    labeling, _ = labeled_digits(digits, 5, threshold=0.8, unknown="who knows")
    given = labeling.given.labels >= 0
    expected = (labeling.confidence < 0.8) & ~given
    assert expected.any()
    np.testing.assert_array_equal(labeling.is_unknown, expected)
    assert labeling.report["n_unknown"] == expected.sum()
    assert labeling.report["threshold"] == 0.8
    # What is most probable is still there.
    assert (labeling.labels >= 0).all()


def test_the_accuracy_wanted_is_that_of_the_labels_kept(digits):
    _, classes, _ = digits
    labeling, accuracy = labeled_digits(digits, 10, method="nearest_class_mean", accuracy=0.97)
    kept = ~labeling.is_unknown & (labeling.given.labels < 0)
    assert accuracy < 0.93
    assert kept.mean() > 0.3
    assert (labeling.labels == classes)[kept].mean() > 0.945
