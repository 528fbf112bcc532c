"""Running a network over a collection of images."""

from __future__ import annotations

import logging
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from lowshot_kedro.blocks import (
    KeyedRowBlocks,
    LabeledBlock,
    Resumable,
    RowBlocks,
    require_finite,
    row_ranges,
)
from lowshot_kedro.child_processes import choose_num_workers, leave_signals_to_parent
from lowshot_kedro.devices import choose_device
from lowshot_kedro.errors import InputError
from lowshot_kedro.images import AbsentImages, ImageSource, ImageSubset, KeyedImages
from lowshot_kedro.networks.preprocessing import Preprocessing
from lowshot_kedro.progress import Progress
from lowshot_kedro.threads import map_in_threads, prefetch

logger = logging.getLogger(__name__)

# Which images of a collection some images are.
_Numbers = range | NDArray[np.int64]

_MAX_PROBLEMS_LOGGED = 20
# With fewer, PyTorch takes a slow path for 1 × 1 convolutions in a single thread.
_IMAGES_PER_THREAD = 16
# Compiling takes half a minute, which fewer images do not earn back.
_COMPILE_FROM = 100_000
_KEYS_AT_ONCE = 256


@dataclass(frozen=True)
class Extractor:
    """A network and the preprocessing it was trained with.

    Attributes:
        name: Name of the network, as for :func:`~lowshot_kedro.networks.create_extractor`.
        network: Maps float32 (n, 3, height, width) to float32 (n, dimension), in evaluation mode.
        preprocess: Turns an RGB image into network input.
        dimension: Length of a feature vector.
    """

    name: str
    network: nn.Module
    preprocess: Preprocessing
    dimension: int

    def describe(self) -> dict[str, Any]:
        """Facts that the features of an image follow from: the network, its weights, its input."""
        weights = blake2b(digest_size=16)
        for name, tensor in self.network.state_dict().items():
            weights.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            weights.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        sample = self.preprocess(_sample_image()).contiguous()
        return {
            "name": self.name,
            "dimension": self.dimension,
            "weights": weights.hexdigest(),
            "input": list(sample.shape),
            "preprocessing": blake2b(sample.numpy().tobytes(), digest_size=16).hexdigest(),
        }


def _sample_image() -> Image.Image:
    """An image in which every place and colour is another, for telling preprocessings apart."""
    rows, columns = np.mgrid[0:300, 0:400]
    channels = (rows * 7 + columns, columns * 5 + rows // 2, rows * columns)
    return Image.fromarray((np.stack(channels, axis=-1) % 251).astype(np.uint8))


class ImageBatch(NamedTuple):
    """Images as they come from a worker.

    Attributes:
        pixels: uint8 (n, height, width, 3).
        labels: int32 (n,).
        problems: Why images are blank, by position in the batch.
    """

    pixels: torch.Tensor
    labels: torch.Tensor
    problems: dict[int, str]


class _Batches(Dataset[ImageBatch]):
    """The images of a source in batches, from one of them on."""

    def __init__(
        self, source: ImageSource, preprocess: Preprocessing, batch_size: int, first: int
    ) -> None:
        self.source = source
        self.preprocess = preprocess
        self.batch_size = batch_size
        self.first = first

    def __len__(self) -> int:
        return -(-(len(self.source) - self.first) // self.batch_size)

    def __getitem__(self, number: int) -> ImageBatch:
        first = self.first + number * self.batch_size
        last = min(len(self.source), first + self.batch_size)
        pixels: list[torch.Tensor] = []
        labels, problems = [], {}
        for position in range(last - first):
            image = self.source[first + position]
            pixels.append(self.preprocess.pixels(image.image).permute(1, 2, 0))
            labels.append(image.label)
            if image.problem:
                problems[position] = image.problem
        return ImageBatch(torch.stack(pixels), torch.tensor(labels, dtype=torch.int32), problems)


class _Running:
    """The network on its device, in the form in which it is fastest there.

    On a CPU every thread runs the network by itself on a few images at a time: their
    activations stay in its cache, no thread waits for others at every layer, and the results do
    not depend on how many threads there are.

    Args:
        extractor: The network.
        device: Device that it runs on.
        autocast: Whether it runs in bfloat16.
        is_compiled: Whether torch.compile prepares it.
        batch_size: Images of the batches to come.
    """

    def __init__(
        self,
        extractor: Extractor,
        device: torch.device,
        autocast: bool,
        is_compiled: bool,
        batch_size: int,
    ) -> None:
        self._normalize = extractor.preprocess.normalize
        self._device = device
        self._autocast = autocast
        self._is_compiled = self._has_to_compile = is_compiled
        self._network: Any = extractor.network.eval().to(device)
        self._network = self._network.to(memory_format=torch.channels_last)
        self._part = min(batch_size, _IMAGES_PER_THREAD)
        # A GPU has its own queue: one batch in it, one being prepared.
        self.n_waiting = 1
        self._pool: ThreadPoolExecutor | None = None
        if device.type == "cpu":
            n_threads = torch.get_num_threads()
            # What torch is told holds for the thread that tells it.
            self._pool = ThreadPoolExecutor(
                n_threads, initializer=torch.set_num_threads, initargs=(1,)
            )
            self.n_waiting = 1 + n_threads * self._part // batch_size
        else:
            self._part = batch_size
        self._n_threads_before = torch.get_num_threads()

    def __enter__(self) -> _Running:
        if self._pool is not None:
            torch.set_num_threads(1)
        if self._is_compiled:
            # Weights that are constants can be folded into one another.
            self._network = torch.compile(self._network, dynamic=False, options={"freezing": True})
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            torch.set_num_threads(self._n_threads_before)

    def begin(self, pixels: torch.Tensor) -> Callable[[], torch.Tensor]:
        """Start a batch; it is worked on while the next one is prepared.

        Args:
            pixels: uint8 (n, height, width, 3).

        Returns:
            What waits for the output, (n, dimension) on the device.
        """
        if self._pool is None:
            output = self._run(pixels)
            return lambda: output
        if self._has_to_compile:
            # Threads that come to it together would compile it one after the other.
            self._pool.submit(self._run, pixels[: self._part]).result()
            self._has_to_compile = False
        futures = [self._pool.submit(self._run, part) for part in torch.split(pixels, self._part)]
        return lambda: torch.cat([future.result() for future in futures])

    def _run(self, pixels: torch.Tensor) -> torch.Tensor:
        n_images = len(pixels)
        # A compiled network is made for one number of images.
        if self._is_compiled and n_images < self._part:
            filling = pixels[:1].expand(self._part - n_images, -1, -1, -1)
            pixels = torch.cat([pixels, filling])
        with (
            torch.inference_mode(),
            torch.autocast(self._device.type, torch.bfloat16, enabled=self._autocast),
        ):
            on_device = pixels.to(self._device, non_blocking=True)
            # Seen as (n, 3, height, width), pixels side by side are the channels_last format.
            output: torch.Tensor = self._network(self._normalize(on_device.permute(0, 3, 1, 2)))
            return output[:n_images]


def image_batches(
    source: ImageSource,
    preprocess: Preprocessing,
    batch_size: int,
    first: int,
    num_workers: int | None,
    device: torch.device,
) -> DataLoader[ImageBatch]:
    """The images of a source in order, in batches that worker processes decode and resize.

    Args:
        source: The images.
        preprocess: Resizes them.
        batch_size: Images of a batch.
        first: The image to begin with.
        num_workers: Processes that decode images; 0: this process does; None: one for every core.
        device: The device that they are meant for.
    """
    return DataLoader(
        _Batches(source, preprocess, batch_size, first),
        batch_size=None,
        num_workers=choose_num_workers(num_workers),
        pin_memory=device.type == "cuda",
        worker_init_fn=leave_signals_to_parent,
    )


def _is_compiled(compiled: bool | None, device: torch.device, n_images: int) -> bool:
    if compiled is not None:
        return compiled
    # For a CPU PyTorch writes C++; for a GPU its compiler, Triton, needs a little C.
    variable, usual = ("CC", "gcc") if device.type == "cuda" else ("CXX", "g++")
    has_compiler = shutil.which(os.environ.get(variable, usual)) is not None
    return n_images >= _COMPILE_FROM and has_compiler


def extract_features(
    extractor: Extractor,
    source: ImageSource,
    *,
    batch_size: int,
    num_workers: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    compiled: bool | None = False,
) -> Resumable[RowBlocks[LabeledBlock]]:
    """Feature vectors of all images of a source, batch by batch, computed while they are saved.

    Workers decode and resize, the network runs in a thread of its own, whoever saves writes: the
    three overlap, and on a GPU copying too. Missing and unreadable images go through the network
    as blank ones; blocks say which.

    Args:
        extractor: The network.
        source: The images.
        batch_size: Images per pass through the network, and rows per block.
        num_workers: Processes that decode images; 0: this process does; None: one for every core.
        device: auto, cpu or cuda.
        precision: float32, bfloat16 (autocast), or auto: bfloat16 on a GPU, else float32.
        compiled: Whether torch.compile prepares the network, which takes half a minute and makes
            it up to half as fast again; None: where there are enough images and a compiler.

    Returns:
        Blocks of float32 (m, dimension) features and int32 (m,) labels; of images that are known
        by keys, :class:`~lowshot_kedro.blocks.KeyedRowBlocks`. In memory: the network, two batches
        per worker, two more in the network and four results.

    Raises:
        ValueError: If the images are not at hand; when consumed, if the network returns NaN or
            another dimension than it states.
    """
    n_images = len(source)
    if isinstance(source, AbsentImages):
        raise InputError(f"{source!r}: found no images, expected at least one")
    torch_device = choose_device(device)
    autocast = precision == "bfloat16" or (precision == "auto" and torch_device.type == "cuda")
    is_compiled = _is_compiled(compiled, torch_device, n_images)

    def batches(images: ImageSource, numbers: _Numbers, first: int) -> Iterator[LabeledBlock]:
        loader = image_batches(
            images, extractor.preprocess, batch_size, first, num_workers, torch_device
        )
        n_problems, n_before = 0, first
        begun: deque[tuple[Callable[[], torch.Tensor], ImageBatch]] = deque()
        with (
            _Running(extractor, torch_device, autocast, is_compiled, batch_size) as running,
            Progress(len(images), extractor.name, first, "image") as progress,
        ):

            def finish() -> LabeledBlock:
                nonlocal first, n_problems
                output, batch = begun.popleft()
                of_block = numbers[first : first + len(batch.labels)]
                block = _to_block(output(), batch, extractor, of_block)
                _log_problems(block.problems, of_block, n_problems)
                n_problems += len(block.problems)
                first += len(block.features)
                progress.update(len(block.features))
                return block

            for batch in loader:
                begun.append((running.begin(batch.pixels), batch))
                if len(begun) > running.n_waiting:
                    yield finish()
            while begun:
                yield finish()
        level = logging.WARNING if n_problems else logging.INFO
        n_seen = len(images) - n_before
        logger.log(level, "%d of %d images missing or unreadable", n_problems, n_seen)

    def blocks_of(images: ImageSource, numbers: _Numbers) -> RowBlocks[LabeledBlock]:
        return RowBlocks(
            len(images),
            extractor.dimension,
            batch_size,
            lambda first: prefetch(batches(images, numbers, first)),
        )

    def begin(folder: Path) -> RowBlocks[LabeledBlock]:
        of_all = source.positions if isinstance(source, ImageSubset) else range(n_images)
        blocks = blocks_of(source, of_all)
        if not isinstance(source, KeyedImages):
            return blocks
        return KeyedRowBlocks(
            **vars(blocks),
            keys=lambda: _keys_of(source),
            labels=source.labels,
            only=lambda rows: blocks_of(ImageSubset(source, rows), rows),
            facts_of_collection=frozenset({"n_rows", "pictures"}),
        )

    provenance = {
        "kind": "features",
        "n_rows": n_images,
        "n_columns": extractor.dimension,
        "network": extractor.describe(),
        "precision": "bfloat16" if autocast else "float32",
        "compiled": is_compiled,
        "pictures": source.describe(),
        # Features from before images were turned are others, whatever the files are.
        "exif_orientation": "applied",
    }
    return Resumable(provenance, begin)


def _keys_of(source: KeyedImages) -> NDArray[np.uint8]:
    """The keys of all images of a source, each of which is opened for that."""
    keys = [source.file_keys(0, 0)]
    with Progress(len(source), "keys of images", unit="image") as progress:
        ranges = row_ranges(len(source), _KEYS_AT_ONCE)
        for of_some in map_in_threads(lambda rows: source.file_keys(*rows), ranges):
            keys.append(of_some)
            progress.update(len(of_some))
    return np.concatenate(keys)


def _to_block(
    output: torch.Tensor, batch: ImageBatch, extractor: Extractor, numbers: _Numbers
) -> LabeledBlock:
    features = output.float().cpu().numpy()
    n_images = len(batch.labels)
    if features.shape != (n_images, extractor.dimension):
        raise InputError(
            f"extractor {extractor.name}: returned an array of shape {features.shape}; "
            f"expected {(n_images, extractor.dimension)}"
        )
    require_finite(features, np.asarray(numbers), f"features of extractor {extractor.name}")
    return LabeledBlock(features, batch.labels.numpy(), batch.problems)


def _log_problems(problems: Mapping[int, str], numbers: _Numbers, n_before: int) -> None:
    for position in sorted(problems)[: max(0, _MAX_PROBLEMS_LOGGED - n_before)]:
        logger.warning("image %d is blank: %s", numbers[position], problems[position])
