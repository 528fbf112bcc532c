"""Classifiers in the manner of scikit-learn, without Kedro."""

from lowshot_kedro.estimators.label_diffusion import LabelDiffusion

__all__ = ["LabelDiffusion"]
