"""What the tests of the PCA share: features with a known spectrum, and a transform of them."""

import tempfile
from pathlib import Path

import faiss
import numpy as np

from lowshot_kedro.pca import train_pca
from tests.features import MemoryFeatures


def features_of(array):
    return MemoryFeatures(array, "f100m")


def correlated(n_rows=400, n_columns=12, seed=0):
    """Vectors around a centre, with a spectrum that falls fast."""
    rng = np.random.default_rng(seed)
    scales = 10.0 * 0.7 ** np.arange(n_columns)
    rotation = np.linalg.qr(rng.standard_normal((n_columns, n_columns)))[0]
    vectors = (rng.standard_normal((n_rows, n_columns)) * scales) @ rotation
    return (vectors + rng.random(n_columns)).astype(np.float32)


def begun(training):
    """What a training gives that nothing stops."""
    with tempfile.TemporaryDirectory() as folder:
        return training.begin(Path(folder))


def trained(array, n_components=5, random_rotation=False, max_train_rows=None):
    return begun(train_pca(features_of(array), n_components, random_rotation, max_train_rows))


def matrix_of(transform):
    return faiss.vector_to_array(transform.A).reshape(transform.d_out, transform.d_in)


def bytes_of(transform):
    writer = faiss.VectorIOWriter()
    faiss.write_VectorTransform(transform, writer)
    return faiss.vector_to_array(writer.data).tobytes()
