"""Rows with known classes: scikit-learn's made-up tables, and the images of Fashion-MNIST."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from common.idx import CLASSES, IMAGES, find_idx, read_idx
from common.vectors import BLOCK_ROWS, MAX_SHIFT, PCA_TRAINING_ROWS, PIXELS, Copies
from lowshot_kedro.blocks import row_ranges
from lowshot_kedro.threads import map_rows, run_in_one_thread

TABLE_COLUMNS = 15
INFORMATIVE_COLUMNS = 10
# The original images, and copies each shifted in a way of its own.
MAX_COPIES = 1 + (2 * MAX_SHIFT + 1) ** 2


class Labeled(NamedTuple):
    """Rows, and what they are.

    Attributes:
        vectors: An npy file of float32 (n, d). Everybody reads it in a process of its own.
        classes: int64 (n,), 0..C-1.
    """

    vectors: Path
    classes: NDArray[np.int64]


class Images(NamedTuple):
    """All images of Fashion-MNIST, or of a set in its format.

    Attributes:
        pixels: uint8 (m, 784).
        classes: int64 (m,).
    """

    pixels: NDArray[np.uint8]
    classes: NDArray[np.int64]


def table(path: Path, n_rows: int, seed: int) -> Labeled:
    """Two classes of scikit-learn's make_classification, 15 columns of which 10 tell something.

    Args:
        path: Of the npy file to be written.
        n_rows: n.
        seed: The same table for the same seed and number of rows.
    """
    from sklearn.datasets import make_classification

    rows, classes = make_classification(
        n_rows, TABLE_COLUMNS, n_informative=INFORMATIVE_COLUMNS, random_state=seed
    )
    np.save(path, rows.astype(np.float32))
    return Labeled(path, classes.astype(np.int64))


def read_images(folder: Path) -> Images:
    """Training and test images.

    Args:
        folder: Holds the four idx files of Fashion-MNIST, plain or compressed.

    Raises:
        FileNotFoundError: If one is missing.
        ValueError: If one is of something else.
    """
    parts = ("train", "t10k")
    pixels = [_read(folder, part, IMAGES) for part in parts]
    classes = [_read(folder, part, CLASSES) for part in parts]
    if [len(part) for part in pixels] != [len(part) for part in classes]:
        raise ValueError(f"{folder}: not as many labels as images")
    return Images(np.concatenate(pixels), np.concatenate(classes).astype(np.int64))


def image_rows(path: Path, images: Images, n_rows: int, n_columns: int, seed: int) -> Labeled:
    """Vectors of images: PCA, then length 1. Of fewer rows than images, a random part of them.

    Rows beyond the number of images are copies, each copy of all images shifted by up to 2
    pixels in a way of its own, each image multiplied by 0.8 to 1.2. All come in random order.

    Args:
        path: Of the npy file to be written.
        images: m of them.
        n_rows: At most :data:`MAX_COPIES` times m.
        n_columns: Of the vectors, at most 784.
        seed: Of order, shifts and brightness.

    Returns:
        The same for the same arguments. In memory while it is made: the images and some copies of
        one block.
    """
    n_images = len(images.classes)
    order = np.random.default_rng(seed).permutation(max(n_rows, n_images))[:n_rows]
    copies = Copies(images.pixels, seed, turned_from=MAX_COPIES)

    def block(first: int, last: int) -> NDArray[np.float32]:
        numbers = order[first:last]
        copied = numbers >= n_images
        rows = images.pixels[numbers % n_images].astype(np.float32)
        if copied.any():
            rng = np.random.default_rng([seed, first])
            rows[copied] = copies.take(numbers[copied] - n_images, rng)[0]
        return rows

    pca = faiss.PCAMatrix(PIXELS, n_columns, 0, True)
    run_in_one_thread(pca.train, block(0, min(PCA_TRAINING_ROWS, n_rows)))
    written = np.lib.format.open_memmap(path, "w+", np.float32, (n_rows, n_columns))
    for first, last in row_ranges(n_rows, BLOCK_ROWS):
        vectors = np.concatenate(map_rows(pca.apply, block(first, last)))
        faiss.normalize_L2(vectors)
        written[first:last] = vectors
    written.flush()
    return Labeled(path, images.classes[order % n_images])


def _read(folder: Path, part: str, what: str) -> NDArray[np.uint8]:
    path = find_idx(folder, part, what)
    if path is None:
        raise FileNotFoundError(f"{folder} has no {part}-{what}-ubyte, plain or .gz")
    return read_idx(path, what)
