import faiss
import numpy as np
import pytest
from sklearn.decomposition import PCA

from lowshot_kedro.pca import spectrum_of, variance_kept
from tests.pca.making import correlated, trained

VECTORS = correlated()


@pytest.fixture(params=["ours", "of faiss"])
def transform(request):
    if request.param == "ours":
        return trained(VECTORS, random_rotation=True)
    made = faiss.PCAMatrix(12, 5, 0, True)
    made.train(VECTORS)
    return made


def test_the_part_kept_is_that_of_scikit_learn(transform):
    ratios = PCA().fit(VECTORS).explained_variance_ratio_
    assert variance_kept(transform) == pytest.approx(ratios[:5].sum(), rel=1e-3)
    spectrum = spectrum_of(transform)
    np.testing.assert_allclose(spectrum / spectrum.sum(), ratios, rtol=5e-3)


def test_a_transform_that_knows_of_no_variances():
    opq = faiss.OPQMatrix(12, 3, 6)
    untrained = faiss.PCAMatrix(12, 5)
    for transform in (opq, untrained):
        assert spectrum_of(transform).shape == (0,)
        assert variance_kept(transform) is None


def test_no_variance_at_all_is_no_number():
    made = faiss.PCAMatrix(4, 2)
    faiss.copy_array_to_vector(np.array([0, 0, -1e-9, 0], np.float32), made.eigenvalues)
    assert variance_kept(made) is None
