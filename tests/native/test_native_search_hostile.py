"""Arrays no one should search in: through the wrappers, and straight to the compiled functions."""

import numpy as np
import pytest

from lowshot_kedro import native
from lowshot_kedro.native._library import ffi, lib, pointer

from .hostile import (
    BAD_SIZE,
    HUGE,
    KINDS,
    NULL,
    OK,
    changed,
    direct,
    garbage_numbers,
    refused,
    require_refusals,
    structure,
)
from .searching import random_codes, random_encoder, random_pools

RNG = np.random.default_rng(0)
ROWS, QUERIES, LISTS, WIDTH, DIMENSION = 10, 5, 4, 3, 70
VECTORS = RNG.normal(size=(ROWS, DIMENSION)).astype(np.float32)
ENCODER = random_encoder(RNG, DIMENSION, 100.0)
CODES = random_codes(RNG, ROWS, 128)
OFFSETS = np.array([0, 3, 3, 8, 10])
MEMBERS = np.array([9, 4, 3, 0, 1, 2, 8, 7, 6, 5], np.int32)
PROBES = np.array([[0, 2], [1, -1], [3, 2], [-1, -1], [2, 0]], np.int32)
FLOORS = np.full(QUERIES, -(10**6), np.int32)
LIMITS = np.array([[3, 0], [1, 9], [2, 2], [0, 1], [4, 4]], np.int32)
CENTROIDS = random_codes(RNG, LISTS, 192)
WIDE = random_codes(RNG, ROWS, 192)
BOUNDS = np.full(ROWS, -(10**7), np.int32)
POSITIONS = np.array([4, 2, 0, 9, 1], np.int32)
POOLS = random_pools(RNG, ROWS, WIDTH)
SAMPLED = native.sample_links(POOLS, 2, 3, 0, ROWS)
INVERSE_LENGTHS = (1 / np.linalg.norm(VECTORS, axis=1)).astype(np.float32)
UNIT = VECTORS * INVERSE_LENGTHS[:, None]
CANDIDATES = np.array([[1, 2, -1, 3]] * QUERIES, np.int32)
PLACES = np.array([3, 0, 6, 1, 2])
COPIES = np.zeros((7, DIMENSION), np.float32)
FACTORS = RNG.integers(0, 2**64, DIMENSION, np.uint64)
EXTREMES = [2**31 - 1, -(2**31)]


def encode(mean=ENCODER.mean, signs=ENCODER.signs, scale=ENCODER.scale, vectors=VECTORS):
    return native.encode(native.Encoder(mean, signs, scale), vectors)


def search(
    codes=CODES.values,
    biases=CODES.biases,
    offsets=OFFSETS,
    members=MEMBERS,
    queries=CODES.values[:QUERIES],
    probes=PROBES,
    width=WIDTH,
    floors=FLOORS,
    query_biases=CODES.biases[:QUERIES],
    share=0.9,
    full_probes=0,
    limits=LIMITS,
):
    lists = native.Lists(offsets, members)
    prefix = native.Prefix(query_biases, share, full_probes)
    codes = native.Codes(codes, biases)
    return native.search_lists(codes, lists, queries, probes, width, floors, prefix, limits)


def search_reach(
    function,
    codes=WIDE.values,
    biases=WIDE.biases,
    offsets=OFFSETS,
    centroids=CENTROIDS.values,
    centroid_biases=CENTROIDS.biases,
    queries=WIDE.values,
    query_biases=WIDE.biases,
    bounds=BOUNDS,
    floors=BOUNDS,
    width=WIDTH,
    shares=(0.5, 0.8),
):
    vectors, queries = native.Codes(codes, biases), native.Codes(queries, query_biases)
    centroids = native.Codes(centroids, centroid_biases)
    if function is native.search_lists_in_reach:
        return function(vectors, offsets, centroids, queries, bounds, floors, width, shares)
    return function(vectors, centroids, offsets, queries, bounds, floors, width, shares)


def search_lists_in_reach(**changes):
    return search_reach(native.search_lists_in_reach, **changes)


def search_points_in_reach(**changes):
    return search_reach(native.search_points_in_reach, **changes)


def take(vectors=VECTORS, inverse_lengths=INVERSE_LENGTHS, numbers=MEMBERS):
    return native.take_vectors(vectors, inverse_lengths, numbers)


def place(
    block=CODES.values[:QUERIES], block_biases=CODES.biases[:QUERIES], positions=POSITIONS,
    values=CODES.values, biases=CODES.biases,
):  # fmt: skip
    codes = native.Codes(values.copy(order="A"), biases)
    native.place_codes(native.Codes(block, block_biases), positions, codes)


def score_all(codes=CODES.values, biases=CODES.biases, queries=CODES.values[:QUERIES]):
    return native.score_all(native.Codes(codes, biases), queries)


def score_pairs(
    codes=CODES.values,
    biases=CODES.biases,
    numbers=MEMBERS[:QUERIES],
    queries=CODES.values[:QUERIES],
):
    return native.score_pairs(native.Codes(codes, biases), numbers, queries)


def sample(entries=POOLS.entries, scores=POOLS.scores, forward=2, backward=3, first=0, last=ROWS):
    return native.sample_links(native.Pools(entries, scores), forward, backward, first, last)


def join(
    codes=CODES.values,
    biases=CODES.biases,
    entries=POOLS.entries,
    scores=POOLS.scores,
    sampled=SAMPLED,
    first=0,
    last=ROWS,
):
    pools = native.Pools(entries, scores)
    return native.join_neighbors(native.Codes(codes, biases), pools, sampled, first, last)


def rank(
    vectors=VECTORS,
    inverse_lengths=INVERSE_LENGTHS,
    queries=UNIT[:QUERIES],
    candidates=CANDIDATES,
    width=WIDTH,
    numbers=None,
    found=None,
):
    found = None if found is None else (found, np.zeros((QUERIES, WIDTH), np.float32))
    return native.rank_candidates(
        vectors, inverse_lengths, queries, candidates, width, numbers=numbers, found=found
    )


def copy(
    vectors=VECTORS, factors=INVERSE_LENGTHS, rows=MEMBERS[:QUERIES], places=PLACES, copies=COPIES
):
    native.copy_rows(vectors, factors, rows, places, copies)


def checksum(vectors=VECTORS, factors=FACTORS, euclidean=False):
    return native.checksum_rows(vectors, factors, euclidean)


REACH = {
    "codes": WIDE.values,
    "biases": WIDE.biases,
    "offsets": OFFSETS,
    "centroids": CENTROIDS.values,
    "centroid_biases": CENTROIDS.biases,
    "queries": WIDE.values,
    "query_biases": WIDE.biases,
    "bounds": BOUNDS,
    "floors": BOUNDS,
}
ARGUMENTS = {
    encode: {"mean": ENCODER.mean, "signs": ENCODER.signs, "vectors": VECTORS},
    search: {
        "codes": CODES.values,
        "biases": CODES.biases,
        "offsets": OFFSETS,
        "members": MEMBERS,
        "queries": CODES.values[:QUERIES],
        "probes": PROBES,
        "floors": FLOORS,
        "query_biases": CODES.biases[:QUERIES],
        "limits": LIMITS,
    },
    search_lists_in_reach: REACH,
    search_points_in_reach: REACH,
    take: {"vectors": VECTORS, "inverse_lengths": INVERSE_LENGTHS, "numbers": MEMBERS},
    place: {
        "block": CODES.values[:QUERIES],
        "block_biases": CODES.biases[:QUERIES],
        "positions": POSITIONS,
        "biases": CODES.biases,
    },
    score_all: {
        "codes": CODES.values,
        "biases": CODES.biases,
        "queries": CODES.values[:QUERIES],
    },
    score_pairs: {
        "codes": CODES.values,
        "biases": CODES.biases,
        "numbers": MEMBERS[:QUERIES],
        "queries": CODES.values[:QUERIES],
    },
    sample: {"entries": POOLS.entries, "scores": POOLS.scores},
    join: {
        "codes": CODES.values,
        "biases": CODES.biases,
        "entries": POOLS.entries,
        "scores": POOLS.scores,
        "sampled": SAMPLED,
    },
    rank: {
        "vectors": VECTORS,
        "inverse_lengths": INVERSE_LENGTHS,
        "queries": UNIT[:QUERIES],
        "candidates": CANDIDATES,
        "numbers": MEMBERS,
        "found": CANDIDATES[:, :WIDTH].copy(),
    },
    copy: {
        "vectors": VECTORS,
        "factors": INVERSE_LENGTHS,
        "rows": MEMBERS[:QUERIES],
        "places": PLACES,
        "copies": COPIES,
    },
    checksum: {"vectors": VECTORS, "factors": FACTORS},
}
# Lengths that nothing else has to agree with, or that others have to agree with.
FREE = {"vectors", "offsets", "members", "signs", "codes", "entries", "queries", "rows", "copies"}
OPTIONAL = {"floors", "members", "inverse_lengths", "limits", "numbers", "found"}
ANY_LENGTH = {
    search_lists_in_reach: {"codes", "centroids", "queries"},
    search_points_in_reach: {"codes", "centroids", "queries"},
    take: {"vectors", "numbers"},
    place: {"block"},
}


@pytest.mark.parametrize(
    ("function", "name"),
    [(function, name) for function, arrays in ARGUMENTS.items() for name in arrays],
)
def test_every_argument_is_checked(function, name):
    require_refusals(
        function,
        ARGUMENTS[function],
        name,
        any_length=name in ANY_LENGTH.get(function, FREE),
        is_written=name == "copies",
        is_required=name not in OPTIONAL
        or (function, name) in ((score_pairs, "numbers"), (take, "numbers"))
        or (function in ANY_LENGTH and function is not take),
    )


def test_encode_refuses_vectors_that_are_not_finite():
    for value in (np.nan, np.inf, -np.inf):
        for row, column in ((0, 0), (4, 33), (9, DIMENSION - 1)):
            vectors = changed(VECTORS, (row, column), value)
            vectors[row + 1 :, 0] = value
            with refused(f"vectors: row {row} holds NaN or infinity, expected finite numbers"):
                encode(vectors=vectors)


def test_encode_refuses_encoders_that_are_none():
    for scale in (0, -1, np.nan, np.inf, 1e4, 9999.99999, 1e-50):
        with refused("encoder: expected at least 70 columns and a scale between 0 and 10000, got "):
            encode(scale=scale)
    encode(scale=9999)
    encode(scale=1e-30)
    for value in (0, 2, -1.5, np.nan, np.inf):
        with refused(f"signs: entry 100 holds {np.float32(value)}, expected 1 or -1"):
            encode(signs=changed(ENCODER.signs, slice(100, 102), value))
    for value in (np.nan, np.inf, -np.inf, 3e38, 2e5):
        with refused("mean: expected that of vectors of length 1, got one of length "):
            encode(mean=changed(ENCODER.mean, 69, value))
    with refused("mean: expected that of vectors of length 1, got one of length "):
        encode(mean=changed(ENCODER.mean, 69, 2e30), scale=1e-20)
    for width in (0, 64, 100, 65600):
        with pytest.raises(ValueError, match=r"(encoder|codes): expected"):
            encode(signs=np.ones(width, np.float32))
    with refused("vectors: expected at least one column, got none"):
        encode(mean=ENCODER.mean[:0], vectors=VECTORS[:, :0])


def test_encode_for_distances_refuses_what_squares_of_would_be_infinite():
    encoder = ENCODER._replace(euclidean=True)
    for value in (np.nan, np.inf, -np.inf):
        with refused("vectors: row 4 holds NaN or infinity, expected finite numbers"):
            native.encode(encoder, changed(VECTORS, (4, 33), value))
    for value in (1.1e18, -3e38):
        with refused("vectors: row 4 is farther than 1e18 from the mean, expected smaller numbers"):
            native.encode(encoder, changed(VECTORS, (4, 33), value))
    for scale in (0, -1, np.nan, np.inf, 1e36):
        with refused("encoder: expected at least 70 columns and a scale between 0 and 1e+36, got "):
            native.encode(encoder._replace(scale=scale), VECTORS)
    for value in (np.nan, 2e30):
        with refused("mean: expected at most 1e30 long, got one of length "):
            native.encode(encoder._replace(mean=changed(ENCODER.mean, 69, value)), VECTORS)
    for scale in (1e-35, 9e35):
        codes, _ = native.encode(encoder._replace(scale=scale), VECTORS)
        assert np.isin(np.abs(codes.values), [0, 127]).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e19])
def test_distances_that_are_not_finite(value):
    message = (
        "queries: the similarity of row {} to vector {} is not finite, expected finite vectors no "
        "farther than 1e18 from each other"
    )
    with refused(message.format(2, 1)):
        rank(queries=changed(UNIT[:QUERIES], (2, 5), value), inverse_lengths=None)
    with refused(message.format(0, 3)):
        rank(vectors=changed(VECTORS, (3, 5), value), inverse_lengths=None)


BAD_OFFSETS = [
    (0, 1, 0),
    (0, -1, 0),
    (2, 2, 2),
    (2, -5, 2),
    (2, 2**62, 3),
    (3, 2, 3),
    (4, 9, 4),
    (4, 11, 4),
    (4, 2**62, 4),
    (4, -(2**63), 4),
]


@pytest.mark.parametrize("members", [MEMBERS, None])
@pytest.mark.parametrize(("position", "value", "row"), BAD_OFFSETS)
def test_bad_offsets(position, value, row, members):
    offsets = changed(OFFSETS, position, value)
    message = f"offsets: entry {row} holds {offsets[row]}, expected numbers that begin at 0, never"
    with refused(message):
        search(offsets=offsets, members=members)


def test_offsets_of_nothing():
    with refused("offsets: expected one more than there are lists, got none"):
        search(offsets=OFFSETS[:0])
    with refused("offsets: entry 4 holds 10, expected numbers that begin at 0, never decrease, "):
        search(members=MEMBERS[:9].copy())


@pytest.mark.parametrize("value", [-1, -2, ROWS, *EXTREMES])
def test_members_out_of_range(value):
    with refused(f"members: entry 7 holds {value}, expected 0..9"):
        search(members=changed(MEMBERS, slice(7, 9), value))


def test_prefixes_that_are_none():
    for share in (0, -1.0, np.nan, -np.inf):
        with refused(f"prefix: expected floors and a share above 0, got a share of {share}"):
            search(share=share)
    with refused("prefix: expected full_probes ≥ 0, got -1"):
        search(full_probes=-1)
    with refused("prefix: expected floors and a share above 0, got no floors"):
        search(floors=None)
    search(floors=None, full_probes=1)
    for share in (1e-300, 1.0, 1e300, np.inf):
        search(share=share)


@pytest.mark.parametrize("search_these", [search_lists_in_reach, search_points_in_reach])
def test_lists_that_nothing_can_be_in_reach_of(search_these):
    for position, value, row in BAD_OFFSETS:
        offsets = changed(OFFSETS, position, value)
        message = f"offsets: entry {row} holds {offsets[row]}, expected numbers that begin at 0, "
        with refused(message + "never decrease, and end at 10"):
            search_these(offsets=offsets)
    for share in (0, -1.0, np.nan, -np.inf):
        for shares in ((share, 1.0), (1.0, share)):
            with refused(f"prefix: expected floors and a share above 0, got a share of {share}"):
                search_these(shares=shares)
    largest = (2**31 - 1 - 192 * 2**14) // 2
    for name, given in (
        ("biases", WIDE), ("query_biases", WIDE), ("centroid_biases", CENTROIDS)
    ):  # fmt: skip
        for value in (largest, -largest):
            search_these(**{name: changed(given.biases, 3, value)})
        for value in (largest + 1, -largest - 1, *EXTREMES):
            with refused(f"biases: entry 3 holds {value}, expected -{largest}..{largest}"):
                search_these(**{name: changed(given.biases, 3, value)})
    for value in EXTREMES:
        for name in ("bounds", "floors"):
            search_these(**{name: np.full(ROWS, value, np.int32)})


@pytest.mark.parametrize("value", [-1, ROWS, *EXTREMES])
def test_rows_that_there_are_not(value):
    with refused(f"numbers: entry 7 holds {value}, expected 0..9"):
        take(numbers=changed(MEMBERS, slice(7, 9), value))
    with refused(f"positions: entry 3 holds {value}, expected 0..9"):
        place(positions=changed(POSITIONS, slice(3, 5), value))


@pytest.mark.parametrize("value", [-2, LISTS, *EXTREMES])
def test_probes_out_of_range(value):
    with refused(f"probes: row 2, column 1 holds {value}, expected -1 or 0..3"):
        search(probes=changed(PROBES, (2, 1), value))


def test_biases_that_could_make_scores_overflow():
    largest = 2**31 - 1 - 128 * 2**14
    for value in (largest, -largest):
        search(biases=changed(CODES.biases, 3, value))
        join(biases=changed(CODES.biases, 3, value))
    for value in (largest + 1, -largest - 1, *EXTREMES):
        biases = changed(CODES.biases, slice(3, 5), value)
        for function in (search, join):
            with refused(f"biases: entry 3 holds {value}, expected -{largest}..{largest}"):
                function(biases=biases)


def test_sizes_out_of_range():
    for width in (0, -1, 8193, 2**62):
        for function in (search, rank):
            with refused(f"width: expected 1..8192 neighbours, got {width}"):
                function(width=width)
    for width in (0, 100, 65600):
        with refused(f"codes: expected a multiple of 64 columns up to 65536, got {width}"):
            wide = np.zeros((ROWS, width), np.int8)
            search(codes=wide, queries=wide)
    for forward, backward in ((0, 1), (-1, 1), (4, 1), (1, -1), (1, 8193), (2**62, 1)):
        with refused("forward, backward: expected 1..3 and 0..8192, got "):
            sample(forward=forward, backward=backward)
    for first, last in ((-1, 3), (4, 3), (0, ROWS + 1), (ROWS + 1, ROWS + 1), (0, 2**62)):
        for function in (sample, join):
            with refused(f"first, last: expected 0 ≤ first ≤ last ≤ 10, got {first}, {last}"):
                function(first=first, last=last)
    for width in (0, 8193):
        empty = np.empty((ROWS, width), np.int32)
        with refused(f"entries: expected 1..8192 neighbours, got {width}"):
            sample(entries=empty, scores=empty)
        with refused(f"sampled: expected 1..8192 columns, got {width}"):
            join(sampled=empty)
    with refused("candidates: expected at most 8192 columns, got 8193"):
        rank(candidates=np.full((QUERIES, 8193), -1, np.int32))
    with refused("codes: expected 10 rows, got 9"):
        join(codes=CODES.values[:9], biases=CODES.biases[:9])
    # Only so many numbers have room for a bit beside them.
    many = np.broadcast_to(np.int32(-1), (2**30, 1))
    with pytest.raises(ValueError, match="entries: expected "):
        sample(entries=many, scores=many)


@pytest.mark.parametrize("number", [ROWS, 2**30 - 1])
def test_links_to_no_row(number):
    # Followed from a row itself, and from one that it links to.
    for own, further in ((2 * number + 1, 2), (7, 2 * number + 1)):
        sampled = np.full((ROWS, 4), -1, np.int32)
        sampled[5, 0] = own
        sampled[3, 0] = further
        message = f"sampled: a link followed from row {3 if own == 7 else 5} leads to no row, "
        with refused(message + "expected 0..9"):
            join(sampled=sampled)


def test_pools_may_hold_numbers_of_no_row_but_they_are_not_followed():
    entries = changed(POOLS.entries, (4, 0), 2 * ROWS + 1)
    sampled = sample(entries=entries)
    assert sampled[4, 0] == 2 * ROWS + 1
    with refused("leads to no row"):
        join(entries=entries, sampled=sampled)
    assert join(entries=entries).entries.shape == POOLS.entries.shape


@pytest.mark.parametrize("value", [-2, ROWS, *EXTREMES])
def test_candidates_out_of_range(value):
    candidates = changed(CANDIDATES, (3, 2), value)
    candidates[4] = value
    with refused(f"candidates: row 3, column 2 holds {value}, expected -1 or 0..9"):
        rank(candidates=candidates)
    # One without vectors has no candidates.
    with refused("candidates: row 0, column 0 holds 1, expected -1 or 0..-1"):
        rank(vectors=VECTORS[:0], inverse_lengths=INVERSE_LENGTHS[:0])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_similarities_that_are_not_finite(value):
    message = (
        "queries: the similarity of row {} to vector {} is not finite, expected finite vectors"
    )
    with refused(message.format(2, 1)):
        rank(queries=changed(UNIT[:QUERIES], (2, 5), value))
    with refused(message.format(0, 3)):
        rank(vectors=changed(VECTORS, (3, 5), value))
    with refused(message.format(0, 2)):
        rank(inverse_lengths=changed(INVERSE_LENGTHS, 2, value))
    # What is no candidate is not looked at.
    rank(vectors=changed(VECTORS, (7, 5), value))


def test_parts_of_vectors_that_are_none():
    for part, found in (
        (VECTORS.astype(np.float64), "part 1 is float64 (10, 70), expected float32 (m, 70)"),
        (VECTORS[:, 1:].copy(), "part 1 is float32 (10, 69), expected float32 (m, 70)"),
        (VECTORS[0], "part 1 is float32 (70,), expected float32 (m, 70)"),
        (VECTORS[::2], "part 1 is not C-contiguous"),
    ):
        with refused(f"parts: {found}"):
            native.VectorParts([VECTORS, part])
    with refused("inverse_lengths: expected None, since vectors are normalized"):
        native.rank_candidates(VECTORS, INVERSE_LENGTHS, UNIT, CANDIDATES, 3, normalized=True)


@pytest.mark.parametrize("value", [-1, 100, *EXTREMES])
def test_rows_and_places_out_of_range(value):
    with refused(f"rows: entry 3 holds {value}, expected 0..9"):
        copy(rows=changed(MEMBERS[:QUERIES], slice(3, 5), value))
    with refused(f"places: entry 2 holds {value}, expected 0..6"):
        copy(places=changed(PLACES, slice(2, 5), value))
    with refused("rows: entry 0 holds 9, expected 0..-1"):
        copy(vectors=VECTORS[:0], factors=INVERSE_LENGTHS[:0])
    with refused("places: entry 0 holds 3, expected 0..-1"):
        copy(copies=COPIES[:0])


def test_copies_have_memory_of_their_own():
    with refused("copies: expected memory of its own, got memory shared with vectors"):
        copy(copies=VECTORS)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("euclidean", [False, True])
def test_rows_that_are_not_finite_have_no_checksum(value, euclidean):
    vectors = changed(VECTORS, (4, 69), value)
    vectors[7, 0] = value
    with refused("vectors: row 4 holds NaN or infinity, expected finite numbers"):
        checksum(vectors=vectors, euclidean=euclidean)


# From here on, without the wrappers.

# Parts that all begin at the same place: no division of the rows leads out of them.
PARTS = ffi.new("float *[]", [pointer(VECTORS)] * 3)
PART_OFFSETS = np.array([0, 4, 4, ROWS], np.int64)

FIELDS = {
    "codes": {"values": CODES.values, "biases": CODES.biases, "rows": ROWS, "width": 128},
    "encoder": {
        "mean": ENCODER.mean,
        "signs": ENCODER.signs,
        "dimension": DIMENSION,
        "width": 128,
        "scale": 100.0,
    },
    "lists": {"offsets": OFFSETS, "members": MEMBERS, "count": LISTS, "entries": ROWS},
    "pools": {"entries": POOLS.entries, "scores": POOLS.scores, "rows": ROWS, "width": WIDTH},
    "matrix": {"values": VECTORS, "rows": ROWS, "columns": DIMENSION, "stride": DIMENSION},
    "vectors": {
        "parts": PARTS,
        "offsets": PART_OFFSETS,
        "count": 3,
        "rows": ROWS,
        "columns": DIMENSION,
        "stride": DIMENSION,
    },
}


def good(kind, **changes):
    return structure(kind, **{**FIELDS[kind], **changes})


def wide(**changes):
    return good("codes", values=WIDE.values, biases=WIDE.biases, width=192, **changes)


NUMBERS = np.empty((ROWS, 8), np.int32)
SCORES = np.empty((ROWS, 8), np.int32)
NEW_VECTORS = np.empty((ROWS, DIMENSION), np.float32)
ALL_SCORES = np.empty((QUERIES, ROWS), np.int32)
SIMILARITIES = np.empty((ROWS, 8), np.float32)
NEW_CODES = np.empty((ROWS, 128), np.int8)
COUNTS = np.zeros(ROWS, np.int64)
ENDS = np.arange(1, 2 * ROWS, 2)
LINKS = np.arange(2 * ROWS, dtype=np.uint64)


def arguments_of(function):
    return {
        "encode": {
            "encoder": good("encoder"),
            "vectors": VECTORS,
            "rows": ROWS,
            "stride": DIMENSION,
            "codes": NEW_CODES,
            "biases": NUMBERS,
            "inverse_lengths": SIMILARITIES,
        },
        "search_lists": {
            "codes": good("codes"),
            "lists": good("lists"),
            "queries": good("codes", rows=QUERIES),
            "probes": PROBES,
            "n_probes": 2,
            "limits": LIMITS,
            "floors": FLOORS,
            "prefix_share": 2**15,
            "full_probes": 1,
            "width": 8,
            "numbers": NUMBERS,
            "scores": SCORES,
        },
        "search_lists_in_reach": {
            "codes": wide(),
            "offsets": OFFSETS,
            "centroids": wide(rows=LISTS),
            "queries": wide(rows=QUERIES),
            "bounds": BOUNDS,
            "floors": BOUNDS,
            "prefix_share": 2**15,
            "more_share": 2**15,
            "width": 8,
            "numbers": NUMBERS,
            "scores": SCORES,
        },
        "search_points_in_reach": {
            "points": wide(rows=QUERIES),
            "centroids": wide(rows=LISTS),
            "offsets": OFFSETS,
            "members": wide(),
            "bounds": BOUNDS,
            "floors": BOUNDS,
            "prefix_share": 2**15,
            "more_share": 2**15,
            "width": 8,
            "numbers": NUMBERS,
            "scores": SCORES,
        },
        "take_vectors": {
            "vectors": good("matrix"),
            "inverse_lengths": INVERSE_LENGTHS,
            "numbers": MEMBERS,
            "count": ROWS,
            "taken": NEW_VECTORS,
        },
        "place_codes": {
            "codes": good("codes", rows=QUERIES),
            "positions": POSITIONS,
            "values": NEW_CODES,
            "biases": NUMBERS,
            "rows": ROWS,
        },
        "score_all": {
            "codes": good("codes"),
            "queries": good("codes", rows=QUERIES),
            "scores": ALL_SCORES,
        },
        "score_pairs": {
            "codes": good("codes"),
            "numbers": MEMBERS,
            "queries": good("codes", rows=QUERIES),
            "scores": SCORES,
        },
        "count_links": {
            "pools": good("pools"),
            "forward": 2,
            "first": 0,
            "last": ROWS,
            "counts": COUNTS,
        },
        "collect_links": {
            "pools": good("pools"),
            "first_row": 0,
            "forward": 2,
            "first": 0,
            "last": ROWS,
            "ends": ENDS.copy(),
            "links": LINKS,
            "capacity": len(LINKS),
        },
        "choose_links": {
            "pools": good("pools"),
            "forward": 2,
            "backward": 3,
            "ends": ENDS,
            "links": LINKS,
            "capacity": len(LINKS),
            "sampled": NUMBERS,
        },
        "join_neighbors": {
            "codes": good("codes"),
            "pools": good("pools"),
            "sampled": SAMPLED,
            "sample_width": 5,
            "first": 0,
            "last": ROWS,
            "entries": NUMBERS,
            "scores": SCORES,
        },
        "rank_candidates": {
            "vectors": good("vectors"),
            "numbers": MEMBERS,
            "inverse_lengths": INVERSE_LENGTHS,
            "metric": lib.LOWSHOT_COSINE,
            "queries": good("matrix", values=UNIT, rows=QUERIES),
            "candidates": CANDIDATES,
            "n_candidates": 4,
            "width": 8,
            "continued": 0,
            "indices": NUMBERS,
            "similarities": SIMILARITIES,
        },
        "copy_rows": {
            "vectors": good("matrix"),
            "factors": INVERSE_LENGTHS,
            "rows": MEMBERS,
            "places": PLACES,
            "count": QUERIES,
            "copies": COPIES,
            "n_copies": len(COPIES),
        },
        "checksum_rows": {
            "vectors": good("matrix"),
            "metric": lib.LOWSHOT_COSINE,
            "factors": FACTORS,
            "checksums": LINKS,
        },
    }[function]


def call(function, **changes):
    arguments = {**arguments_of(function), **changes}
    return direct(getattr(lib, f"lowshot_{function}"), *arguments.values())


STRUCTURES = {
    "encode": {"encoder": "encoder"},
    "search_lists": {"codes": "codes", "lists": "lists", "queries": "codes"},
    "search_lists_in_reach": dict.fromkeys(("codes", "centroids", "queries"), "codes"),
    "search_points_in_reach": dict.fromkeys(("points", "centroids", "members"), "codes"),
    "take_vectors": {"vectors": "matrix"},
    "place_codes": {"codes": "codes"},
    "score_all": {"codes": "codes", "queries": "codes"},
    "score_pairs": {"codes": "codes", "queries": "codes"},
    "count_links": {"pools": "pools"},
    "collect_links": {"pools": "pools"},
    "choose_links": {"pools": "pools"},
    "join_neighbors": {"codes": "codes", "pools": "pools"},
    "rank_candidates": {"vectors": "vectors", "queries": "matrix"},
    "copy_rows": {"vectors": "matrix"},
    "checksum_rows": {"vectors": "matrix"},
}
each_function = pytest.mark.parametrize("function", STRUCTURES)


# Vectors may have length 1, and be called what their places are.
MAY_BE_MISSING = {
    ("rank_candidates", "inverse_lengths"),
    ("rank_candidates", "numbers"),
    ("take_vectors", "inverse_lengths"),
}


@each_function
def test_direct_null_pointers(function):
    assert call(function) == OK
    for name, argument in arguments_of(function).items():
        if isinstance(argument, int) or (function == "search_lists" and name in OPTIONAL):
            continue
        expected = OK if (function, name) in MAY_BE_MISSING else BAD_SIZE
        assert call(function, **{name: NULL}) == expected, name


SIZES = (-1, 2**31, 2**32 + 5, 2**56, HUGE, -HUGE, 2**63 - 1, -(2**63))
GARBAGE = {
    "codes": [
        *({"rows": rows} for rows in SIZES),
        *({"width": width} for width in (0, 32, 65600, 2**40, *SIZES)),
        {"values": NULL},
        {"biases": NULL},
    ],
    "encoder": [
        *({"dimension": dimension} for dimension in (0, 71, 129, *SIZES)),
        *({"width": width} for width in (0, 64, 100, 65600, *SIZES)),
        *({"scale": scale} for scale in (0.0, -1.0, 1e4, np.inf, -np.inf, np.nan)),
        *(
            {"scale": scale, "metric": lib.LOWSHOT_EUCLIDEAN}
            for scale in (0.0, -1.0, 1.1e36, np.inf, -np.inf, np.nan)
        ),
        *({"metric": metric} for metric in (-1, 2, 2**31 - 1, -(2**31))),
        {"mean": NULL},
        {"signs": NULL},
    ],
    "lists": [
        *({"count": count} for count in SIZES),
        *({"entries": entries} for entries in (-1, -HUGE)),
        {"offsets": NULL},
        {"members": NULL, "entries": ROWS - 1},
        {"members": NULL, "entries": ROWS + 1},
    ],
    "pools": [
        *({"rows": rows} for rows in (2**30, *SIZES)),
        *({"width": width} for width in (0, 8193, *SIZES)),
        {"entries": NULL},
        {"scores": NULL},
    ],
    "matrix": [
        *({"rows": rows} for rows in SIZES),
        *({"columns": columns} for columns in (71, *SIZES)),
        *({"stride": stride} for stride in (69, -1, HUGE, -HUGE, 2**63 - 1)),
        {"values": NULL},
    ],
    "vectors": [
        *({"rows": rows} for rows in SIZES),
        *({"count": count} for count in (-1, 2**31, HUGE, -HUGE, 2**63 - 1, -(2**63))),
        *({"columns": columns} for columns in (71, *SIZES)),
        *({"stride": stride} for stride in (69, -1, HUGE, -HUGE, 2**63 - 1)),
        {"parts": NULL},
        {"parts": ffi.new("float *[]", [pointer(VECTORS), NULL, NULL])},
        {"offsets": NULL},
    ],
}


@each_function
def test_direct_garbage_in_structures(function):
    for name, kind in STRUCTURES[function].items():
        for changes in GARBAGE[kind]:
            assert call(function, **{name: good(kind, **changes)}) == BAD_SIZE, (name, changes)


@pytest.mark.parametrize(
    ("function", "name", "sizes"),
    [
        ("encode", "rows", (-1, HUGE, -HUGE)),
        ("encode", "stride", (DIMENSION - 1, 0, -1, HUGE)),
        ("search_lists", "n_probes", (-1, 2**31, 2**26, HUGE, -HUGE)),
        ("search_lists", "width", (0, -1, 8193, HUGE, -HUGE)),
        ("search_lists", "full_probes", (-1, 3, HUGE, -HUGE, 2**63 - 1, -(2**63))),
        ("search_lists", "prefix_share", (-1, 2**16 + 1, 2**32, HUGE, 2**63 - 1, -(2**63))),
        *(
            (function, name, sizes)
            for function in ("search_lists_in_reach", "search_points_in_reach")
            for name, sizes in (
                ("width", (0, -1, 8193, HUGE, -HUGE)),
                ("prefix_share", (-1, 2**16 + 1, 2**32, HUGE, 2**63 - 1, -(2**63))),
                ("more_share", (-1, 2**16 + 1, 2**32, HUGE, 2**63 - 1, -(2**63))),
            )
        ),
        ("take_vectors", "count", (-1, HUGE, -HUGE, -(2**63))),
        ("place_codes", "rows", (-1, HUGE, -HUGE, -(2**63))),
        ("count_links", "forward", (0, -1, WIDTH + 1, HUGE, 2**63 - 1, -(2**63))),
        ("count_links", "first", (-1, ROWS + 1, -HUGE, HUGE, 2**63 - 1, -(2**63))),
        ("count_links", "last", (-1, 2**30, -HUGE, HUGE, 2**63 - 1, -(2**63))),
        ("collect_links", "first_row", (-1, 2**30 - ROWS, HUGE, 2**63 - 1, -(2**63))),
        ("collect_links", "forward", (0, -1, WIDTH + 1, HUGE, 2**63 - 1, -(2**63))),
        ("collect_links", "first", (-1, ROWS + 1, -HUGE, HUGE, 2**63 - 1, -(2**63))),
        ("collect_links", "last", (-1, 2**30, -HUGE, HUGE, 2**63 - 1, -(2**63))),
        ("collect_links", "capacity", (-1, HUGE, 2**63 - 1, -(2**63))),
        ("choose_links", "forward", (0, -1, WIDTH + 1, HUGE, 2**63 - 1, -(2**63))),
        ("choose_links", "backward", (-1, 8193, HUGE, 2**63 - 1, -(2**63))),
        ("choose_links", "capacity", (-1, HUGE, 2**63 - 1, -(2**63))),
        ("join_neighbors", "sample_width", (0, -1, 8193, HUGE, -HUGE)),
        ("join_neighbors", "first", (-1, ROWS + 1, -HUGE, HUGE, 2**63 - 1, -(2**63))),
        ("join_neighbors", "last", (-1, ROWS + 1, -HUGE, HUGE, 2**63 - 1, -(2**63))),
        ("rank_candidates", "n_candidates", (-1, 8193, HUGE, -HUGE)),
        ("rank_candidates", "width", (0, -1, 8193, HUGE, -HUGE)),
        ("rank_candidates", "metric", (-1, 2, 2**31 - 1, -(2**31))),
        ("copy_rows", "count", (-1, HUGE, -HUGE, 2**63 - 1)),
        ("copy_rows", "n_copies", (-1, HUGE, -HUGE, 2**63 - 1)),
        ("checksum_rows", "metric", (-1, 2, 2**31 - 1, -(2**31))),
    ],
)
def test_direct_garbage_sizes(function, name, sizes):
    for size in sizes:
        assert call(function, **{name: size}) == BAD_SIZE, size


def test_direct_sizes_that_do_not_agree():
    narrow = good("codes", width=64)
    # First columns are less than all.
    both = {"codes": narrow, "queries": good("codes", width=64, rows=QUERIES)}
    assert call("search_lists", **both) == BAD_SIZE
    assert call("search_lists", **both, prefix_share=0) == BAD_SIZE
    assert call("search_lists", **both, prefix_share=0, full_probes=2) == OK
    assert call("search_lists", codes=narrow) == BAD_SIZE
    assert call("search_lists", queries=narrow) == BAD_SIZE
    for function in ("search_lists_in_reach", "search_points_in_reach"):
        for name in STRUCTURES[function]:
            assert call(function, **{name: narrow}) == BAD_SIZE
        # The first columns are scored before more of them are.
        assert call(function, prefix_share=0) == BAD_SIZE
        assert call(function, prefix_share=0, more_share=0) == OK
    for function in ("score_all", "score_pairs"):
        assert call(function, codes=narrow) == BAD_SIZE
        assert call(function, queries=narrow) == BAD_SIZE
    assert call("join_neighbors", codes=good("codes", rows=ROWS - 1)) == BAD_SIZE
    assert call("rank_candidates", vectors=good("vectors", columns=DIMENSION - 1)) == BAD_SIZE
    assert call("rank_candidates", queries=good("matrix", columns=DIMENSION - 1)) == BAD_SIZE


def test_direct_nothing():
    """Without rows nothing is looked at, so pointers may be missing."""
    nothing = {"values": NULL, "biases": NULL, "rows": 0}
    assert call("encode", rows=0, vectors=NULL, codes=NULL, biases=NULL, inverse_lengths=NULL) == OK
    for changes in (
        {"queries": good("codes", **nothing), "probes": NULL, "numbers": NULL, "scores": NULL},
        {"probes": NULL, "n_probes": 0, "full_probes": 0},
        {
            "lists": good("lists", count=0, entries=0, members=MEMBERS),
            "n_probes": 0,
            "full_probes": 0,
        },
    ):
        assert call("search_lists", **changes) == OK
    nowhere = {**nothing, "width": 192}
    reach = {"bounds": NULL, "floors": NULL, "numbers": NULL, "scores": NULL}
    assert call("search_lists_in_reach", queries=good("codes", **nowhere), **reach) == OK
    empty = {"centroids": good("codes", **nowhere), "offsets": np.zeros(1, int)}
    assert call("search_lists_in_reach", codes=good("codes", **nowhere), **empty) == OK
    members = good("codes", **nowhere)
    assert call("search_points_in_reach", members=members, **empty, **reach) == OK
    assert call("search_points_in_reach", points=good("codes", **nowhere)) == OK
    assert call("take_vectors", count=0, numbers=NULL, taken=NULL) == OK
    assert call("place_codes", codes=good("codes", **nothing), positions=NULL) == OK
    no_queries = good("codes", **nothing)
    assert call("score_all", queries=no_queries, scores=NULL) == OK
    assert call("score_all", codes=no_queries, scores=NULL) == OK
    assert call("score_pairs", queries=no_queries, numbers=NULL, scores=NULL) == OK
    pools = {"pools": good("pools", entries=NULL, scores=NULL, rows=0)}
    empty = {**pools, "last": 0}
    assert call("count_links", **empty, counts=NULL) == OK
    assert call("collect_links", **empty, ends=NULL, links=NULL, capacity=0) == OK
    assert call("choose_links", **pools, ends=NULL, links=NULL, capacity=0, sampled=NULL) == OK
    assert (
        call(
            "join_neighbors",
            codes=good("codes", **nothing),
            **empty,
            sampled=NULL,
            entries=NULL,
            scores=NULL,
        )
        == OK
    )
    queries = good("matrix", values=NULL, rows=0)
    assert (
        call("rank_candidates", queries=queries, candidates=NULL, indices=NULL, similarities=NULL)
        == OK
    )
    assert call("rank_candidates", candidates=NULL, n_candidates=0) == OK
    assert call("copy_rows", count=0, rows=NULL, places=NULL) == OK
    nothing = good("matrix", values=NULL, rows=0)
    assert call("checksum_rows", vectors=nothing, checksums=NULL) == OK


def test_direct_faults():
    not_finite = lib.LOWSHOT_NOT_FINITE
    for value in (np.nan, np.inf):
        assert call("encode", vectors=changed(VECTORS, (9, 69), value)) == not_finite
        mean = changed(ENCODER.mean, 69, value)
        assert call("encode", encoder=good("encoder", mean=mean)) == not_finite
        signs = changed(ENCODER.signs, 127, value)
        assert call("encode", encoder=good("encoder", signs=signs)) == not_finite
        lengths = changed(INVERSE_LENGTHS, 1, value)
        assert call("rank_candidates", inverse_lengths=lengths) == not_finite
        vectors = changed(VECTORS, (9, 69), value)
        assert call("checksum_rows", vectors=good("matrix", values=vectors)) == not_finite
    for entries in (0, ROWS - 1, ROWS + 1, HUGE, 2**63 - 1):
        lists = good("lists", entries=entries)
        assert call("search_lists", lists=lists) == lib.LOWSHOT_BAD_OFFSET
    for rows in (0, ROWS - 1, ROWS + 1):
        vectors = good("vectors", rows=rows)
        assert call("rank_candidates", vectors=vectors) == lib.LOWSHOT_BAD_OFFSET
    for place, value in ((0, 1), (1, -1), (2, 3), (3, ROWS - 1), (1, HUGE)):
        vectors = good("vectors", offsets=changed(PART_OFFSETS, place, value))
        assert call("rank_candidates", vectors=vectors) == lib.LOWSHOT_BAD_OFFSET
    offsets = changed(OFFSETS, 4, HUGE)
    assert call("search_lists", lists=good("lists", offsets=offsets, entries=HUGE)) == BAD_SIZE
    for position, value, _ in BAD_OFFSETS:
        offsets = changed(OFFSETS, position, value)
        for members in (MEMBERS, NULL):
            lists = good("lists", offsets=offsets, members=members)
            assert call("search_lists", lists=lists) == lib.LOWSHOT_BAD_OFFSET
    for value in (-2, ROWS, *EXTREMES):
        members, probes = changed(MEMBERS, 9, value), changed(PROBES, (4, 1), value)
        candidates = changed(CANDIDATES, (4, 3), value)
        bad_index = lib.LOWSHOT_BAD_INDEX
        assert call("search_lists", lists=good("lists", members=members)) == bad_index
        assert call("search_lists", probes=probes) == bad_index
        numbers = changed(MEMBERS, QUERIES - 1, value)
        assert call("score_pairs", numbers=numbers) == bad_index
        assert call("rank_candidates", candidates=candidates) == bad_index
        assert call("copy_rows", rows=numbers) == bad_index
        assert call("copy_rows", places=changed(PLACES, 4, value)) == bad_index
        if abs(value) == ROWS:
            continue
        for function in ("search_lists", "score_all", "score_pairs", "join_neighbors"):
            codes = good("codes", biases=changed(CODES.biases, 9, EXTREMES[value < 0]))
            assert call(function, codes=codes) == bad_index


@pytest.mark.parametrize("seed", range(40))
def test_direct_garbage_in_arrays(seed):
    """Nothing is read or written where it should not be; the sanitizer looks closer."""
    rng = np.random.default_rng(seed)
    offsets = np.sort(garbage_numbers(rng, LISTS + 1, np.int64, ROWS + 1))
    if seed % 3 == 0:
        offsets[[0, -1]] = 0, ROWS
    members = garbage_numbers(rng, ROWS, np.int32, ROWS)
    # The same list twice in a row, too.
    probes = garbage_numbers(rng, (QUERIES, 2), np.int32, LISTS)
    floors = garbage_numbers(rng, QUERIES, np.int32, ROWS)
    biases = garbage_numbers(rng, ROWS, np.int32, ROWS)
    entries = garbage_numbers(rng, (ROWS, WIDTH), np.int32, 2 * ROWS)
    scores = garbage_numbers(rng, (ROWS, WIDTH), np.int32, 100)
    sampled = garbage_numbers(rng, (ROWS, 5), np.int32, 2 * ROWS)
    candidates = garbage_numbers(rng, (QUERIES, 4), np.int32, ROWS)
    vectors = rng.integers(0, 2**32, VECTORS.shape, dtype=np.uint32).view(np.float32)
    inverse_lengths = rng.integers(0, 2**32, ROWS, dtype=np.uint32).view(np.float32)
    encoder = good("encoder", mean=vectors[0].copy() if seed % 2 else ENCODER.mean)
    pools = good("pools", entries=entries, scores=scores)
    for changes in (
        {"lists": good("lists", offsets=offsets, members=members)},
        {"lists": good("lists", offsets=offsets, members=NULL)},
        {"lists": good("lists", members=members % ROWS), "probes": probes, "floors": floors},
        {"probes": np.maximum(probes % LISTS, -1), "floors": floors},
        {"probes": np.maximum(probes % LISTS, -1), "limits": garbage_numbers(rng, (5, 2), "i4", 9)},
        {"queries": good("codes", rows=QUERIES, biases=biases), "floors": floors},
        {"codes": good("codes", biases=biases)},
    ):
        assert call("search_lists", **changes) in KINDS
    limits = garbage_numbers(rng, ROWS, np.int32, ROWS)
    for changes in (
        {"offsets": offsets},
        {"bounds": limits, "floors": garbage_numbers(rng, ROWS, np.int32, ROWS)},
        {"centroids": good("codes", values=WIDE.values, width=192, rows=LISTS, biases=biases)},
        {"bounds": np.full(ROWS, -(2**31), np.int32), "floors": limits},
    ):
        for function in ("search_lists_in_reach", "search_points_in_reach"):
            assert call(function, **changes) in KINDS
    assert call("take_vectors", numbers=members, inverse_lengths=inverse_lengths) in KINDS
    assert call("place_codes", positions=members[:QUERIES].copy()) in KINDS
    ends = garbage_numbers(rng, ROWS, np.int64, len(LINKS) + 1)
    links = rng.integers(0, 2**64, len(LINKS), dtype=np.uint64)
    assert call("choose_links", pools=pools, ends=ends, links=links) in KINDS
    assert call("choose_links", pools=pools, ends=np.sort(ends), links=links) in KINDS
    for first, last in ((0, ROWS), (3, 7)):
        assert call("count_links", pools=pools, first=first, last=last) == OK
        arguments = {"pools": pools, "first": first, "last": last, "links": links}
        assert call("collect_links", **arguments, ends=ends.copy(), capacity=seed % 20) == OK
        for changes in ({"pools": pools}, {"sampled": sampled}, {"sampled": sampled % 20}):
            assert call("join_neighbors", **changes, first=first, last=last) in KINDS
    assert call("join_neighbors", pools=pools, codes=good("codes", biases=biases)) in KINDS
    assert call("encode", vectors=vectors) in KINDS
    euclidean = {"encoder": good("encoder", metric=lib.LOWSHOT_EUCLIDEAN)}
    assert call("encode", **euclidean, vectors=vectors, inverse_lengths=NULL) in KINDS
    assert call("encode", encoder=encoder) in KINDS
    parts = ffi.new("float *[]", [pointer(vectors)] * 3)
    of_parts = garbage_numbers(rng, 4, np.int64, ROWS + 1)
    for changes in (
        {"candidates": candidates},
        {"inverse_lengths": inverse_lengths},
        {"numbers": candidates.ravel()[:ROWS]},
        {"continued": 1, "indices": garbage_numbers(rng, (QUERIES, 8), np.int32, ROWS)},
        {"vectors": good("vectors", offsets=of_parts)},
        {"vectors": good("vectors", offsets=np.sort(of_parts))},
        {"vectors": good("vectors", parts=parts), "inverse_lengths": inverse_lengths},
        {"vectors": good("vectors", parts=parts), "inverse_lengths": NULL},
        {"vectors": good("vectors", parts=parts), "metric": lib.LOWSHOT_EUCLIDEAN},
    ):
        assert call("rank_candidates", **changes) in KINDS


def test_direct_ends_of_links():
    assert call("choose_links", ends=np.full(ROWS, len(LINKS))) == OK
    for position, value in (
        (0, -1),
        (3, 4),
        (3, 12),
        (9, 21),
        (9, HUGE),
        (9, -HUGE),
        (0, -(2**63)),
    ):
        ends = changed(ENDS, position, value)
        assert call("choose_links", ends=ends) == lib.LOWSHOT_BAD_OFFSET
    # Where there is no room nothing is written.
    for value in (len(LINKS), -1000, HUGE):
        links = LINKS.copy()
        assert call("collect_links", ends=np.full(ROWS, value), links=links) == OK
        np.testing.assert_array_equal(links, LINKS)


def test_direct_lists_with_common_members_end():
    """Candidates that are there twice are not what is asked for, but no harm is done."""
    rows = 2000
    codes = native.Codes(np.zeros((rows, 64), np.int8), np.zeros(rows, np.int32))
    lists = native.Lists(np.array([0, 900, rows]), np.zeros(rows, np.int32))
    probes = np.array([[0, 1, 0, 1]] * 3, np.int32)
    numbers, scores = native.search_lists(codes, lists, codes.values[:3], probes, 50)
    assert not numbers.any() and not scores.any()
