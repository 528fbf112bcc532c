import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lowshot_kedro import native
from lowshot_kedro.graph.codes import VectorEncoder

from .truth import clustered_vectors, similarities_of, unit


def scores_of(queries, codes):
    """Of every query for every code."""
    products = queries.values.astype(np.int64) @ codes.values.astype(np.int64).T
    return products + codes.biases.astype(np.int64)


@st.composite
def collections(draw):
    """Vectors of a collection: clustered around the origin, or far from it."""
    n, members = draw(st.integers(20, 300)), draw(st.integers(5, 100))
    dimension, seed = draw(st.sampled_from([48, 64, 100, 256])), draw(st.integers(0, 10**6))
    vectors = clustered_vectors(n, dimension, seed, members, draw(st.floats(0.3, 2)))
    return vectors + np.float32(draw(st.sampled_from([0.0, 1.0])))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(collections())
def test_no_similarity_of_at_least_the_threshold_is_dropped(vectors):
    encoder = VectorEncoder(unit(vectors).astype(np.float32))
    codes, _ = encoder.encode(vectors)
    similarities = similarities_of(vectors, vectors)
    # Thresholds of which each drops about half.
    least = np.median(similarities, axis=1).astype(np.float32)
    floors = encoder.least_scores(least, codes.biases)
    kept = scores_of(codes, codes) >= floors[:, None]
    wanted = similarities >= least[:, None] + 1e-6
    assert kept[wanted].mean() > 0.999
    # The room is for rounding, not for what has been cut off.
    whole = (np.abs(codes.values) < 127).all(axis=1)
    assert kept[wanted & whole & whole[:, None]].all()


def test_what_is_much_less_similar_is_dropped():
    vectors = clustered_vectors(500, 64)
    encoder = VectorEncoder(unit(vectors).astype(np.float32))
    codes, _ = encoder.encode(vectors)
    similarities = similarities_of(vectors, vectors)
    floors = encoder.least_scores(np.full(500, 0.5, np.float32), codes.biases)
    kept = scores_of(codes, codes) >= floors[:, None]
    assert kept[similarities >= 0.5].all()
    assert not kept[similarities < 0.45].any()


def test_without_a_threshold_any_score_will_do():
    encoder = VectorEncoder(unit(clustered_vectors(20)).astype(np.float32))
    least = np.array([-np.inf, np.inf], np.float32)
    floors = encoder.least_scores(least, np.array([0, 0], np.int32))
    assert floors.tolist() == [-(2**31), 2**31 - 1]
    assert floors.dtype == np.int32


@pytest.mark.parametrize("n", [0, 1, 2])
@pytest.mark.parametrize("zero", [False, True])
def test_an_encoder_from_few_vectors_encodes_any(n, zero):
    sample = np.zeros((n, 16), np.float32) if zero else unit(clustered_vectors(n, 16))
    encoder = VectorEncoder(sample.astype(np.float32))
    assert encoder.width == native.code_width(16)
    codes, inverse_lengths = encoder.encode(clustered_vectors(50, 16))
    assert codes.values.shape == (50, encoder.width)
    assert np.isfinite(inverse_lengths).all()


def test_scores_rank_as_similarities_do():
    vectors = clustered_vectors(1000, 64)
    encoder = VectorEncoder(unit(vectors).astype(np.float32))
    codes, inverse_lengths = encoder.encode(vectors)
    np.testing.assert_allclose(inverse_lengths, 1 / np.linalg.norm(vectors, axis=1), rtol=1e-5)
    best = np.argmax(scores_of(codes, codes) - 2**30 * np.eye(1000, dtype=np.int64), axis=1)
    similarities = similarities_of(vectors, vectors) - 2 * np.eye(1000)
    missed = similarities.max(axis=1) - similarities[np.arange(1000), best]
    assert missed.max() < 0.01
