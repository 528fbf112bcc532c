"""Handwritten digits in the format of Fashion-MNIST."""

import gzip
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

N_TRAINING, N_TEST = 400, 100


def digits() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Handwritten digits as images of 28 × 28: uint8 (500, 28, 28), and their classes."""
    found = load_digits()
    shades = np.rint(found.images[: N_TRAINING + N_TEST] * (255 / 16)).astype(np.uint8)
    larger = shades.repeat(3, axis=1).repeat(3, axis=2)
    loaded_images = np.pad(larger, ((0, 0), (2, 2), (2, 2)))
    return loaded_images, found.target[: N_TRAINING + N_TEST].astype(np.uint8)


def write_digits(folder: Path) -> Path:
    """Four files as those of Fashion-MNIST, two of them compressed, in a folder."""
    images, classes = digits()
    parts = {"train": slice(0, N_TRAINING), "t10k": slice(N_TRAINING, None)}
    for name, part in parts.items():
        count = len(classes[part])
        header = np.array([0x803, count, 28, 28], ">i4").tobytes()
        packed = gzip.compress(header + images[part].tobytes())
        (folder / f"{name}-images-idx3-ubyte.gz").write_bytes(packed)
        header = np.array([0x801, count], ">i4").tobytes()
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(header + classes[part].tobytes())
    return folder
