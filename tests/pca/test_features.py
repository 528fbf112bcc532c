import numpy as np
import pytest

from lowshot_kedro.pca import describe_features
from tests.pca.making import correlated, features_of

VECTORS = correlated(200)


def test_equal_features_are_described_alike():
    assert describe_features(features_of(VECTORS)) == describe_features(features_of(VECTORS.copy()))


@pytest.mark.parametrize("row", [0, 99, 199])
def test_a_number_that_differs_shows(row):
    other = VECTORS.copy()
    other[row, 3] = np.nextafter(other[row, 3], np.float32(np.inf))
    assert describe_features(features_of(other)) != describe_features(features_of(VECTORS))


@pytest.mark.parametrize("other", [VECTORS[:-1], VECTORS[:, :-1], VECTORS.reshape(400, 6)])
def test_other_sizes_show(other):
    assert describe_features(features_of(other)) != describe_features(features_of(VECTORS))


def test_few_rows_of_a_large_collection_are_read():
    features = features_of(np.zeros((100_000, 2)))
    describe_features(features)
    assert sum(last - first for first, last in features.reads) == 256
    assert features.reads[-1][0] > 99_000


def test_a_collection_without_rows():
    assert describe_features(features_of(np.empty((0, 7)))) == {
        "n_rows": 0, "n_columns": 7, "checksum": "00000000",
    }  # fmt: skip
