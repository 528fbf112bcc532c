import logging
import tracemalloc
from contextlib import contextmanager

import faiss
import numpy as np
import pytest
from scipy.linalg import subspace_angles
from scipy.spatial.distance import pdist
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_info, threadpool_limits

from lowshot_kedro.pca import train_pca, training
from tests.features import MemoryFeatures
from tests.pca.making import begun, bytes_of, correlated, features_of, matrix_of, trained

VECTORS = correlated()


@pytest.fixture(scope="module")
def reference():
    return PCA(svd_solver="full").fit(VECTORS.astype(np.float64))


@pytest.fixture(scope="module", params=[True, False], ids=["rotated", "plain"])
def transform(request):
    return trained(VECTORS, random_rotation=request.param)


@pytest.fixture
def small_blocks(monkeypatch):
    """Sixteen rows, of which a sample takes four at a time."""
    monkeypatch.setattr(training, "_BLOCK_ROWS", 16)
    monkeypatch.setattr(training, "_RUN_ROWS", 4)


@contextmanager
def threads(of_faiss, of_blas):
    before = faiss.omp_get_max_threads()
    try:
        with threadpool_limits(of_blas, user_api="blas"):
            faiss.omp_set_num_threads(of_faiss)
            yield
    finally:
        faiss.omp_set_num_threads(before)


def assert_eigenvalues(transform, vectors, tolerance=1e-7):
    """Variances times the number of rows less one, as faiss keeps them.

    The tolerance is a part of the largest: float32 cannot tell more of the smallest.
    """
    expected = PCA(svd_solver="full").fit(vectors.astype(np.float64)).explained_variance_
    expected *= len(vectors) - 1
    found = faiss.vector_to_array(transform.eigenvalues)[: len(expected)]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=tolerance * expected[0])


def rows_read(features):
    return [row for first, last in features.reads for row in range(first, last)]


# --- beside scikit-learn ---


def test_the_subspace_is_that_of_scikit_learn(transform, reference):
    matrix = matrix_of(transform)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(5), atol=1e-6)
    assert subspace_angles(matrix.T, reference.components_[:5].T).max() < 1e-5


def test_eigenvalues_mean_and_all_directions_are_those_of_scikit_learn(transform, reference):
    assert_eigenvalues(transform, VECTORS)
    np.testing.assert_allclose(faiss.vector_to_array(transform.mean), reference.mean_, rtol=1e-6)
    directions = faiss.vector_to_array(transform.PCAMat).reshape(12, 12)
    np.testing.assert_allclose(np.abs(directions @ reference.components_.T), np.eye(12), atol=1e-4)


def test_the_projection_is_that_of_scikit_learn_up_to_a_rotation(transform, reference):
    found, expected = transform.apply(VECTORS), reference.transform(VECTORS)[:, :5]
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(pdist(found[:100]), pdist(expected[:100]), rtol=1e-5)


def test_without_a_rotation_the_components_are_those_of_scikit_learn(reference):
    found, expected = trained(VECTORS).apply(VECTORS), reference.transform(VECTORS)[:, :5]
    signs = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found * signs, expected, rtol=1e-4, atol=1e-4)


def test_of_each_direction_the_largest_entry_is_positive():
    transform = trained(VECTORS)
    directions = faiss.vector_to_array(transform.PCAMat).reshape(12, 12)
    assert (directions.max(axis=1) == np.abs(directions).max(axis=1)).all()


def test_a_rotation_balances_the_variances(reference):
    variances = trained(VECTORS, random_rotation=True).apply(VECTORS).var(axis=0, ddof=1)
    plain = reference.explained_variance_[:5]
    assert variances.sum() == pytest.approx(plain.sum(), rel=1e-5)
    assert variances.max() / variances.min() < 0.5 * plain.max() / plain.min()


def test_all_components_preserve_all_distances():
    found = trained(VECTORS, 12, random_rotation=True).apply(VECTORS[:50])
    np.testing.assert_allclose(pdist(found), pdist(VECTORS[:50]), rtol=1e-5)


@pytest.mark.parametrize("n_rows", [399, 400, 385, 17, 16])
def test_blocks_together_are_the_whole(small_blocks, n_rows):
    expected = PCA(svd_solver="full").fit(VECTORS[:n_rows].astype(np.float64))
    found = trained(VECTORS[:n_rows])
    assert_eigenvalues(found, VECTORS[:n_rows])
    assert subspace_angles(matrix_of(found).T, expected.components_[:5].T).max() < 1e-5


def test_means_far_from_zero_cost_no_digits(small_blocks):
    vectors = (1000 + np.random.default_rng(0).standard_normal((5000, 30))).astype(np.float32)
    expected = PCA(svd_solver="full").fit(vectors.astype(np.float64))
    found = trained(vectors)
    assert_eigenvalues(found, vectors, tolerance=1e-6)
    assert subspace_angles(matrix_of(found).T, expected.components_[:5].T).max() < 1e-3


def test_the_offset_is_exact_to_its_last_bit():
    vectors = (1000 + np.random.default_rng(0).standard_normal((800, 300))).astype(np.float32)
    found = trained(vectors, random_rotation=True)
    offset = -(matrix_of(found).astype(np.float64) @ vectors.mean(axis=0, dtype=np.float64))
    np.testing.assert_allclose(faiss.vector_to_array(found.b), offset, rtol=1e-7)


def test_a_first_block_unlike_the_others_costs_no_digits(small_blocks):
    vectors = VECTORS.copy()
    vectors[:16] = 30 + 0.1 * vectors[:16]
    assert_eigenvalues(trained(vectors), vectors)


def test_fewer_rows_than_columns():
    vectors = VECTORS[:8]
    expected = PCA(n_components=5).fit_transform(vectors)
    found = trained(vectors, random_rotation=True)
    np.testing.assert_allclose(pdist(found.apply(vectors)), pdist(expected), rtol=1e-4)
    eigenvalues = faiss.vector_to_array(found.eigenvalues)
    assert len(eigenvalues) == 12
    assert (eigenvalues >= 0).all()
    np.testing.assert_allclose(eigenvalues[7:] / eigenvalues[0], 0, atol=1e-6)


# --- fewer rows than components ---


@pytest.mark.parametrize("random_rotation", [True, False])
@pytest.mark.parametrize("n_rows", [2, 3, 10, 29, 30])
def test_few_rows_keep_all_their_distances(n_rows, random_rotation, caplog):
    caplog.set_level(logging.INFO)
    vectors = np.random.default_rng(0).standard_normal((n_rows, 50)).astype(np.float32)
    # Variances that differ by twelve orders are all kept.
    vectors = vectors * np.geomspace(1, 1e-6, 50, dtype=np.float32) + np.float32(3)
    found = trained(vectors, 30, random_rotation)
    np.testing.assert_allclose(pdist(found.apply(vectors)), pdist(vectors), rtol=1e-5)
    directions = faiss.vector_to_array(found.PCAMat).reshape(50, 50)
    np.testing.assert_allclose(directions @ directions.T, np.eye(50), atol=1e-6)
    assert f"PCA: {n_rows} rows span {n_rows - 1} dimensions, all of which are kept" in caplog.text
    assert "30 of 50 dimensions keep 100.0% of the variance" in caplog.text


def test_copies_span_as_many_dimensions_as_one_of_them(caplog):
    caplog.set_level(logging.INFO)
    vectors = np.repeat(correlated(6, 40), 3, axis=0)
    found = trained(vectors, 30)
    assert "18 rows span 5 dimensions" in caplog.text
    np.testing.assert_allclose(pdist(found.apply(vectors)), pdist(vectors), rtol=1e-5, atol=1e-5)


def test_directions_beyond_the_rows_follow_from_their_span_alone():
    vectors = correlated(8, 40)
    mixed = np.random.default_rng(1).standard_normal((7, 7)) @ (vectors[1:] - vectors[0])
    others = np.vstack([vectors[:1], vectors[:1] + mixed]).astype(np.float32)
    ours, of_others = (
        faiss.vector_to_array(trained(rows, 30).PCAMat).reshape(40, 40)[7:]
        for rows in (vectors, others)
    )
    np.testing.assert_allclose(ours, of_others, atol=1e-4)


def test_other_rows_are_projected_at_random():
    others = np.random.default_rng(2).standard_normal((300, 200)).astype(np.float32)
    found = trained(others[:5], 104).apply(others[5:])
    # Half of the 196 directions that the five rows lack, and all four that they have.
    shares = pdist(found) ** 2 / pdist(others[5:]) ** 2
    assert shares.mean() == pytest.approx(104 / 200, rel=0.02)
    assert shares.std() < 0.06


def test_the_number_of_threads_changes_no_direction_of_few_rows():
    vectors = correlated(60, 203)
    results = set()
    for of_faiss, of_blas in [(1, 1), (1, 2), (2, 1)]:
        with threads(of_faiss, of_blas):
            results.add(bytes_of(trained(vectors, 100, random_rotation=True)))
    assert len(results) == 1


@pytest.mark.parametrize("rounding", [0, 1e-7])
@pytest.mark.parametrize("n_rows", [2, 50])
def test_equal_rows_stay_as_they_are(n_rows, rounding, caplog):
    caplog.set_level(logging.INFO)
    vectors = np.repeat(VECTORS[:1], n_rows, axis=0)
    vectors *= 1 + rounding * np.random.default_rng(0).standard_normal(vectors.shape)
    found = trained(vectors, random_rotation=True)
    assert "5 of 12 dimensions keep nothing: all rows are equal" in caplog.text
    applied = found.apply(vectors)
    np.testing.assert_allclose(applied, vectors @ matrix_of(found).T, rtol=1e-5)
    np.testing.assert_allclose(applied, applied[:1].repeat(n_rows, 0), rtol=1e-5)
    np.testing.assert_allclose(matrix_of(found) @ matrix_of(found).T, np.eye(5), atol=1e-6)


# --- beside faiss ---


@pytest.mark.parametrize("random_rotation", [True, False])
def test_all_parts_are_those_that_faiss_trains(random_rotation):
    faiss_made = faiss.PCAMatrix(12, 5, 0, random_rotation)
    faiss_made.train(VECTORS)
    found = trained(VECTORS, random_rotation=random_rotation)
    assert type(found) is faiss.PCAMatrix
    for name in ("d_in", "d_out", "is_trained", "have_bias", "is_orthonormal", "eigen_power",
                 "epsilon", "random_rotation", "balanced_bins", "max_points_per_d"):  # fmt: skip
        assert getattr(found, name) == getattr(faiss_made, name), name
    for name, tolerance in (("mean", 1e-5), ("eigenvalues", 1e-3)):
        np.testing.assert_allclose(
            faiss.vector_to_array(getattr(found, name)),
            faiss.vector_to_array(getattr(faiss_made, name)),
            rtol=tolerance,
        )
    of_faiss, ours = (matrix_of(made) for made in (faiss_made, found))
    np.testing.assert_allclose(ours.T @ ours, of_faiss.T @ of_faiss, atol=1e-3)
    if not random_rotation:
        np.testing.assert_allclose(np.abs(ours), np.abs(of_faiss), atol=1e-3)


def test_the_rotation_is_that_of_faiss():
    plain, rotated = (matrix_of(trained(VECTORS, random_rotation=is_so)) for is_so in (False, True))
    rotation = faiss.RandomRotationMatrix(5, 5)
    rotation.init(5)
    expected = faiss.vector_to_array(rotation.A).reshape(5, 5)
    np.testing.assert_allclose(rotated @ plain.T, expected, atol=1e-5)


# --- which rows ---


@pytest.mark.parametrize(
    ("n_rows", "n_train"),
    [(400, 400), (400, 399), (400, 100), (400, 37), (400, 6), (33, 32), (19, 18), (16, 15)],
)
def test_rows_are_taken_evenly_from_the_whole_collection(small_blocks, n_rows, n_train):
    features = features_of(VECTORS[:n_rows])
    training_ = train_pca(features, 5, False, n_train)
    features.reads.clear()
    found = begun(training_)
    rows = sorted(set(rows_read(features)))
    assert len(rows) == n_train
    expected = PCA(n_components=5).fit(VECTORS[rows].astype(np.float64))
    assert subspace_angles(matrix_of(found).T, expected.components_.T).max() < 1e-4
    # A quarter of the collection gives a quarter of the sample, but for a run or two.
    for quarter in range(4):
        begin, end = (n_rows * number // 4 for number in (quarter, quarter + 1))
        n_found = sum(begin <= row < end for row in rows)
        assert abs(n_found - n_train / 4) <= 8


def test_every_class_of_a_sorted_collection_is_met(small_blocks):
    features = features_of(np.repeat(VECTORS[:40], 10, axis=0))
    training_ = train_pca(features, 5, False, max_train_rows=160)
    features.reads.clear()
    begun(training_)
    assert {row // 10 for row in rows_read(features)} == set(range(40))


@pytest.mark.parametrize("max_train_rows", [None, 400, 10**9])
def test_enough_rows_are_all_rows(max_train_rows):
    result = train_pca(features_of(VECTORS), 5, True, max_train_rows)
    assert result.provenance == train_pca(features_of(VECTORS), 5, True).provenance
    assert bytes_of(begun(result)) == bytes_of(trained(VECTORS, random_rotation=True))


def test_what_it_was_made_from_tells_one_from_another():
    other = VECTORS.copy()
    other[17, 3] += 1
    every = [
        train_pca(features_of(array), n_components, random_rotation, max_train_rows).provenance
        for array, n_components, random_rotation, max_train_rows in [
            (VECTORS, 5, True, None),
            (VECTORS, 6, True, None),
            (VECTORS, 5, False, None),
            (VECTORS, 5, True, 399),
            (VECTORS[:200], 5, True, None),
            (np.hstack([VECTORS, VECTORS[:, :1]]), 5, True, None),
            (other[:200], 5, True, None),
        ]
    ]
    assert all(every.count(provenance) == 1 for provenance in every)


# --- threads, interruptions, memory ---


def test_the_number_of_threads_changes_no_bit(monkeypatch):
    monkeypatch.setattr(training, "_BLOCK_ROWS", 300)
    vectors = correlated(2500, 203)
    results = []
    for of_faiss, of_blas in [(1, 1), (1, 2), (2, 1), (3, 2)]:
        with threads(of_faiss, of_blas):
            results.append(bytes_of(trained(vectors, 64, random_rotation=True)))
    assert len(set(results)) == 1


def test_threads_are_as_before_afterwards():
    def numbers():
        return faiss.omp_get_max_threads(), [pool["num_threads"] for pool in threadpool_info()]

    with threads(3, 2):
        before = numbers()
        trained(VECTORS)
        assert numbers() == before
        spoiled = VECTORS.copy()
        spoiled[1, 1] = np.nan
        with pytest.raises(ValueError, match="NaN"):
            trained(spoiled)
        assert numbers() == before


class Interrupted(MemoryFeatures):
    """Features of which a read from a row on fails, once training has begun."""

    stop_at = None

    def read(self, first, last):
        if self.stop_at is not None and last > self.stop_at:
            raise InterruptedError("stopped half-way")
        return super().read(first, last)


@pytest.mark.parametrize("n_train", [400, 131])
def test_a_training_continues_with_the_sums_it_has_kept(
    small_blocks, monkeypatch, tmp_path, caplog, n_train
):
    caplog.set_level("INFO", logger="lowshot_kedro")
    monkeypatch.setattr(training, "_SECONDS_BETWEEN_SAVES", 0)
    features = Interrupted(VECTORS, "f100m")
    result = train_pca(features, 5, True, n_train)
    expected = bytes_of(begun(result))
    reads = [len(features.reads)]
    for stop_at in (50, 200, 390):
        features.stop_at = stop_at
        with pytest.raises(InterruptedError):
            result.begin(tmp_path)
        # What a process leaves that is killed while it writes the sums.
        (tmp_path / ".partial-sums.npz").write_bytes(b"?")
        features.stop_at = None
        features.reads.clear()
    assert bytes_of(result.begin(tmp_path)) == expected
    assert rows_read(features)[0] > 250
    assert len(features.reads) < reads[0] / 3
    assert "PCA: continuing after block" in caplog.text


def test_sums_are_kept_once_a_minute_only(small_blocks, tmp_path):
    train_pca(features_of(VECTORS), 5, True).begin(tmp_path)
    assert list(tmp_path.iterdir()) == []


class Endless:
    """Rows that are made when they are read."""

    name = "f100m"
    n_rows, n_columns = 120_000, 256
    labels = None

    def read(self, first, last):
        rows = np.arange(first, last, dtype=np.float32)[:, None]
        return np.cos(rows * np.arange(1, self.n_columns + 1, dtype=np.float32))


def test_a_collection_is_never_held():
    result = train_pca(Endless(), 8, True)
    with threads(2, 1):
        tracemalloc.start()
        begun(result)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 0.5 * 4 * Endless.n_rows * Endless.n_columns


@pytest.mark.parametrize(("n_threads", "n_columns", "expected"), [
    (1, 2048, 1), (2, 2048, 2), (64, 2048, 6), (64, 100_000, 1), (64, 64, 64),
])  # fmt: skip
def test_many_threads_take_no_more_memory_than_is_said(n_threads, n_columns, expected):
    with threads(n_threads, 1):
        assert training._n_workers(n_columns) == expected


# --- what is said ---


def test_the_variance_kept_is_logged(caplog, reference):
    caplog.set_level(logging.INFO)
    trained(VECTORS, random_rotation=True)
    kept = reference.explained_variance_ratio_[:5].sum()
    assert f"PCA of 400 rows: 5 of 12 dimensions keep {100 * kept:.1f}%" in caplog.text


def test_fewer_columns_than_components():
    features = features_of(np.ones((400, 4)))
    with pytest.raises(ValueError, match="n_components: got 5, but f100m has only 4 columns"):
        train_pca(features, 5, True)
    assert features.reads == []


@pytest.mark.parametrize(("n_rows", "max_train_rows"), [(0, None), (1, None), (400, 1)])
def test_fewer_than_two_rows(n_rows, max_train_rows):
    features = features_of(np.ones((n_rows, 12)))
    message = f"f100m: got {min(n_rows, 1)} rows to train a PCA on, expected at least 2"
    with pytest.raises(ValueError, match=message):
        train_pca(features, 5, True, max_train_rows)
    assert features.reads == []


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [3, 123, 399])
def test_nan_is_named_by_its_row(small_blocks, bad, row):
    spoiled = VECTORS.copy()
    spoiled[row, 4] = bad
    with pytest.raises(ValueError, match=rf"f100m: .*1 row\(s\), numbers {row};"):
        trained(spoiled)


def test_nan_in_a_sample_is_named_by_its_row(small_blocks):
    spoiled = np.full((400, 12), np.nan, dtype=np.float32)
    with pytest.raises(ValueError, match=r"16 row\(s\), numbers 18, 19, 20, 21, 58, …"):
        trained(spoiled, max_train_rows=40)


def test_numbers_too_large_to_be_squared(small_blocks):
    large = VECTORS.copy()
    large[100, 2] = -1e25
    large[101, 2] = 1e22
    with pytest.raises(ValueError, match=r"f100m: row 100 holds -1e\+25"):
        trained(large)


def test_constant_columns_are_named_in_the_log_and_cost_nothing(caplog, small_blocks):
    vectors = np.insert(VECTORS, [0, 4, 12], [0, 0.1, 1e10], axis=1).astype(np.float32)
    found = trained(vectors)
    assert "f100m: 3 of 15 columns are constant" in caplog.text
    assert "add nothing: 0, 5, 14" in caplog.text
    without = matrix_of(trained(VECTORS))
    np.testing.assert_allclose(np.delete(matrix_of(found), [0, 5, 14], 1), without, atol=1e-5)
    np.testing.assert_allclose(matrix_of(found)[:, [0, 5, 14]], 0, atol=1e-12)


def test_fewer_columns_that_vary_than_components_are_all_kept(caplog):
    caplog.set_level(logging.INFO)
    vectors = np.ones((400, 30), dtype=np.float32)
    vectors[:, [1, 5, 7, 29]] = VECTORS[:, :4]
    found = trained(vectors)
    assert "26 of 30 columns are constant" in caplog.text
    assert "add nothing: 0, 2, 3, 4, 6, 8, 9, 10, 11, 12, …" in caplog.text
    assert "400 rows span 4 dimensions" in caplog.text
    np.testing.assert_allclose(pdist(found.apply(vectors)), pdist(VECTORS[:, :4]), rtol=1e-4)
