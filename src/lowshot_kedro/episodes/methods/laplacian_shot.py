"""Rectified prototypes, and neighbours that agree."""

from __future__ import annotations

from types import MappingProxyType

from lowshot_kedro.episodes.methods.easyfsl_method import UNIT_LENGTH, EasyFSLMethod


class LaplacianShotMethod(EasyFSLMethod):
    """BD-CSPN's prototypes, and a Laplacian that lets near query images have the same class.

    easyfsl counts a query image among its own `knn` neighbours: 3 means 2 others.
    """

    name = "laplacian_shot"
    title = "LaplacianShot"
    is_transductive = True
    source = (
        "I. M. Ziko, J. Dolz, E. Granger and I. Ben Ayed, Laplacian Regularized Few-Shot "
        "Learning, ICML 2020; easyfsl"
    )
    classifier = "LaplacianShot"
    settings = MappingProxyType(
        {
            **UNIT_LENGTH,
            "inference_steps": 10,
            "knn": 3,
            "lambda_regularization": 0.1,
        }
    )
