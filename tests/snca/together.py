"""What two processes do in one start of theirs."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from lowshot_kedro.snca.training import _train
from lowshot_kedro.training.processes import Processes
from tests.snca.making import job
from tests.training.making import Stop, stopped_after


def train_whole_and_with_stops(processes: Processes, folder: Path) -> None:
    """Three trainings: without a stop, stopped and continued, and stopped in the middle."""
    _train(processes, job(folder / "whole"))
    for name, n_batches in (("stopped", 2), ("stopped", 2), ("stopped", 9), ("begun", 4)):
        with suppress(Stop), stopped_after(n_batches):
            _train(processes, job(folder / name))
