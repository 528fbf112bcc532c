import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowshot_kedro.graph import centroids
from lowshot_kedro.graph.centroids import CentroidSearch, lists_of, train_centroids
from lowshot_kedro.graph.codes import VectorEncoder

from .making import same_bits, threads
from .truth import clustered_vectors, similarities_of, unit


def directions(n, dimension=32, **settings):
    return unit(clustered_vectors(n, dimension, **settings)).astype(np.float32)


# --- shares ---


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=40), st.data())
def test_every_group_gets_from_one_to_as_many_as_it_has(sizes, data):
    seats = data.draw(st.integers(len(sizes), sum(sizes)))
    shares = centroids._apportion(np.array(sizes), seats)
    assert shares.sum() == seats
    assert (shares >= 1).all()
    assert (shares <= sizes).all()


def test_shares_are_in_proportion():
    assert centroids._apportion(np.array([10, 20, 70]), 10).tolist() == [1, 2, 7]
    shares = centroids._apportion(np.array([1, 1000, 5000, 300]), 640)
    wanted = np.array([1, 1000, 5000, 300]) * 640 / 6301
    assert np.abs(shares - wanted).max() <= 1
    assert centroids._apportion(np.array([1, 1, 98]), 50).tolist() == [1, 1, 48]


# --- training ---


@pytest.mark.parametrize(
    ("n", "n_centroids"), [(1, 1), (3, 3), (5, 2), (100, 1), (100, 25), (100, 100), (1000, 300)]
)
@pytest.mark.parametrize("kind", ["plain", "all the same", "zero", "some the same"])
def test_as_many_finite_centroids_as_wanted(n, n_centroids, kind):
    sample = directions(n)
    if kind == "all the same":
        sample[:] = sample[0]
    elif kind == "zero":
        sample[:] = 0
    elif kind == "some the same":
        sample[n // 3 :] = sample[0]
    trained = train_centroids(sample, n_centroids)
    assert (trained.shape, trained.dtype) == ((n_centroids, 32), np.float32)
    assert np.isfinite(trained).all()
    lengths = np.linalg.norm(trained, axis=1)
    assert ((np.abs(lengths - 1) < 1e-3) | (lengths == 0)).all()


def test_nothing_to_train_on_makes_centroids_of_zero():
    trained = train_centroids(np.empty((0, 8), np.float32), 1)
    assert trained.tolist() == [[0] * 8]


@pytest.mark.parametrize("n_centroids", [5, 200])
def test_centroids_are_near_to_vectors(n_centroids):
    sample = directions(4000)
    nearest = similarities_of(sample, train_centroids(sample, n_centroids)).max(axis=1)
    # As good as one k-means over all of them, but for a few percent.
    direct = centroids._kmeans(sample, n_centroids)
    assert nearest.mean() > similarities_of(sample, direct).max(axis=1).mean() - 0.03


def test_training_does_not_depend_on_the_number_of_threads():
    sample = directions(3000)
    trained = []
    for count in (1, 2, 3):
        with threads(count):
            trained.append(train_centroids(sample, 300))
    assert same_bits(trained[:1], trained[1:2])
    assert same_bits(trained[:1], trained[2:])


# --- search ---


@pytest.mark.parametrize("count", [1, 10, 600])
@pytest.mark.parametrize(("n_centroids", "least"), [(40, 0.99), (600, 0.96)])
def test_the_nearest_centroids_are_found(n_centroids, least, count):
    vectors = directions(6000)
    trained = train_centroids(vectors, n_centroids)
    encoder = VectorEncoder(vectors)
    queries, _ = encoder.encode(vectors[:1000])
    found = CentroidSearch(trained, encoder, flat_up_to=256).nearest(queries.values, count)
    assert (found.shape, found.dtype) == ((1000, count), np.int32)
    n_found = min(count, n_centroids)
    assert (found[:, n_found:] == -1).all()
    assert all(len(np.unique(row)) == n_found for row in found[:, :n_found])
    similarities = vectors[:1000] @ trained.T
    wanted = np.sort(similarities, axis=1)[:, -n_found:][:, ::-1]
    values = np.take_along_axis(similarities, found[:, :n_found].astype(np.int64), axis=1)
    # What codes cannot tell apart counts as equal.
    assert (values >= wanted - 0.01).mean() >= least


@pytest.mark.parametrize("dimension", [40, 200])
@pytest.mark.parametrize("flat_up_to", [16, 1000])
def test_every_vector_is_assigned_to_its_nearest_centroid(dimension, flat_up_to):
    vectors = directions(4000, dimension)
    vectors[5] = 0
    # Twelve groups or one: all of them are searched.
    trained = train_centroids(vectors, 150)
    encoder = VectorEncoder(vectors)
    queries, _ = encoder.encode(vectors)
    search = CentroidSearch(trained, encoder, flat_up_to)
    products = queries.values.astype(np.int64) @ search.codes.values.T.astype(np.int64)
    expected = (products + search.codes.biases).argmax(axis=1)
    found = search.assign(queries)
    assert (found.shape, found.dtype) == ((4000,), np.int32)
    # Of codes of 64 columns all are compared, of wider ones first columns may mislead.
    assert (found == expected).mean() >= (1 if dimension == 40 or flat_up_to == 1000 else 0.999)


@pytest.mark.parametrize("seed", range(10))
def test_of_equally_near_centroids_the_first_is_taken(seed):
    """A query of zeros is as near to a centroid as to the opposite one, in another group."""
    vectors = directions(75, 40, seed=seed)
    vectors = np.concatenate([vectors, -vectors])[np.random.default_rng(seed).permutation(150)]
    encoder = VectorEncoder(vectors)
    queries, _ = encoder.encode(np.zeros((1, 40), np.float32))
    assert not queries.values.any()
    search = CentroidSearch(vectors, encoder, flat_up_to=16)
    biases = search.codes.biases
    assert (biases == biases.max()).sum() >= 2
    assert search.assign(queries).tolist() == [biases.argmax()]


def test_no_queries_find_nothing():
    vectors = directions(50)
    encoder = VectorEncoder(vectors)
    none, _ = encoder.encode(vectors[:0])
    for flat_up_to in (2, 5):
        search = CentroidSearch(vectors[:5], encoder, flat_up_to)
        assert search.nearest(none.values, 3).shape == (0, 3)
        assert search.assign(none).shape == (0,)


@pytest.mark.parametrize("kind", ["all the same", "zero", "two"])
def test_every_vector_has_a_nearest_centroid_among_equal_ones(monkeypatch, kind):
    monkeypatch.setattr(centroids, "_MIN_GROUPS", 1)
    vectors = directions(500)
    vectors[:] = {"all the same": vectors[:1], "zero": 0, "two": vectors[:2].repeat(250, axis=0)}[
        kind
    ]
    encoder = VectorEncoder(vectors)
    queries, _ = encoder.encode(directions(500, seed=1))
    for trained in (vectors[:400], train_centroids(vectors, 400)):
        search = CentroidSearch(trained, encoder, flat_up_to=16)
        found = search.nearest(queries.values, 1)
        assert ((found >= 0) & (found < 400)).all()
        assigned = search.assign(queries)
        assert ((assigned >= 0) & (assigned < 400)).all()


# --- lists ---


def test_lists_hold_their_members_in_order():
    lists = lists_of(np.array([2, 0, 2, 5, 0, 2], np.int32), 7)
    assert lists.offsets.tolist() == [0, 2, 2, 5, 5, 5, 6, 6]
    assert lists.members.tolist() == [1, 4, 0, 2, 5, 3]
    assert (lists.offsets.dtype, lists.members.dtype) == (np.int64, np.int32)


def test_lists_of_nothing_are_empty():
    lists = lists_of(np.empty(0, np.int32), 3)
    assert lists.offsets.tolist() == [0, 0, 0, 0]
    assert lists.members.tolist() == []


def test_groups_too_large_to_be_trained_beside_others_get_the_same_centroids():
    sample = directions(2000)
    beside = train_centroids(sample, 50)
    mixed = train_centroids(sample, 50, max_multiplications=40 * 6 * 32)
    alone = train_centroids(sample, 50, max_multiplications=0)
    assert same_bits(beside, mixed)
    assert same_bits(beside, alone)
