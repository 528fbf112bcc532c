"""Which vectors and lists a bounded search leaves out."""

import numpy as np
import pytest

from lowshot_kedro import native
from lowshot_kedro.graph import bounded_search
from lowshot_kedro.graph.codes import VectorEncoder


@pytest.mark.parametrize("which, columns", [(0, 64), (1, 128)])
@pytest.mark.parametrize("width", [192, 256, 832])
def test_first_columns_of_random_directions_hold_no_more_than_the_share(width, which, columns):
    rng = np.random.default_rng(width)
    vectors = rng.normal(size=(20_000, width))
    parts = (vectors[:, :columns] ** 2).sum(axis=1) / (vectors**2).sum(axis=1)
    share = bounded_search.shares_of(np.empty((2, 0)), width)[which]
    # One in ten thousand does.
    assert (parts > share).sum() <= 10
    assert (parts > 0.9 * share).sum() > 10
    # A sample tells of vectors that are spread less evenly.
    sample = np.zeros((2, 2))
    sample[which, 1] = 2 * share
    assert bounded_search.shares_of(sample, width)[which] > 2 * share


def test_codes_without_more_columns_have_no_others():
    assert bounded_search.shares_of(np.empty((2, 0)), 64) == (1, 1)
    first, second = bounded_search.shares_of(np.empty((2, 0)), 128)
    assert first < 1 == second


def test_slack_is_what_nearly_all_links_need():
    likely = np.arange(20_000) / 10_000
    # One in twenty thousand may be lost.
    assert bounded_search.slack_of(np.array([1.2]), likely) == pytest.approx(1.9998, abs=2e-4)
    # All that are known to be links count, and they alone need no more than they do.
    assert bounded_search.slack_of(np.array([0.3, 2.5]), likely) == 2.5
    assert bounded_search.slack_of(np.array([1.5, 1.25]), np.empty(0)) == 1.5
    # Without others there is something to spare.
    assert bounded_search.slack_of(np.array([1.5, 1.25])) > 1.5
    assert bounded_search.slack_of(np.empty(0), np.empty(0)) == 1


def test_shares_are_those_of_distances_at_the_floor():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(300, 200)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    encoder = VectorEncoder(vectors)
    codes, _ = encoder.encode(vectors)
    queries = native.Codes(codes.values[:100], codes.biases[:100])
    neighbors = codes.values[100:200]
    floors = native.score_pairs(codes, np.arange(200, 300, dtype=np.int32), queries.values)
    shares = bounded_search.prefix_shares(queries, neighbors, floors)
    whole = ((codes.values[:100].astype(float) - codes.values[200:300]) ** 2).sum(axis=1)
    for of_prefix, columns in zip(shares, (64, 128), strict=True):
        few = (codes.values[:100, :columns].astype(float) - neighbors[:, :columns]) ** 2
        np.testing.assert_allclose(of_prefix, few.sum(axis=1) / whole, rtol=1e-4)
