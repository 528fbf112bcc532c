"""Which vectors and lists a bounded search leaves out."""

import numpy as np
import pytest

from lowshot_kedro import native
from lowshot_kedro.graph import bounded_search
from lowshot_kedro.graph.codes import VectorEncoder


@pytest.mark.parametrize("width", [128, 192, 256, 832])
def test_first_columns_of_random_directions_hold_no_more_than_the_share(width):
    rng = np.random.default_rng(width)
    vectors = rng.normal(size=(20_000, width))
    parts = (vectors[:, :64] ** 2).sum(axis=1) / (vectors**2).sum(axis=1)
    share = bounded_search.prefix_share_of(np.empty(0), width)
    # One in ten thousand does.
    assert (parts > share).sum() <= 10
    assert (parts > 0.9 * share).sum() > 10
    # A sample tells of vectors that are spread less evenly.
    largest = bounded_search.prefix_share_of(np.array([0.1, 2 * share]), width)
    assert largest > 2 * share


def test_codes_of_64_columns_have_no_others():
    assert bounded_search.prefix_share_of(np.empty(0), 64) == 1


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
    few = (codes.values[:100, :64].astype(float) - neighbors[:, :64]) ** 2
    whole = (codes.values[:100].astype(float) - codes.values[200:300]) ** 2
    np.testing.assert_allclose(shares, few.sum(axis=1) / whole.sum(axis=1), rtol=1e-4)


@pytest.mark.parametrize("largest", [5, 31, 32, 127, 128, 3000])
def test_rows_of_about_equally_many_entries_go_together(largest):
    rng = np.random.default_rng(largest)
    counts = rng.integers(1, largest + 1, 60)
    counts[7] = largest
    entries = rng.integers(0, 4000, counts.sum()).astype(np.int32)
    rows_of_entries = np.split(entries, np.cumsum(counts)[:-1])
    blocks = [
        (counts[:25], entries[: counts[:25].sum()]),
        (counts[25:], entries[counts[:25].sum() :]),
    ]
    seen = []
    for rows, lists in bounded_search._by_count(blocks, 1000):
        assert lists.dtype == np.int32
        assert lists.shape[1] <= max(4 * counts[rows - 1000].min(), 127)
        for row, found in zip(rows, lists, strict=True):
            wanted = rows_of_entries[row - 1000]
            np.testing.assert_array_equal(found[: len(wanted)], wanted)
            assert (found[len(wanted) :] == -1).all()
        seen.append(rows)
    np.testing.assert_array_equal(np.sort(np.concatenate(seen)), np.arange(1000, 1060))
