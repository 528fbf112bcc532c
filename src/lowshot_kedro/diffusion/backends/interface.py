"""What a back end, which computes the steps of a propagation, has to be able to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.diffusion.matrix import PropagationMatrix
from lowshot_kedro.diffusion.variants import Adjustment, LabeledRows


class Backend(Protocol):
    """Holds the scores L of a slice of the classes, and changes them step by step.

    Wherever rows are mentioned, they are rows of the matrix, not nodes.
    """

    name: ClassVar[str]

    @staticmethod
    def bytes_held(matrix: PropagationMatrix, precision: str) -> tuple[int, int]:
        """Memory taken while it steps: beside the matrix itself, and for every class of a slice."""
        ...

    def start(self, labeled: LabeledRows) -> None:
        """L ← L₀; whatever was held before is forgotten."""
        ...

    def step(self, adjustments: Sequence[Adjustment] = ()) -> None:
        """L ← W L, then every column scaled to sum 1; a zero column stays zero.

        After each adjustment the columns are scaled again.
        """
        ...

    def read(self, neighbors: NDArray[np.int32]) -> NDArray[np.float32]:
        """Sum of the scores of each point's neighbours.

        Args:
            neighbors: int32 (T, k), rows, -1 for none.

        Returns:
            float32 (T, c): Σ_j L_jc over the neighbours j of each point.
        """
        ...

    def step_and_read(self, neighbors: NDArray[np.int32]) -> NDArray[np.float32]:
        """What :meth:`read` would return after one more :meth:`step` without adjustments.

        The scores held are of no use afterwards, so rows that nobody reads need not be computed.
        """
        ...
