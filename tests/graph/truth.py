"""Nearest neighbours by comparing everything with everything, in double precision."""

import numpy as np

from lowshot_kedro.matrices import KnnGraph


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
