"""Nodes of the dimension reduction."""

from __future__ import annotations

from typing import Any

import faiss
from matplotlib.figure import Figure

from lowshot_kedro import pca as pca_domain
from lowshot_kedro import reporting
from lowshot_kedro.blocks import FeatureMatrix, Resumable
from lowshot_kedro.pca.parameters import PcaParameters


def train_pca(background_features: FeatureMatrix, pca: PcaParameters) -> Resumable[Any]:
    """A PCA of the background features, trained while it is saved."""
    return pca_domain.train_pca(
        background_features, pca.n_components, pca.random_rotation, pca.max_train_rows
    )


def plot_pca_spectrum(pca_transform: faiss.VectorTransform) -> Figure:
    """How the variance is spread over the directions, and how much of it is kept."""
    return reporting.plot_spectrum(pca_transform)


def apply_pca(
    pca_transform: faiss.VectorTransform, background_features: FeatureMatrix
) -> Resumable[Any]:
    """The background's vectors, computed while they are saved."""
    return pca_domain.apply_pca(pca_transform, background_features)
