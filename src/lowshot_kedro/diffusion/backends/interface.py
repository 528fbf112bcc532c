"""What a back end has to be able to do."""

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


def bytes_held(name: str, matrix: PropagationMatrix, precision: str) -> tuple[int, int]:
    """Memory that a back end takes while it steps.

    Args:
        name: The back end.
        matrix: W.
        precision: Of the stored scores.

    Returns:
        Bytes beside the matrix itself, and bytes for every class of a slice.
    """
    score_bytes = 2 if precision == "bfloat16" else 4
    # Sums of columns: doubles, for up to 1024 blocks of rows.
    per_class = {
        "native": 2 * score_bytes * matrix.n_nodes + 8 * 1024,
        "mkl": 2 * 4 * matrix.n_nodes + 8 * 1024,
        "scipy": 3 * 8 * matrix.n_nodes,
        "torch": 3 * 4 * matrix.n_nodes,
    }
    beside = {"native": 0, "mkl": 4, "scipy": 12, "torch": 4}
    return beside[name] * matrix.n_edges, per_class[name]
