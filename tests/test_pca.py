import logging

import faiss
import numpy as np
import pytest
from scipy.linalg import subspace_angles
from scipy.spatial.distance import pdist
from sklearn.decomposition import PCA

from lowshot_kedro import pca
from lowshot_kedro.pca import apply_pca, apply_transform, train_pca
from tests.features import MemoryFeatures


def features_of(array):
    return MemoryFeatures(array, "f100m")


def correlated(n_rows=400, n_columns=12, seed=0):
    """Vectors around a centre, with a spectrum that falls fast."""
    rng = np.random.default_rng(seed)
    scales = 10.0 * 0.7 ** np.arange(n_columns)
    rotation = np.linalg.qr(rng.standard_normal((n_columns, n_columns)))[0]
    return (rng.standard_normal((n_rows, n_columns)) * scales) @ rotation + rng.random(n_columns)


def matrix_of(transform):
    return faiss.vector_to_array(transform.A).reshape(transform.d_out, transform.d_in)


@pytest.fixture(scope="module")
def vectors():
    return correlated().astype(np.float32)


@pytest.fixture(scope="module")
def reference(vectors):
    return PCA(n_components=5, svd_solver="full").fit(vectors.astype(np.float64))


@pytest.fixture(scope="module", params=[True, False], ids=["rotated", "plain"])
def transform(request, vectors):
    return train_pca(features_of(vectors), 5, request.param, max_train_rows=10**6)


def test_the_subspace_is_that_of_scikit_learn(transform, reference):
    matrix = matrix_of(transform)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(5), atol=1e-5)
    assert subspace_angles(matrix.T, reference.components_.T).max() < 1e-3


def test_the_projection_is_that_of_scikit_learn_up_to_a_rotation(transform, vectors, reference):
    found, expected = transform.apply(vectors), reference.transform(vectors)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, rtol=1e-3, atol=0.05)
    np.testing.assert_allclose(pdist(found[:100]), pdist(expected[:100]), rtol=1e-3)


def test_without_a_rotation_the_components_are_those_of_scikit_learn(vectors, reference):
    transform = train_pca(features_of(vectors), 5, False, max_train_rows=10**6)
    found, expected = transform.apply(vectors), reference.transform(vectors)
    signs = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found * signs, expected, rtol=1e-3, atol=0.01)
    np.testing.assert_allclose(found.var(axis=0, ddof=1), reference.explained_variance_, rtol=1e-3)


def test_a_rotation_balances_the_variances(vectors, reference):
    transform = train_pca(features_of(vectors), 5, True, max_train_rows=10**6)
    variances = transform.apply(vectors).var(axis=0, ddof=1)
    assert variances.sum() == pytest.approx(reference.explained_variance_.sum(), rel=1e-3)
    plain = reference.explained_variance_
    assert variances.max() / variances.min() < 0.5 * plain.max() / plain.min()


def test_all_components_preserve_all_distances(vectors):
    transform = train_pca(features_of(vectors), 12, True, max_train_rows=10**6)
    np.testing.assert_allclose(pdist(transform.apply(vectors[:50])), pdist(vectors[:50]), rtol=1e-3)


def test_training_is_repeatable(vectors):
    first, second = (train_pca(features_of(vectors), 5, True, 10**6) for _ in range(2))
    np.testing.assert_array_equal(matrix_of(first), matrix_of(second))


def test_only_the_first_rows_are_trained_on(vectors, monkeypatch):
    monkeypatch.setattr(pca, "_BLOCK_ROWS", 7)
    noise = 1000 * np.random.default_rng(1).standard_normal(vectors.shape)
    both = train_pca(features_of(np.vstack([vectors, noise])), 5, False, max_train_rows=400)
    alone = train_pca(features_of(vectors), 5, False, max_train_rows=400)
    np.testing.assert_allclose(matrix_of(both), matrix_of(alone), atol=1e-5)


def test_the_variance_kept_is_logged(vectors, caplog):
    with caplog.at_level(logging.INFO):
        train_pca(features_of(vectors), 5, True, max_train_rows=10**6)
    kept = PCA(n_components=5).fit(vectors).explained_variance_ratio_.sum()
    assert f"PCA of 400 rows: 5 of 12 dimensions keep {100 * kept:.1f}%" in caplog.text


@pytest.mark.parametrize(
    "shape, max_train_rows, found",
    [
        ((4, 12), 10**6, "4 rows"),
        ((400, 4), 10**6, "4 columns"),
        ((400, 12), 3, "3 rows"),
        ((0, 12), 10**6, "0 rows"),
    ],
)
def test_fewer_rows_or_columns_than_components(shape, max_train_rows, found):
    with pytest.raises(ValueError) as caught:
        train_pca(features_of(np.ones(shape)), 5, True, max_train_rows)
    for fact in ("pca.n_components: got 5", "f100m", f"only {found}"):
        assert fact in str(caught.value)


def test_as_many_rows_as_components_give_orthonormal_components_or_an_error():
    vectors = np.random.default_rng(0).standard_normal((8, 20))
    try:
        transform = train_pca(features_of(vectors), 8, False, max_train_rows=10**6)
    except ValueError as error:
        assert "pca.n_components" in str(error)
        return
    matrix = matrix_of(transform)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(8), atol=1e-3)


def test_fewer_rows_than_columns(reference):
    vectors = correlated(n_rows=8, n_columns=12).astype(np.float32)
    transform = train_pca(features_of(vectors), 5, True, max_train_rows=10**6)
    expected = PCA(n_components=5).fit_transform(vectors)
    np.testing.assert_allclose(pdist(transform.apply(vectors)), pdist(expected), rtol=1e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_is_named_by_its_row(vectors, monkeypatch, bad):
    monkeypatch.setattr(pca, "_BLOCK_ROWS", 50)
    spoiled = vectors.copy()
    spoiled[123, 4] = bad
    message = r"f100m: .*1 row\(s\), numbers 123;"
    with pytest.raises(ValueError, match=message):
        train_pca(features_of(spoiled), 5, True, max_train_rows=10**6)
    transform = train_pca(features_of(spoiled), 5, True, max_train_rows=100)
    with pytest.raises(ValueError, match=message):
        list(apply_pca(transform, features_of(spoiled)))


@pytest.mark.parametrize("block_rows", [1, 150, 400, 10**6])
def test_blocks_are_what_faiss_computes_at_once(transform, vectors, monkeypatch, block_rows):
    monkeypatch.setattr(pca, "_BLOCK_ROWS", block_rows)
    blocks = apply_pca(transform, features_of(vectors))
    assert (blocks.n_rows, blocks.n_columns) == (400, 5)
    parts = list(blocks)
    assert [len(part) for part in parts[:-1]] == [block_rows] * (len(parts) - 1)
    found = np.concatenate(parts)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, transform.apply(vectors), rtol=1e-5, atol=1e-4)


def test_apply_follows_the_stored_matrix(transform, vectors):
    expected = vectors @ matrix_of(transform).T + faiss.vector_to_array(transform.b)
    found = apply_transform(transform, vectors[::2], "test.hdf5")
    np.testing.assert_allclose(found, expected[::2], rtol=1e-4, atol=1e-3)


def test_no_rows(transform):
    assert apply_transform(transform, np.empty((0, 12), np.float32), "test").shape == (0, 5)
    assert list(apply_pca(transform, features_of(np.empty((0, 12))))) == []


def test_another_dimension_is_refused_at_once(transform):
    message = "f100m: 11 columns, but pca_transform expects 12"
    with pytest.raises(ValueError, match=message):
        apply_pca(transform, features_of(np.ones((3, 11))))
    with pytest.raises(ValueError, match=message):
        apply_transform(transform, np.ones((3, 11), np.float32), "f100m")


def test_plain_faiss_reads_the_transform_and_gives_the_same(transform, vectors, tmp_path):
    from lowshot_kedro.datasets import FaissTransformDataset

    path = tmp_path / "PCAR5.vt"
    FaissTransformDataset(filepath=str(path)).save(transform)
    plain = faiss.read_VectorTransform(str(path))
    np.testing.assert_array_equal(plain.apply(vectors), transform.apply(vectors))
