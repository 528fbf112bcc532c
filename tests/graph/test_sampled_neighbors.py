"""The true neighbours of a few vectors, whatever codes can tell apart."""

import numpy as np
import pytest

from lowshot_kedro import native
from lowshot_kedro.blocks import KnnGraph, row_ranges
from lowshot_kedro.graph import descent as descent_module
from lowshot_kedro.graph.centroids import lists_of
from lowshot_kedro.graph.descent import tune
from lowshot_kedro.graph.exact_search import ExactNodes
from lowshot_kedro.graph.list_search import Division, ListSearch, encode_rows, fit_encoder
from lowshot_kedro.graph.sampled_neighbors import SampledNeighbors
from lowshot_kedro.graph.spaces import space_of
from lowshot_kedro.graph.workspace import MemoryBudget, Workspace

from .truth import clustered_vectors, similarities_of

METRICS = ("cosine", "euclidean")


def squares_of(queries, vectors, metric):
    """Squared distances; where the cosine counts those of rows of length 1, 2 from zeros."""
    if metric == "cosine":
        return 2 - 2 * similarities_of(queries, vectors)
    return ((queries[:, None].astype(np.float64) - vectors) ** 2).sum(axis=2)


def sampled_in(vectors, rows, k, width, metric, block_rows):
    space = space_of(metric, vectors, "v")
    encoder = fit_encoder(vectors, "v", space)
    sampled = SampledNeighbors(space.query_rows(vectors, rows, "v"), k, width, encoder)
    for first, last in row_ranges(len(vectors), block_rows):
        codes, lengths = encode_rows(encoder, vectors, first, last, "v")
        block = vectors[first:last]

        def rank(queries, found, block=block, lengths=lengths):
            return KnnGraph(*native.rank_candidates(block, lengths, queries, found, k))

        sampled.add(codes, rank, first)
    return sampled


def assert_true(neighbors, squares, k):
    """The k smallest squares of each row, in order, but for rounding."""
    found = np.take_along_axis(squares, neighbors.indices.astype(np.int64), axis=1)
    expected = np.sort(squares, axis=1)[:, :k]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * squares.max())
    assert all(len(set(row)) == k for row in neighbors.indices.tolist())


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("block_rows", [5, 170, 3000])
def test_all_neighbors_are_found_in_any_number_of_parts(metric, block_rows):
    vectors = clustered_vectors(3000, 40)
    rows = np.arange(0, 3000, 97)
    sampled = sampled_in(vectors, rows, 6, 60, metric, block_rows)
    assert sampled.is_sure.all()
    assert_true(sampled.neighbors, squares_of(vectors[rows], vectors, metric), 6)


@pytest.mark.parametrize("metric", METRICS)
def test_of_fewer_vectors_than_wanted_all_are_neighbors(metric):
    vectors = clustered_vectors(7, 20)
    sampled = sampled_in(vectors, np.arange(3), 9, 12, metric, 2)
    assert sampled.is_sure.all()
    assert (sampled.neighbors.indices[:, 7:] == -1).all()
    assert (sampled.neighbors.similarities[:, 7:] == -np.inf).all()
    assert (np.sort(sampled.neighbors.indices[:, :7]) == np.arange(7)).all()


@pytest.mark.parametrize("block_rows", [100, 4000])
def test_what_codes_cannot_tell_apart_is_not_sure(block_rows):
    """Some far away make steps so large that all others have the same codes."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(4000, 30)).astype(np.float32)
    vectors[:1000] = 1e6 + 1e5 * vectors[:1000]
    rows = np.array([3, 30, 1400, 3000])
    sampled = sampled_in(vectors, rows, 5, 20, "euclidean", block_rows)
    assert sampled.is_sure.tolist() == [True, True, False, False]
    squares = squares_of(vectors[rows], vectors, "euclidean")
    found = np.take_along_axis(squares, sampled.neighbors.indices.astype(np.int64), axis=1)
    expected = np.sort(squares, axis=1)[:, :5]
    # Those of which it is sure are right, and the doubt about the others is justified.
    np.testing.assert_allclose(found[:2], expected[:2], rtol=1e-5)
    assert (found[2:, 4] > 1.05 * expected[2:, 4]).all()


def list_search(vectors, metric, folder):
    space = space_of(metric, vectors, "v")
    lists = lists_of(np.arange(len(vectors), dtype=np.int32) % 7, 7)
    division = Division(space.point_rows(vectors, np.arange(7), "v"), *lists, 1)
    return ListSearch.of(vectors, division, Workspace(folder, MemoryBudget()), "v", space)


def few_coordinates(rng, n, count):
    vectors = np.zeros((n, 256), np.float32)
    vectors[:, 100 : 100 + count] = rng.normal(size=(n, count))
    return vectors


def coarse(rng, n):
    vectors = rng.normal(size=(n, 30)).astype(np.float32)
    vectors[: n // 100] *= 1e5
    return vectors


VECTORS = {
    "clusters": lambda rng, n: clustered_vectors(n, 40),
    "one coordinate": lambda rng, n: few_coordinates(rng, n, 1),
    "two coordinates": lambda rng, n: few_coordinates(rng, n, 2),
    "coarse codes": coarse,
    "equal rows": lambda rng, n: clustered_vectors(30, 9)[rng.integers(0, 30, n)],
}


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", VECTORS)
def test_a_sample_knows_its_true_neighbors_whatever_the_vectors(tmp_path, kind, metric):
    vectors = VECTORS[kind](np.random.default_rng(0), 4000)
    vectors[17] = 0
    k = 8
    tuning = tune(list_search(vectors, metric, tmp_path), k, 0.99)
    squares = np.concatenate(
        [squares_of(part, vectors, metric) for part in np.array_split(tuning.queries, 16)]
    )
    with_direction = tuning.queries.any(axis=1) | (metric == "euclidean")
    # Without a direction all are as similar.
    assert (tuning.neighbors.indices[~with_direction] == -1).all()
    neighbors = KnnGraph(*(part[with_direction] for part in tuning.neighbors))
    if kind == "coarse codes" or "coordinate" in kind:
        found = np.take_along_axis(squares[with_direction], neighbors.indices.astype(int), axis=1)
        expected = np.sort(squares[with_direction], axis=1)[:, :k]
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)
    else:
        assert_true(neighbors, squares[with_direction], k)


def test_vectors_are_compared_with_all_only_where_codes_leave_doubt(tmp_path, monkeypatch):
    asked = []
    real = ExactNodes.search

    def counting(self, queries, k):
        asked.append(len(queries))
        return real(self, queries, k)

    monkeypatch.setattr(descent_module.ExactNodes, "search", counting)
    tune(list_search(clustered_vectors(3000, 40), "cosine", tmp_path), 8, 0.99)
    assert asked == []
    tune(list_search(coarse(np.random.default_rng(0), 3000), "euclidean", tmp_path), 8, 0.99)
    assert len(asked) == 1 and 200 < asked[0] <= 256
