"""Feature maps whose logits, gradients and prototypes the original's outcomes are known for."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

N_WAY = 5


@cache
def reference() -> dict[str, NDArray[Any]]:
    """Outcomes of the original, by name."""
    with np.load(Path(__file__).with_name("head_reference.npz")) as file:
        return dict(file)


def episode(seed: int, n_channels: int, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A support image of each of 5 classes, and 3 queries of each, classes in turn."""
    rng = np.random.default_rng(seed)
    classes = rng.normal(size=(N_WAY, n_channels, side, side))
    support, *queries = (classes + 0.8 * rng.normal(size=classes.shape) for _ in range(4))
    return _as_features(support), _as_features(np.concatenate(queries))


def episode_with_shots() -> tuple[torch.Tensor, torch.Tensor]:
    """5 support images of each of 5 classes, and 3 queries of each, classes in turn."""
    rng = np.random.default_rng(20)
    classes = rng.normal(size=(N_WAY, 640, 2, 2))
    blocks = [classes + rng.normal(size=classes.shape) for _ in range(8)]
    return _as_features(np.concatenate(blocks[:5])), _as_features(np.concatenate(blocks[5:]))


def query_labels() -> torch.Tensor:
    """int64 (15,)."""
    return torch.arange(N_WAY).repeat(3)


def random_maps(seed: int, *shape: int) -> torch.Tensor:
    """float64 maps, most of which are above 0."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64) + 0.5


def _as_features(maps: NDArray[np.float64]) -> torch.Tensor:
    maps = np.where(maps < 0, 0.1 * maps, maps)
    return torch.from_numpy(maps.astype(np.float32) * np.float32(0.5))
