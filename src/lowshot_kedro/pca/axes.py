"""Principal axes, the same in every run."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import linalg


def principal_axes(
    products: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eigenvalues and eigenvectors of products of columns.

    Args:
        products: float64 (d, d), symmetric, in row order. It is used up.

    Returns:
        Eigenvalues float64 (d,), the largest first, and eigenvectors as rows, float64 (d, d). An
        eigenvector is one up to its sign: its largest entry is positive here. In memory: twice
        the products.
    """
    # A transposed symmetric matrix is the same, and in the order of Fortran needs no copy.
    values, vectors = linalg.eigh(products.T, driver="evd", overwrite_a=True, check_finite=False)
    values, axes = values[::-1], vectors.T[::-1]
    largest = np.abs(axes).argmax(axis=1)
    axes *= np.sign(np.take_along_axis(axes, largest[:, None], axis=1))
    return values, axes
