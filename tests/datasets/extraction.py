"""Features that are computed while a dataset saves them, and what was asked of them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lowshot_kedro.blocks import LabeledBlock, Resumable, RowBlocks

N_COLUMNS = 3


def row_content(first: int, last: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels of images first..last-1 of an endless collection."""
    numbers = np.arange(first, last)
    features = np.stack([numbers, seed + 0 * numbers, 1 / (1 + numbers)], axis=1)
    return features.astype(np.float32), (numbers % 7).astype(np.int32)


@dataclass
class Extraction:
    """Some images of that collection, by batch.

    Attributes:
        n_rows: How many.
        batch_rows: Rows of a batch.
        first_image: Number of the first one.
        seed: Another one gives other features.
        problems: What is wrong with images, by their number.
        at: The row before which `midway` is called, once its batch is asked for.
        midway: Raises, or waits to be killed.
        asked: First rows of the batches that were computed.
    """

    n_rows: int = 10
    batch_rows: int = 3
    first_image: int = 0
    seed: int = 0
    problems: Mapping[int, str] = field(default_factory=dict)
    at: int | None = None
    midway: Callable[[], None] = lambda: None
    asked: list[int] = field(default_factory=list)

    @property
    def provenance(self) -> dict[str, Any]:
        return {"n_rows": self.n_rows, "n_columns": N_COLUMNS, "seed": self.seed}

    def batches(self, first_row: int) -> Iterator[LabeledBlock]:
        assert first_row % self.batch_rows == 0
        for first in range(first_row, self.n_rows, self.batch_rows):
            last = min(self.n_rows, first + self.batch_rows)
            if self.at is not None and first >= self.at:
                self.midway()
            self.asked.append(first)
            images = range(self.first_image + first, self.first_image + last)
            problems = {
                row: self.problems[image]
                for row, image in enumerate(images)
                if image in self.problems
            }
            yield LabeledBlock(*row_content(images.start, images.stop, self.seed), problems)

    def begin(self, folder: Path) -> RowBlocks[LabeledBlock]:
        return RowBlocks(self.n_rows, N_COLUMNS, self.batch_rows, self.batches)

    def save(self, dataset: Any) -> list[int]:
        dataset.save(Resumable(self.provenance, self.begin))
        return self.asked


def read_with_h5py(path: Path) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """What a feature file holds: features, labels and the count."""
    with h5py.File(path, "r") as file:
        return file["all_feats"][()], file["all_labels"][()], file["count"][()].tolist()
