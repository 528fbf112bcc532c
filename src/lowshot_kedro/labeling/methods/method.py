"""What a method gets, and what it is asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.blocks import FeatureMatrix, row_ranges, take_rows
from lowshot_kedro.diffusion import PropagationMatrix
from lowshot_kedro.methods import METHODS
from lowshot_kedro.methods.logistic_regression import LogisticRegressionParameters
from lowshot_kedro.progress import Progress

if TYPE_CHECKING:
    from lowshot_kedro.labeling.calibration import CalibratedMethod

BLOCK_ROWS = 16384


@dataclass(frozen=True)
class Work:
    """The images of a labelling as methods see them.

    Attributes:
        matrix: W of the graph of all N images.
        features: N rows.
        nodes: int32 (L,), images with a label that methods learn from, increasing.
        classes: int32 (L,), their classes, 0..C-1, each present.
        n_classes: C.
        folds: Labels that are held out together, as positions 0..L-1; H of all folds together.
        logistic_regression: Parameters of that method.
        seed: Seed.
    """

    matrix: PropagationMatrix
    features: FeatureMatrix
    nodes: NDArray[np.int32]
    classes: NDArray[np.int32]
    n_classes: int
    folds: Sequence[NDArray[np.int64]]
    logistic_regression: LogisticRegressionParameters
    seed: int

    @property
    def tested(self) -> NDArray[np.int64]:
        """int64 (H,), positions of the labels that are held out, fold after fold."""
        return np.concatenate([np.empty(0, np.int64), *self.folds])

    @cached_property
    def labeled_features(self) -> NDArray[np.float32]:
        """float32 (L, d), features of the labelled images, read once for all methods."""
        return take_rows(self.features, self.nodes.astype(np.int64))

    def kept(self, fold: NDArray[np.int64]) -> NDArray[np.int64]:
        """Positions of the labels that are left beside those held out, increasing."""
        return np.setdiff1d(np.arange(len(self.nodes)), fold)


class LabelingMethod(ABC):
    """Finds labels for all images.

    Args:
        work: The images and their labels.
        parts: The methods named in `parts`, with their calibration.

    Attributes:
        name: As in :data:`lowshot_kedro.methods.METHODS`.
        parts: Methods that this one joins.
        default_temperature: The temperature that is right for most collections of images with few
            labels, for where there are none to fit one by.
        temperature_spread: How far the right one is from it as a rule: the standard deviation of
            its logarithm.
        library: A module of an extra, without which it does not work.
    """

    name: ClassVar[str]
    parts: ClassVar[tuple[str, ...]] = ()
    default_temperature: ClassVar[float] = 1.0
    temperature_spread: ClassVar[float] = 0.5
    library: ClassVar[str | None] = None

    def __init__(self, work: Work, parts: Mapping[str, CalibratedMethod]) -> None:
        self.work = work

    @property
    def title(self) -> str:
        """What it is called in sentences."""
        return METHODS[self.name].title

    @abstractmethod
    def held_out(self) -> NDArray[np.float32]:
        """Probabilities of held-out labels, found without those of their fold.

        Returns:
            float32 (H, C), in the order of :attr:`Work.tested`; rows sum to 1, or to 0 where
            nothing is known.
        """

    @abstractmethod
    def everyone(self) -> NDArray[np.float32]:
        """Probabilities of all images, found with all labels, float32 (N, C), rows as above."""

    def _block_by_block(
        self, probabilities: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        """What a function says of the features of all images, which are read in blocks."""
        features = self.work.features
        result = np.empty((features.n_rows, self.work.n_classes), np.float32)
        with Progress(features.n_rows, f"{self.title}: all images", unit="image") as bar:
            for first, last in row_ranges(features.n_rows, BLOCK_ROWS):
                result[first:last] = probabilities(features.read(first, last))
                bar.update(last - first)
        return result

    def described(self) -> dict[str, Any]:
        """What was chosen on the way, as JSON holds it."""
        return {}


def to_shares(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale rows to sum 1, in place, block by block; rows of zeros stay."""
    for first, last in row_ranges(len(scores), BLOCK_ROWS):
        block = scores[first:last]
        sums = block.sum(axis=1, keepdims=True)
        sums[sums == 0] = 1
        block /= sums
    return scores
