import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from lowshot_kedro.classifiers import NearestNeighbors, nearest_neighbors


def draw(n, n_classes, dimension, seed=0):
    rng = np.random.default_rng(seed)
    classes = rng.permutation(np.arange(n) % n_classes).astype(np.int32)
    features = rng.standard_normal((n, dimension)) * rng.lognormal(size=(n, 1))
    return features.astype(np.float32), classes


def fitted(features, classes, k=1, **options):
    model = NearestNeighbors(int(classes.max()) + 1, k=k, **options)
    model.fit(features, classes)
    return model


def votes_by_sorting(features, classes, test, k):
    """The rule with all similarities in a table, and a stable sort."""
    unit, test_unit = (rows / np.linalg.norm(rows, axis=1)[:, None] for rows in (features, test))
    expected = np.zeros((len(test), classes.max() + 1))
    for row, similarities in enumerate(test_unit @ unit.T):
        for neighbor in np.argsort(-similarities, kind="stable")[:k]:
            expected[row, classes[neighbor]] += max(similarities[neighbor], 0)
    return expected


# --- scores ---


def test_votes_worked_out_by_hand():
    features = np.array([[2, 0], [0, 3], [-1, 0], [3, 4]], dtype=np.float32)
    model = fitted(features, np.array([0, 1, 1, 0], dtype=np.int32), k=4)
    found = list(model.scores_per_k(np.array([[10, 0]], dtype=np.float32), [4, 1, 2]))
    # Similarities 1, 0.6, 0 and -1; the last is no vote.
    for scores, expected in zip(found, ([[1.6, 0]], [[1, 0]], [[1.6, 0]]), strict=True):
        np.testing.assert_allclose(scores, expected, rtol=1e-6)
        assert scores.dtype == np.float32
    np.testing.assert_array_equal(model.scores(np.array([[10, 0]], dtype=np.float32)), found[0])


@pytest.mark.parametrize("block_rows", [7, 16384])
def test_shares_of_the_votes_are_those_of_scikit_learn(block_rows):
    features, classes = draw(150, 5, 6)
    test, _ = draw(50, 5, 6, seed=1)
    ks = [12, 1, 3]
    model = fitted(features, classes, block_rows=block_rows)
    for k, found in zip(ks, model.scores_per_k(test, ks), strict=True):
        peer = KNeighborsClassifier(
            k, metric="cosine", weights=lambda distances: np.maximum(1 - distances, 0)
        ).fit(features.astype(float), classes)
        shares = found / found.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(shares, peer.predict_proba(test.astype(float)), atol=1e-5)


def test_all_labelled_images_can_vote():
    features, classes = draw(20, 3, 4)
    test, _ = draw(5, 3, 4, seed=1)
    found = fitted(features, classes, k=20).scores(test)
    np.testing.assert_allclose(found, votes_by_sorting(features, classes, test, 20), rtol=1e-5)


def test_no_images_have_no_scores():
    features, classes = draw(20, 3, 4)
    assert fitted(features, classes).scores(features[:0]).shape == (0, 3)


def test_several_k_take_one_search(monkeypatch):
    searches = []

    def search(index, queries, k):
        searches.append(k)
        return original(index, queries, k)

    original = nearest_neighbors.search
    monkeypatch.setattr(nearest_neighbors, "search", search)
    features, classes = draw(50, 3, 4)
    assert len(list(fitted(features, classes).scores_per_k(features, [1, 5, 9]))) == 3
    assert searches == [10]


# --- ties ---

# Vectors of 0, ±1 with one or four of them: inner products are exact, and full of ties.
AXES = np.concatenate([np.eye(4), -np.eye(4), [[1, 1, 1, 1], [1, -1, 1, -1]]]).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, len(AXES) - 1), min_size=1, max_size=40),
    st.integers(1, 40),
    st.integers(0, 2**32 - 1),
)
def test_of_equally_similar_images_the_first_are_neighbors(chosen, k, seed):
    features = AXES[chosen]
    k = min(k, len(features))
    # Every image is a class, so that the scores tell who voted.
    classes = np.random.default_rng(seed).permutation(len(features)).astype(np.int32)
    found = fitted(features, classes, k).scores(AXES)
    np.testing.assert_array_equal(found, votes_by_sorting(features, classes, AXES, k))


@pytest.mark.parametrize("k", [1, 5, 150])
def test_ties_that_go_on_far_behind_k_are_settled(k):
    # 30 queries are many enough that faiss takes its way of blocks, and 150 for its reservoir.
    features = np.repeat(AXES[[1, 0]], [3, 600], axis=0)
    classes = np.arange(len(features), dtype=np.int32)
    queries = np.repeat(AXES[:1], 30, axis=0)
    (found,) = fitted(features, classes).scores_per_k(queries, [k])
    expected = np.zeros(len(features))
    expected[3 : 3 + k] = 1
    np.testing.assert_array_equal(found, np.tile(expected, (30, 1)))


@pytest.mark.parametrize("k", [1, 4, 9])
def test_ties_of_most_vectors_are_settled_in_one_pass(k, monkeypatch):
    monkeypatch.setattr(nearest_neighbors, "_SCANNED", 11)
    rng = np.random.default_rng(k)
    features = AXES[rng.choice(len(AXES), 500, p=[0.9, *[0.1 / 9] * 9])]
    classes = rng.permutation(500).astype(np.int32)
    found = fitted(features, classes, k).scores(AXES)
    np.testing.assert_array_equal(found, votes_by_sorting(features, classes, AXES, k))


def test_the_number_of_threads_changes_nothing():
    features, classes = draw(3000, 40, 64)
    features = np.concatenate([features, features])
    n_threads = faiss.omp_get_max_threads()
    found = []
    try:
        for count in (1, 3):
            faiss.omp_set_num_threads(count)
            model = fitted(features, np.concatenate([classes, classes[::-1]]))
            found.append(np.stack(list(model.scores_per_k(features[:2500], [1, 30]))))
    finally:
        faiss.omp_set_num_threads(n_threads)
    np.testing.assert_array_equal(*found)


# --- faults ---


def test_more_neighbors_than_labelled_images_are_refused_before_anything_is_searched():
    features, classes = draw(20, 3, 4)
    message = "k: got 21, but there are only 20 labelled images"
    with pytest.raises(ValueError, match=message):
        fitted(features, classes, k=21)
    with pytest.raises(ValueError, match=message):
        fitted(features, classes).scores_per_k(features, [1, 21])


def test_what_was_learned_from_may_change_afterwards():
    features, classes = draw(20, 3, 4)
    model = fitted(features, classes, k=3)
    expected = model.scores(features.copy())
    test = features.copy()
    features[:], classes[:] = 1, 0
    np.testing.assert_array_equal(model.scores(test), expected)
