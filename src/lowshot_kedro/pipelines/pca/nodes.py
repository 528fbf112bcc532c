"""Nodes of the dimension reduction."""

from __future__ import annotations

import faiss
import numpy as np
from numpy.typing import NDArray

from lowshot_kedro import pca as pca_domain
from lowshot_kedro.matrices import Blocks, FeatureMatrix
from lowshot_kedro.parameters import PcaParameters


def train_pca(background_features: FeatureMatrix, pca: PcaParameters) -> faiss.VectorTransform:
    """A PCA of the background features."""
    return pca_domain.train_pca(
        background_features, pca.n_components, pca.random_rotation, pca.max_train_rows
    )


def apply_pca(
    pca_transform: faiss.VectorTransform, background_features: FeatureMatrix
) -> Blocks[NDArray[np.float32]]:
    """The background's vectors, computed while they are saved."""
    return pca_domain.apply_pca(pca_transform, background_features)
