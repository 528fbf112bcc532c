"""What several processes do in one start of theirs."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from lowshot_kedro.training.processes import Processes
from tests.deepercluster.making import Job, parameters, train_made
from tests.training.making import Stop, stopped_after


def train_whole(processes: Processes, folder: Path) -> None:
    train_made(processes, Job(parameters(), folder / f"whole-{processes.n_processes}"))


def train_whole_and_with_stops(processes: Processes, folder: Path) -> None:
    """Three trainings: without a stop, stopped and continued, and stopped in the middle."""
    train_whole(processes, folder)
    every_step = parameters(checkpoint_minutes=0)
    for name, n_batches in (("stopped", 4), ("stopped", 13), ("stopped", 99), ("begun", 24)):
        with suppress(Stop), stopped_after(n_batches):
            train_made(processes, Job(every_step, folder / name))
