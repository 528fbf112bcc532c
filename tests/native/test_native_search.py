"""Searching for neighbours, compared with numpy and with plain Python."""

import itertools
import math
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowshot_kedro import native
from lowshot_kedro.native import search

from .searching import random_codes, random_encoder, random_pools
from .strategies import SEEDS, widened

INT32 = np.iinfo(np.int32)
DIMENSIONS = [1, 63, 64, 65, 100, 256, 300, 1280]


def unit(vectors):
    """Vectors of length 1 or 0, in double precision."""
    vectors = vectors.astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths == 0, 1, lengths)


def product(first, second):
    """Inner products of codes, exact: no sum of them needs more than the 53 bits of a double."""
    return (first.astype(np.float64) @ second.astype(np.float64).T).astype(np.int64)


# Encoding.


def check_encode(encoder, vectors):
    """Compares all inner products with those of the vectors; nothing may be cut off."""
    codes, inverse_lengths = native.encode(encoder, vectors)
    assert (codes.values.dtype, codes.biases.dtype) == (np.int8, np.int32)
    assert codes.values.shape == (len(vectors), encoder.width)
    assert inverse_lengths.dtype == np.float32
    values = codes.values.astype(np.int64)
    assert np.abs(values).max(initial=0) < 127
    vectors = vectors.astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1)
    there = lengths > 0
    np.testing.assert_allclose(inverse_lengths[there], 1 / lengths[there], rtol=1e-6)
    assert (inverse_lengths[~there] == 0).all()

    scaled = unit(vectors)
    mean = encoder.mean.astype(np.float64)
    steps = encoder.scale**2
    # Vectors of length 0 have 0 as inner product with all, like those whose distance squared is 2.
    below = np.where(there, 0, np.rint(np.float32(encoder.scale) ** 2 / 2)).astype(np.int64)
    np.testing.assert_array_equal(codes.biases, -((values**2).sum(axis=1) // 2) - below)
    centered = scaled - mean
    errors = product(values, values) - steps * centered @ centered.T
    # Every code is wrong by half a step at most, and by the last digits of float.
    sums = np.abs(values).sum(axis=1)
    limits = (sums[:, None] + sums + encoder.width / 2) * 0.501 + 1e-5 * steps
    assert (np.abs(errors) <= limits).all()
    if vectors.shape[1] < 32:
        return
    # Apart from a vector's own error, which counts twice, they are as good as independent.
    squares = (centered**2).sum(axis=1)
    deviations = encoder.scale * np.sqrt((squares[:, None] + squares) / 12) + np.sqrt(
        encoder.width / 144
    )
    different = ~np.eye(len(vectors), dtype=bool)
    assert (np.abs(errors)[different] <= 7 * deviations[different] + 1).all()


@pytest.mark.parametrize("dimension", DIMENSIONS)
@pytest.mark.parametrize("mean_length", [0.0, 0.7])
def test_codes_keep_inner_products(dimension, mean_length):
    rng = np.random.default_rng(dimension)
    vectors = rng.normal(size=(60, dimension)).astype(np.float32)
    vectors *= np.exp(rng.normal(size=(60, 1))).astype(np.float32)
    vectors[[7, 20]] = 0
    scale = 12 * native.code_width(dimension) ** 0.5
    encoder = random_encoder(rng, dimension, scale, mean_length)
    check_encode(encoder, vectors)


@given(SEEDS, st.integers(1, 400), st.integers(0, 12), st.sampled_from([0, 1, 5]))
def test_codes_of_any_width(seed, dimension, rows, more):
    rng = np.random.default_rng(seed)
    vectors = widened(rng.normal(size=(rows, dimension)).astype(np.float32), more)
    check_encode(random_encoder(rng, dimension, float(rng.uniform(1, 40))), vectors)


@pytest.mark.parametrize("dimension", [40, 64, 128, 250, 1024])
def test_a_coordinate_is_spread_evenly_over_all_codes(dimension):
    encoder = random_encoder(np.random.default_rng(0), dimension, 1000.0)
    encoder = encoder._replace(mean=np.zeros(dimension, np.float32))
    codes, _ = native.encode(encoder, np.eye(dimension, dtype=np.float32))
    if np.log2(encoder.width) % 1 == 0:
        assert (np.abs(codes.values) == round(1000 / encoder.width**0.5)).all()
    # Where the signs of two coordinates differ, theirs differ in half of the codes.
    other = encoder._replace(signs=-encoder.signs)
    codes_other, _ = native.encode(other, np.eye(dimension, dtype=np.float32))
    assert (codes_other.values != codes.values).any()


@pytest.mark.parametrize("width", [192, 320, 576, 1088])
def test_codes_of_a_coordinate_if_the_width_is_no_power_of_two(width):
    encoder = random_encoder(np.random.default_rng(0), width, 200.0)
    encoder = encoder._replace(mean=np.zeros(width, np.float32))
    codes, _ = native.encode(encoder, np.eye(width, dtype=np.float32))
    # Nothing stands out, and everything is there.
    lengths = np.linalg.norm(codes.values.astype(float), axis=1)
    np.testing.assert_allclose(lengths, 200, rtol=0.05)
    assert np.abs(codes.values).max() < 100


@pytest.mark.parametrize("dimension", [1, 100, 256])
def test_codes_do_not_depend_on_the_length_of_vectors(dimension):
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(30, dimension)).astype(np.float32)
    encoder = random_encoder(rng, dimension)
    codes, inverse_lengths = native.encode(encoder, vectors)
    for power in (-60, 1, 100):
        factor = np.float32(2.0**power)
        scaled, inverse = native.encode(encoder, vectors * factor)
        np.testing.assert_array_equal(scaled.values, codes.values)
        np.testing.assert_array_equal(scaled.biases, codes.biases)
        np.testing.assert_array_equal(inverse, inverse_lengths / factor)
    for factor in (1e-30, 1e-32, 1e30, 1e37):
        scaled, inverse = native.encode(encoder, vectors * np.float32(factor))
        difference = scaled.values.astype(int) - codes.values
        assert np.abs(difference).max() <= 1 and (difference != 0).mean() < 0.02
        assert np.abs(scaled.biases.astype(int) - codes.biases).max() <= 1
        np.testing.assert_allclose(inverse * factor, inverse_lengths, rtol=1e-3)


def test_the_shortest_vectors_count_as_zero():
    encoder = random_encoder(np.random.default_rng(0), 64)
    vectors = np.zeros((4, 64), np.float32)
    vectors[1:, 5] = (1e-40, 9e-37, 1.1e-36)
    codes, inverse_lengths = native.encode(encoder, vectors)
    assert (codes.biases[:3] == codes.biases[0]).all()
    assert inverse_lengths[:3].tolist() == [0, 0, 0]
    assert (codes.values[:3] == codes.values[0]).all()
    assert (codes.values[3] != codes.values[0]).any()
    assert inverse_lengths[3] == pytest.approx(1 / 1.1e-36)


def test_zero_has_the_codes_of_the_mean_turned_round():
    rng = np.random.default_rng(0)
    encoder = random_encoder(rng, 100, mean_length=1.0)
    centered = encoder._replace(mean=np.zeros(100, np.float32))
    zero, _ = native.encode(encoder, np.zeros((1, 100), np.float32))
    mean, _ = native.encode(centered, encoder.mean[None])
    assert np.abs(zero.values.astype(int) + mean.values).max() <= 1
    nothing, _ = native.encode(centered, np.zeros((1, 100), np.float32))
    assert not nothing.values.any()
    assert nothing.biases[0] == -round(encoder.scale**2 / 2)


def test_codes_are_cut_off_at_127():
    rng = np.random.default_rng(2)
    vectors = rng.normal(size=(50, 100)).astype(np.float32)
    codes, _ = native.encode(random_encoder(rng, 100, 9999.0), vectors)
    assert codes.values.min() == -127 and codes.values.max() == 127
    assert (np.abs(codes.values.astype(int)) == 127).mean() > 0.5


def test_encode_takes_the_widest_codes_and_the_longest_mean_that_scores_allow():
    width = 65536
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(3, width)).astype(np.float32)
    encoder = random_encoder(rng, width, 9999.0, 1.0)
    codes, _ = native.encode(encoder, vectors)
    nothing, _ = native.encode(encoder._replace(mean=0 * encoder.mean), 0 * vectors)
    assert (nothing.biases == -round(9999**2 / 2)).all()
    probes = np.zeros((1, 1), np.int32)
    lists = native.Lists(np.array([0, 3]))
    _, scores = native.search_lists(codes, lists, codes.values[:1], probes, 3)
    truth = product(codes.values[:1], codes.values)[0] + codes.biases
    assert sorted(scores[0]) == sorted(truth)


@pytest.mark.parametrize("shape", [(0, 1), (0, 100)])
def test_encode_of_nothing(shape):
    encoder = random_encoder(np.random.default_rng(0), shape[1])
    codes, inverse_lengths = native.encode(encoder, np.empty(shape, np.float32))
    assert codes.values.shape == (0, encoder.width)
    assert len(codes.biases) == len(inverse_lengths) == 0


@pytest.mark.parametrize("dimension", DIMENSIONS)
@pytest.mark.parametrize(("origin", "size"), [(0, 1), (1e6, 1000), (0, 1e15), (0, 1e-15)])
def test_codes_keep_distances(dimension, origin, size):
    rng = np.random.default_rng(dimension)
    vectors = (origin + size * rng.normal(size=(40, dimension))).astype(np.float32)
    mean = vectors.mean(axis=0)
    encoder = random_encoder(rng, dimension, 15.0 / size)
    encoder = encoder._replace(mean=mean, euclidean=True)
    codes, inverse_lengths = native.encode(encoder, vectors)
    assert inverse_lengths is None
    assert np.abs(codes.values).max() < 127
    squares = (codes.values.astype(np.int64) ** 2).sum(axis=1)
    np.testing.assert_array_equal(codes.biases, -(squares // 2))
    # The score of v for q is (|q|² - |q - v|²) / 2 of the codes.
    scores = product(codes.values, codes.values) + codes.biases
    of_codes = np.sqrt(np.maximum(squares[:, None] - 2 * scores, 0))
    differences = vectors.astype(np.float64)[:, None] - vectors.astype(np.float64)
    distances = encoder.scale * np.sqrt((differences**2).sum(axis=2))
    # Every code is wrong by half a step at most, the bias too, and float in its last digits.
    limit = np.sqrt(encoder.width) * (1.001 + 15 * 1e-5)
    assert (np.abs(of_codes - distances) <= limit + 1).all()
    # Of many columns the errors are as good as independent.
    if dimension >= 32:
        assert np.abs(of_codes - distances).max() < 7 * np.sqrt(1 / 6) + 1


def test_what_is_cut_off_never_looks_farther_away():
    rng = np.random.default_rng(5)
    directions = unit(rng.normal(size=(80, 100)) * np.exp(rng.normal(size=100)))
    encoder = random_encoder(rng, 100, 2000.0, 0.3)
    codes, _ = native.encode(encoder, directions.astype(np.float32))
    assert (np.abs(codes.values) == 127).mean() > 0.1
    scores = product(codes.values, codes.values) + codes.biases
    squares = -2 * (scores + codes.biases[:, None]) / 2000.0**2
    distances = ((directions[:, None] - directions) ** 2).sum(axis=2)
    # But for rounding: by one step at most in each of 128 columns.
    assert (np.sqrt(np.maximum(squares, 0)) <= np.sqrt(distances) + 128**0.5 / 2000).all()
    assert (squares < 0.9 * distances).mean() > 0.5


def test_codes_of_distances_that_are_cut_off_keep_their_biases():
    rng = np.random.default_rng(0)
    encoder = random_encoder(rng, 300, 1e30)._replace(euclidean=True)
    codes, _ = native.encode(encoder, rng.normal(size=(9, 300)).astype(np.float32))
    assert (np.abs(codes.values) == 127).all()
    assert (codes.biases == -(320 * 127**2 // 2)).all()
    widest = random_encoder(rng, 65536, 1e30)._replace(euclidean=True)
    codes, _ = native.encode(widest, rng.normal(size=(2, 65536)).astype(np.float32))
    assert (codes.biases == -(65536 * 127**2 // 2)).all()
    lists = native.Lists(np.array([0, 2]))
    _, scores = native.search_lists(codes, lists, codes.values, np.zeros((2, 1), np.int32), 1)
    assert scores[:, 0].tolist() == [65536 * 127**2 // 2] * 2


# Searching lists.


def first_columns_tell(codes, queries, floors, prefix):
    """Which vectors' first columns are near enough, by the half squares of differences."""
    few, of_queries = (values[:, :64].astype(np.int64) for values in (codes.values, queries))
    half_few, half_of_queries = ((values**2).sum(axis=1) // 2 for values in (few, of_queries))
    share = math.ceil(prefix.share * 2**16)
    whole = np.maximum(-(floors.astype(np.int64) + prefix.query_biases), 0)
    most = -(-whole * share // 2**16)
    halves = half_few + half_of_queries[:, None] - product(of_queries, few)
    return halves <= most[:, None]


def plain_search(codes, lists, queries, probes, width, floors=None, prefix=None, limits=None):
    """All scores of what is probed, sorted."""
    scores = product(queries, codes.values) + codes.biases
    members = np.arange(len(codes.values)) if lists.members is None else lists.members
    parts = [members[a:b] for a, b in zip(lists.offsets[:-1], lists.offsets[1:], strict=True)]
    floors = np.full(len(queries), INT32.min, np.int32) if floors is None else floors.copy()

    everything = np.ones(len(codes.values), bool)

    def best_of(query, first, last, left_in=everything):
        count = [None] * probes.shape[1] if limits is None else np.maximum(limits[query], 0)
        probed = zip(probes[query, first:last], count[first:last], strict=True)
        few = [parts[part][:n] for part, n in probed if part >= 0]
        found = np.concatenate([np.zeros(0, int), *few])
        found = found[left_in[found] & (scores[query, found] >= floors[query])]
        return found[np.lexsort((found, -scores[query, found]))[:width]]

    n_full = probes.shape[1]
    if prefix is not None and prefix.share < 1 and codes.values.shape[1] > 64:
        n_full = min(n_full, prefix.full_probes)
    found = [best_of(query, 0, n_full) for query in range(len(queries))]
    if n_full < probes.shape[1]:
        for query, of_query in enumerate(found):
            if len(of_query) == width:
                floors[query] = scores[query, of_query[-1]]
        near = first_columns_tell(codes, queries, floors, prefix)
    numbers = np.full((len(queries), width), -1, np.int32)
    best = np.full((len(queries), width), INT32.min, np.int32)
    for query, of_query in enumerate(found):
        if n_full < probes.shape[1]:
            others = best_of(query, n_full, None, near[query])
            of_query = np.concatenate([of_query, others])
        order = of_query[np.lexsort((of_query, -scores[query, of_query]))[:width]]
        numbers[query, : len(order)] = order
        best[query, : len(order)] = scores[query, order]
    return numbers, best


def check_search(codes, lists, queries, probes, width, *options):
    numbers, scores = native.search_lists(codes, lists, queries, probes, width, *options)
    expected = plain_search(codes, lists, queries, probes, width, *options)
    assert (numbers.dtype, scores.dtype) == (np.int32, np.int32)
    np.testing.assert_array_equal(scores, expected[1])
    np.testing.assert_array_equal(numbers, expected[0])


def random_offsets(rng, entries, count):
    return np.concatenate([[0], np.sort(rng.integers(0, entries + 1, count - 1)), [entries]])


CODE_VALUES = [None, [0], [-1, 0, 1], [-128, -127, 127]]


@given(
    seed=SEEDS,
    rows=st.integers(0, 90),
    n_queries=st.integers(0, 20),
    n_lists=st.integers(1, 12),
    width=st.integers(1, 30),
    code_width=st.sampled_from([64, 128, 192]),
    values=st.sampled_from(CODE_VALUES),
    kind=st.sampled_from(["numbers", "some members", "two divisions"]),
    floored=st.booleans(),
    limited=st.booleans(),
    share=st.sampled_from([None, 1e-6, 0.25, 0.5, 0.9, 1.0, 7.0]),
    full_probes=st.integers(0, 4),
)
def test_search_lists_is_a_sort_of_all_scores(
    seed,
    rows,
    n_queries,
    n_lists,
    width,
    code_width,
    values,
    kind,
    floored,
    limited,
    share,
    full_probes,
):
    rng = np.random.default_rng(seed)
    codes = random_codes(rng, rows, code_width, values)
    queries = random_codes(rng, n_queries, code_width, values).values
    probes = np.array([rng.permutation(n_lists) for _ in range(n_queries)], np.int32)
    probes = probes.reshape(n_queries, n_lists)[:, : rng.integers(0, n_lists + 1)].copy()
    if kind == "numbers":
        lists = native.Lists(random_offsets(rng, rows, n_lists))
    elif kind == "some members":
        members = rng.permutation(rows).astype(np.int32)[: rng.integers(0, rows + 1)]
        lists = native.Lists(random_offsets(rng, len(members), n_lists), members)
    else:
        # Each query probes the lists of one division of all vectors, or of the other.
        first, second = (random_offsets(rng, rows, n_lists) for _ in range(2))
        members = np.concatenate([rng.permutation(rows), rng.permutation(rows)])
        lists = native.Lists(np.concatenate([first, second[1:] + rows]), members.astype(np.int32))
        probes[n_queries // 2 :] += n_lists
    probes[rng.random(probes.shape) < rng.choice([0.0, 0.3])] = -1
    floors = None
    if floored:
        floors = rng.integers(-2000, 2001, n_queries, dtype=np.int32)
        floors[rng.random(n_queries) < 0.3] = rng.choice([INT32.min, INT32.max, 0])
    limits = None
    if limited:
        limits = rng.integers(-1, max(rows // 2, 1) + 1, probes.shape, dtype=np.int32)
        limits[rng.random(probes.shape) < 0.1] = rng.choice([INT32.min, INT32.max, 0])
    prefix = None
    if (floored or full_probes > 0) and share is not None:
        # The largest differences of these values are up to 2^16 in a column.
        biases = rng.integers(-(2**20), 2000, n_queries, dtype=np.int32)
        biases[rng.random(n_queries) < 0.2] = rng.choice([INT32.min, INT32.max])
        prefix = native.Prefix(biases, share, full_probes)
    check_search(codes, lists, queries, probes, width, floors, prefix, limits)


def half_squares(values):
    return -((values.astype(np.int64) ** 2).sum(axis=1) // 2).astype(np.int32)


@pytest.mark.parametrize("code_width", [128, 192, 256, 832])
def test_first_columns_leave_out_many_vectors_but_none_that_counts(code_width, each_kernels):
    rng = np.random.default_rng(code_width)
    # All coordinates alike, as rotated at random: half of the vectors near, half far away.
    centers = rng.normal(size=(20, code_width)) * 12
    vectors = centers[np.arange(4000) % 20] + rng.normal(size=(4000, code_width)) * 8
    values = np.clip(np.rint(vectors), -127, 127).astype(np.int8)
    codes = native.Codes(values, half_squares(values))
    queries, biases = values[:200], codes.biases[:200]
    halves = -(product(queries, values) + codes.biases + biases[:, None])
    floors = (-np.sort(halves, axis=1)[:, 30] - biases).astype(np.int32)
    share = 64 / code_width * (1 + 4.5 * np.sqrt(2 / 64 - 2 / code_width))
    prefix = native.Prefix(biases, share)
    # What is above the floor has no more than its share in the first columns, and is found.
    probes = np.tile(np.arange(4, dtype=np.int32), (200, 1))
    lists = native.Lists(np.array([0, 1000, 1100, 3000, 4000]))
    arguments = (codes, lists, queries, probes, 60)
    numbers, scores = native.search_lists(*arguments, floors, prefix)
    expected = native.search_lists(*arguments, floors)
    assert (numbers[:, :31] >= 0).all()
    np.testing.assert_array_equal(numbers, expected[0])
    np.testing.assert_array_equal(scores, expected[1])
    # Of those far away hardly any is scored in full.
    near = first_columns_tell(codes, queries, floors, prefix)
    assert near.mean() < 0.1
    # A share that is too small leaves out some that count.
    few, _ = native.search_lists(*arguments, floors, native.Prefix(biases, 64 / code_width))
    assert 0 < (few >= 0).sum() < (numbers >= 0).sum()


def clustered(rng, rows, code_width):
    """Codes of which each has a few near to it, all coordinates alike, as rotated at random."""
    centers = rng.normal(size=(rows // 50, code_width)) * 15
    vectors = centers[np.arange(rows) % len(centers)] + rng.normal(size=(rows, code_width)) * 9
    values = np.clip(np.rint(vectors), -127, 127).astype(np.int8)
    return native.Codes(values, half_squares(values))


@pytest.mark.parametrize("n_queries", [1, 200])
@pytest.mark.parametrize("full_probes", [1, 2])
def test_what_the_first_lists_hold_leaves_out_vectors_of_the_others(n_queries, full_probes):
    rng = np.random.default_rng(n_queries)
    codes = clustered(rng, 3000, 128)
    lists = native.Lists(random_offsets(rng, 3000, 6), rng.permutation(3000).astype(np.int32))
    rows = np.arange(n_queries) % 3000
    queries, biases = codes.values[rows], codes.biases[rows]
    probes = rng.permuted(np.tile(np.arange(6, dtype=np.int32), (n_queries, 1)), axis=1)
    probes = probes[:, :5].copy()
    arguments = (codes, lists, queries, probes, 12)
    check_search(*arguments, None, native.Prefix(biases, 0.55, full_probes))
    # Where nothing is left out, the prefix changes nothing.
    in_full, _ = native.search_lists(*arguments)
    for prefix in (native.Prefix(biases, 0.55, 5), native.Prefix(biases, 1.0, full_probes)):
        found, _ = native.search_lists(*arguments, prefix=prefix)
        np.testing.assert_array_equal(found, in_full)
    # So large a share leaves out none of the best; of others it does, and a small one of the best.
    found, _ = native.search_lists(*arguments, prefix=native.Prefix(biases, 0.8, full_probes))
    np.testing.assert_array_equal(found, in_full)
    few, _ = native.search_lists(*arguments, prefix=native.Prefix(biases, 0.3, full_probes))
    assert n_queries == 1 or (few != in_full).any()


@pytest.mark.parametrize("n_queries", [1, 65, 1025, 4097])
def test_limits_for_any_number_of_queries(n_queries):
    """Lists of several chunks, of which queries look through more and less."""
    rng = np.random.default_rng(n_queries)
    codes = random_codes(rng, 2500, 128)
    lists = native.Lists(np.array([0, 2200, 2500]), rng.permutation(2500).astype(np.int32))
    probes = rng.permuted(np.tile(np.arange(2, dtype=np.int32), (n_queries, 1)), axis=1)
    limits = rng.integers(0, 2300, probes.shape, dtype=np.int32)
    limits[rng.random(probes.shape) < 0.5] //= 50
    queries = random_codes(rng, n_queries, 128)
    floors = np.full(n_queries, -(2**19), np.int32)
    biases = half_squares(queries.values)
    for prefix in (None, native.Prefix(biases, 0.5), native.Prefix(biases, 0.5, 1)):
        check_search(codes, lists, queries.values, probes, 7, floors, prefix, limits)


# Lists and points in reach.


def codes_in_lists(rng, sizes, code_width, scale=25.0):
    """Codes around centroids, and the codes of these, with biases that make scores of distances."""
    centers = rng.normal(size=(len(sizes), code_width)) * scale
    members = np.repeat(centers, sizes, axis=0)
    members = members + rng.normal(size=members.shape) * rng.uniform(5, 15, (len(members), 1))
    both = []
    for vectors in (members, centers):
        values = np.clip(np.rint(vectors), -127, 127).astype(np.int8)
        both.append(native.Codes(values, half_squares(values)))
    return both


def halves_of(queries, codes, columns=None):
    """Half the squared distances of codes, in some first columns."""
    few = queries[:, :columns].astype(np.float64), codes[:, :columns].astype(np.float64)
    squares = [(values**2).sum(axis=1) for values in few]
    return (squares[0][:, None] + squares[1]) / 2 - few[0] @ few[1].T


def sorted_scores(scores, counts, width):
    """Numbers and scores of what counts of each row, best first."""
    numbers = np.full((len(scores), width), -1, np.int32)
    best = np.full((len(scores), width), INT32.min, np.int32)
    for row, there in enumerate(counts):
        found = np.flatnonzero(there)
        order = found[np.lexsort((found, -scores[row, found]))][:width]
        numbers[row, : len(order)] = order
        best[row, : len(order)] = scores[row, order]
    return numbers, best


def floors_and_bounds(rng, scores, of_centroids):
    """Some that much reaches, some that little does, and extremes."""
    rows = np.arange(len(scores))
    floors = scores[rows, rng.integers(0, scores.shape[1], len(scores))].astype(np.int32)
    bounds = of_centroids[rows, rng.integers(0, of_centroids.shape[1], len(scores))]
    bounds = bounds.astype(np.int32)
    for limits in (floors, bounds):
        limits[rng.random(len(limits)) < 0.2] = rng.choice([INT32.min, INT32.max])
    return floors, bounds


# Around what is packed, scored and kept together.
@pytest.mark.parametrize("n_queries", [0, 1, 9, 64, 65, 1100])
@pytest.mark.parametrize("code_width", [64, 128, 192, 256])
@pytest.mark.parametrize("width", [1, 40])
def test_lists_in_reach_are_searched(n_queries, code_width, width):
    rng = np.random.default_rng(n_queries + code_width)
    sizes = [40, 0, 31, 33, 1, 0, 7, 300, 16, 5, 1100]
    codes, centroids = codes_in_lists(rng, sizes, code_width)
    chosen = rng.integers(0, len(codes.values), n_queries)
    values = codes.values[chosen] // 2
    queries = native.Codes(values, half_squares(values))
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    scores = product(values, codes.values) + codes.biases
    of_centroids = product(values, centroids.values) + centroids.biases
    floors, bounds = floors_and_bounds(rng, scores, of_centroids)
    in_reach = np.repeat(of_centroids >= bounds[:, None], sizes, axis=1)
    counts = in_reach & (scores >= floors[:, None])
    arguments = (codes, offsets, centroids, queries, bounds, floors, width)
    numbers, best = native.search_lists_in_reach(*arguments)
    assert (numbers.dtype, best.dtype) == (np.int32, np.int32)
    expected = sorted_scores(scores, counts, width)
    np.testing.assert_array_equal(numbers, expected[0])
    np.testing.assert_array_equal(best, expected[1])
    if n_queries > 1:
        assert 0 < counts.sum() < in_reach.sum() < counts.size


@pytest.mark.parametrize("which, columns", [(0, 64), (1, 128)])
def test_first_columns_leave_out_what_holds_too_much_of_the_distance(which, columns):
    rng = np.random.default_rng(columns)
    codes, centroids = codes_in_lists(rng, [300, 500], 256)
    queries = codes.part(np.arange(0, 800, 3))
    halves = halves_of(queries.values, codes.values)
    floors = (-np.sort(halves, axis=1)[:, 100] - queries.biases).astype(np.int32)
    floors[:5] = INT32.min
    bounds = np.full(len(floors), INT32.min, np.int32)
    shares = [1.0, 1.0]
    shares[which] = columns / 256
    offsets = np.array([0, 300, 800])
    numbers, _ = native.search_lists_in_reach(
        codes, offsets, centroids, queries, bounds, floors, 800, tuple(shares)
    )
    found = np.zeros(halves.shape, bool)
    rows, places = np.nonzero(numbers >= 0)
    found[rows, numbers[rows, places]] = True
    most = -(floors.astype(np.float64) + queries.biases)[:, None]
    counts = halves <= most
    held = halves_of(queries.values, codes.values, columns) / most
    assert not found[~(halves - 2 <= most)].any()
    assert not found[held > shares[which] + 1e-3].any()
    # As half of them hold more than the average, a few are lost, and more are left.
    kept = counts & (held < shares[which] - 1e-3)
    assert found[kept].all()
    assert counts.sum() / 10 < kept.sum() < counts.sum()


@pytest.mark.parametrize("n_points", [1, 31, 600, 5000])
@pytest.mark.parametrize("code_width", [64, 256])
def test_members_of_lists_find_the_points_in_reach(n_points, code_width):
    rng = np.random.default_rng(n_points + code_width)
    sizes = [40, 0, 31, 1, 0, 7, 300, 16, 5, 60]
    members, centroids = codes_in_lists(rng, sizes, code_width)
    values = np.clip(members.values[rng.integers(0, len(members.values), n_points)], -60, 60)
    points = native.Codes(values, half_squares(values))
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    scores = product(members.values, values) + points.biases
    near = product(centroids.values, values) + points.biases + centroids.biases[:, None]
    near = np.repeat(near, sizes, axis=0)
    floors, bounds = floors_and_bounds(rng, scores, near)
    width = min(n_points, 700)
    numbers, best = native.search_points_in_reach(
        points, centroids, offsets, members, bounds, floors, width
    )
    counts = scores >= floors[:, None]
    in_reach = near >= bounds[:, None]
    # What is looked through ends with a class of scores: a thousandth of all, or 1.
    of_lists = [slice(*ends) for ends in pairwise(offsets)]
    least = np.concatenate([np.full(b.stop - b.start, bounds[b].min(initial=0)) for b in of_lists])
    step = 1 + (near.max(axis=1) - least.astype(np.int64)) // 1024
    about = near > (bounds - step)[:, None]
    for row, found in enumerate(numbers):
        found = found[found >= 0]
        np.testing.assert_array_equal(best[row, : len(found)], scores[row, found])
        assert (about & counts)[row, found].all()
        order = np.lexsort((found, -scores[row, found]))
        np.testing.assert_array_equal(order, np.arange(len(found)))
        wanted = np.flatnonzero((in_reach & counts)[row])
        if len(found) < width:
            assert np.isin(wanted, found).all()
        else:
            assert (scores[row, np.setdiff1d(wanted, found)] <= scores[row, found[-1]]).all()
    if n_points > 1:
        assert 0 < (in_reach & counts).sum() < counts.sum()
    everywhere = np.full_like(bounds, INT32.min)
    found = native.search_points_in_reach(
        points, centroids, offsets, members, everywhere, floors, width
    )
    expected = sorted_scores(scores, counts, width)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def test_nothing_is_in_reach_of_nothing():
    rng = np.random.default_rng(0)
    codes, centroids = codes_in_lists(rng, [3, 4], 128)
    none = codes.part(slice(0, 0))
    offsets = np.array([0, 3, 7])
    limits, no_limits = np.zeros(7, np.int32), np.zeros(0, np.int32)
    found, _ = native.search_lists_in_reach(
        codes, offsets, centroids, none, no_limits, no_limits, 2
    )
    assert found.shape == (0, 2)
    nowhere = (none, np.zeros(1, np.int64), none)
    found, _ = native.search_lists_in_reach(*nowhere, codes, limits, limits, 2)
    assert (found == -1).all()
    found, _ = native.search_points_in_reach(none, centroids, offsets, codes, limits, limits, 2)
    assert (found == -1).all()


# Rows that are taken and placed.


@pytest.mark.parametrize("count", [0, 1, 7, 300])
def test_vectors_are_taken(count):
    rng = np.random.default_rng(count)
    vectors = rng.normal(size=(50, 70)).astype(np.float32)
    factors = rng.uniform(0, 2, 50).astype(np.float32)
    numbers = rng.integers(0, 50, count).astype(np.int32)
    taken = native.take_vectors(vectors, factors, numbers)
    np.testing.assert_array_equal(taken, vectors[numbers] * factors[numbers, None])
    taken = native.take_vectors(vectors[:, :33], None, numbers)
    np.testing.assert_array_equal(taken, vectors[numbers, :33])


def test_codes_are_placed():
    rng = np.random.default_rng(0)
    block = random_codes(rng, 200, 128)
    codes = native.Codes(np.zeros((500, 128), np.int8), np.zeros(500, np.int32))
    positions = rng.permutation(500)[:200].astype(np.int32)
    native.place_codes(block, positions, codes)
    np.testing.assert_array_equal(codes.values[positions], block.values)
    np.testing.assert_array_equal(codes.biases[positions], block.biases)
    others = np.setdiff1d(np.arange(500), positions)
    assert not codes.values[others].any() and not codes.biases[others].any()


# Around what is packed at a time, and around the largest chunk of a list.
LIST_SIZES = [1, 0, 31, 32, 33, 63, 64, 65, 0, 1023, 1024, 1025, 2100, 500]


@pytest.mark.parametrize("code_width", [64, 128, 256, 2048, 4160])
@pytest.mark.parametrize("with_members", [False, True])
def test_search_lists_of_any_size(code_width, with_members, each_kernels):
    rng = np.random.default_rng(code_width)
    sizes = LIST_SIZES if code_width < 2048 else [*LIST_SIZES[:9], 130]
    rows = sum(sizes)
    codes = random_codes(rng, rows, code_width)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    lists = native.Lists(offsets, rng.permutation(rows).astype(np.int32) if with_members else None)
    probes = rng.permuted(np.tile(np.arange(len(sizes), dtype=np.int32), (70, 1)), axis=1)
    queries = random_codes(rng, 70, code_width).values
    check_search(codes, lists, queries, probes[:, :9].copy(), 37)
    # Each list by itself, wider than most.
    alone = np.arange(len(sizes), dtype=np.int32)[:, None]
    check_search(codes, lists, queries[: len(sizes)], alone, 600)


@pytest.mark.parametrize(
    "n_queries", [0, 1, 7, 8, 9, 63, 64, 65, 255, 256, 257, 1023, 1025, 8193, 16_384, 17_500]
)
def test_search_lists_for_any_number_of_queries(n_queries):
    rng = np.random.default_rng(n_queries)
    codes = random_codes(rng, 300, 64)
    lists = native.Lists(random_offsets(rng, 300, 20), rng.permutation(300).astype(np.int32))
    probes = rng.permuted(np.tile(np.arange(20, dtype=np.int32), (n_queries, 1)), axis=1)
    queries = random_codes(rng, n_queries, 64).values
    check_search(codes, lists, queries, probes[:, :3].copy(), 5)


@pytest.mark.parametrize("width", [1, 5, 64, 65, 200, 8192])
@pytest.mark.parametrize("values", CODE_VALUES[1:])
def test_of_equal_scores_the_smaller_numbers_are_found(width, values, each_kernels):
    rng = np.random.default_rng(width)
    rows = 3000
    codes = random_codes(rng, rows, 64, values)
    codes = native.Codes(codes.values, codes.biases // 9)
    codes.values[:, 2:] = 0
    for members in (
        rng.permutation(rows).astype(np.int32),
        np.arange(rows, dtype=np.int32)[::-1].copy(),
        None,
    ):
        lists = native.Lists(random_offsets(rng, rows, 4), members)
        probes = rng.permuted(np.tile(np.arange(4, dtype=np.int32), (9, 1)), axis=1)
        check_search(codes, lists, codes.values[:9], probes, width)
        floors = np.array([-9, -1, 0, 1, 2, 9, 16384, INT32.min, INT32.max], np.int32)
        check_search(codes, lists, codes.values[:9], probes, width, floors)


def test_scores_that_only_grow_and_only_fall():
    """Candidates are thrown out all the time, or never."""
    rows, width = 5000, 10
    for biases in (np.arange(rows), np.arange(rows)[::-1]):
        codes = native.Codes(np.zeros((rows, 64), np.int8), biases.astype(np.int32))
        lists = native.Lists(np.array([0, 1500, rows]))
        probes = np.array([[0, 1], [1, 0], [1, -1]], np.int32)
        check_search(codes, lists, np.zeros((3, 64), np.int8), probes, width)


@pytest.mark.parametrize("code_width", [64, 65536])
def test_the_largest_scores_there_are(code_width, each_kernels):
    """-128 is no code that encode gives, but scores are right of any int8."""
    largest = INT32.max - (code_width << 14)
    rows = [(value, bias) for value in (-128, -127, 127) for bias in (largest, -largest)]
    values = np.array([[value] * code_width for value, _ in rows], np.int8)
    codes = native.Codes(values, np.array([bias for _, bias in rows], np.int32))
    probes = np.zeros((6, 1), np.int32)
    check_search(codes, native.Lists(np.array([0, 6])), values, probes, 6)
    _, scores = native.search_lists(codes, native.Lists(np.array([0, 6])), values, probes, 1)
    assert scores[0, 0] == INT32.max
    pools = native.Pools(np.full((6, 6), -1, np.int32), np.full((6, 6), INT32.min, np.int32))
    sampled = np.tile(2 * np.arange(6, dtype=np.int32) + 1, (6, 1))
    check_join(codes, pools, sampled)


def test_codes_at_any_address():
    rng = np.random.default_rng(0)
    memory = rng.integers(-128, 128, 50 * 64 + 3, dtype=np.int8)
    lists = native.Lists(np.array([0, 50]))
    pools = random_pools(rng, 50, 6)
    for shift in range(4):
        values = memory[shift:][: 50 * 64].reshape(50, 64)
        codes = native.Codes(values, np.zeros(50, np.int32))
        check_search(codes, lists, values[:11], np.zeros((11, 1), np.int32), 4)
        check_join(codes, pools, native.sample_links(pools, 3, 3, 0, 50))


def test_search_lists_of_nothing():
    codes = random_codes(np.random.default_rng(0), 6, 64)
    nothing = random_codes(np.random.default_rng(0), 0, 64)
    queries = codes.values[:2]
    for few, lists, probes in (
        (codes, native.Lists(np.array([0, 6])), np.empty((2, 0), np.int32)),
        (codes, native.Lists(np.array([0, 6])), np.full((2, 3), -1, np.int32)),
        (codes, native.Lists(np.zeros(1, np.int64), np.empty(0, np.int32)),
         np.full((2, 3), -1, np.int32)),
        (codes, native.Lists(np.zeros(4, np.int64), np.empty(0, np.int32)),
         np.array([[0, 1, 2], [2, -1, 1]], np.int32)),
        (nothing, native.Lists(np.zeros(1, np.int64)), np.full((2, 1), -1, np.int32)),
        (nothing, native.Lists(np.zeros(3, np.int64)), np.array([[0, 1]] * 2, np.int32)),
    ):  # fmt: skip
        numbers, scores = native.search_lists(few, lists, queries, probes, 4)
        assert (numbers == -1).all() and (scores == INT32.min).all()
    numbers, scores = native.search_lists(
        codes, native.Lists(np.array([0, 6])), queries[:0], np.empty((0, 1), np.int32), 4
    )
    assert numbers.shape == scores.shape == (0, 4)


# Descent.


def entries_of(row):
    """The entries of a row of pools up to the first that is none."""
    for place, entry in enumerate(row.tolist()):
        if entry < 0:
            return
        yield place, entry >> 1, entry & 1


def plain_sample(pools, forward, backward):
    rows = len(pools.entries)
    incoming = [[] for _ in range(rows)]
    for row in range(rows):
        for place, number, is_new in entries_of(pools.entries[row, :forward]):
            incoming[number].append((-int(pools.scores[row, place]), row, is_new))
    sampled = np.full((rows, forward + backward), -1, np.int32)
    for row in range(rows):
        links = {number: is_new for _, number, is_new in entries_of(pools.entries[row, :forward])}
        for _, number, is_new in sorted(incoming[row])[:backward]:
            links[number] = links.get(number, 0) | is_new
        # Sorting keeps the order of those that are as new.
        ordered = sorted(links.items(), key=lambda link: -link[1])
        sampled[row, : len(links)] = [2 * number + is_new for number, is_new in ordered]
    return sampled


def plain_join(codes, pools, sampled):
    rows, width = pools.entries.shape
    entries = np.full((rows, width), -1, np.int32)
    scores = np.full((rows, width), INT32.min, np.int32)
    products = product(codes.values, codes.values) + codes.biases
    for row in range(rows):
        met = set()
        for link in sampled[row].tolist():
            if link < 0:
                continue
            if link & 1:
                met.add(link >> 1)
            further = sampled[link >> 1].tolist()
            met |= {step >> 1 for step in further if step >= 0 and (link | step) & 1}
        own = list(entries_of(pools.entries[row]))
        met -= {row, *(number for _, number, _ in own)}
        ranked = [(-int(pools.scores[row, place]), number, 0) for place, number, _ in own]
        ranked += [(-int(products[row, number]), number, 1) for number in met]
        for place, (score, number, is_new) in enumerate(sorted(ranked)[:width]):
            entries[row, place] = 2 * number + is_new
            scores[row, place] = -score
    return entries, scores


def check_sample(pools, forward, backward):
    sampled = native.sample_links(pools, forward, backward, 0, len(pools.entries))
    assert sampled.dtype == np.int32
    np.testing.assert_array_equal(sampled, plain_sample(pools, forward, backward))
    return sampled


def check_join(codes, pools, sampled):
    joined = native.join_neighbors(codes, pools, sampled, 0, len(pools.entries))
    entries, scores = plain_join(codes, pools, sampled)
    assert (joined.entries.dtype, joined.scores.dtype) == (np.int32, np.int32)
    np.testing.assert_array_equal(joined.scores, scores)
    np.testing.assert_array_equal(joined.entries, entries)
    return joined


@given(
    seed=SEEDS,
    rows=st.integers(0, 40),
    width=st.integers(1, 12),
    backward=st.integers(0, 12),
    scores=st.sampled_from([0, 2, 10**6]),
    values=st.sampled_from(CODE_VALUES),
)
def test_rounds_of_descent(seed, rows, width, backward, scores, values):
    rng = np.random.default_rng(seed)
    codes = random_codes(rng, rows, 64, values)
    pools = random_pools(rng, rows, width, scores)
    forward = int(rng.integers(1, width + 1))
    for _ in range(3):
        sampled = check_sample(pools, forward, backward)
        pools = check_join(codes, pools, sampled)


@given(SEEDS, st.integers(1, 30), st.integers(1, 9), st.integers(1, 20))
def test_join_neighbors_of_any_links(seed, rows, width, n_links):
    rng = np.random.default_rng(seed)
    sampled = rng.integers(0, 2 * rows, (rows, n_links), dtype=np.int32)
    # The same link more than once, too, but new ones first, and nothing behind the last.
    sampled = np.take_along_axis(sampled, np.argsort(-(sampled % 2), axis=1), axis=1)
    counts = rng.integers(0, n_links + 1, rows) if rng.random() < 0.7 else np.full(rows, n_links)
    missing = np.arange(n_links) >= counts[:, None]
    sampled[missing] = rng.choice([-1, -2, INT32.min], missing.sum())
    check_join(random_codes(rng, rows, 64), random_pools(rng, rows, width), sampled)


@given(SEEDS, st.integers(0, 30), st.integers(1, 6), st.integers(0, 6))
def test_ranges_of_rows_are_slices_of_the_whole(seed, rows, width, backward):
    rng = np.random.default_rng(seed)
    codes, pools = random_codes(rng, rows, 128), random_pools(rng, rows, width)
    sampled = native.sample_links(pools, width, backward, 0, rows)
    joined = native.join_neighbors(codes, pools, sampled, 0, rows)
    first, last = sorted(rng.integers(0, rows + 1, 2).tolist())
    part = native.sample_links(pools, width, backward, first, last)
    np.testing.assert_array_equal(part, sampled[first:last])
    part = native.join_neighbors(codes, pools, sampled, first, last)
    np.testing.assert_array_equal(part.entries, joined.entries[first:last])
    np.testing.assert_array_equal(part.scores, joined.scores[first:last])


def test_links_are_read_in_parts(monkeypatch):
    rng = np.random.default_rng(0)
    codes, pools = random_codes(rng, 50, 64), random_pools(rng, 50, 6)
    for rows, parts in ((1, 50), (7, 8), (49, 2), (50, 1)):
        monkeypatch.setattr(search, "_PART_ROWS", rows)
        check_join(codes, pools, check_sample(pools, 4, 5))
        read = []
        native.sample_links(pools, 4, 5, 10, 20, partial(read.append, rows))
        assert len(read) == 2 * parts


def test_descent_with_a_hub():
    """Everybody links to one row, which follows the best of those links only."""
    rng = np.random.default_rng(0)
    rows, width = 3000, 8
    pools = random_pools(rng, rows, width, 50)
    hub = 1234
    there = (pools.entries >> 1 == hub) & (pools.entries >= 0)
    pools.entries[there] = -1
    pools.scores[there] = INT32.min
    # The best of all, so that rows stay sorted.
    pools.entries[:, 1:] = np.where(there[:, :-1], -1, pools.entries[:, :-1])
    pools.scores[:, 1:] = np.where(there[:, :-1], INT32.min, pools.scores[:, :-1])
    pools.entries[:, 0] = 2 * hub + 1
    pools.scores[:, 0] = rng.integers(100, 200, rows)
    pools = native.Pools(*map(np.ascontiguousarray, pools))
    sampled = check_sample(pools, 4, 5)
    check_join(random_codes(rng, rows, 64), pools, sampled)
    wide = native.sample_links(pools, 1, 8192, hub, hub + 1)
    # The hub links to itself, as everybody does.
    assert sorted(wide[0, :rows] >> 1) == list(range(rows)) and (wide[0, rows:] == -1).all()


def test_descent_with_many_links():
    rng = np.random.default_rng(1)
    pools = random_pools(rng, 200, 150, 1000)
    codes = random_codes(rng, 200, 64)
    check_join(codes, pools, check_sample(pools, 100, 120))
    # A pool of more than there are rows.
    few = random_pools(rng, 20, 200)
    check_join(random_codes(rng, 20, 64), few, check_sample(few, 200, 0))


def test_descent_finds_the_nearest_neighbors():
    rng = np.random.default_rng(2)
    rows, width = 600, 12
    vectors = rng.normal(size=(rows, 8)).astype(np.float32)
    codes, _ = native.encode(random_encoder(rng, 8, 100.0, 0.0), vectors)
    numbers = np.array([rng.choice(np.delete(np.arange(rows), row), width, replace=False)
                        for row in range(rows)])  # fmt: skip
    everything = product(codes.values, codes.values) + codes.biases
    scores = np.take_along_axis(everything, numbers, axis=1)
    order = np.lexsort((numbers, -scores), axis=1)
    pools = native.Pools(
        (2 * np.take_along_axis(numbers, order, axis=1) + 1).astype(np.int32),
        np.take_along_axis(scores, order, axis=1).astype(np.int32),
    )
    for _ in range(10):
        sampled = native.sample_links(pools, width, width, 0, rows)
        pools = native.join_neighbors(codes, pools, sampled, 0, rows)
    np.fill_diagonal(everything, INT32.min)
    truth = -np.sort(-everything, axis=1)[:, :width]
    assert (pools.scores == truth).mean() > 0.97
    # Once nothing is new any more, nothing changes.
    old = native.Pools(pools.entries & ~1, pools.scores)
    sampled = native.sample_links(old, width, width, 0, rows)
    again = native.join_neighbors(codes, old, sampled, 0, rows)
    np.testing.assert_array_equal(again.entries, old.entries)


def test_descent_of_nothing():
    pools = random_pools(np.random.default_rng(0), 5, 3)
    codes = random_codes(np.random.default_rng(0), 5, 64)
    for place in range(6):
        sampled = native.sample_links(pools, 2, 3, place, place)
        assert sampled.shape == (0, 5)
        links = native.sample_links(pools, 2, 3, 0, 5)
        assert native.join_neighbors(codes, pools, links, place, place).entries.shape == (0, 3)


# Ranking.


def check_rank(vectors, queries, candidates, width, inverse_lengths=None):
    """Compares with double precision; equal similarities are those of equal vectors."""
    queries = unit(queries).astype(np.float32)
    if inverse_lengths is None:
        lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
        inverse_lengths = np.zeros(len(vectors), np.float32)
        inverse_lengths[lengths > 0] = 1 / lengths[lengths > 0]
    numbers, similarities = native.rank_candidates(
        vectors, inverse_lengths, queries, candidates, width
    )
    assert (numbers.dtype, similarities.dtype) == (np.int32, np.float32)
    truth = queries.astype(np.float64) @ unit(vectors).T
    for row, candidate in enumerate(candidates):
        there = candidate[candidate >= 0]
        count = min(width, len(there))
        found, scores = numbers[row, :count], similarities[row, :count]
        assert (numbers[row, count:] == -1).all() and (similarities[row, count:] == -np.inf).all()
        assert {*found.tolist()} <= {*there.tolist()} and len({*found.tolist()}) == count
        np.testing.assert_allclose(scores, truth[row, found], rtol=0, atol=1e-6)
        best = np.sort(truth[row, there])[::-1][:count]
        np.testing.assert_allclose(scores, best, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(np.lexsort((found, -scores)), np.arange(count))
    return numbers, similarities


@given(
    seed=SEEDS,
    rows=st.integers(1, 60),
    dimension=st.integers(1, 100) | st.sampled_from([31, 32, 33, 64, 1280]),
    n_candidates=st.integers(0, 60),
    width=st.integers(1, 70),
    more=st.tuples(st.sampled_from([0, 1, 9]), st.sampled_from([0, 1, 9])),
)
def test_rank_candidates(seed, rows, dimension, n_candidates, width, more):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(rows, dimension)).astype(np.float32)
    vectors *= np.exp(rng.normal(size=(rows, 1)) * 3).astype(np.float32)
    vectors[rng.random(rows) < 0.1] = 0
    queries = rng.normal(size=(8, dimension)).astype(np.float32)
    queries[5] = 0
    candidates = np.array([rng.permutation(rows) for _ in range(8)], np.int32)[:, :n_candidates]
    candidates[rng.random(candidates.shape) < 0.2] = -1
    check_rank(widened(vectors, more[0]), widened(queries, more[1]), candidates.copy(), width)


@pytest.mark.parametrize("dimension", [1, 7, 32, 33, 1280])
def test_of_equal_vectors_the_smaller_numbers_are_ranked_first(dimension):
    rng = np.random.default_rng(dimension)
    vectors = rng.normal(size=(5, dimension)).astype(np.float32)[rng.integers(0, 5, 400)]
    queries = rng.normal(size=(9, dimension)).astype(np.float32)
    candidates = np.array([rng.permutation(400) for _ in queries], np.int32)
    for width in (1, 10, 400, 500):
        numbers, similarities = check_rank(vectors, queries, candidates, width)
        if width >= 400:
            assert all(len(np.unique(row)) <= 5 for row in similarities[:, :400])
            groups = (vectors[numbers[:, :400]] != vectors[numbers[:, :400][:, :1]]).any(axis=2)
            assert (np.diff(numbers[0, :400])[~groups[0, 1:]] > 0).all()


def test_zero_and_minus_zero_are_equal():
    vectors = np.array([[0, 1], [0, -1], [0, 0], [-0.0, 3], [1, -0.0]], np.float32)
    queries = np.array([[1, 0], [-1, 0], [-0.0, 0.0]], np.float32)
    candidates = np.tile(np.array([4, 3, 2, 1, 0], np.int32), (3, 1))
    numbers, similarities = check_rank(vectors, queries, candidates, 5)
    assert numbers.tolist() == [[4, 0, 1, 2, 3], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]
    assert not np.signbit(similarities[similarities == 0]).any()
    # What is too small for a float, too.
    vectors = np.array([[-1e-44, 1e5], [0, 1], [1e-44, -1e5]], np.float32)
    numbers, similarities = check_rank(vectors, queries[:1], candidates[:1, 2:].copy(), 3)
    assert numbers.tolist() == [[0, 1, 2]] and not np.signbit(similarities).any()


@pytest.mark.parametrize("dimension", [1, 100])
def test_rank_vectors_of_any_length(dimension):
    rng = np.random.default_rng(0)
    factors = [1e-35, 1e-30, 1e-13, 9e-13, 1.1e-12, 1, 9e11, 1.1e12, 1e20, 1e30, 1e36]
    vectors = rng.normal(size=(len(factors), dimension)) + 0.1
    vectors = (vectors * np.array(factors)[:, None]).astype(np.float32)
    candidates = np.tile(np.arange(len(factors), dtype=np.int32), (4, 1))
    queries = rng.normal(size=(4, dimension)).astype(np.float32)
    check_rank(vectors, queries, candidates, 6)
    # What encode says of their lengths will do, and each is most similar to itself.
    _, inverse_lengths = native.encode(random_encoder(rng, dimension), vectors)
    own = np.arange(len(factors), dtype=np.int32)[:, None]
    _, similarities = check_rank(vectors, vectors, own, 1, inverse_lengths)
    np.testing.assert_allclose(similarities, 1, rtol=0, atol=1e-6)


def test_each_vector_is_most_similar_to_itself():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(50, 40)).astype(np.float32)
    everything = np.tile(np.arange(50, dtype=np.int32), (50, 1))
    numbers, similarities = check_rank(vectors, vectors, everything, 3)
    assert numbers[:, 0].tolist() == list(range(50))
    assert np.abs(similarities[:, 0] - 1).max() < 5e-7


def test_rank_vectors_in_a_file(tmp_path):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(200, 30)).astype(np.float32)
    np.save(tmp_path / "vectors.npy", vectors)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    assert isinstance(mapped, np.memmap) and not mapped.flags.writeable
    candidates = np.array([rng.permutation(200)[:50] for _ in range(7)], np.int32)
    found = check_rank(mapped, vectors[:7], candidates, 9)
    expected = check_rank(vectors, vectors[:7], candidates, 9)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])
    codes, _ = native.encode(random_encoder(rng, 30), mapped)
    assert codes.values.shape == (200, 64)


def in_parts(rng, vectors, shift):
    """Copies of some rows each, none included, at addresses that float32 need not be at."""
    ends = [0, *np.sort(rng.integers(0, len(vectors) + 1, 5)).tolist(), len(vectors)]
    parts = []
    for begin, end in itertools.pairwise(ends):
        stored = np.empty(vectors[begin:end].nbytes + shift, np.uint8)
        part = stored[shift:].view(np.float32).reshape(end - begin, vectors.shape[1])
        part[:] = vectors[begin:end]
        parts.append(part)
    return native.VectorParts(parts)


@given(
    seed=SEEDS,
    rows=st.integers(0, 200),
    dimension=st.integers(1, 100) | st.sampled_from([31, 32, 33, 64, 1280]),
    n_queries=st.integers(0, 80),
    n_candidates=st.integers(0, 60),
    width=st.integers(1, 70),
    shift=st.integers(0, 5),
)
def test_rank_vectors_in_parts(seed, rows, dimension, n_queries, n_candidates, width, shift):
    rng = np.random.default_rng(seed)
    vectors = unit(rng.normal(size=(rows, dimension))).astype(np.float32)
    vectors = vectors[rng.integers(0, rows, rows)] if rows else vectors
    queries = unit(rng.normal(size=(n_queries, dimension))).astype(np.float32)
    candidates = np.empty((n_queries, min(rows, n_candidates)), np.int32)
    for row in candidates:
        row[:] = rng.permutation(rows)[: len(row)]
    candidates[rng.random(candidates.shape) < 0.2] = -1
    numbers = rng.permutation(3 * rows).astype(np.int32)[:rows]
    parts = in_parts(rng, vectors, shift)
    assert parts.shape == vectors.shape
    some = np.flatnonzero(rng.random(rows) < 0.3)
    np.testing.assert_array_equal(parts.take(some), vectors[some])
    found, similarities = native.rank_candidates(
        parts, None, queries, candidates, width, numbers=numbers, normalized=True
    )
    truth = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    place_of = {number: place for place, number in enumerate(numbers.tolist())}
    for row, candidate in enumerate(candidates):
        there = candidate[candidate >= 0]
        count = min(width, len(there))
        assert (found[row, count:] == -1).all() and (similarities[row, count:] == -np.inf).all()
        places = np.array([place_of[number] for number in found[row, :count].tolist()], np.int64)
        assert {*places.tolist()} <= {*there.tolist()} and len({*places.tolist()}) == count
        scores = similarities[row, :count]
        np.testing.assert_allclose(scores, truth[row, places], rtol=0, atol=1e-6)
        best = np.sort(truth[row, there])[::-1][:count]
        np.testing.assert_allclose(scores, best, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(np.lexsort((found[row, :count], -scores)), np.arange(count))


@given(seed=SEEDS, width=st.integers(1, 40), cut=st.integers(0, 40))
def test_ranking_part_after_part_finds_what_ranking_all_at_once_does(seed, width, cut):
    rng = np.random.default_rng(seed)
    # Many are equal, so that numbers decide.
    vectors = unit(rng.normal(size=(9, 10))).astype(np.float32)[rng.integers(0, 9, 60)]
    queries = unit(rng.normal(size=(20, 10))).astype(np.float32)
    candidates = np.array([rng.permutation(60)[:40] for _ in queries], np.int32)
    candidates[rng.random(candidates.shape) < 0.2] = -1
    inverse_lengths = np.ones(60, np.float32)
    expected = native.rank_candidates(vectors, inverse_lengths, queries, candidates, width)
    found = None
    for part in np.split(candidates, [cut], axis=1):
        found = native.rank_candidates(
            vectors, inverse_lengths, queries, part.copy(), width, found=found
        )
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def test_neighbours_do_not_depend_on_who_is_ranked_beside():
    """Rows are compared in groups, as large as there are threads for."""
    rng = np.random.default_rng(0)
    vectors = unit(rng.normal(size=(3000, 20))).astype(np.float32)
    candidates = rng.integers(0, 30, (3000, 30), dtype=np.int32) + 100 * np.arange(30, dtype="i4")
    found = native.rank_candidates(vectors, None, vectors, candidates, 7, normalized=True)
    for first, last in ((0, 1), (1, 700), (700, 3000)):
        part = native.rank_candidates(
            vectors, None, vectors[first:last], candidates[first:last], 7, normalized=True
        )
        np.testing.assert_array_equal(part[0], found[0][first:last])
        np.testing.assert_array_equal(part[1], found[1][first:last])


def test_rank_nothing():
    vectors = np.ones((3, 4), np.float32)
    inverse_lengths = np.full(3, 0.5, np.float32)
    for n_queries, n_candidates in ((0, 0), (0, 3), (2, 0)):
        candidates = np.empty((n_queries, n_candidates), np.int32)
        numbers, similarities = native.rank_candidates(
            vectors, inverse_lengths, vectors[:n_queries], candidates, 2
        )
        assert numbers.shape == (n_queries, 2) and (numbers == -1).all()
        assert (similarities == -np.inf).all()
    none = np.full((2, 3), -1, np.int32)
    numbers, _ = native.rank_candidates(vectors[:0], inverse_lengths[:0], vectors[:2], none, 2)
    assert (numbers == -1).all()
    # Of vectors without columns all are alike.
    numbers, similarities = native.rank_candidates(
        vectors[:, :0], inverse_lengths, vectors[:1, :0], np.array([[2, 0]], np.int32), 3
    )
    assert numbers.tolist() == [[0, 2, -1]] and similarities.tolist() == [[0, 0, -np.inf]]


@given(
    seed=SEEDS,
    rows=st.integers(1, 60),
    dimension=st.integers(1, 100) | st.sampled_from([31, 32, 33, 64, 1280]),
    n_candidates=st.integers(0, 60),
    width=st.integers(1, 70),
    offset=st.sampled_from([0, 1, 1e6]),
    more=st.tuples(st.sampled_from([0, 1, 9]), st.sampled_from([0, 1, 9])),
)
def test_rank_candidates_by_distance(seed, rows, dimension, n_candidates, width, offset, more):
    rng = np.random.default_rng(seed)
    vectors = (rng.normal(size=(rows, dimension)) + offset).astype(np.float32)
    vectors = vectors[rng.integers(0, rows, rows)]
    queries = (rng.normal(size=(8, dimension)) + offset).astype(np.float32)
    queries[:3] = vectors[0]
    candidates = np.array([rng.permutation(rows) for _ in range(8)], np.int32)[:, :n_candidates]
    candidates[rng.random(candidates.shape) < 0.2] = -1
    numbers, similarities = native.rank_candidates(
        widened(vectors, more[0]), None, widened(queries, more[1]), candidates.copy(), width
    )
    differences = queries.astype(np.float64)[:, None] - vectors.astype(np.float64)
    truth = -(differences**2).sum(axis=2)
    for row, candidate in enumerate(candidates):
        there = candidate[candidate >= 0]
        count = min(width, len(there))
        assert (numbers[row, count:] == -1).all() and (similarities[row, count:] == -np.inf).all()
        found, scores = numbers[row, :count], similarities[row, :count]
        assert {*found.tolist()} <= {*there.tolist()} and len({*found.tolist()}) == count
        # Sums of differences lose nothing, wherever the vectors lie.
        np.testing.assert_allclose(scores, truth[row, found], rtol=1e-5)
        best = np.sort(truth[row, there])[::-1][:count]
        np.testing.assert_allclose(scores, best, rtol=1e-5)
        np.testing.assert_array_equal(np.lexsort((found, -scores)), np.arange(count))
        assert not np.signbit(scores[scores == 0]).any()


@pytest.mark.parametrize("size", [1e-20, 1e-15, 1, 1e10, 1e17])
def test_distances_of_any_size(size):
    rng = np.random.default_rng(0)
    vectors = (size * rng.normal(size=(30, 50))).astype(np.float32)
    everything = np.tile(np.arange(30, dtype=np.int32), (30, 1))
    numbers, similarities = native.rank_candidates(vectors, None, vectors, everything, 30)
    differences = vectors.astype(np.float64)[:, None] - vectors.astype(np.float64)
    truth = -(differences**2).sum(axis=2)
    np.testing.assert_allclose(
        similarities, np.take_along_axis(truth, numbers.astype(np.int64), axis=1), rtol=1e-4
    )
    assert numbers[:, 0].tolist() == list(range(30))


# --- scores alone ---


@given(SEEDS, st.integers(0, 70), st.integers(0, 40), st.sampled_from([64, 128, 192, 4096]))
def test_all_scores_and_those_of_pairs(seed, rows, n_queries, width):
    rng = np.random.default_rng(seed)
    codes = native.Codes(
        rng.integers(-128, 128, (rows, width)).astype(np.int8),
        rng.integers(-(10**8), 10**8, rows).astype(np.int32),
    )
    queries = rng.integers(-128, 128, (n_queries, width)).astype(np.int8)
    truth = product(queries, codes.values) + codes.biases
    scores = native.score_all(codes, queries)
    assert (scores.dtype, scores.shape) == (np.int32, (n_queries, rows))
    np.testing.assert_array_equal(scores, truth)
    if rows:
        numbers = rng.integers(0, rows, n_queries).astype(np.int32)
        of_pairs = native.score_pairs(codes, numbers, queries)
        assert of_pairs.dtype == np.int32
        np.testing.assert_array_equal(of_pairs, truth[np.arange(n_queries), numbers])


def test_all_scores_of_more_vectors_than_are_packed_at_a_time(each_kernels):
    rng = np.random.default_rng(0)
    values = rng.integers(-127, 128, (3000, 64)).astype(np.int8)
    codes = native.Codes(values, np.arange(3000, dtype=np.int32))
    queries = np.ascontiguousarray(values[::5])
    np.testing.assert_array_equal(
        native.score_all(codes, queries), product(queries, values) + codes.biases
    )
