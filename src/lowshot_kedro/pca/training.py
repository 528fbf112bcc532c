"""A PCA of a collection that need not fit in memory."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import faiss
import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from threadpoolctl import threadpool_limits

from lowshot_kedro.blocks import FeatureMatrix, Resumable, require_finite, row_ranges
from lowshot_kedro.disk import whole_file
from lowshot_kedro.errors import InputError
from lowshot_kedro.pca.axes import principal_axes
from lowshot_kedro.pca.features import describe_features
from lowshot_kedro.pca.spectrum import variance_kept
from lowshot_kedro.progress import Progress, Stopwatch, logged_step
from lowshot_kedro.threads import map_in_threads, prefetch, run_in_one_thread

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")
Range = tuple[int, int]

# Rows of a product.
_BLOCK_ROWS = 4096
# Consecutive rows of a sample: many enough to be read fast, few enough to meet many classes.
_RUN_ROWS = 256
# What the blocks at work may take together: six at 2048 columns.
_MAX_BLOCK_BYTES = 2**29
_SECONDS_BETWEEN_SAVES = 60
_SHOWN_COLUMNS = 10
_SEED = 7
# The part of its length by which features of the same image differ from batch to batch.
_ROUNDING = 1e-6


def train_pca(
    features: FeatureMatrix,
    n_components: int,
    random_rotation: bool,
    max_train_rows: int | None = None,
) -> Resumable[faiss.PCAMatrix]:
    """Fit a PCA to a collection, while it is saved.

    The products of the columns are taken in float32 for each block of 4096 rows, summed over the
    blocks in float64, and decomposed in float64. Columns are shifted by the mean of the first
    block, so that means far from zero cost no digits. Of 2048 columns with a spectrum like that of
    a network, the eigenvalues kept are right to 10⁻⁶ of each. Products in float64 would take twice
    the time; float32 throughout, as in faiss' own training, is right to 10⁻².

    No more rows than components span fewer dimensions. Their products are taken in float64, all
    directions that they span are kept, and with them all distances among them; the other directions
    are drawn at random, always the same, orthogonal to these and to each other, so that of other
    rows a random projection of what these lack is kept. The same happens where few columns vary.
    Rows that are equal but for rounding are not centred.

    Args:
        features: The collection.
        n_components: Dimension of the result.
        random_rotation: Rotate the components at random, which balances their variances. The
            rotation is that of faiss, always the same.
        max_train_rows: How many rows are used at most, evenly spread over the collection; None:
            all.

    Returns:
        A trained faiss.PCAMatrix. In memory: the covariance three times in float64, half a
        gigabyte of blocks or one of them, and two that are read ahead. Once a minute the sums are
        kept on disk.

    Raises:
        ValueError: For fewer columns than components, or fewer than two rows; when the work begins,
            for NaN or infinity.
    """
    n_train = features.n_rows if max_train_rows is None else min(features.n_rows, max_train_rows)
    if features.n_columns < n_components:
        raise InputError(
            f"but {features.name} has only {features.n_columns} columns to train on",
            parameter="n_components",
            found=n_components,
            expected=f"at most {features.n_columns}",
        )
    if n_train < 2:
        raise InputError(
            f"{features.name}: got {n_train} rows to train a PCA on, expected at least 2"
        )
    # Centring takes a dimension: n rows span n - 1. Few rows cost little in float64.
    dtype = np.float64 if n_train <= n_components else np.float32

    def begin(folder: Path) -> faiss.PCAMatrix:
        n_workers = _n_workers(features.n_columns)
        # What a BLAS library spreads over threads is rounded differently for every number of them.
        with threadpool_limits(1, user_api="blas"):
            with logged_step("PCA: products"):
                sums = _sums_over(features, n_train, n_workers, dtype, folder / "sums.npz")
            _log_constant_columns(sums.products.diagonal(), features.name)
            with logged_step("PCA: eigenvectors"):
                pca = _pca_of(sums, n_train, n_components, random_rotation)
        kept = variance_kept(pca)
        logger.info(
            "PCA of %d rows: %d of %d dimensions keep %s",
            n_train,
            n_components,
            features.n_columns,
            f"{kept:.1%} of the variance" if kept is not None else "nothing: all rows are equal",
        )
        return pca

    provenance = {
        "kind": "pca",
        "n_components": n_components,
        "random_rotation": random_rotation,
        "train_rows": n_train,
        "features": describe_features(features),
    }
    return Resumable(provenance, begin)


def _n_workers(n_columns: int) -> int:
    """Blocks at work at a time: as many as faiss has threads, and memory allows."""
    # A block, the same shifted, and its products.
    block_bytes = 4 * n_columns * (2 * _BLOCK_ROWS + n_columns)
    return max(1, min(faiss.omp_get_max_threads(), _MAX_BLOCK_BYTES // block_bytes))


def _training_blocks(n_rows: int, n_train: int) -> list[list[Range]]:
    """Ranges of the rows to train on, some for each block.

    A collection is often sorted by class, so that a part of it is taken in short runs.
    """
    if n_train == n_rows:
        return [[rows] for rows in row_ranges(n_rows, _BLOCK_ROWS)]
    runs = list(row_ranges(n_train, _RUN_ROWS))
    n_left_out = n_rows - n_train
    spread = []
    for number, (first, last) in enumerate(runs):
        left_out = (2 * number + 1) * n_left_out // (2 * len(runs))
        spread.append((first + left_out, last + left_out))
    return [spread[first:last] for first, last in row_ranges(len(runs), _BLOCK_ROWS // _RUN_ROWS)]


class _Block(NamedTuple):
    """Some rows of a collection: their numbers int64 (m,), and float32 (m, d)."""

    rows: NDArray[np.int64]
    features: NDArray[np.float32]


def _read(features: FeatureMatrix, ranges: Sequence[Range]) -> _Block:
    parts = [features.read(first, last) for first, last in ranges]
    return _Block(
        np.concatenate([np.arange(first, last) for first, last in ranges]),
        parts[0] if len(parts) == 1 else np.concatenate(parts),
    )


class _BlockSums(NamedTuple):
    """Of m shifted rows: their number, their sum float64 (d,), their products (d, d)."""

    n_rows: int
    sum: NDArray[np.float64]
    products: NDArray[np.floating[Any]]


@dataclass
class _Sums:
    """All that a PCA follows from.

    Attributes:
        shift: float32 (d,), subtracted from every row.
        n_blocks: Blocks that are in the sums.
        sum: float64 (d,), of the shifted rows.
        products: float64 (d, d), of the columns of the shifted rows with each other.
    """

    shift: NDArray[np.float32]
    n_blocks: int
    sum: NDArray[np.float64]
    products: NDArray[np.float64]

    def add(self, block: _BlockSums) -> None:
        """One block more."""
        self.sum += block.sum
        self.products += block.products
        self.n_blocks += 1

    def save(self, path: Path) -> None:
        """Write a file that is whole or not there."""
        with whole_file(path) as file:
            np.savez(file, **vars(self))

    @classmethod
    def load(cls, path: Path) -> _Sums:
        """What :meth:`save` has written."""
        with np.load(path) as saved:
            return cls(saved["shift"], int(saved["n_blocks"]), saved["sum"], saved["products"])


def _sums_over(
    features: FeatureMatrix, n_train: int, n_workers: int, dtype: type[np.floating[Any]], path: Path
) -> _Sums:
    """The sums over all rows to train on.

    Args:
        features: The collection.
        n_train: How many of its rows.
        n_workers: Blocks at work at a time.
        dtype: In which the products of a block are taken.
        path: Where the sums are kept once a minute, and where those of an earlier run may be.
    """
    blocks = _training_blocks(features.n_rows, n_train)
    if path.is_file():
        sums = _Sums.load(path)
        logger.info("PCA: continuing after block %d of %d", sums.n_blocks, len(blocks))
    else:
        sums = _no_sums(_read(features, blocks[0]), features.name)
    done = sum(last - first for ranges in blocks[: sums.n_blocks] for first, last in ranges)
    missing = (_read(features, ranges) for ranges in blocks[sums.n_blocks :])
    summed = partial(_block_sums, sums.shift.astype(dtype), features.name)
    since_save = Stopwatch()
    with (
        Progress(n_train, "PCA: products", done) as bar,
        closing(prefetch(missing, depth=1)) as read,
        closing(map_in_threads(summed, read, 0, n_workers)) as results,
    ):
        for result in results:
            sums.add(result)
            bar.update(result.n_rows)
            if since_save.seconds >= _SECONDS_BETWEEN_SAVES:
                sums.save(path)
                since_save = Stopwatch()
    return sums


def _no_sums(first: _Block, name: str) -> _Sums:
    """Before the first block, which gives the shift.

    Raises:
        ValueError: For NaN or infinity.
    """
    require_finite(first.features, first.rows, name)
    shift = first.features.mean(axis=0, dtype=np.float64).astype(np.float32)
    return _Sums(shift, 0, np.zeros(len(shift)), np.zeros((len(shift), len(shift))))


def _block_sums(shift: NDArray[np.floating[Any]], name: str, block: _Block) -> _BlockSums:
    """The sums over one block, whose products are of the type of the shift.

    Raises:
        ValueError: For NaN or infinity, and for numbers whose squares are infinite.
    """
    # What overflows is noticed below.
    with np.errstate(over="ignore", invalid="ignore"):
        shifted = block.features - shift
        products = shifted.T @ shifted
        squares = products.diagonal().astype(np.float32)
    # Whatever is not finite, its square is not either.
    if not np.isfinite(squares).all():
        require_finite(block.features, block.rows, name)
        row, column = np.unravel_index(np.abs(block.features).argmax(), block.features.shape)
        raise InputError(
            f"{name}: row {block.rows[row]} holds {block.features[row, column]:.2g}; expected "
            "numbers whose squares fit float32"
        )
    return _BlockSums(len(shifted), shifted.sum(axis=0, dtype=np.float64), products)


def _log_constant_columns(sums_of_squares: NDArray[np.float64], name: str) -> None:
    """Name columns that never vary: all numbers of such a one are equal to their mean."""
    constant = np.flatnonzero(sums_of_squares == 0)
    if len(constant):
        numbers = ", ".join(map(str, constant[:_SHOWN_COLUMNS]))
        logger.info(
            "%s: %d of %d columns are constant in the rows to train on, and add nothing: %s%s",
            name,
            len(constant),
            len(sums_of_squares),
            numbers,
            ", …" if len(constant) > _SHOWN_COLUMNS else "",
        )


def _pca_of(sums: _Sums, n_rows: int, n_components: int, random_rotation: bool) -> faiss.PCAMatrix:
    """The PCA that follows from the sums, which are used up."""
    shifted_mean = sums.sum / n_rows
    mean = sums.shift + shifted_mean
    length = linalg.norm(mean[sums.products.diagonal() > 0])
    sums.products -= np.outer(shifted_mean, sums.sum)
    variances, directions = principal_axes(sums.products)
    n_spanned = int((variances > variances[0] * len(mean) * np.finfo(np.float64).eps).sum())
    if variances[0] <= n_rows * (_ROUNDING * length) ** 2:
        # Centred, nothing but rounding would be left of equal rows.
        n_spanned, variances, mean = 0, np.zeros_like(variances), np.zeros_like(mean)
    if n_spanned < n_components:
        logger.info(
            "PCA: %d rows span %d dimensions, all of which are kept; the other %d of %d components "
            "are random directions",
            n_rows,
            n_spanned,
            n_components - n_spanned,
            n_components,
        )
        directions[n_spanned:] = _random_basis(directions[n_spanned:])

    pca = faiss.PCAMatrix(len(mean), n_components, 0, random_rotation)
    # Faiss does not divide the variances by the number of rows.
    _fill(pca.eigenvalues, np.maximum(variances, 0))
    _fill(pca.mean, mean)
    _fill(pca.PCAMat, directions)
    run_in_one_thread(pca.prepare_Ab)
    # Faiss adds up the offset in float32, which costs digits where means are far from zero.
    matrix = faiss.vector_to_array(pca.A).reshape(n_components, len(mean))
    _fill(pca.b, -(matrix.astype(np.float64) @ mean))
    pca.is_trained = True
    return pca


def _random_basis(directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Another orthonormal basis of the space of some directions, which only that space decides.

    Directions without variance are up to rounding, and differ from processor to processor; what
    Gram and Schmidt make of the projections of given vectors into their space does not.

    Args:
        directions: float64 (m, d), orthonormal.

    Returns:
        float64 (m, d).
    """
    given = np.random.default_rng(_SEED).standard_normal(directions.shape)
    basis, upper = linalg.qr(directions @ given.T, overwrite_a=True, check_finite=False)
    basis *= np.sign(upper.diagonal())
    result: NDArray[np.float64] = basis.T @ directions
    return result


def _fill(vector: faiss.Float32Vector, values: NDArray[np.float64]) -> None:
    """Put numbers into a vector of faiss, in row order."""
    faiss.copy_array_to_vector(np.ascontiguousarray(values, np.float32).ravel(), vector)
