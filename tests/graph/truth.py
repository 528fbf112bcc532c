"""Nearest neighbours by comparing everything with everything, in double precision."""

import numpy as np

from lowshot_kedro.blocks import KnnGraph


def random_vectors(n, dimension=16, seed=0):
    """Gaussian, of various lengths."""
    rng = np.random.default_rng(seed)
    lengths = rng.uniform(0.1, 10, (n, 1))
    return (rng.standard_normal((n, dimension)) * lengths).astype(np.float32)


def unit(vectors):
    vectors = np.asarray(vectors, dtype=np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths == 0, 1, lengths)


def similarities_of(queries, vectors):
    return unit(queries) @ unit(vectors).T


def dense_graph(vectors, k):
    """The graph among vectors; -1 and -inf where there are fewer than k."""
    similarities = similarities_of(vectors, vectors)
    indices = np.argsort(-similarities, axis=1, kind="stable")[:, :k]
    found = np.take_along_axis(similarities, indices, axis=1)
    missing = ((0, 0), (0, k - indices.shape[1]))
    return KnnGraph(
        np.pad(indices, missing, constant_values=-1).astype(np.int32),
        np.pad(found, missing, constant_values=-np.inf).astype(np.float32),
    )


def assert_nearest(indices, similarities, k):
    """Every row of `indices` holds the k largest of the row of `similarities`, in order.

    Where two differ by less than single precision can tell, either may come first.
    """
    assert indices.shape == (len(similarities), k)
    assert indices.dtype == np.int32
    found = np.take_along_axis(similarities, indices.astype(np.int64), axis=1)
    ranked = np.argsort(-similarities, axis=1, kind="stable")
    expected = np.take_along_axis(similarities, ranked, axis=1)
    np.testing.assert_allclose(found, expected[:, :k], rtol=0, atol=2e-6)
    assert all(len(set(row)) == k for row in indices.tolist())

    apart = np.diff(expected, axis=1, prepend=np.inf, append=-np.inf) < -1e-5
    certain = apart[:, :k] & apart[:, 1 : k + 1]
    np.testing.assert_array_equal(indices[certain], ranked[:, :k][certain])
    assert certain.mean() > 0.5 or k > 30


def clustered_vectors(n, dimension=32, seed=0, members=40, noise=0.6):
    """Around centres of which each has about so many members, of various lengths."""
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((max(1, n // members), dimension))
    directions = centers[rng.integers(0, len(centers), n)] + noise * rng.standard_normal(
        (n, dimension)
    )
    return (directions * rng.uniform(0.1, 10, (n, 1))).astype(np.float32)


def assert_well_formed(graph, vectors, k, equal_by_number=True):
    """Sorted, of equal ones the smaller number first, none twice, missing ones last.

    And the similarities are those of the vectors.
    """
    indices, similarities = graph
    assert indices.shape == similarities.shape == (len(vectors), k)
    assert (indices.dtype, similarities.dtype) == (np.int32, np.float32)
    there = indices >= 0
    assert not (~there[:, :-1] & there[:, 1:]).any()
    assert (indices[~there] == -1).all()
    assert (similarities[~there] == -np.inf).all()
    both = there[:, 1:]
    # Missing ones, beside which there is minus infinity, are not compared.
    before, after = np.where(both, similarities[:, :-1], 0), np.where(both, similarities[:, 1:], 0)
    assert (before >= after).all()
    if equal_by_number:
        assert (indices[:, :-1] < indices[:, 1:])[both & (before == after)].all()
    for row in indices:
        numbers = row[row >= 0]
        assert len(np.unique(numbers)) == len(numbers)
    directions = unit(vectors)
    expected = np.einsum("nd,nkd->nk", directions, directions[indices])
    np.testing.assert_allclose(similarities[there], expected[there], rtol=0, atol=2e-6)


def recall_of(indices, queries, vectors, k):
    """The mean part of the k most similar vectors that is among the first k of `indices`.

    A vector as similar as the k-th counts, whichever of several it is.
    """
    similarities = similarities_of(queries, vectors)
    k = min(k, len(vectors))
    if not len(queries) or not k:
        return 1.0
    least = np.partition(similarities, -k, axis=1)[:, -k]
    found = np.take_along_axis(similarities, np.maximum(indices[:, :k], 0).astype(np.int64), axis=1)
    hits = (found >= least[:, None] - 2e-6) & (indices[:, :k] >= 0)
    return hits.sum() / hits.size
