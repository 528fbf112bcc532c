"""Some images of another source."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.images.decoding import ImageSource, LoadedImage, require_number
from lowshot_kedro.images.fingerprint import checksum, numbers_as_bytes


class ImageSubset:
    """Chosen images of a source, in the order given. Nothing is decoded before it is asked for.

    Args:
        source: The images to choose from.
        positions: int64 (m,), their numbers in the source.

    Raises:
        IndexError: For a number outside the source.
    """

    def __init__(self, source: ImageSource, positions: NDArray[np.int64]) -> None:
        self.source = source
        self.positions = np.array(positions, dtype=np.int64)
        for number in (self.positions.min(initial=0), self.positions.max(initial=-1)):
            if len(self.positions):
                require_number(int(number), len(source), repr(source))

    @property
    def labels(self) -> NDArray[np.int32]:
        """int32 (m,), 0-based, those of the source."""
        labels: NDArray[np.int32] = self.source.labels[self.positions]
        return labels

    def describe(self) -> dict[str, Any]:
        """What the source says of itself, and a checksum of the positions."""
        return {
            "kind": "subset",
            "n_pictures": len(self),
            "checksum": checksum([numbers_as_bytes(self.positions)]),
            "of": self.source.describe(),
        }

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, number: int) -> LoadedImage:
        number = require_number(number, len(self), repr(self))
        return self.source[int(self.positions[number])]

    def __repr__(self) -> str:
        return f"ImageSubset({len(self)} of {self.source!r})"
