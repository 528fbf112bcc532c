"""Late fusion of diffusion and logistic regression."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.blocks import row_ranges
from lowshot_kedro.classifiers import weighted_averages
from lowshot_kedro.labeling.methods.method import BLOCK_ROWS, LabelingMethod, Work, to_shares
from lowshot_kedro.methods import METHODS

if TYPE_CHECKING:
    from lowshot_kedro.labeling.calibration import CalibratedMethod


class CombinedLabels(LabelingMethod):
    """The average of two methods' calibrated probabilities, Douze et al., CVPR 2018, section 4.

    Of an image about which one of them says nothing, it says what the other one does.
    """

    name = "combined"
    parts = METHODS["combined"].parts
    library = "torch"
    default_temperature = 0.7

    def __init__(self, work: Work, parts: Mapping[str, CalibratedMethod]) -> None:
        super().__init__(work, parts)
        self._first, self._second = (parts[name] for name in self.parts)

    def held_out(self) -> NDArray[np.float32]:
        """Averages of held-out probabilities."""
        return _averages(self._first.held_out.copy(), self._second.held_out)

    def everyone(self) -> NDArray[np.float32]:
        """Averages of both parts' probabilities. In memory: those of both."""
        return _averages(self._first.everyone(), self._second.everyone())

    def described(self) -> dict[str, Any]:
        """What the parts say."""
        return self._first.method.described() | self._second.method.described()


def _averages(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """Averages, written over the first."""
    for begin, end in row_ranges(len(first), BLOCK_ROWS):
        (first[begin:end],) = weighted_averages(first[begin:end], second[begin:end], [0.5])
    return to_shares(first)
