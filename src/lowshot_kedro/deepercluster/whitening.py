"""PCA whitening of features that no process has all of."""

from __future__ import annotations

import logging
import math
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import faiss
import numpy as np
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits

from lowshot_kedro.blocks import require_finite, row_ranges
from lowshot_kedro.deepercluster.feature_files import stoppable_loop
from lowshot_kedro.deepercluster.lloyd import of_all, processes_or_default, require_same
from lowshot_kedro.deepercluster.rows import ArrayRows, as_matrix
from lowshot_kedro.disk import whole_file
from lowshot_kedro.errors import InputError, shown_line
from lowshot_kedro.parameters import require_integer
from lowshot_kedro.pca.axes import principal_axes
from lowshot_kedro.progress import Progress, logged_step
from lowshot_kedro.threads import map_in_threads
from lowshot_kedro.training.processes import Processes

logger = logging.getLogger(__name__)

# Variances below this part of the largest one are raised to it.
_MIN_PART = 1e-5
# The part of its length by which features of the same image differ from batch to batch.
_ROUNDING = 1e-6
_MIN_BLOCK_ROWS, _MAX_BLOCK_ROWS = 16, 1024
# Blocks in a collection, so that each of several processes gets as many rows as the others.
_N_BLOCKS = 64
_APPLIED_ROWS = 1024
_MEMORY_BYTES = 2**30
# A sum of integers has to stay below 2^63.
_BITS = 61

_Matrix = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False, repr=False)
class Whitening:
    """A rotation after which features vary alike in every direction, and their unit length.

    Attributes:
        mean: float64 (d,), of the features that it follows from.
        projection: float64 (n_components, d): directions of the largest variance, each divided by
            its standard deviation. Variances below 10⁻⁵ of the largest count as that.
        variances: float64 (n_components,), of the features in these directions, largest first.
    """

    mean: NDArray[np.float64]
    projection: NDArray[np.float64]
    variances: NDArray[np.float64]

    def __repr__(self) -> str:
        return f"Whitening({len(self.mean)} numbers to {self.n_components})"

    @property
    def n_components(self) -> int:
        """Numbers of a whitened row."""
        return len(self.projection)

    def apply(self, features: ArrayLike) -> NDArray[np.float32]:
        """Whiten rows and scale them to unit length.

        Args:
            features: (n, d), in memory or a memmap. Whatever the number of threads, the same rows
                give the same bits.

        Returns:
            float32 (n, n_components). What is zero when whitened stays zero. In memory besides: for
            each thread 1024 rows in float64 before and after.

        Raises:
            InputError: For another number of columns, NaN or infinity.
        """
        matrix = as_matrix(features)
        if matrix.shape[1] != len(self.mean):
            raise InputError(
                f"features: got {matrix.shape[1]} columns, expected {len(self.mean)} as the "
                "whitening has"
            )
        result = np.empty((len(matrix), self.n_components), np.float32)

        def apply_to(rows: tuple[int, int]) -> None:
            first, last = rows
            result[first:last] = self.apply_to_block(matrix[first:last], first)

        ranges = row_ranges(len(matrix), _APPLIED_ROWS)
        with one_thread_for_products(), closing(map_in_threads(apply_to, ranges)) as done:
            for _ in done:
                pass
        return result

    def apply_to_block(self, block: _Matrix, first: int = 0) -> NDArray[np.float32]:
        """:meth:`apply` in this thread alone.

        Args:
            block: (m, d), rows that fit in memory in float64. A matrix product rounds a row in
                another way in a block of another size.
            first: The number of the first row, for an error message.
        """
        whitened = (block - self.mean) @ self.projection.T
        lengths = np.sqrt(np.einsum("ij,ij->i", whitened, whitened))
        if not np.isfinite(lengths).all():
            numbers = np.arange(first, first + len(block))
            require_finite(block, numbers, "features")
            require_finite(whitened, numbers, "whitened features")
        whitened /= np.where(lengths > 0, lengths, 1)[:, None]
        return whitened.astype(np.float32)

    def save(self, path: Path) -> None:
        """Write a file of NumPy's (.npz) that is whole or not there."""
        with whole_file(path) as file:
            np.savez(file, mean=self.mean, projection=self.projection, variances=self.variances)

    @classmethod
    def load(cls, path: Path) -> Whitening:
        """Read what :meth:`save` has written.

        Raises:
            FileNotFoundError: If there is no such file.
            InputError: If it holds something else, or is damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as saved:
                found = cls(*(saved[name] for name in ("mean", "projection", "variances")))
        except FileNotFoundError:
            raise
        except (OSError, EOFError, KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
            raise InputError(
                f"{path}: not a readable whitening ({shown_line(str(error))})"
            ) from error
        shape = (len(found.variances), len(found.mean)) if found.mean.ndim == 1 else None
        if found.projection.shape != shape:
            raise InputError(f"{path}: not a readable whitening (its parts do not fit together)")
        return found


def fit_whitening(
    features: ArrayLike, n_components: int, *, processes: Processes | None = None
) -> Whitening:
    """PCA whitening as DeeperCluster's: of the largest variances, none below 10⁻⁵ of the largest.

    Rows and their products are summed over all processes; each sums a part of the rows and none
    has more. Sums are of integers: the products of a block of rows, in float64, are rounded to a
    multiple of a number that follows from the range of each column and the number of rows. So
    the result has the same bits for any number of threads and processes; the error is that of
    float64. Columns are shifted by the mean of the first block of rows, so that means far from zero
    cost no digits.

    Args:
        features: (n, d), in memory or a memmap; the same in all processes.
        n_components: Dimensions to keep.
        processes: Those that work together, all of which call this; None: those of
            torch.distributed's default group, or this one alone.

    Returns:
        The whitening. In memory: three (d, d) matrices in float64, and up to a gigabyte of blocks
        and their products, or one of them.

    Raises:
        InputError: For more components than columns, fewer than two rows, rows that are all equal,
            NaN or infinity, and where processes were given different features.
    """
    processes = processes_or_default(processes)
    matrix = as_matrix(features)
    require_same(matrix, n_components, processes)
    rows = aligned_rows(len(matrix), processes)
    # Digits that float32 has no room for count, where they are given.
    is_single = matrix.dtype == np.float32
    part = ArrayRows(matrix, rows.start, rows.stop) if is_single else _Part(matrix, rows)
    return whitening_of(part, rows, len(matrix), n_components, processes)


class ReadableRows(Protocol):
    """Rows of which some can be read."""

    @property
    def n_columns(self) -> int:
        """Numbers of a row."""
        ...

    def read(self, first: int, last: int) -> _Matrix:
        """Rows first..last-1."""
        ...


class _Part(NamedTuple):
    """Some rows of a matrix."""

    matrix: _Matrix
    rows: range

    @property
    def n_columns(self) -> int:
        """Numbers of a row."""
        return int(self.matrix.shape[1])

    def read(self, first: int, last: int) -> _Matrix:
        """Rows first..last-1 of the part."""
        return self.matrix[self.rows.start + first : self.rows.start + last]


def block_rows(n_rows: int) -> int:
    """Rows that are worked on together in a collection, a power of two: 1024 in a large one."""
    wanted = n_rows // _N_BLOCKS
    return min(max(1 << max(wanted, 1).bit_length() - 1, _MIN_BLOCK_ROWS), _MAX_BLOCK_ROWS)


def aligned_rows(n_rows: int, processes: Processes) -> range:
    """The rows of this process, if blocks of :func:`block_rows` are to be whole.

    All processes have as many blocks, but for one. Of fewer blocks than processes the last
    processes have none.
    """
    size = block_rows(n_rows)
    n_blocks = -(-n_rows // size)

    def begin(rank: int) -> int:
        return min(n_rows, -(-rank * n_blocks // processes.n_processes) * size)

    return range(begin(processes.rank), begin(processes.rank + 1))


def whitening_of(
    features: ReadableRows,
    rows: range,
    n_rows: int,
    n_components: int,
    processes: Processes,
    memory_bytes: int | None = None,
) -> Whitening:
    """:func:`fit_whitening` of rows of which each process has its own.

    Args:
        features: The rows of this process.
        rows: Their numbers among those of all, as :func:`aligned_rows` says.
        n_rows: Rows of all processes.
        n_components: Dimensions to keep.
        processes: Those that work together.
        memory_bytes: What blocks and their products may take, if that is enough for one; None: a
            gigabyte.
    """
    require_integer("n_components", n_components, 1, features.n_columns)
    if n_rows < 2:
        raise InputError(f"features: got {n_rows} rows to whiten, expected at least 2")
    with one_thread_for_products():
        with logged_step("whitening: ranges"):
            scale = _scale_of(features, rows, n_rows, processes)
        with logged_step("whitening: products"):
            sums = _sums_of(features, rows, scale, processes, memory_bytes or _MEMORY_BYTES)
        with logged_step("whitening: eigenvectors"):
            return _whitening_of(sums, scale, n_components, processes)


@contextmanager
def one_thread_for_products() -> Iterator[None]:
    """Let matrix products of NumPy have one thread each.

    What a BLAS library spreads over threads is rounded differently for every number of them.
    """
    with threadpool_limits(1, user_api="blas"):
        yield


class _Scale(NamedTuple):
    """How a row becomes integers.

    Attributes:
        shift: float64 (d,), subtracted from every row.
        exponents: int (d,): what is left of a column is below 2 to this power.
        bits: Powers of two by which products and sums are multiplied before they are rounded.
        n_rows: Rows of all processes.
    """

    shift: NDArray[np.float64]
    exponents: NDArray[np.int32]
    bits: int
    n_rows: int


class _Sums(NamedTuple):
    """Of rows shifted and scaled: the sums int64 (d,) and the products int64 (d, d)."""

    sum: NDArray[np.int64]
    products: NDArray[np.int64]


def _scale_of(features: ReadableRows, rows: range, n_rows: int, processes: Processes) -> _Scale:
    """The range of each column, over all processes."""

    def limits_of(part: tuple[int, int]) -> tuple[NDArray[np.float64], float]:
        block = features.read(*part)
        limits = np.stack([block.min(axis=0), block.max(axis=0)]).astype(np.float64)
        if np.isfinite(limits).all():
            return limits, math.inf
        return limits, rows.start + part[0] + int(np.argmin(np.isfinite(block).all(axis=1)))

    d, size = features.n_columns, block_rows(n_rows)
    # Minimum, maximum, and the mean of the first block of all.
    facts = np.stack([np.full(d, np.inf), np.full(d, -np.inf), np.zeros(d)])
    bad = math.inf
    with closing(map_in_threads(limits_of, row_ranges(len(rows), size))) as found:
        for (smallest, largest), bad in found:
            if bad < math.inf:
                break
            np.minimum(facts[0], smallest, out=facts[0])
            np.maximum(facts[1], largest, out=facts[1])
    # In all processes, or the others would wait for the one that has that row.
    bad = min(of_all(bad, processes))
    if bad < math.inf:
        raise InputError(
            f"features: found NaN or infinity in row {int(bad)}, expected finite numbers"
        )
    if len(rows):
        facts[2] = features.read(0, min(size, len(rows))).mean(axis=0, dtype=np.float64)
    if processes.n_processes > 1:
        import torch

        found_in_all = processes.stack(torch.from_numpy(facts)).numpy()
        smallest, largest = found_in_all[:, 0].min(axis=0), found_in_all[:, 1].max(axis=0)
        facts = np.stack([smallest, largest, found_in_all[0, 2]])
    smallest, largest, mean = facts
    if (smallest == largest).all():
        raise InputError("features: all rows are equal, expected some that differ")
    _, exponents = np.frexp(largest - smallest)
    # The product of two numbers below 1, n times, stays below 2^_BITS.
    bits = _BITS - (n_rows - 1).bit_length()
    # Of equal numbers the mean may be another number.
    return _Scale(np.clip(mean, smallest, largest), exponents, bits, n_rows)


def _sums_of(
    features: ReadableRows, rows: range, scale: _Scale, processes: Processes, memory_bytes: int
) -> _Sums:
    """The sums over all rows of all processes."""

    def sums_of(part: tuple[int, int]) -> tuple[int, _Sums]:
        scaled = np.ldexp(features.read(*part) - scale.shift, -scale.exponents)
        products = scaled.T @ scaled
        return len(scaled), _Sums(
            _rounded(scaled.sum(axis=0), scale.bits), _rounded(products, scale.bits)
        )

    d, size = features.n_columns, block_rows(scale.n_rows)
    # A block as it is read, shifted and scaled; its products before and after they are rounded.
    block_bytes = 8 * d * (3 * size + 2 * d)
    n_workers = max(1, min(faiss.omp_get_max_threads(), memory_bytes // block_bytes))
    sums = _Sums(np.zeros(d, np.int64), np.zeros((d, d), np.int64))
    n_blocks, after = -(-len(rows) // size), "features, which are to be whitened"
    with (
        Progress(len(rows), "whitening") as bar,
        closing(map_in_threads(sums_of, row_ranges(len(rows), size), 0, n_workers)) as results,
    ):
        for n_read, (total, products) in stoppable_loop(results, n_blocks, processes, after):
            np.add(sums.sum, total, out=sums.sum)
            np.add(sums.products, products, out=sums.products)
            bar.update(n_read)
    if processes.n_processes > 1:
        import torch

        for each in sums:
            processes.add_up(torch.from_numpy(each))
    return sums


def _rounded(values: NDArray[np.float64], bits: int) -> NDArray[np.int64]:
    """Numbers times a power of two, as integers. The numbers are used up."""
    np.ldexp(values, bits, out=values)
    return np.rint(values, out=values).astype(np.int64)


def _whitening_of(sums: _Sums, scale: _Scale, n_components: int, processes: Processes) -> Whitening:
    """The whitening that follows from the sums, the same in all processes."""
    d = len(sums.sum)
    # Shifted mean, variances and directions, which one process finds for all.
    found = np.zeros((n_components, d + 1))
    mean = np.ldexp(sums.sum / scale.n_rows, -scale.bits)
    if processes.is_first:
        covariance = np.ldexp(sums.products / scale.n_rows, -scale.bits)
        covariance -= np.outer(mean, mean)
        covariance = np.ldexp(covariance, scale.exponents[:, None] + scale.exponents)
        variances, axes = principal_axes(covariance)
        found[:, 0], found[:, 1:] = variances[:n_components], axes[:n_components]
        length = float(np.linalg.norm(scale.shift + np.ldexp(mean, scale.exponents)))
        if variances[0] <= (_ROUNDING * length) ** 2:
            logger.warning("features differ by rounding alone: their whitening means nothing")
    if processes.n_processes > 1:
        import torch

        # Zeros added to a number leave it as it is.
        processes.add_up(torch.from_numpy(found))
    variances, axes = found[:, 0].copy(), found[:, 1:]
    deviations = np.sqrt(np.maximum(variances, _MIN_PART * variances[0]))
    return Whitening(
        scale.shift + np.ldexp(mean, scale.exponents), axes / deviations[:, None], variances
    )
