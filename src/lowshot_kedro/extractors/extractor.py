"""Running a network over a collection of pictures."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from lowshot_kedro.devices import choose_device
from lowshot_kedro.errors import InputError
from lowshot_kedro.images import ImageSource
from lowshot_kedro.matrices import Blocks, LabeledBlock, require_finite

logger = logging.getLogger(__name__)

PRECISIONS = ("auto", "float32", "bfloat16")

_MAX_PROBLEMS_LOGGED = 20


@dataclass(frozen=True)
class Extractor:
    """A network and the preprocessing it was trained with.

    Attributes:
        name: As in `features.extractor`.
        network: Maps float32 (n, 3, size, size) to float32 (n, dimension), in evaluation mode.
        preprocess: Turns an RGB picture into a float32 (3, size, size) tensor.
        dimension: Length of a feature vector.
    """

    name: str
    network: nn.Module
    preprocess: Callable[[Image.Image], torch.Tensor]
    dimension: int


class _Preprocessed(Dataset[tuple[torch.Tensor, int, str]]):
    """Pictures as network input, with their label and problem ("" for none)."""

    def __init__(
        self, source: ImageSource, preprocess: Callable[[Image.Image], torch.Tensor]
    ) -> None:
        self.source = source
        self.preprocess = preprocess

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int, str]:
        picture = self.source[number]
        return self.preprocess(picture.image), picture.label, picture.problem or ""


def extract_features(
    extractor: Extractor,
    source: ImageSource,
    *,
    batch_size: int,
    num_workers: int,
    device: str = "auto",
    precision: str = "auto",
) -> Blocks[LabeledBlock]:
    """Feature vectors of all pictures of a source, batch by batch.

    Missing and unreadable pictures are counted, logged and go through the network as blank ones.

    Args:
        extractor: The network.
        source: The pictures.
        batch_size: Pictures per pass through the network, and rows per block.
        num_workers: Processes that decode pictures; 0: this process does.
        device: auto, cpu or cuda.
        precision: float32, bfloat16 (autocast), or auto: bfloat16 on a GPU, else float32.

    Returns:
        Blocks of float32 (m, dimension) features and int32 (m,) labels. In memory: the network and
        a few batches per worker.

    Raises:
        ValueError: If there is no picture; when consumed, if the network returns NaN or another
            dimension than it states.
    """
    if len(source) == 0:
        raise InputError(f"{source!r}: found no pictures, expected at least one")
    torch_device = choose_device(device, "features.device")
    autocast = precision == "bfloat16" or (precision == "auto" and torch_device.type == "cuda")

    def batches() -> Iterator[LabeledBlock]:
        network = extractor.network.eval().to(torch_device)
        loader = DataLoader(
            _Preprocessed(source, extractor.preprocess),
            batch_size=batch_size,
            num_workers=num_workers,
            pin_memory=torch_device.type == "cuda",
        )
        first = n_problems = 0
        with tqdm(total=len(source), unit="picture", desc=extractor.name, disable=None) as bar:
            for images, labels, problems in loader:
                with (
                    torch.inference_mode(),
                    torch.autocast(torch_device.type, torch.bfloat16, enabled=autocast),
                ):
                    output = network(images.to(torch_device, non_blocking=True))
                features = output.float().cpu().numpy()
                if features.shape != (len(labels), extractor.dimension):
                    raise InputError(
                        f"extractor {extractor.name}: returned an array of shape {features.shape}; "
                        f"expected {(len(labels), extractor.dimension)}"
                    )
                rows = np.arange(first, first + len(labels))
                require_finite(features, rows, f"features of extractor {extractor.name}")
                for number, problem in zip(rows, problems, strict=True):
                    if problem:
                        n_problems += 1
                        if n_problems <= _MAX_PROBLEMS_LOGGED:
                            logger.warning("picture %d is blank: %s", number, problem)
                first += len(labels)
                bar.update(len(labels))
                yield LabeledBlock(features, labels.numpy().astype(np.int32))
        level = logging.WARNING if n_problems else logging.INFO
        logger.log(level, "%d of %d pictures missing or unreadable", n_problems, len(source))

    return Blocks(n_rows=len(source), n_columns=extractor.dimension, make=batches)
