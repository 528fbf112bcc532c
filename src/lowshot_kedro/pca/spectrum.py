"""How the variance is spread over the directions of a PCA."""

from __future__ import annotations

import faiss
import numpy as np
from numpy.typing import NDArray


def spectrum_of(transform: faiss.VectorTransform) -> NDArray[np.float64]:
    """Variances along all directions, largest first, times a common factor.

    Returns:
        float64 (transform.d_in,); as faiss trains it on fewer rows than columns, fewer. Empty for a
        transform that knows of none, such as an OPQ.
    """
    if not isinstance(transform, faiss.PCAMatrix):
        return np.empty(0)
    # Rounding makes some of those that are 0 negative.
    return np.maximum(faiss.vector_to_array(transform.eigenvalues).astype(np.float64), 0)


def variance_kept(transform: faiss.VectorTransform) -> float | None:
    """The part of the variance that a transform keeps; None where its spectrum is not known."""
    variances = spectrum_of(transform)
    total = float(variances.sum())
    return float(variances[: transform.d_out].sum()) / total if total > 0 else None
