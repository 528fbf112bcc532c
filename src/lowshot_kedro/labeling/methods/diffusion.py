"""Diffusion with the steps chosen from the labels."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.diffusion import (
    MAX_STEPS,
    ChosenSteps,
    choose_steps,
    held_out_scores,
    propagate,
    scores_when_reached,
)
from lowshot_kedro.errors import NotEnoughMemoryError
from lowshot_kedro.labeling.methods.method import LabelingMethod, Work, to_shares
from lowshot_kedro.progress import logged_step

if TYPE_CHECKING:
    from lowshot_kedro.labeling.calibration import CalibratedMethod

logger = logging.getLogger(__name__)


class DiffusionLabels(LabelingMethod):
    """The share of each class in the mass that has come to an image.

    As :class:`~lowshot_kedro.LabelDiffusion` does it: held-out labels choose the number of steps,
    and images that are farther away get the shares of their first mass. Classes have the same mass.
    """

    name = "diffusion"
    default_temperature = 0.6

    def __init__(self, work: Work, parts: Mapping[str, CalibratedMethod]) -> None:
        super().__init__(work, parts)
        self._labels = (work.matrix, work.nodes, work.classes, work.n_classes)

    @cached_property
    def _chosen(self) -> ChosenSteps:
        return choose_steps(
            *self._labels, seed=self.work.seed, keep_scores=True, held_out=self.work.folds
        )

    def held_out(self) -> NDArray[np.float32]:
        """Shares after the chosen steps; folds are propagated together where that is faster."""
        return to_shares(held_out_scores(*self._labels, self._chosen.n_iterations, self.work.folds))

    def everyone(self) -> NDArray[np.float32]:
        """Shares after the chosen steps. In memory: these, and two score matrices of N × C."""
        matrix, nodes, classes, n_classes = self._labels
        n_iterations = self._chosen.n_iterations
        scores = self._chosen.scores
        # Kept once only: these are changed below.
        self._chosen = self._chosen._replace(scores=None)
        if scores is None:
            with logged_step("diffusion"):
                (scores,) = propagate(
                    matrix,
                    classes,
                    np.arange(matrix.n_nodes, dtype=np.int32)[:, None],
                    n_classes,
                    n_iterations,
                    every_step=False,
                    labeled_nodes=nodes,
                )
        unreached = np.flatnonzero(scores.max(axis=1) == 0).astype(np.int32)
        if len(unreached):
            try:
                with logged_step(f"diffusion to {len(unreached)} images that are farther away"):
                    scores[unreached] = scores_when_reached(
                        matrix,
                        classes,
                        unreached,
                        n_classes,
                        n_iterations,
                        n_iterations + MAX_STEPS,
                        labeled_nodes=nodes,
                    )
            except NotEnoughMemoryError as error:
                logger.info("images that are farther away stay without a label: %s", error)
        return to_shares(scores)

    def described(self) -> dict[str, Any]:
        """The number of steps."""
        return {"n_iterations": self._chosen.n_iterations}
