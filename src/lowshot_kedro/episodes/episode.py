"""One episode: support and query images of n classes, as every method sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.blocks import RegionFeatures, View

__all__ = ["Episode", "RegionFeatures", "View"]


@dataclass(frozen=True)
class Episode:
    """An episode of n-way n-shot classification.

    Classes are numbered from 0 in the order in which they were drawn. Images stand as the original
    has them: one of each class, then another of each class.

    Attributes:
        number: Position among the episodes.
        support_rows: int64 (n_shot · n_way,): positions of the support images.
        query_rows: int64 (n_query · n_way,): positions of the query images.
        n_way: Classes.
        views: Regions of all images, in the forms that are at hand.
    """

    number: int
    support_rows: NDArray[np.int64]
    query_rows: NDArray[np.int64]
    n_way: int
    views: Mapping[View, RegionFeatures]

    @property
    def n_shot(self) -> int:
        """Support images of a class."""
        return len(self.support_rows) // self.n_way

    @property
    def support_classes(self) -> NDArray[np.int64]:
        """int64 (n_shot · n_way,): 0, 1, …, n_way - 1, again and again."""
        return np.arange(len(self.support_rows)) % self.n_way

    @property
    def query_classes(self) -> NDArray[np.int64]:
        """int64 (n_query · n_way,): 0, 1, …, n_way - 1, again and again."""
        return np.arange(len(self.query_rows)) % self.n_way

    def regions(self, view: View) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Regions of support and query images, float32 (n, C, H, W); read once, then kept."""
        if view not in self._read:
            features = self.views[view]
            self._read[view] = features.read(self.support_rows), features.read(self.query_rows)
        return self._read[view]

    @cached_property
    def _read(self) -> dict[View, tuple[NDArray[np.float32], NDArray[np.float32]]]:
        return {}

    @cached_property
    def vectors(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Feature vectors of support and query images, float32 (n, C): means of the dense maps."""
        support, query = (maps.mean((2, 3)) for maps in self.regions("map"))
        return support, query
