"""Vectors to measure neighbour graphs on: changed copies of real images, or a person's own.

Uniform random vectors would not do: their nearest neighbours are hardly nearer than any others, no
vector has groups around it, and each method finds them as slowly as it can.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from common.idx import IMAGES, SIDE, find_idx, read_idx
from lowshot_kedro.blocks import row_ranges
from lowshot_kedro.datasets.files import written_whole
from lowshot_kedro.datasets.raw_matrix import count_rows, write_rows
from lowshot_kedro.disk import require_space
from lowshot_kedro.threads import map_rows, run_in_one_thread

# Where Debian's package dataset-fashion-mnist puts its files.
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
PIXELS = SIDE * SIDE
MAX_SHIFT = 2
# Factors of the brightness of each image.
FACTORS = (0.8, 1.2)
# Copies that repeat a shift are turned, and no two of their images are equal.
MAX_DEGREES = 15.0
NOISE = 4.0
PCA_TRAINING_ROWS = 30_000
BLOCK_ROWS = 16_384

_FLOAT32 = np.dtype("<f4")


@dataclass(frozen=True)
class VectorFile:
    """A raw float32 matrix on disk.

    Attributes:
        path: The file.
        n_rows: Rows of it that count.
        n_columns: Columns.
        description: What the vectors are.
    """

    path: Path
    n_rows: int
    n_columns: int
    description: str

    def part(self, n_rows: int) -> VectorFile:
        """The first rows."""
        return replace(self, n_rows=n_rows)

    def mapped(self) -> NDArray[np.float32]:
        """A memmap, float32 (n_rows, n_columns), not normalised."""
        return np.memmap(self.path, mode="r", dtype=_FLOAT32, shape=(self.n_rows, self.n_columns))

    def read(self, first: int = 0, last: int | None = None) -> NDArray[np.float32]:
        """Rows first..last-1, float32 (last - first, n_columns), not normalised.

        They are not mapped: that would count in the memory of whoever reads them.
        """
        last = self.n_rows if last is None else last
        rows = np.empty((last - first, self.n_columns), _FLOAT32)
        with self.path.open("rb", buffering=0) as file:
            file.seek(first * self.n_columns * _FLOAT32.itemsize)
            for begin, end in row_ranges(len(rows), BLOCK_ROWS):
                block = rows[begin:end]
                if file.readinto(block.data.cast("B")) != block.nbytes:
                    raise EOFError(f"{self.path}: ends before row {first + end}")
        return rows

    def normalized(self, first: int = 0, last: int | None = None) -> NDArray[np.float32]:
        """Rows first..last-1 with length 1, float32 (last - first, n_columns)."""
        rows = self.read(first, last)
        faiss.normalize_L2(rows)
        return rows

    def normalized_blocks(self, block_rows: int = BLOCK_ROWS) -> Iterator[NDArray[np.float32]]:
        """All rows with length 1, block by block."""
        for first, last in row_ranges(self.n_rows, block_rows):
            yield self.normalized(first, last)

    def taken(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Some rows with length 1, float32 (m, n_columns)."""
        taken = np.array(self.mapped()[rows])
        faiss.normalize_L2(taken)
        return taken


def vectors_of_file(path: Path, n_columns: int, n_rows: int | None) -> VectorFile:
    """A person's own vectors.

    Args:
        path: A raw float32 matrix.
        n_columns: Its columns.
        n_rows: How many of the first rows; None: all.

    Raises:
        ValueError: If the size of the file is no whole number of rows, or there are too few.
    """
    found = count_rows(path, n_columns, _FLOAT32)
    if n_rows is not None and n_rows > found:
        raise ValueError(f"{path}: {n_rows} rows are asked for, but it holds {found}")
    return VectorFile(path, n_rows or found, n_columns, f"file {path.name}")


def image_vectors(
    folder: Path, n_rows: int, n_columns: int, seed: int, fashion_mnist: Path
) -> VectorFile:
    """Vectors of shifted images of Fashion-MNIST, or of handwritten digits where it is missing.

    Each of 25 copies of all images has a shift of its own, by up to 2 pixels. Further copies, and
    all of the few digits, are turned as well, and get some noise. A PCA with random rotation makes
    vectors of them. All copies of all images come in random order.

    Args:
        folder: Where the file is kept. It is not made again if it is there.
        n_rows: How many vectors.
        n_columns: Of the vectors, at most 784.
        seed: Of the order, the shifts, the brightness, the angles and the noise.
        fashion_mnist: Where the images may be.

    Returns:
        The same vectors for the same arguments. In memory while they are made: the images, some
        copies of one block, and 8 bytes a vector.
    """
    found = find_idx(fashion_mnist, "train", IMAGES)
    if found is not None:
        copies = Copies(read_idx(found, IMAGES), seed, turned_from=(2 * MAX_SHIFT + 1) ** 2)
        name, what = "fashion-mnist", "Fashion-MNIST"
    else:
        copies = Copies(_digits(), seed, turned_from=0)
        name, what = "digits", "scikit-learn's digits"
    path = folder / f"{name}-{n_rows}x{n_columns}-seed{seed}.raw"
    file = VectorFile(path, n_rows, n_columns, f"PCA of shifted images of {what}")
    size = n_rows * n_columns * _FLOAT32.itemsize
    if not path.is_file() or path.stat().st_size != size:
        require_space(path, size)
        _write(file, copies, seed)
    return file


class Copies:
    """Images, copied as often as needed, each copy shifted (and turned) in another way.

    Args:
        images: uint8 (m, 784).
        seed: Of shifts and angles.
        turned_from: The first copy that is turned and gets noise.
    """

    def __init__(self, loaded_images: NDArray[np.uint8], seed: int, turned_from: int) -> None:
        self._images, self._seed, self._turned_from = loaded_images, seed, turned_from
        self._moves: dict[int, sparse.csr_array] = {}
        steps = range(-MAX_SHIFT, MAX_SHIFT + 1)
        shifts = np.array([(down, right) for down in steps for right in steps])
        self._shifts = np.random.default_rng(seed).permutation(shifts)

    def take(
        self, numbers: NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Some images.

        Args:
            numbers: int64 (b,): copy · m + image.
            rng: Of their brightness.

        Returns:
            float32 (b, 784), and which of them are to get noise.
        """
        copies, loaded_images = np.divmod(numbers, len(self._images))
        order = np.argsort(copies, kind="stable")
        found, starts = np.unique(copies[order], return_index=True)
        result = np.empty((len(numbers), PIXELS), np.float32)
        for copy, rows in zip(found, np.split(order, starts[1:]), strict=True):
            result[rows] = (self._move(int(copy)) @ self._images[loaded_images[rows]].T).T
        result *= rng.uniform(*FACTORS, (len(numbers), 1)).astype(np.float32)
        return result, copies >= self._turned_from

    def _move(self, copy: int) -> sparse.csr_array:
        """Float32 (784, 784): what moves the images of a copy."""
        if copy not in self._moves:
            shift, degrees = self._shifts[copy % len(self._shifts)], 0.0
            if copy >= self._turned_from:
                rng = np.random.default_rng([self._seed, copy])
                degrees = rng.uniform(-MAX_DEGREES, MAX_DEGREES)
            self._moves[copy] = _move(shift, degrees)
        return self._moves[copy]


def _move(shift: NDArray[np.int64], degrees: float) -> sparse.csr_array:
    """Turn about the centre, then shift; what comes from outside is black.

    Args:
        shift: Down and to the right.
        degrees: Angle.

    Returns:
        float32 (784, 784), bilinear interpolation as a matrix.
    """
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    middle = (SIDE - 1) / 2
    at = np.indices((SIDE, SIDE)).reshape(2, -1) - middle - shift[:, None]
    source = np.array([[cosine, -sine], [sine, cosine]]) @ at + middle
    corner = np.floor(source).astype(np.int64)
    moved = sparse.csr_array((PIXELS, PIXELS), dtype=np.float32)
    for offset in np.ndindex(2, 2):
        pixel = corner + np.array(offset)[:, None]
        weight = np.prod(1 - np.abs(source - pixel), axis=0).astype(np.float32)
        inside = ((pixel >= 0) & (pixel < SIDE)).all(axis=0) & (weight > 0)
        entries = (np.flatnonzero(inside), pixel[0, inside] * SIDE + pixel[1, inside])
        moved += sparse.csr_array((weight[inside], entries), shape=moved.shape)
    return moved


def _write(file: VectorFile, copies: Copies, seed: int) -> None:
    """Make the vectors and write them, block by block."""
    order = np.random.default_rng(seed).permutation(file.n_rows)

    def block(first: int, last: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        return copies.take(order[first:last], np.random.default_rng([seed, first]))

    pca = faiss.PCAMatrix(PIXELS, file.n_columns, 0, True)
    run_in_one_thread(pca.train, block(0, min(PCA_TRAINING_ROWS, file.n_rows))[0])
    with written_whole(file.path) as (path,), path.open("wb") as written:
        for first, last in row_ranges(file.n_rows, BLOCK_ROWS):
            loaded_images, noisy = block(first, last)
            vectors = np.concatenate(map_rows(pca.apply, loaded_images))
            # The directions of a PCA are orthonormal: noise of the vectors is noise of the pixels.
            rng = np.random.default_rng([seed, first, 1])
            noise = rng.standard_normal((np.count_nonzero(noisy), file.n_columns), np.float32)
            vectors[noisy] += NOISE * noise
            write_rows(written, vectors, _FLOAT32)


def _digits() -> NDArray[np.uint8]:
    """8 × 8 pixels with 17 shades, made 28 × 28 with 256: uint8 (1797, 784)."""
    # Every process that is measured would spend a second on these imports.
    from scipy import ndimage
    from sklearn.datasets import load_digits

    images = load_digits().images
    factor = SIDE / images.shape[1]
    larger = ndimage.zoom(images * (255 / images.max()), (1, factor, factor), order=1)
    shades: NDArray[np.uint8] = np.rint(larger).astype(np.uint8)
    return shades.reshape(len(images), PIXELS)
