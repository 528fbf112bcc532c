import numpy as np
import pytest

from lowshot_kedro.labeling import class_frequencies
from lowshot_kedro.labeling.class_frequencies import estimate_frequencies, weigh


def images(frequencies, n, distance, seed=0):
    """Probabilities for classes of equal frequency of images drawn from Gaussians, and classes."""
    rng = np.random.default_rng(seed)
    n_classes = len(frequencies)
    classes = rng.choice(n_classes, n, p=frequencies)
    points = distance * np.eye(n_classes)[classes] + rng.standard_normal((n, n_classes))
    densities = np.exp(distance * points)
    return (densities / densities.sum(axis=1, keepdims=True)).astype(np.float32), classes


@pytest.mark.parametrize("frequencies", [(0.7, 0.2, 0.1), (0.05, 0.9, 0.05), (1 / 3, 1 / 3, 1 / 3)])
def test_known_frequencies_are_found(frequencies):
    probabilities, _ = images(frequencies, 20_000, 2)
    found = estimate_frequencies(probabilities, np.arange(20_000), 10**6)
    np.testing.assert_allclose(found, frequencies, atol=0.015)
    assert found.sum() == pytest.approx(1)


def test_they_make_labels_better():
    frequencies = (0.8, 0.15, 0.05)
    probabilities, classes = images(frequencies, 5000, 1.5)
    before = (probabilities.argmax(axis=1) == classes).mean()
    found = estimate_frequencies(probabilities, np.arange(5000), 60)
    weighed = weigh(probabilities.copy(), found)
    assert (weighed.argmax(axis=1) == classes).mean() > before + 0.05
    # The rule of Bayes.
    expected = probabilities * found
    np.testing.assert_allclose(weighed, expected / expected.sum(1, keepdims=True), rtol=1e-4)


def test_the_fewer_labels_the_more_equal_they_are():
    probabilities, _ = images((0.98, 0.01, 0.01), 5000, 2)
    found = [estimate_frequencies(probabilities, np.arange(5000), n).max() for n in (3, 30, 3000)]
    assert 1 / 3 < found[0] < found[1] < found[2]
    # With one label a class: half way to what the images say by themselves.
    assert found[0] < 0.7
    # A class that no image speaks for has something of its own.
    nobody = np.tile(np.array([1, 0], np.float32), (50, 1))
    found = estimate_frequencies(nobody, np.arange(50), 8)
    np.testing.assert_allclose(found, [0.9, 0.1], atol=1e-3)


def test_only_the_rows_asked_for_count():
    probabilities, _ = images((0.5, 0.5), 300, 2)
    probabilities[:100] = [1, 0]
    probabilities[150] = 0
    rows = np.arange(100, 300)
    found = estimate_frequencies(probabilities, rows, 1000)
    same = estimate_frequencies(np.delete(probabilities[100:], 50, 0), np.arange(199), 1000)
    np.testing.assert_allclose(found, same, rtol=1e-6)
    everyone = estimate_frequencies(probabilities, np.arange(300), 1000)
    assert everyone[0] > found[0] + 0.1
    for nothing in (rows[:0], np.array([150])):
        np.testing.assert_array_equal(
            estimate_frequencies(probabilities, nothing, 1000), [0.5, 0.5]
        )


def test_some_of_many_rows_are_looked_at(monkeypatch):
    probabilities, _ = images((0.7, 0.3), 6000, 2)
    monkeypatch.setattr(class_frequencies, "_MAX_ROWS", 2000)
    found = estimate_frequencies(probabilities, np.arange(6000), 1000)
    same = estimate_frequencies(probabilities[::3], np.arange(2000), 1000)
    np.testing.assert_allclose(found, same, rtol=1e-6)


def test_rows_of_zeros_stay():
    probabilities = np.array([[0, 0], [0.5, 0.5]], np.float32)
    found = weigh(probabilities, np.array([0.25, 0.75]))
    np.testing.assert_allclose(found, [[0, 0], [0.25, 0.75]])
