"""What two processes do in one start of theirs."""

from __future__ import annotations

from pathlib import Path

from lowshot_kedro.snca.training import _train
from lowshot_kedro.training import loop
from lowshot_kedro.training.processes import Processes
from tests.snca.making import job


class Stop(Exception):
    pass


def train_whole_and_with_stops(processes: Processes, folder: Path) -> None:
    """Three trainings: without a stop, stopped and continued, and stopped in the middle."""
    _train(processes, job(folder / "whole"))
    learn, left = loop._Loop._backward, 0

    def learn_or_stop(self, *arguments):
        nonlocal left
        left -= 1
        if left < 0:
            raise Stop
        learn(self, *arguments)

    loop._Loop._backward = learn_or_stop
    for name, n_batches in (("stopped", 2), ("stopped", 2), ("stopped", 9), ("begun", 4)):
        left = n_batches
        try:
            _train(processes, job(folder / name))
        except Stop:
            continue
