"""Folders of handwritten digits as people have images of their own."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

NAMES = ("zero", "one", "two", "three", "four")
# Few pixels, and no processes.
QUICK = {"features": {"image_size": 32, "num_workers": 0}}


def scans(per_class: int) -> tuple[np.ndarray, np.ndarray]:
    """So many scans of each of five digits, class by class: uint8 (n, 32, 32), and the digits."""
    images, digits = load_digits(return_X_y=True)
    chosen = np.concatenate([np.flatnonzero(digits == d)[:per_class] for d in range(len(NAMES))])
    small = (images[chosen].reshape(-1, 8, 8) * 15.9).astype(np.uint8)
    return small.repeat(4, axis=1).repeat(4, axis=2), digits[chosen]


def write_tree(folder: Path, per_class: int = 30) -> dict[str, str]:
    """Images in folders that say nothing of their class; the true class of each file."""
    truth = {}
    for number, (scan, digit) in enumerate(zip(*scans(per_class), strict=True)):
        path = folder / f"roll {number % 3}" / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scan).save(path)
        truth[path.relative_to(folder).as_posix()] = NAMES[digit]
    return truth


def some_of_each(truth: dict[str, str], n: int) -> list[tuple[str, str]]:
    """The first n files of each class, with it."""
    return [
        (file, name)
        for name in NAMES
        for file in [file for file, of_file in truth.items() if of_file == name][:n]
    ]


def write_labels(path: Path, rows: Iterable[Sequence[str]], *header: str) -> None:
    """A file of labels."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header or ("file", "label"), *rows])
