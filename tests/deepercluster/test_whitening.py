from pathlib import Path

import faiss
import numpy as np
import pytest

from lowshot_kedro.deepercluster import fit_whitening
from lowshot_kedro.deepercluster.whitening import Whitening, aligned_rows, block_rows
from lowshot_kedro.errors import InputError
from tests.deepercluster.threaded import in_threads

REFERENCE = np.load(Path(__file__).with_name("whitening.npz"))
PARTS = ("mean", "projection", "variances")


def original_features():
    rs = np.random.RandomState(21)
    signal = rs.standard_normal((600, 24)) @ rs.standard_normal((24, 64))
    signal *= np.linspace(3, 0.1, 64)
    signal += rs.standard_normal(64)
    return (signal + 0.05 * rs.standard_normal((600, 64))).astype(np.float32)


X = original_features()


def plain(features, n_components):
    """The formula of the paper's code, in float64: whitened rows before they are normalised."""
    features = features.astype(np.float64)
    mean = features.mean(axis=0)
    values, vectors = np.linalg.eigh((features - mean).T @ (features - mean) / len(features))
    values = np.maximum(values, 1e-5 * values[-1])
    return (features - mean) @ (vectors / np.sqrt(values))[:, ::-1][:, :n_components]


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def gram(rows):
    return rows[:40].astype(np.float64) @ rows[:40].T.astype(np.float64)


def same(one, other):
    return all(np.array_equal(getattr(one, part), getattr(other, part)) for part in PARTS)


def test_reference_values_of_the_original():
    whitening = fit_whitening(X, 16)
    rows = whitening.apply(X)
    assert rows.dtype == np.float32
    assert rows.shape == (600, 16)
    np.testing.assert_allclose(whitening.mean, X.mean(axis=0, dtype=np.float64), atol=1e-14)
    np.testing.assert_allclose(whitening.mean, REFERENCE["pca_mean"], rtol=0, atol=2e-6)
    np.testing.assert_allclose(gram(rows), REFERENCE["pca16_gram"], rtol=0, atol=3e-7)
    before = (X - whitening.mean) @ whitening.projection.T
    lengths = np.linalg.norm(before[:40], axis=1)
    np.testing.assert_allclose(lengths, REFERENCE["pca16_featnorm"], rtol=1e-6)
    np.testing.assert_allclose(before.var(axis=0), REFERENCE["pca16_var"], rtol=1e-6)
    norms = np.linalg.norm(whitening.projection, axis=1)
    np.testing.assert_allclose(norms, REFERENCE["pca16_rownorm"], rtol=1e-5)
    axes = unit(whitening.projection)
    np.testing.assert_allclose(axes @ axes.T, np.eye(16), atol=1e-12)
    assert (np.take_along_axis(axes, np.abs(axes).argmax(1)[:, None], 1) > 0).all()


@pytest.mark.parametrize("n_components", [1, 24, 48, 64])
def test_directions_of_hardly_any_variance(n_components):
    """Of 24 dimensions and noise, variances below 10⁻⁵ of the largest count as that."""
    whitening = fit_whitening(X, n_components)
    expected = plain(X, n_components)
    np.testing.assert_allclose(gram(whitening.apply(X)), gram(unit(expected)), atol=3e-7)
    before = (X - whitening.mean) @ whitening.projection.T
    np.testing.assert_allclose(before.var(axis=0), expected.var(axis=0), rtol=1e-9)
    assert whitening.variances.shape == (n_components,)
    centred = X - X.mean(axis=0, dtype=np.float64)
    along = (centred @ unit(whitening.projection).T).var(axis=0)
    np.testing.assert_allclose(whitening.variances, along, rtol=1e-9)


def test_a_common_shift_costs_no_digits():
    """Multiples of 2⁻⁸ stay what they are in float32 when 30 000 is added."""
    rng = np.random.default_rng(0)
    features = np.round(rng.standard_normal((5000, 12)) * rng.uniform(0.1, 3, 12) * 256) / 256
    features = features.astype(np.float32)
    shift = np.float32(30_000)
    assert np.array_equal(features + shift - shift, features)
    near, far = fit_whitening(features, 12), fit_whitening(features + shift, 12)
    np.testing.assert_allclose(far.variances, near.variances, rtol=1e-12)
    np.testing.assert_allclose(far.projection, near.projection, rtol=0, atol=1e-10)
    np.testing.assert_allclose(far.apply(features + shift), near.apply(features), atol=2e-7)
    np.testing.assert_allclose(
        near.apply(features),
        unit(plain(features, 12))
        * np.sign((unit(plain(features, 12)) * near.apply(features)).sum(axis=0)),
        atol=3e-7,
    )


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6, 1e15])
def test_columns_of_any_scale(scale):
    scaled = X * np.geomspace(1, scale, 64, dtype=np.float32)
    rows = fit_whitening(scaled, 5).apply(scaled)
    np.testing.assert_allclose(gram(rows), gram(unit(plain(scaled, 5))), atol=1e-6)


def test_any_number_of_processes_and_threads_gives_the_same_bits(monkeypatch):
    rng = np.random.default_rng(1)
    features = (rng.standard_normal((3001, 33)) @ rng.standard_normal((33, 33)) + 7).astype("f4")
    alone = fit_whitening(features, 20)
    rows = alone.apply(features)
    monkeypatch.setattr(faiss, "omp_get_max_threads", lambda: 3)
    assert same(fit_whitening(features, 20), alone)
    assert np.array_equal(alone.apply(features), rows)
    for n_processes in (2, 3, 7):
        found = in_threads(
            n_processes, lambda processes: fit_whitening(features, 20, processes=processes)
        )
        assert all(same(each, alone) for each in found)


@pytest.mark.parametrize("n_rows", [2, 15, 16, 17, 33, 5000, 70_000])
def test_shares_are_of_whole_blocks(n_rows):
    class Ranks:
        n_processes = 3

        def __init__(self, rank):
            self.rank = rank

    shares = [aligned_rows(n_rows, Ranks(rank)) for rank in range(3)]
    assert [row for share in shares for row in share] == list(range(n_rows))
    assert all(share.start % block_rows(n_rows) == 0 for share in shares if len(share))
    assert max(map(len, shares)) - min(map(len, shares)) < 2 * block_rows(n_rows)
    assert len(shares[0]) > 0


def test_fewer_rows_than_processes():
    features = X[:5]
    alone = fit_whitening(features, 3)
    found = in_threads(4, lambda processes: fit_whitening(features, 3, processes=processes))
    assert all(same(each, alone) for each in found)


def test_the_mean_becomes_zero_and_not_nan():
    features = np.array([[1, 2], [3, 6], [2, 4], [5, 1], [-1, 7]], np.float32)
    whitening = fit_whitening(features, 2)
    assert whitening.apply(whitening.mean[None]).tolist() == [[0, 0]]
    lengths = np.linalg.norm(whitening.apply(features), axis=1)
    assert np.allclose(lengths, [0 if (row == [2, 4]).all() else 1 for row in features])
    assert whitening.apply(np.empty((0, 2))).shape == (0, 2)


def test_constant_columns_and_one_that_is_repeated():
    features = np.column_stack([X[:, 0], np.full(600, 0.1, np.float32), X[:, 0], X[:, 1]])
    rows = fit_whitening(features, 2).apply(features)
    np.testing.assert_allclose(gram(rows), gram(unit(plain(features, 2))), atol=1e-6)


@pytest.mark.parametrize(
    ("features", "n_components", "message"),
    [
        (X, 65, "n_components: got 65, expected an integer from 1 to 64"),
        (X, 0, "n_components: got 0, expected an integer from 1 to 64"),
        (X[:1], 2, "features: got 1 rows to whiten, expected at least 2"),
        (np.tile(X[:1], (9, 1)), 2, "features: all rows are equal, expected some that differ"),
        (X[0], 2, "features: got 'float32 (64,)', expected a matrix of numbers"),
        (np.where(np.arange(600)[:, None] == 77, np.nan, X), 2, "NaN or infinity in row 77,"),
        (np.where(np.arange(600)[:, None] == 3, np.inf, X), 2, "NaN or infinity in row 3,"),
    ],
)
def test_what_is_refused(features, n_components, message):
    with pytest.raises(InputError) as caught:
        fit_whitening(features, n_components)
    assert message in str(caught.value)


def test_refused_when_applied_or_in_several_processes():
    whitening = fit_whitening(X, 3)
    with pytest.raises(InputError, match="got 63 columns, expected 64"):
        whitening.apply(X[:, 1:])
    with pytest.raises(InputError, match="numbers 1001"):
        whitening.apply(np.where(np.arange(1200)[:, None] == 1001, np.nan, np.tile(X, (2, 1))))
    with pytest.raises(InputError, match="different ones in the processes"):
        in_threads(2, lambda processes: fit_whitening(X[processes.rank :], 3, processes=processes))


def test_all_processes_refuse_a_row_that_one_of_them_reads():
    bad = np.where(np.arange(600)[:, None] == 599, np.nan, X)

    def refused(processes):
        with pytest.raises(InputError, match="NaN or infinity in row 599,"):
            fit_whitening(bad, 3, processes=processes)
        return True

    assert in_threads(3, refused) == [True] * 3


def test_features_that_differ_by_rounding_are_named(caplog):
    noise = np.random.default_rng(0).uniform(-1e-7, 1e-7, (50, 3))
    fit_whitening((1 + noise).astype(np.float32), 2)
    assert "differ by rounding alone" in caplog.text


def test_saved_and_loaded(tmp_path):
    whitening, path = fit_whitening(X, 5), tmp_path / "whitening.npz"
    whitening.save(path)
    assert [each.name for each in tmp_path.iterdir()] == ["whitening.npz"]
    assert same(Whitening.load(path), whitening)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match="not a readable whitening"):
        Whitening.load(path)
    np.savez(path, mean=np.zeros(3), projection=np.zeros((2, 2)), variances=np.zeros(2))
    with pytest.raises(InputError, match="do not fit together"):
        Whitening.load(path)
    with pytest.raises(FileNotFoundError):
        Whitening.load(tmp_path / "none.npz")
