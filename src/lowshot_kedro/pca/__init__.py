"""Principal component analysis of feature vectors, as faiss transforms.

A collection is read block by block, for training and for applying, and never held. Both can be
stopped and continued, and give the same bits whatever the number of threads.
"""

from lowshot_kedro.pca.applying import apply_pca, apply_transform, describe_transform
from lowshot_kedro.pca.features import describe_features
from lowshot_kedro.pca.spectrum import spectrum_of, variance_kept
from lowshot_kedro.pca.training import train_pca

__all__ = [
    "apply_pca",
    "apply_transform",
    "describe_features",
    "describe_transform",
    "spectrum_of",
    "train_pca",
    "variance_kept",
]
