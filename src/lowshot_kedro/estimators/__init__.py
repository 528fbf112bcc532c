"""Semi-supervised classifiers in the manner of scikit-learn, without Kedro.

They are transductive and inductive at once: `fit` labels the unlabelled rows that it is given,
`predict` new ones.
"""

from lowshot_kedro.estimators.label_diffusion import LabelDiffusion

__all__ = ["LabelDiffusion"]
