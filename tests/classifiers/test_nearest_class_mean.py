import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import normalize
from threadpoolctl import threadpool_limits

from lowshot_kedro.classifiers import NearestClassMean


def draw(n, n_classes, dimension, seed=0):
    """Features of very different lengths, and classes of very different sizes."""
    rng = np.random.default_rng(seed)
    classes = np.minimum(rng.geometric(0.3, n) - 1, n_classes - 1)
    classes[:n_classes] = np.arange(n_classes)
    lengths = rng.lognormal(sigma=2, size=(n, 1))
    features = rng.standard_normal((n, dimension)) * lengths
    return features.astype(np.float32), rng.permutation(classes).astype(np.int32)


def fitted(features, classes, **options):
    model = NearestClassMean(int(classes.max()) + 1, **options)
    model.fit(features, classes)
    return model


def test_cosines_worked_out_by_hand():
    # Class 0 is one direction; class 1 is (1, 0) and (0, 1), the second one long: (1, 1) / √2.
    features = np.array([[0, 1], [0, 30], [2, 0]], dtype=np.float32)
    model = fitted(features, np.array([0, 1, 1], dtype=np.int32))
    found = model.scores(np.array([[5, 0], [-1, 0], [0.1, 0.1]], dtype=np.float32))
    half = 0.5**0.5
    np.testing.assert_allclose(found, [[0, half], [0, -half], [half, 1]], atol=1e-6)
    assert found.dtype == np.float32


@pytest.mark.parametrize("block_rows", [7, 16384])
def test_scores_are_cosines_to_the_centroids_of_scikit_learn(block_rows):
    features, classes = draw(200, 6, 20)
    test, _ = draw(60, 6, 20, seed=1)
    centroids = NearestCentroid().fit(normalize(features.astype(float)), classes).centroids_
    found = fitted(features, classes, block_rows=block_rows).scores(test)
    np.testing.assert_allclose(found, cosine_similarity(test, centroids), atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(1e-18, 1e18), min_size=30, max_size=30))
def test_the_length_of_a_feature_vector_means_nothing(lengths):
    features, classes = draw(30, 4, 8)
    test, _ = draw(30, 4, 8, seed=1)
    factors = np.array(lengths, dtype=np.float32)[:, None]
    expected = fitted(features, classes).scores(test)
    found = fitted(features * factors, classes).scores(test * factors[::-1])
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_the_number_of_threads_changes_nothing():
    # A product of this shape is rounded differently when OpenBLAS spreads it.
    features, classes = draw(1000, 5, 513)
    found = []
    for n_threads in (1, 2, 3):
        with threadpool_limits(n_threads):
            found.append(fitted(features, classes).scores(features))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_a_class_without_a_direction_is_refused():
    features = np.array([[1, 0], [3, 0], [-2, 0]], dtype=np.float32)
    message = "nearest class mean: the features of class 1 cancel out"
    with pytest.raises(ValueError, match=message):
        fitted(features, np.array([0, 1, 1], dtype=np.int32))


def test_no_images_have_no_scores():
    features, classes = draw(20, 3, 5)
    assert fitted(features, classes).scores(features[:0]).shape == (0, 3)
