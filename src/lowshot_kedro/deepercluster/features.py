"""Whitened features of images on disk, of which no process has all."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import closing
from copy import deepcopy
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from lowshot_kedro.blocks import LabeledBlock, Resumable, RowBlocks, row_ranges, spread_rows
from lowshot_kedro.deepercluster.feature_files import BatchFile, stoppable_loop
from lowshot_kedro.deepercluster.parameters import DeeperClusterParameters
from lowshot_kedro.deepercluster.whitening import (
    Whitening,
    aligned_rows,
    block_rows,
    one_thread_for_products,
    whitening_of,
)
from lowshot_kedro.images import ImageSource, ImageSubset
from lowshot_kedro.networks.extractor import Extractor, extract_features
from lowshot_kedro.parameters import bytes_of
from lowshot_kedro.progress import logged_step
from lowshot_kedro.threads import map_in_threads
from lowshot_kedro.training.processes import Processes
from lowshot_kedro.training.transforms import RECIPES

_MIN_WHITENING_IMAGES = 100_000
_MAX_BATCH_ROWS = 64
# Batches for which workers are started together: the numbers of their images take 8 MB.
_BATCHES_AT_ONCE = 2**14


class Sample(NamedTuple):
    """The images that the whitening follows from: some batches of all.

    Attributes:
        n_images: Of all.
        batch_rows: Images of a batch.
        batches: int64, the numbers of the batches, increasing.
    """

    n_images: int
    batch_rows: int
    batches: NDArray[np.int64]

    @classmethod
    def of(cls, n_images: int, n_wanted: int) -> Sample:
        """About so many images, evenly spread, whatever the number of processes."""
        n_wanted = min(n_images, n_wanted)
        batch_rows = min(_MAX_BATCH_ROWS, block_rows(n_wanted))
        n_batches = -(-n_images // batch_rows)
        return cls(n_images, batch_rows, spread_rows(n_batches, -(-n_wanted // batch_rows)))

    @property
    def n_batches(self) -> int:
        """Batches of all images."""
        return -(-self.n_images // self.batch_rows)

    @property
    def n_rows(self) -> int:
        """Images of the sample. The last batch of all, which may be short, is in it with all."""
        return min(self.n_images, len(self.batches) * self.batch_rows)

    def others(self, processes: Processes) -> NDArray[np.int64]:
        """Batches that are not in the sample, as many of them as this process is to do."""
        is_other = np.ones(self.n_batches, bool)
        is_other[self.batches] = False
        others = np.flatnonzero(is_other)
        first, last = (
            len(others) * rank // processes.n_processes
            for rank in (processes.rank, processes.rank + 1)
        )
        return others[first:last]


class _Batch(NamedTuple):
    """Rows of a batch of images, its number, and how many of the images are blank ones."""

    number: int
    rows: NDArray[np.float32]
    n_blank: int


class WhitenedFeatures:
    """From a network and images to whitened rows on disk, in a folder that all processes see.

    The whitening follows from a sample of the images. Their features are kept until it is known;
    those of the other images are whitened as they come, so that the disk never has all features.

    Args:
        network: On the device of this process. A copy of it is made when it runs, whose weights are
            laid out in another way.
        images: The images.
        parameters: Augmentation and size of images, dimensions, workers, precision, memory.
        processes: Those that work together.
        folder: Where the files are.

    Attributes:
        sample: The images that the whitening follows from.
        whitened: The rows of all images.
    """

    def __init__(
        self,
        network: nn.Module,
        images: ImageSource,
        parameters: DeeperClusterParameters,
        processes: Processes,
        folder: Path,
    ) -> None:
        self._network, self._images, self._parameters = network, images, parameters
        self._processes, self._folder = processes, folder
        n_wanted, d = parameters.n_whitening_images, parameters.dimension
        if n_wanted is None:
            n_wanted = max(_MIN_WHITENING_IMAGES, d * (d - 1) // 2)
        self.sample = Sample.of(len(images), n_wanted)
        size = self.sample.batch_rows
        self._features = BatchFile(folder / "features.f32", d, self.sample.n_rows, size)
        self.whitened = BatchFile(
            folder / "whitened.f32", parameters.n_components, len(images), size
        )

    @property
    def n_bytes(self) -> int:
        """What the files take."""
        n_numbers = self._features.n_rows * self._features.n_columns
        n_numbers += self.whitened.n_rows * self.whitened.n_columns
        n_numbers += 2 * self.whitened.n_columns * (2 + self._features.n_columns)
        return 4 * n_numbers

    @property
    def provenance(self) -> dict[str, Any]:
        """All that the features follow from, as JSON holds it."""
        return dict(self._extraction(self._images).provenance)

    def make(self, whitening_path: Path) -> None:
        """Make what is not there yet. All processes call this.

        Args:
            whitening_path: Where the whitening is, or is to be.

        Raises:
            InputError: For features that cannot be whitened.
            StoppedBySignal: If a signal asks for an end.
        """
        sample, processes = self.sample, self._processes
        has_whitening = processes.broadcast(processes.is_first and whitening_path.is_file())
        if processes.is_first:
            self.whitened.create()
            if not has_whitening:
                self._features.create()
        processes.barrier()
        rows = aligned_rows(sample.n_rows, processes)
        own = np.arange(rows.start // sample.batch_rows, -(-rows.stop // sample.batch_rows))
        if not has_whitening:
            self._extract_sample(self._features.missing(own))
            self._fit(rows, whitening_path)
        whitening = Whitening.load(whitening_path)
        # Numbers of batches in the sample, and among all.
        missing = own[np.isin(sample.batches[own], self.whitened.missing(sample.batches[own]))]
        with one_thread_for_products():
            self._whiten_sample(missing, whitening)
            self._whiten(self.whitened.missing(sample.others(processes)), whitening)
        if processes.is_first:
            self._features.remove()
        # What comes next needs the memory.
        self.__dict__.pop("_extractor", None)

    def _extract_sample(self, missing: NDArray[np.int64]) -> None:
        with closing(self._extracted(self.sample.batches[missing])) as blocks:
            self._write(
                self._features,
                (
                    _Batch(number, block.features, len(block.problems))
                    for number, block in zip(missing.tolist(), blocks, strict=True)
                ),
                len(missing),
            )

    def _fit(self, rows: range, path: Path) -> None:
        """The whitening of the sample, of which this process has some rows."""
        parameters, processes = self._parameters, self._processes
        with logged_step("whitening"):
            whitening = whitening_of(
                self._features.open(rows),
                rows,
                self.sample.n_rows,
                parameters.n_components,
                processes,
                bytes_of(parameters.memory_budget_gb),
            )
        if processes.is_first:
            whitening.save(path)
        processes.barrier()

    def _whiten_sample(self, missing: NDArray[np.int64], whitening: Whitening) -> None:
        """Whiten features that are there."""

        def whiten(number: int, n_blank: int) -> _Batch:
            first, last = self._features.rows_of(number)
            rows = self._features.open(range(first, last)).read(0, last - first)
            return _Batch(int(self.sample.batches[number]), whitening.apply_to_block(rows), n_blank)

        blank = self._features.n_blank(missing) if len(missing) else []
        items = zip(missing.tolist(), blank, strict=True)
        with closing(map_in_threads(lambda item: whiten(*item), items)) as batches:
            self._write(self.whitened, batches, len(missing))

    def _whiten(self, missing: NDArray[np.int64], whitening: Whitening) -> None:
        """Whiten features as they come."""

        def whiten(item: tuple[int, LabeledBlock]) -> _Batch:
            number, block = item
            return _Batch(number, whitening.apply_to_block(block.features), len(block.problems))

        with closing(self._extracted(missing)) as blocks:
            items = zip(missing.tolist(), blocks, strict=True)
            with closing(map_in_threads(whiten, items)) as batches:
                self._write(self.whitened, batches, len(missing))

    def _write(self, file: BatchFile, batches: Iterable[_Batch], n_batches: int) -> None:
        """Write batches of this process, while the others write theirs."""
        try:
            for batch in stoppable_loop(batches, n_batches, self._processes, "features of images"):
                file.write(*batch)
        finally:
            file.note()
        self._processes.barrier()

    def _extracted(self, batches: NDArray[np.int64]) -> Generator[LabeledBlock, None, None]:
        """Features of the images of some batches, a block for each."""
        size = self.sample.batch_rows
        for first, last in row_ranges(len(batches), _BATCHES_AT_ONCE):
            numbers = (batches[first:last, None] * size + np.arange(size)).ravel()
            numbers = numbers[numbers < len(self._images)]
            extraction = self._extraction(ImageSubset(self._images, numbers))
            yield from extraction.begin(self._folder).starting_at(0)

    def _extraction(self, images: ImageSource) -> Resumable[RowBlocks[LabeledBlock]]:
        return extract_features(
            self._extractor,
            images,
            batch_size=self.sample.batch_rows,
            num_workers=self._parameters.workers,
            device=self._processes.device.type,
            precision=self._parameters.precision,
        )

    @cached_property
    def _extractor(self) -> Extractor:
        parameters = self._parameters
        preprocess = RECIPES[parameters.augmentation].preprocessing(parameters.image_size)
        return Extractor(
            parameters.network, deepcopy(self._network), preprocess, parameters.dimension
        )
