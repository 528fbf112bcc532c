"""Numbers that change from epoch to epoch: learning rates, and the momentum of a bank."""

from __future__ import annotations

import math
from collections.abc import Mapping

from lowshot_kedro.training.parameters import TrainingParameters


def learning_rate(parameters: TrainingParameters, epoch: int) -> float:
    """The learning rate of an epoch, counted from 0.

    `step`: lr · lr_gamma^⌊epoch / lr_step_epochs⌋. `cosine`: half a period of the cosine from lr in
    the first epoch towards 0 behind the last one (I. Loshchilov and F. Hutter, "SGDR", ICLR 2017,
    without restarts). `constant`: lr.
    """
    if parameters.lr_schedule == "step":
        return float(parameters.lr * parameters.lr_gamma ** (epoch // parameters.lr_step_epochs))
    if parameters.lr_schedule == "cosine":
        return parameters.lr * (1 + math.cos(math.pi * epoch / parameters.epochs)) / 2
    return parameters.lr


def value_of_epoch(first: float, changes: Mapping[int, float], epoch: int) -> float:
    """The value that holds in an epoch.

    Args:
        first: The value from the first epoch on.
        changes: Epoch, counted from 0 → the value from then on.
        epoch: The epoch.
    """
    begun = [start for start in changes if start <= epoch]
    return changes[max(begun)] if begun else first
