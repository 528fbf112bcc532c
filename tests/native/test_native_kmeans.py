"""Nearest centroids beside all distances in double precision, and sums of rows beside numpy's."""

import math
import re

import numpy as np
import pytest

from lowshot_kedro import native
from lowshot_kedro.native._library import ffi, lib

from .hostile import BAD_SIZE, HUGE, NULL, OK, direct, require_refusals

LANES = 16


def distances_between(rows, centroids):
    """All squared distances, (n, k): columns are added to 16 sums in turn, these in order."""
    squares = (rows[:, None].astype(float) - centroids.astype(float)) ** 2
    width = -(-squares.shape[-1] // LANES) * LANES
    padded = np.zeros((*squares.shape[:2], width))
    padded[..., : squares.shape[-1]] = squares
    sums = np.zeros((*squares.shape[:2], LANES))
    for first in range(0, width, LANES):
        sums += padded[..., first : first + LANES]
    total = np.zeros(squares.shape[:2])
    for lane in range(LANES):
        total += sums[..., lane]
    return total


def spread(rng, n, k, d):
    return rng.standard_normal((n, d)), rng.standard_normal((k, d))


def near_their_centroids(rng, n, k, d):
    centroids = rng.standard_normal((k, d))
    return centroids[rng.integers(0, k, n)] + 0.1 * rng.standard_normal((n, d)), centroids


def ties(rng, n, k, d):
    return rng.integers(-1, 2, (n, d)), rng.integers(-1, 2, (k, d))


def one_clump(rng, n, k, d):
    """All differences are below what 8 bits tell apart, far from 0."""
    centre = 100 * rng.standard_normal(d)
    clump = centre + 1e-3 * rng.standard_normal((n + k, d)) + np.eye(1, d) * 50
    clump[k - 1] -= 100
    return clump[k:], clump[:k]


def alike(rng, n, k, d):
    return rng.standard_normal((n, d)), np.repeat(rng.standard_normal((1, d)), k, 0)


def uneven_columns(rng, n, k, d):
    factors = 10.0 ** rng.uniform(-6, 2, d)
    rows, centroids = spread(rng, n, k, d)
    return rows * factors, centroids * factors


def huge(rng, n, k, d):
    return (1e17 * part for part in spread(rng, n, k, d))


def tiny(rng, n, k, d):
    return (1e-28 * part for part in spread(rng, n, k, d))


def nothing(rng, n, k, d):
    return np.zeros((n, d)), np.zeros((k, d))


KINDS = (
    spread, near_their_centroids, ties, one_clump, alike, uneven_columns, huge, tiny, nothing,
)  # fmt: skip


def made(kind, n, k, d, seed=0):
    rows, centroids = (
        part.astype(np.float32) for part in kind(np.random.default_rng(seed), n, k, d)
    )
    return rows, centroids, float(max(np.abs(rows).max(initial=0), np.abs(centroids).max()))


def assign(rows, centroids, largest, hints=None):
    labels = np.full(len(rows), -1, np.int32) if hints is None else hints.astype(np.int32)
    distances = np.empty(len(rows))
    native.Centroids(centroids, largest).assign(rows, labels, distances)
    return labels, distances


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "k", "d"), [(1, 1, 1), (37, 5, 3), (50, 67, 64), (20, 130, 150)])
def test_the_nearest_centroid_of_each_row(kind, n, k, d, each_kernels):
    rows, centroids, largest = made(kind, n, k, d)
    expected = distances_between(rows, centroids)
    nearest = expected.argmin(1)
    random = np.random.default_rng(1).integers(-1, k, n)
    for hints in (None, random, nearest):
        labels, distances = assign(rows, centroids, largest, hints)
        assert labels.tolist() == nearest.tolist()
        assert distances.tobytes() == expected.min(1).tobytes()


@pytest.mark.parametrize(("k", "d"), [(1100, 70), (40, 4200)])
def test_centroids_in_several_chunks(k, d, each_kernels):
    """More than are looked at together, because they are many or wide."""
    rows, centroids, largest = made(near_their_centroids, 30, k, d)
    centroids[-1] = centroids[2]
    labels, distances = assign(rows, centroids, largest)
    expected = distances_between(rows, centroids)
    assert labels.tolist() == expected.argmin(1).tolist()
    assert distances.tobytes() == expected.min(1).tobytes()


def test_a_row_does_not_depend_on_the_others():
    rows, centroids, largest = made(spread, 700, 90, 33)
    expected = assign(rows, centroids, largest)
    order = np.random.default_rng(2).permutation(len(rows))
    for found, whole in zip(assign(rows[order], centroids, largest), expected, strict=True):
        assert found.tobytes() == whole[order].tobytes()
    wide = np.full((len(rows), 40), np.nan, np.float32)
    wide[:, :33] = rows
    for found, whole in zip(assign(wide[:, :33], centroids, largest), expected, strict=True):
        assert found.tobytes() == whole.tobytes()


def test_no_rows():
    labels, distances = assign(np.empty((0, 3), np.float32), np.ones((2, 3), np.float32), 1.0)
    assert len(labels) == len(distances) == 0


@pytest.mark.parametrize(("n", "k", "d"), [(1, 1, 1), (60, 7, 3), (500, 20, 37), (40, 3, 4200)])
def test_sums_of_the_rows_of_each_cluster(n, k, d, each_kernels):
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((n, d)).astype(np.float32)
    rows[:, 0] = rng.integers(-9, 9, n) / 4  # halves of a unit
    labels = rng.integers(0, k, n).astype(np.int32)
    for units in (2.0, 2.0**40):
        sums = np.full((k, d), 7, np.int64)
        native.add_to_clusters(rows, labels, units, sums)
        expected = np.full((k, d), 7, np.int64)
        np.add.at(expected, labels, np.rint(rows.astype(float) * units).astype(np.int64))
        assert sums.tolist() == expected.tolist()


GOOD_ROWS, GOOD_CENTROIDS, _ = made(spread, 9, 4, 5)
GOOD = {
    "rows": GOOD_ROWS,
    "labels": np.zeros(9, np.int32),
    "distances": np.empty(9),
}
SUMS = {
    "rows": GOOD_ROWS,
    "labels": np.zeros(9, np.int32),
    "sums": np.zeros((4, 5), np.int64),
}


def test_other_arrays_are_refused():
    require_refusals(
        lambda values: native.Centroids(values, 9.0),
        {"values": GOOD_CENTROIDS},
        "values",
        any_length=True,
    )
    ready = native.Centroids(GOOD_CENTROIDS, 9.0)
    for name in GOOD:
        written = name != "rows"
        require_refusals(ready.assign, GOOD, name, any_length=not written, is_written=written)
    for name in SUMS:
        is_sums = name == "sums"
        require_refusals(
            lambda **arrays: native.add_to_clusters(units=1.0, **arrays),
            SUMS,
            name,
            any_length=name != "labels",
            is_written=is_sums,
        )


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_named(bad):
    rows, centroids, largest = made(spread, 300, 40, 20)
    rows[211, 19] = rows[250, 0] = bad
    with pytest.raises(ValueError, match=re.escape("rows: found NaN or infinity in row 211")):
        assign(rows, centroids, largest)
    centroids[17, 4] = centroids[30, 0] = bad
    with pytest.raises(ValueError, match=re.escape("found NaN or infinity in centroid 17")):
        native.Centroids(centroids, largest)
    with pytest.raises(ValueError, match="largest: expected a number from 0 to 1e18"):
        native.Centroids(centroids, bad)


@pytest.mark.parametrize("label", [-2, 4, 2**31 - 1, -(2**31)])
def test_labels_that_are_no_clusters(label):
    labels = np.zeros(9, np.int32)
    labels[6] = label
    expected = re.escape(f"labels: entry 6 holds {label}, expected ")
    with pytest.raises(ValueError, match=expected):
        native.Centroids(GOOD_CENTROIDS, 9.0).assign(GOOD_ROWS, labels, np.empty(9))
    with pytest.raises(ValueError, match=expected):
        native.add_to_clusters(GOOD_ROWS, labels, 1.0, np.zeros((4, 5), np.int64))


def test_sizes_that_cannot_be():
    for shape in ((0, 3), (3, 0), (1, native.MAX_KMEANS_COLUMNS + 1)):
        with pytest.raises(ValueError, match=r"values: expected 1\.\.\d+ (centroids|columns), got"):
            native.Centroids(np.zeros(shape, np.float32), 1.0)
    shared = np.zeros(18, np.int32)
    with pytest.raises(ValueError, match="labels: expected memory of its own"):
        native.Centroids(GOOD_CENTROIDS, 9.0).assign(GOOD_ROWS, shared[:9], shared.view(float))


def test_rows_larger_than_was_said():
    """Nothing is promised of them, but that they do no harm."""
    rows, centroids, _ = made(huge, 50, 7, 9)
    labels, _ = assign(rows, centroids, 1.0)
    assert ((labels >= 0) & (labels < 7)).all()


def test_direct_null_pointers_and_sizes():
    ready = native.Centroids(GOOD_CENTROIDS, 9.0)
    good = ready._struct

    def changed(**fields):
        structure = ffi.new("struct lowshot_centroids *", good[0])
        for name, value in fields.items():
            setattr(structure, name, value)
        return structure

    def assigned(centroids, rows=GOOD_ROWS, count=9, stride=5, labels=None):
        labels = np.zeros(9, np.int32) if labels is None else labels
        return direct(lib.lowshot_assign_rows, centroids, rows, count, stride, labels, np.empty(9))

    assert assigned(good) == direct(lib.lowshot_prepare_centroids, good) == OK
    pointers = ("values", "middle", "packed", "steps", "halves", "lengths", "ratio")
    wrong = [{name: NULL} for name in pointers]
    wrong += [{name: size} for name in ("count", "dimension") for size in (0, -1, HUGE)]
    wrong += [{"width": width} for width in (0, 4, 63, 65, HUGE)]
    wrong += [{"scale": scale} for scale in (0.0, -1.0, math.inf, math.nan)]
    wrong.append({"packed": good.packed + 1})
    for fields in wrong:
        assert assigned(changed(**fields)) == BAD_SIZE, fields
        assert direct(lib.lowshot_prepare_centroids, changed(**fields)) == BAD_SIZE, fields
    assert direct(lib.lowshot_prepare_centroids, NULL) == assigned(NULL) == BAD_SIZE
    for changes in (
        {"rows": NULL},
        {"count": -1},
        {"count": HUGE},
        {"stride": 4},
        {"labels": NULL},
    ):
        assert assigned(good, **changes) == BAD_SIZE, changes

    matrix = ffi.new(
        "struct lowshot_matrix *", (ffi.cast("float *", GOOD_ROWS.ctypes.data), 9, 5, 5)
    )
    labels, sums = np.zeros(9, np.int32), np.zeros((4, 5), np.int64)
    add = lib.lowshot_add_to_clusters
    assert direct(add, matrix, labels, 1.0, sums, 4) == OK
    for arguments in (
        (NULL, labels, 1.0, sums, 4),
        (matrix, NULL, 1.0, sums, 4),
        (matrix, labels, 1.0, NULL, 4),
        (matrix, labels, 1.0, sums, -1),
        (matrix, labels, 1.0, sums, HUGE),
    ):
        assert direct(add, *arguments) == BAD_SIZE
    assert direct(add, matrix, labels, 1.0, sums, 0) == lib.LOWSHOT_BAD_INDEX
    for units in (math.nan, math.inf, 1e300):
        assert direct(add, matrix, labels, units, sums, 4) == OK
