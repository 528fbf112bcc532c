"""Batches of images: the same ones after a stop as without, in any number of processes.

What is random about an image follows from seed, epoch and its place in the epoch alone, and the
order from seed and epoch. So no random state has to be kept, and no worker process matters.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from hashlib import blake2b
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from lowshot_kedro.blocks import row_ranges
from lowshot_kedro.child_processes import leave_signals_to_parent
from lowshot_kedro.images import ImageSource
from lowshot_kedro.networks.preprocessing import as_pixels, middle_of_strip
from lowshot_kedro.training.transforms import ImageTransform

logger = logging.getLogger(__name__)

_MAX_PROBLEMS_LOGGED = 20


class Batch(NamedTuple):
    """A part of a batch, as one process gets it.

    Attributes:
        pixels: uint8 (n, height, width, 3).
        numbers: int64 (n,), those of the images.
        places: int64 (n,), their places in the order of the epoch.
        problems: Why images are blank ones, by number.
    """

    pixels: torch.Tensor
    numbers: torch.Tensor
    places: torch.Tensor
    problems: dict[int, str]


class LearntBatch(NamedTuple):
    """Which images a process's part of a batch is of, as an objective sees it.

    Attributes:
        numbers: int64 (n,) on the device, those of the images.
        places: int64 (n,) on the device, their places in the order of the epoch.
    """

    numbers: torch.Tensor
    places: torch.Tensor


class Part(NamedTuple):
    """What one process is to learn from at a time.

    Attributes:
        epoch: The epoch.
        places: int64 (n,), places of images in the order of the epoch.
        numbers: int64 (n,), the numbers of these images.
    """

    epoch: int
    places: NDArray[np.int64]
    numbers: NDArray[np.int64]


def seed_of(*numbers: int) -> int:
    """One seed of 63 bits for several numbers, each another."""
    digest = blake2b(np.array(numbers, "<i8").tobytes(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def own_rows(n_rows: int, rank: int, n_processes: int) -> range:
    """The rows of a batch that one of several processes learns from.

    They are contiguous, as those of numpy.array_split: the first processes may have one more.

    Args:
        n_rows: Rows of the batch.
        rank: Number of the process.
        n_processes: How many share the batch.
    """
    size, n_larger = divmod(n_rows, n_processes)
    first = rank * size + min(rank, n_larger)
    return range(first, first + size + (rank < n_larger))


class Order(Protocol):
    """Which images make up the batches of an epoch, and which of them this process gets.

    The images of a batch do not depend on the number of processes, which share it as
    :func:`own_rows` says.
    """

    @property
    def n_images(self) -> int:
        """Images of an epoch."""
        ...

    @property
    def batch_size(self) -> int:
        """Images of a batch, of all processes together; the last one may have fewer."""
        ...

    def __len__(self) -> int:
        """Batches of an epoch."""
        ...

    def size(self, batch: int) -> int:
        """Images of a batch, of all processes together."""
        ...

    def parts(self, epoch: int, first_batch: int) -> Iterator[Part]:
        """What this process gets of each batch from one on."""
        ...


class BatchOrder:
    """The order of an epoch in which each image has one place, drawn anew each time.

    Args:
        n_images: Images of an epoch.
        batch_size: Images of a batch, of all processes together; the last one may have fewer.
        seed: Of the order.
        rank: Number of this process.
        n_processes: How many share a batch.
    """

    def __init__(
        self, n_images: int, batch_size: int, seed: int, rank: int = 0, n_processes: int = 1
    ) -> None:
        self.n_images, self.batch_size = n_images, batch_size
        self._seed, self._rank, self._n_processes = seed, rank, n_processes

    def __len__(self) -> int:
        return -(-self.n_images // self.batch_size)

    def size(self, batch: int) -> int:
        """Images of a batch, of all processes together."""
        return min(self.batch_size, self.n_images - batch * self.batch_size)

    def numbers(self, epoch: int) -> NDArray[np.int64]:
        """The images of an epoch in their order, int64 (n_images,)."""
        return np.random.default_rng([self._seed, epoch]).permutation(self.n_images)

    def parts(self, epoch: int, first_batch: int) -> Iterator[Part]:
        """What this process gets of each batch from one on."""
        numbers = self.numbers(epoch)
        for first, last in row_ranges(self.n_images, self.batch_size):
            if first >= first_batch * self.batch_size:
                own = own_rows(last - first, self._rank, self._n_processes)
                places = np.arange(first + own.start, first + own.stop)
                yield Part(epoch, places, numbers[places])


class _Parts(Dataset[Batch]):
    """Parts of batches, decoded and augmented."""

    def __init__(self, source: ImageSource, transform: ImageTransform, size: int, seed: int):
        self._source, self._transform, self._size, self._seed = source, transform, size, seed

    def __getitem__(self, part: Part) -> Batch:
        pixels: list[torch.Tensor] = []
        problems: dict[int, str] = {}
        # A process without workers keeps its own random state.
        with torch.random.fork_rng(devices=[]):
            for place, number in zip(part.places.tolist(), part.numbers.tolist(), strict=True):
                torch.default_generator.manual_seed(seed_of(self._seed, part.epoch, place))
                loaded = self._source[number]
                pixels.append(as_pixels(self._transform(middle_of_strip(loaded.image))))
                if loaded.problem:
                    problems[number] = loaded.problem
        nothing = torch.empty((0, self._size, self._size, 3), dtype=torch.uint8)
        return Batch(
            torch.stack(pixels) if pixels else nothing,
            torch.from_numpy(part.numbers),
            torch.from_numpy(part.places),
            problems,
        )


class Batches:
    """The batches of all epochs, made by worker processes while others are learnt from.

    In memory are two batches for each worker.

    Args:
        source: The images.
        transform: Turns an RGB image into one of the network's input size, perhaps at random.
        image_size: That size.
        order: Which images make up a batch.
        seed: Of what is random about an image.
        num_workers: Worker processes; 0: this process does the work.
        pin_memory: Whether batches are on their way to a GPU.
    """

    def __init__(
        self,
        source: ImageSource,
        transform: ImageTransform,
        image_size: int,
        order: Order,
        seed: int,
        num_workers: int,
        pin_memory: bool,
    ) -> None:
        self.order = order
        self._wanted = _Wanted(order)
        self._blank: set[int] = set()
        self._loader: DataLoader[Batch] = DataLoader(
            _Parts(source, transform, image_size, seed),
            batch_size=None,
            sampler=self._wanted,
            num_workers=num_workers,
            pin_memory=pin_memory,
            worker_init_fn=leave_signals_to_parent,
            persistent_workers=num_workers > 0,
        )

    def of_epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        """The parts of the batches of an epoch that this process gets, from one batch on.

        At the end it says how many images were blank ones.
        """
        self._wanted.epoch, self._wanted.first_batch = epoch, first_batch
        n_before = len(self._blank)
        for batch in self._loader:
            for number, problem in batch.problems.items():
                if number not in self._blank and len(self._blank) < _MAX_PROBLEMS_LOGGED:
                    logger.warning("image %d is blank, and learnt as it is: %s", number, problem)
                self._blank.add(number)
            yield batch
        if len(self._blank) > n_before:
            n_images = self.order.n_images
            logger.warning("%d of %d images missing or unreadable", len(self._blank), n_images)


class _Wanted:
    """What a loader is to load next: a sampler of parts."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self.epoch, self.first_batch = 0, 0

    def __len__(self) -> int:
        return len(self._order) - self.first_batch

    def __iter__(self) -> Iterator[Part]:
        return self._order.parts(self.epoch, self.first_batch)
