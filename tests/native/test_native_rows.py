"""Copying vectors, and their checksums, compared with numpy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowshot_kedro import native

from .strategies import SEEDS, widened

DIMENSIONS = st.integers(1, 70) | st.sampled_from([255, 256, 257])


def scaled(vectors):
    """Rows of length 1, summed up and rounded as the compiled function does it."""
    wide = np.zeros((len(vectors), -(-vectors.shape[1] // 16) * 16))
    wide[:, : vectors.shape[1]] = vectors
    sums = np.zeros((len(vectors), 16))
    for part in np.split(wide, wide.shape[1] // 16, axis=1):
        sums += part * part
    totals = np.zeros(len(vectors))
    for column in sums.T:
        totals += column
    lengths = np.sqrt(totals)
    inverse = np.where(lengths > 0, 1 / np.where(lengths > 0, lengths, 1), 1)
    return (vectors.astype(np.float64) * inverse[:, None]).astype(np.float32)


def checksums_of(vectors, factors):
    """The sums by integers of any size."""
    bits = (vectors + np.float32(0)).view(np.uint32).astype(object)
    return ((bits * factors.astype(object)).sum(axis=1) % 2**64).astype(np.uint64)


def random_factors(rng, dimension):
    return rng.integers(0, 2**64, dimension, np.uint64, endpoint=False)


@given(SEEDS, st.integers(0, 600), DIMENSIONS, st.sampled_from([0, 1, 5]))
def test_checksums_are_sums_of_products(seed, rows, dimension, more):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(rows, dimension)).astype(np.float32)
    vectors *= np.exp(20 * rng.normal(size=(rows, 1))).astype(np.float32)
    vectors[rng.random(vectors.shape) < 0.2] = -0.0
    vectors[rng.random(rows) < 0.1] = 0
    factors = random_factors(rng, dimension)
    given_to = widened(vectors, more)
    found = native.checksum_rows(given_to, factors, euclidean=True)
    np.testing.assert_array_equal(found, checksums_of(vectors, factors))
    found = native.checksum_rows(given_to, factors)
    np.testing.assert_array_equal(found, checksums_of(scaled(vectors), factors))


@pytest.mark.parametrize("dimension", [1, 3, 256])
def test_equal_directions_have_equal_checksums_and_others_do_not(dimension):
    rng = np.random.default_rng(dimension)
    # Small integers, so that multiples are exact.
    vectors = rng.integers(-9, 10, (500, dimension)).astype(np.float32)
    factors = random_factors(rng, dimension) | np.uint64(1)
    expected = native.checksum_rows(vectors, factors)
    for factor in (2.0**-60, 3, 7.5, 1000):
        found = native.checksum_rows(vectors * np.float32(factor), factors)
        np.testing.assert_array_equal(found, expected)
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    directions = (vectors / np.where(lengths == 0, 1, lengths)).round(9) + 0
    n_different = len(np.unique(directions, axis=0))
    assert len(np.unique(expected)) == n_different
    as_they_are = native.checksum_rows(vectors, factors, euclidean=True)
    assert len(np.unique(as_they_are)) == len(np.unique(vectors, axis=0))
    negative = native.checksum_rows(-vectors, factors)
    assert ((negative == expected) == ~vectors.any(axis=1)).all()


@pytest.mark.parametrize("size", [1e-45, 1e-40, 3e38])
def test_the_smallest_and_the_largest_rows_have_a_direction(size):
    factors = random_factors(np.random.default_rng(0), 5)
    vectors = np.array([[0, 1, 0, 0, 1], [0, 1, 0, 0, -1], [0, 0, 0, 0, 0]], np.float32)
    found = native.checksum_rows(vectors * np.float32(size), factors)
    np.testing.assert_array_equal(found, native.checksum_rows(vectors, factors))
    assert len(np.unique(found)) == 3


@given(SEEDS, st.integers(1, 900), st.integers(0, 900), DIMENSIONS, st.sampled_from([0, 1, 5]))
def test_copies_are_products_at_their_places(seed, rows, count, dimension, more):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(rows, dimension)).astype(np.float32)
    factors = rng.normal(size=rows).astype(np.float32)
    chosen = rng.integers(0, rows, count, dtype=np.int32)
    copies = rng.normal(size=(count + 7, dimension)).astype(np.float32)
    places = rng.permutation(len(copies))[:count]
    expected = copies.copy()
    expected[places] = vectors[chosen] * factors[chosen, None]
    native.copy_rows(widened(vectors, more), factors, chosen, places, copies)
    np.testing.assert_array_equal(copies, expected)
