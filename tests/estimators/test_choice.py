"""How many steps n_iterations="auto" takes, and what comes of it."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.neighbors import kneighbors_graph
from sklearn.semi_supervised import LabelSpreading

from lowshot_kedro import LabelDiffusion

from .making import clusters, digits, few_labels


def test_held_out_accuracy_worked_out_by_hand():
    # Two groups in which everybody lists everybody: after any step all of a group hold the same
    # shares. In each 10 labels of its class, but one in the first group says 1. However labels are
    # dealt over folds of the same size, held out it comes back as 0, and no other comes back wrong.
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 2)) + np.repeat([0, 500], 20)[:, None]
    y = np.full(40, -1)
    y[:10], y[20:29] = 0, 1
    y[10] = 1
    model = LabelDiffusion(20, "auto").fit(X, y)
    steps = len(model.validation_accuracy_) - 1
    assert model.validation_accuracy_.dtype == np.float64
    assert steps >= 1
    # Before the first step a held-out row has no label at all.
    np.testing.assert_allclose(model.validation_accuracy_, [0] + [0.95] * steps)
    assert 1 <= model.n_iterations_ <= steps


def test_accuracy_is_one_number_for_every_step_tried():
    X, classes = clusters(150, spread=1.2)
    model = LabelDiffusion().fit(X, few_labels(classes, 10))
    found = model.validation_accuracy_
    assert found.ndim == 1 and len(found) > model.n_iterations_ >= 0
    assert ((found >= 0) & (found <= 1)).all()
    # 30 labels: accuracies are thirtieths.
    np.testing.assert_allclose(found * 30, np.round(found * 30), atol=1e-9)
    # Within a standard error of the best one, which is at most that of a fair coin.
    assert found[model.n_iterations_] >= found.max() - 2 * 0.5 / 30**0.5


@pytest.mark.parametrize("settings", [{"n_iterations": 3}, {"n_iterations": "auto"}])
def test_nothing_is_held_out_where_steps_are_given_or_classes_have_one_label(settings):
    X, classes = clusters(150)
    n_labeled = 1 if settings["n_iterations"] == "auto" else 10
    model = LabelDiffusion(**settings).fit(X, few_labels(classes, n_labeled))
    assert model.validation_accuracy_ is None
    assert isinstance(model.n_iterations_, int)
    assert settings["n_iterations"] in ("auto", model.n_iterations_)
    assert model.n_iterations_ >= 1


def test_a_class_with_one_label_is_never_held_out():
    X, classes = clusters(150)
    y = few_labels(classes, 4)
    y[np.flatnonzero(y == 0)[1:]] = -1
    model = LabelDiffusion().fit(X, y)
    # Of classes 1 and 2 there are 8 labels.
    eighths = model.validation_accuracy_ * 8
    np.testing.assert_allclose(eighths, np.round(eighths), atol=1e-9)
    assert set(np.round(eighths)) - {0, 8} or (model.validation_accuracy_[1:] == 1).any()
    assert set(model.transduction_.tolist()) == {0, 1, 2}


def test_the_choice_follows_random_state_and_nothing_else():
    X, classes = digits()
    y = few_labels(classes[:600], 6)
    models = [
        LabelDiffusion(random_state=random_state).fit(X[:600], y) for random_state in (0, 0, 1, 2)
    ]
    accuracies = [model.validation_accuracy_.tolist() for model in models]
    assert accuracies[0] == accuracies[1]
    assert models[0].n_iterations_ == models[1].n_iterations_
    assert accuracies[0] != accuracies[2] or accuracies[0] != accuracies[3]


def test_the_chosen_number_gives_what_it_gives_when_it_is_asked_for():
    X, classes = clusters(150, spread=1.2)
    y = few_labels(classes, 5)
    chosen = LabelDiffusion().fit(X, y)
    asked = LabelDiffusion(n_iterations=chosen.n_iterations_).fit(X, y)
    np.testing.assert_array_equal(asked.label_distributions_, chosen.label_distributions_)
    np.testing.assert_array_equal(asked.predict_proba(X), chosen.predict_proba(X))


def accuracy_of_steps(graph, labels, classes, n_steps):
    """Mean accuracy of unlabelled rows after 1..n_steps steps; `labels` has a row for each draw."""
    links = graph + graph.T
    matrix = sparse.diags_array(1 / links.sum(axis=1)) @ links
    one_hot = labels[:, :, None] == np.arange(10)
    scores = one_hot.transpose(1, 0, 2).reshape(len(classes), -1).astype(float)
    hidden = labels == -1
    accuracies = []
    for _ in range(n_steps):
        scores = matrix @ scores
        scores /= scores.sum(axis=0)
        found = scores.reshape(len(classes), len(labels), 10).argmax(axis=2).T
        accuracies.append(
            np.mean([(found == classes)[i][hidden[i]].mean() for i in range(len(labels))])
        )
    return np.array(accuracies)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("n_labeled", "n_draws"), [(1, 10), (2, 5), (5, 4), (20, 3)])
def test_the_chosen_number_is_about_as_good_as_the_best(n_labeled, n_draws):
    X, classes = digits()
    graph = sparse.csr_array(kneighbors_graph(X, 10, include_self=True))
    labels = np.array([few_labels(classes, n_labeled, seed) for seed in range(n_draws)])
    of_steps = accuracy_of_steps(graph, labels, classes, 60)
    chosen = [
        LabelDiffusion(metric="precomputed").fit(graph, y).transduction_ == classes for y in labels
    ]
    found = np.mean([right[y == -1].mean() for right, y in zip(chosen, labels, strict=True)])
    assert found > of_steps.max() - 0.02
    # Which is not what any number of steps would do.
    assert of_steps.min() < of_steps.max() - 0.02


def test_digits_are_read_better_than_by_label_spreading():
    X, classes = digits()
    ours, theirs = [], []
    for seed in range(5):
        y = few_labels(classes, 2, seed)
        peer = LabelSpreading(kernel="knn", n_neighbors=10)
        for model, accuracies in ((LabelDiffusion(), ours), (peer, theirs)):
            found = model.fit(X, y).transduction_
            accuracies.append((found == classes)[y == -1].mean())
    assert np.mean(ours) > np.mean(theirs)
