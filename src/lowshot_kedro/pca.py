"""Principal component analysis of feature vectors, as faiss transforms."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lowshot_kedro.errors import InputError
from lowshot_kedro.matrices import Blocks, FeatureMatrix, require_finite, row_ranges
from lowshot_kedro.parallel import map_rows, run_in_one_thread

logger = logging.getLogger(__name__)

_BLOCK_ROWS = 16384


def train_pca(
    features: FeatureMatrix, n_components: int, random_rotation: bool, max_train_rows: int
) -> faiss.VectorTransform:
    """Fit a PCA on the first rows of a collection.

    Args:
        features: The collection.
        n_components: Dimension of the result.
        random_rotation: Rotate the components at random, which balances their variances.
        max_train_rows: How many of the first rows are used at most.

    Returns:
        A trained faiss.PCAMatrix. In memory: the training rows twice.

    Raises:
        ValueError: For fewer columns than components, no more rows than components, or NaN.
    """
    n_train = min(features.n_rows, max_train_rows)
    # Centring takes a dimension: n rows span n - 1.
    for what, n_found, n_needed in (
        ("columns", features.n_columns, n_components),
        ("rows", n_train, n_components + 1),
    ):
        if n_found < n_needed:
            raise InputError(
                f"pca.n_components: got {n_components}, but {features.name} has only {n_found} "
                f"{what} to train on; expected at least {n_needed}"
            )
    training = np.empty((n_train, features.n_columns), dtype=np.float32)
    for first, last in row_ranges(n_train, _BLOCK_ROWS):
        training[first:last] = features.read(first, last)
        require_finite(training[first:last], np.arange(first, last), features.name)
    pca = faiss.PCAMatrix(features.n_columns, n_components, 0, random_rotation)
    run_in_one_thread(pca.train, training)
    spectrum = np.maximum(faiss.vector_to_array(pca.eigenvalues), 0)
    logger.info(
        "PCA of %d rows: %d of %d dimensions keep %.1f%% of the variance",
        n_train,
        n_components,
        features.n_columns,
        100 * spectrum[:n_components].sum() / max(spectrum.sum(), np.finfo(np.float32).tiny),
    )
    return pca


def apply_transform(
    transform: faiss.VectorTransform, block: NDArray[np.float32], name: str
) -> NDArray[np.float32]:
    """Transform a block of rows.

    Args:
        transform: From float32 (m, transform.d_in) to float32 (m, transform.d_out).
        block: The rows.
        name: What an error message calls them.

    Raises:
        ValueError: If the dimensions differ.
    """
    if block.shape[1] != transform.d_in:
        raise InputError(
            f"{name}: {block.shape[1]} columns, but pca_transform expects {transform.d_in}"
        )
    if len(block) == 0:
        return np.empty((0, transform.d_out), dtype=np.float32)
    return np.concatenate(map_rows(transform.apply, np.ascontiguousarray(block)))


def apply_pca(
    transform: faiss.VectorTransform, features: FeatureMatrix
) -> Blocks[NDArray[np.float32]]:
    """Transform all rows of a collection, block by block.

    Args:
        transform: A trained transform.
        features: The collection.

    Returns:
        Blocks of float32 (m, transform.d_out). In memory: one block before and after.

    Raises:
        ValueError: If the dimensions differ; when consumed, for NaN.
    """
    apply_transform(transform, np.empty((0, features.n_columns), dtype=np.float32), features.name)

    def blocks() -> Iterator[NDArray[np.float32]]:
        with tqdm(total=features.n_rows, unit="row", desc="apply PCA", disable=None) as bar:
            for first, last in row_ranges(features.n_rows, _BLOCK_ROWS):
                block: NDArray[Any] = features.read(first, last)
                require_finite(block, np.arange(first, last), features.name)
                yield apply_transform(transform, block, features.name)
                bar.update(last - first)

    return Blocks(n_rows=features.n_rows, n_columns=transform.d_out, make=blocks)
