"""Which images an episode consists of."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray


class EpisodeSampler:
    """Positions of images, episode by episode, in the original's order for a seed."""

    def __init__(
        self,
        labels: ArrayLike,
        n_way: int,
        n_shot: int,
        n_query: int,
        n_episodes: int,
        seed: int,
    ) -> None:
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        raise NotImplementedError
