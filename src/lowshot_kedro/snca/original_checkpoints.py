"""Checkpoints of the original SNCA code: the network, and the bank of remembered embeddings.

There are two kinds. That of ImageNet (`checkpoint.pth.tar`) has the tensors of the network by name
and the bank as a whole pickled module; that of CIFAR-10 (`ckpt.t7`) has both as pickled modules.
Nothing in them is executed.

Z. Wu, A. Efros and S. Yu, "Improving Generalization via Scalable Neighborhood Component Analysis",
ECCV 2018.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize

from lowshot_kedro.blocks import Blocks, LabeledBlock, row_ranges, spread_rows
from lowshot_kedro.errors import InputError
from lowshot_kedro.images import ImageSource
from lowshot_kedro.input_files import require_file
from lowshot_kedro.networks.embedding_file import EmbeddingDescription, embedding_from_tensors
from lowshot_kedro.networks.embedding_module import EmbeddingNetwork
from lowshot_kedro.networks.pickled_modules import PickledModule
from lowshot_kedro.networks.weights import State, plain_state, read_checkpoint, state_of
from lowshot_kedro.training.transforms import RECIPES

logger = logging.getLogger(__name__)

# Blocks of the four stages, and whether they are bottlenecks → depth.
_DEPTHS = {
    ((2, 2, 2, 2), False): 18,
    ((3, 4, 6, 3), False): 34,
    ((3, 4, 6, 3), True): 50,
    ((3, 4, 23, 3), True): 101,
    ((3, 8, 36, 3), True): 152,
}
# The last layer → the first part of the network's name here.
_HEADS = {"fc": "torchvision/resnet", "linear": "cifar_resnet"}

_BANK_KEYS = ("lemniscate", "memory", "bank")
_LABEL_KEYS = ("labels", "targets", "train_labels")

_MAX_ROWS_COMPARED = 1000
_ROWS_PER_BLOCK = 2**14
_ORDER = "sorted folders of classes and in each of them sorted files, or the data set's own order"


@dataclass(frozen=True)
class OriginalCheckpoint:
    """What a checkpoint of the original code holds.

    Attributes:
        path: The file.
        network: Name of the network here, such as torchvision/resnet18 or cifar_resnet18.
        dimension: Length of an embedding.
        state: Its tensors, under the names that they have here too.
        bank: float32 (N, dimension), the remembered embedding of every training image; None: the
            file has none.
        labels: int64 (N,), the class of each; None: the file does not say.
        temperature: That of the bank; None: the file does not say.
        momentum: That of the bank; None: the file does not say.
        epoch: As stored: the next one (ImageNet) or the best one (CIFAR-10); None: not stored.
        accuracy: The best so far, from 0 to 1; None: not stored.
    """

    path: Path
    network: str
    dimension: int
    state: State
    bank: torch.Tensor | None
    labels: torch.Tensor | None
    temperature: float | None
    momentum: float | None
    epoch: int | None
    accuracy: float | None

    def description(self) -> EmbeddingDescription:
        """What the network is, with the preprocessing of the original's test images."""
        facts = {
            "origin": "checkpoint of the original SNCA code",
            "epoch": self.epoch,
            "accuracy": self.accuracy,
            "temperature": self.temperature,
            "momentum": self.momentum,
        }
        known = {name: value for name, value in facts.items() if value is not None}
        recipe, size = ("cifar", 32) if self.network.startswith("cifar") else ("imagenet", 224)
        return RECIPES[recipe].describe(self.network, self.dimension, size, known)

    def embedding_network(self) -> EmbeddingNetwork:
        """The network, in evaluation mode.

        Raises:
            InputError: If a tensor is missing, unexpected, or of another shape.
        """
        return embedding_from_tensors(self.description(), dict(self.state), self.path)

    def network_file(self) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
        """Tensors and header of the file of a trained network.

        Raises:
            InputError: As :meth:`embedding_network`.
        """
        return self.embedding_network().state_dict(), self.description().to_metadata()

    def bank_rows(self, images: ImageSource | None) -> Blocks[LabeledBlock]:
        """The bank with the class of every row, as a feature file has them.

        Args:
            images: The images that the bank is of; None: the checkpoint's own labels are taken.

        Raises:
            InputError: If there is no bank, its classes are not known, or the images are others.
        """
        bank = self._required_bank()
        if images is not None:
            require_images(self, images)
            labels = np.asarray(images.labels, np.int32)
        elif self.labels is not None:
            labels = self.labels.numpy().astype(np.int32)
        else:
            raise InputError(
                f"{self.path}: says of no row of its bank which class it is of; expected the "
                "images that the bank was made from as well"
            )
        rows = bank.numpy()

        def blocks() -> Iterator[LabeledBlock]:
            for first, last in row_ranges(len(rows), _ROWS_PER_BLOCK):
                yield LabeledBlock(rows[first:last], labels[first:last])

        return Blocks(len(rows), self.dimension, blocks)

    def _required_bank(self) -> torch.Tensor:
        if self.bank is None:
            raise InputError(
                f"{self.path}: holds no bank, expected one under {' or '.join(_BANK_KEYS)}"
            )
        return self.bank


def read_original_checkpoint(path: str | Path) -> OriginalCheckpoint:
    """Read a checkpoint of the original code, written by any PyTorch since 2017.

    Besides the original's two kinds, tensors by name are taken that have a matrix `memory` or
    `bank` and a vector `labels` beside them, or beside the dictionary that they are in.

    Args:
        path: The file.

    Returns:
        What it holds, on the CPU, all of it in memory.

    Raises:
        FileNotFoundError: If it is not there.
        InputError: If it is another kind of file, asks for code, or holds another network.
    """
    path = Path(path)
    require_file(path)
    loaded = read_checkpoint(path)
    beside = loaded if isinstance(loaded, dict) else {}
    state = plain_state(_network_tensors(state_of(loaded, path)), path)
    bank, temperature, momentum = _bank_of(beside, path)
    network, dimension = _network_of(state, path)
    labels = next((beside[key] for key in _LABEL_KEYS if key in beside), None)
    if labels is not None:
        labels = _require_labels(labels, bank, path)
    if bank is not None and bank.shape[1] != dimension:
        raise InputError(
            f"{path}: its bank has {bank.shape[1]} columns but its network returns {dimension} "
            "numbers; expected as many"
        )
    epoch = _number(beside.get("epoch"))
    return OriginalCheckpoint(
        path=path,
        network=network,
        dimension=dimension,
        state=state,
        bank=bank,
        labels=labels,
        temperature=temperature,
        momentum=momentum,
        epoch=None if epoch is None else int(epoch),
        accuracy=_number(beside.get("best_prec1", beside.get("acc"))),
    )


def _network_tensors(found: State) -> State:
    """The tensors of the network alone, where bank and labels have been put among them."""
    return {
        name: tensor
        for name, tensor in found.items()
        if str(name).partition(".")[0] not in (*_BANK_KEYS, *_LABEL_KEYS)
    }


def _bank_of(
    beside: Mapping[Any, Any], path: Path
) -> tuple[torch.Tensor | None, float | None, float | None]:
    """The bank, and its temperature and momentum."""
    key = next((key for key in _BANK_KEYS if beside.get(key) is not None), None)
    if key is None:
        found: Any = {
            name.partition(".")[2]: tensor
            for name, tensor in beside.items()
            if isinstance(name, str) and name.startswith("lemniscate.")
        }
        if not found:
            return None, None, None
        key = "lemniscate"
    else:
        found = beside[key]
    where = f"{path}: {key}"
    if isinstance(found, PickledModule):
        found = found.tensors(path)
    parameters = None
    if isinstance(found, dict):
        found = {str(name).removeprefix("module."): tensor for name, tensor in found.items()}
        parameters = found.get("params")
        found = found.get("memory")
        where += ".memory"
    if not (
        isinstance(found, torch.Tensor)
        and found.layout == torch.strided
        and found.ndim == 2
        and found.is_floating_point()
    ):
        raise InputError(f"{where} is no matrix of numbers, expected the embedding of every image")
    bank = found.detach().float().contiguous()
    if not bool(bank.isfinite().all()):
        raise InputError(f"{where} holds NaN or infinity, expected numbers")
    if isinstance(parameters, torch.Tensor) and parameters.numel() >= 2:
        temperature, momentum = map(_number, parameters.reshape(-1)[:2])
        return bank, temperature, momentum
    return bank, None, None


def _require_labels(found: object, bank: torch.Tensor | None, path: Path) -> torch.Tensor:
    try:
        labels = torch.as_tensor(found).reshape(-1)
        is_whole = not labels.is_floating_point() and not labels.is_complex()
    except (TypeError, ValueError, RuntimeError):
        is_whole = False
    if not is_whole or (len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < 2**31):
        raise InputError(f"{path}: its labels are no list of classes, expected integers from 0")
    if bank is not None and len(labels) != len(bank):
        raise InputError(
            f"{path}: {len(labels)} labels but a bank of {len(bank)} rows; expected as many"
        )
    return labels.long()


def _number(value: object) -> float | None:
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        value = value.item()
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None  # type: ignore[arg-type]


def _network_of(state: State, path: Path) -> tuple[str, int]:
    """Name of the network here, and length of an embedding, from the names of its tensors."""
    heads = [head for head in _HEADS if f"{head}.weight" in state]
    stages = [
        {name.split(".")[1] for name in state if re.match(rf"layer{stage}\.\d+\.", name)}
        for stage in (1, 2, 3, 4)
    ]
    is_bottleneck = "layer1.0.conv3.weight" in state
    depth = _DEPTHS.get((tuple(map(len, stages)), is_bottleneck))  # type: ignore[arg-type]
    if len(heads) != 1 or depth is None or state[f"{heads[0]}.weight"].ndim != 2:
        raise InputError(
            f"{path}: holds no network of the original SNCA code; expected the tensors of a ResNet "
            "of 18, 34, 50, 101 or 152 layers that ends in fc or linear"
        )
    return f"{_HEADS[heads[0]]}{depth}", len(state[f"{heads[0]}.weight"])


def require_images(checkpoint: OriginalCheckpoint, images: ImageSource) -> None:
    """Refuse images that are not those that a bank was made from, as far as that can be seen.

    Where numbers agree, the nearest other row of some rows is looked for: if it is of the same
    class no more often than chance has it, a warning says so. A bank from before the training is
    like that too.

    Args:
        checkpoint: A checkpoint with a bank.
        images: The images in the order in which the original's data set had them.

    Raises:
        InputError: If there is no bank, or its rows are another number than the images, or of other
            classes.
    """
    bank = checkpoint._required_bank()
    labels = np.asarray(images.labels)
    if len(bank) != len(labels):
        raise InputError(
            f"{checkpoint.path}: its bank has {len(bank)} rows but {images!r} has {len(labels)} "
            f"images; expected the images that it was made from, in its order: {_ORDER}"
        )
    if checkpoint.labels is not None:
        differing = np.flatnonzero(checkpoint.labels.numpy() != labels)
        if len(differing):
            first = int(differing[0])
            raise InputError(
                f"{checkpoint.path}: {len(differing)} of its {len(bank)} labels differ from those "
                f"of {images!r}, the first in row {first} ({int(checkpoint.labels[first])} and "
                f"{int(labels[first])}); expected the same images in its order: {_ORDER}"
            )
    n_compared, share, chance = nearest_row_agreement(bank, labels)
    # Three standard deviations of the share that rows of any class would have. Of few rows that
    # may be more than all.
    spread = 3 * math.sqrt(chance * (1 - chance) / max(1, n_compared))
    if share <= chance + min(spread, (1 - chance) / 2):
        logger.warning(
            "%s: the nearest other row of %d rows of the bank is of the same class in %.1f %%, by "
            "chance it would be in %.1f %%: bank and images probably do not belong together, or "
            "the bank is from before the training",
            checkpoint.path,
            n_compared,
            100 * share,
            100 * chance,
        )


def nearest_row_agreement(
    bank: torch.Tensor, labels: NDArray[Any], max_rows: int = _MAX_ROWS_COMPARED
) -> tuple[int, float, float]:
    """How often the nearest other row of a row is of its class.

    Nearest is the largest cosine similarity.

    Args:
        bank: float32 (N, D). Beside it, 64 MB are taken.
        labels: Integers (N,).
        max_rows: So many rows, evenly spread, are looked at.

    Returns:
        The number of rows looked at, the part of them whose nearest other row is of their class,
        and the part that would be if rows were of any class.
    """
    n_rows = len(bank)
    if n_rows < 2:
        return 0, 0.0, 0.0
    rows = torch.from_numpy(spread_rows(n_rows, min(n_rows, max_rows)).astype(np.int64))
    queries = normalize(bank[rows])
    best = torch.full((len(rows),), -math.inf)
    nearest = torch.zeros(len(rows), dtype=torch.int64)
    for first, last in row_ranges(n_rows, _ROWS_PER_BLOCK):
        similarities = queries @ normalize(bank[first:last]).T
        own = (rows >= first) & (rows < last)
        similarities[own, rows[own] - first] = -math.inf
        largest, position = similarities.max(1)
        is_nearer = largest > best
        best[is_nearer] = largest[is_nearer]
        nearest[is_nearer] = position[is_nearer] + first
    _, classes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    share = float(np.mean(labels[rows.numpy()] == labels[nearest.numpy()]))
    chance = float(np.mean((sizes[classes[rows.numpy()]] - 1) / (n_rows - 1)))
    return len(rows), share, chance
