import logging
import warnings

import numpy as np
import pytest
from sklearn import semi_supervised
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_info, threadpool_limits

from lowshot_kedro.classifiers import LabelSpreading


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1)[:, None]).astype(np.float32)


def clusters(n, n_classes=4, dimension=8, seed=0):
    """Directions around one axis for each class."""
    rng = np.random.default_rng(seed)
    classes = (np.arange(n) % n_classes).astype(np.int32)
    return unit(2 * np.eye(dimension)[classes] + rng.standard_normal((n, dimension)) / 2), classes


def spreading(unlabeled, n_classes=4, **changes):
    settings = {"n_neighbors": 7, "alpha": 0.5, "max_iterations": 30}
    return LabelSpreading(n_classes, unlabeled=unlabeled, **(settings | changes))


def nothing(dimension):
    return np.empty((0, dimension), dtype=np.float32)


# --- scores ---


def spread_densely(vectors, classes, test, n_neighbors, alpha, n_iterations):
    """F ← α S F + (1 - α) Y with the whole matrix, and test points as sums over neighbours."""

    def neighbors_of(points):
        nearest = np.argsort(-(points @ vectors.T), axis=1)[:, :n_neighbors]
        links = np.zeros((len(points), len(vectors)))
        np.put_along_axis(links, nearest, 1, axis=1)
        return links

    links = neighbors_of(vectors)
    np.fill_diagonal(links, 0)
    # How often a point is a neighbour: what scikit-learn takes for its degree.
    degrees = np.maximum(links.sum(axis=0), 1) ** 0.5
    matrix = links / degrees[:, None] / degrees
    labels = np.zeros((len(vectors), classes.max() + 1))
    labels[np.arange(len(classes)), classes] = 1
    spread = labels
    for _ in range(n_iterations):
        spread = alpha * matrix @ spread + (1 - alpha) * labels
    spread = spread / np.maximum(spread.sum(axis=1, keepdims=True), 1e-300)
    arrived = neighbors_of(test) @ spread
    return arrived / arrived.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("alpha", [0.2, 0.9])
def test_scores_are_those_of_the_method_computed_densely(alpha):
    vectors, classes = clusters(60)
    test, _ = clusters(25, seed=1)
    # So few steps that it has not settled, nor stopped early.
    model = spreading(vectors[12:], alpha=alpha, max_iterations=4)
    model.fit(vectors[:12], classes[:12])
    expected = spread_densely(vectors.astype(float), classes[:12], test.astype(float), 7, alpha, 4)
    np.testing.assert_allclose(model.scores(test), expected, atol=1e-6)


@pytest.mark.parametrize("block_rows", [7, 4096])
def test_scores_are_those_of_scikit_learn_called_by_hand(block_rows):
    vectors, classes = clusters(300)
    test, _ = clusters(80, seed=1)
    model = spreading(vectors[40:], n_neighbors=5, alpha=0.7, block_rows=block_rows)
    model.fit(vectors[:40], classes[:40])
    peer = semi_supervised.LabelSpreading(kernel="knn", n_neighbors=5, alpha=0.7)
    peer.fit(vectors, np.where(np.arange(300) < 40, classes, -1))
    found = model.scores(test)
    np.testing.assert_allclose(found, peer.predict_proba(test), atol=1e-6)
    assert found.dtype == np.float32
    assert model.scores(test[:0]).shape == (0, 4)


def test_unlabelled_images_help():
    vectors, classes = clusters(800, dimension=16)
    test, test_classes = clusters(400, dimension=16, seed=1)

    def accuracy(unlabeled):
        model = spreading(unlabeled, n_neighbors=4, alpha=0.9)
        model.fit(vectors[:4], classes[:4])
        return (model.scores(test).argmax(axis=1) == test_classes).mean()

    assert accuracy(vectors[4:]) > accuracy(nothing(16)) + 0.1


def test_lengths_do_not_matter():
    vectors, classes = clusters(100)
    lengths = np.random.default_rng(5).lognormal(size=(100, 1)).astype(np.float32)
    found = []
    for rows in (vectors, vectors * lengths):
        model = spreading(rows[20:])
        model.fit(rows[:20], classes[:20])
        found.append(model.scores(rows))
    np.testing.assert_allclose(*found, atol=1e-6)


def test_where_no_label_arrives_no_class_is_preferred():
    # Two groups that know nothing of each other; labels are in the first.
    first, second = clusters(20, n_classes=2), clusters(10, n_classes=1, seed=3)
    far = np.roll(second[0], 5, axis=1)
    model = spreading(far, n_classes=2, n_neighbors=3)
    model.fit(*first)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = model.scores(np.concatenate([first[0], far]))
    np.testing.assert_allclose(found[:20].sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(found[20:], np.zeros((10, 2)))


def test_the_number_of_threads_changes_nothing(monkeypatch):
    # Whether scikit-learn's results follow the number of threads hangs on which BLAS library was
    # loaded first. So what counts is the number that it gets.
    threads = []

    def note_threads():
        threads.append(max(library["num_threads"] for library in threadpool_info()))

    class Watched(semi_supervised.LabelSpreading):
        def fit(self, *arguments):
            note_threads()
            return super().fit(*arguments)

        def predict_proba(self, *arguments):
            note_threads()
            return super().predict_proba(*arguments)

    monkeypatch.setattr(semi_supervised, "LabelSpreading", Watched)
    # Most similarities are the same, so that who is a neighbour hangs on the order of comparisons.
    rng = np.random.default_rng(0)
    vectors = unit(rng.permuted(np.tile([1.0] * 3 + [0.0] * 13, (1500, 1)), axis=1))
    classes = (np.arange(60) % 5).astype(np.int32)
    found = []
    for n_threads in (2, 3):
        with threadpool_limits(n_threads):
            model = spreading(vectors[60:], n_classes=5)
            model.fit(vectors[:60], classes)
            found.append(model.scores(vectors[:200]))
    assert threads == [1, 1, 1, 1]
    np.testing.assert_array_equal(*found)


# --- what is logged ---


def test_one_line_says_that_it_has_not_settled(caplog):
    vectors, classes = clusters(60)
    caplog.set_level(logging.INFO, "lowshot_kedro")

    def lines(max_iterations):
        caplog.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            spreading(vectors[12:], max_iterations=max_iterations).fit(vectors[:12], classes[:12])
        return [message for message in caplog.messages if "not settled" in message]

    assert lines(3) == ["label spreading: not settled after 3 steps"]
    assert lines(1000) == []


# --- faults ---


def test_more_images_than_allowed_are_refused():
    vectors, classes = clusters(60)
    spreading(vectors[12:], max_images=60).fit(vectors[:12], classes[:12])
    message = (
        r"max_images: got 59, but there are 60 images "
        r"\(12 labelled, 48 unlabelled\)"
    )
    with pytest.raises(ValueError, match=message):
        spreading(vectors[12:], max_images=59).fit(vectors[:12], classes[:12])


def test_more_neighbors_than_images_are_refused():
    vectors, classes = clusters(10)
    message = "n_neighbors: got 11, but there are only 10 images"
    with pytest.raises(ValueError, match=message):
        spreading(vectors[4:], n_neighbors=11).fit(vectors[:4], classes[:4])
    spreading(vectors[4:], n_neighbors=10).fit(vectors[:4], classes[:4])


def test_unlabelled_vectors_of_another_dimension_are_refused():
    vectors, classes = clusters(10)
    message = "unlabelled vectors: 5 columns, but the labelled features have 8"
    with pytest.raises(ValueError, match=message):
        spreading(vectors[4:, :5]).fit(vectors[:4], classes[:4])


def test_an_unlabelled_vector_of_zeros_is_refused():
    vectors, classes = clusters(10)
    vectors[7] = 0
    message = r"unlabelled vectors: found nothing but zeros in 1 row\(s\), numbers 3;"
    with pytest.raises(ValueError, match=message):
        spreading(vectors[4:]).fit(vectors[:4], classes[:4])
