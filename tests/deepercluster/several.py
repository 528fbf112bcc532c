"""What several processes do in one start of theirs."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from shutil import copytree

from lowshot_kedro.training.processes import Processes
from tests.deepercluster.making import Job, parameters, train_made
from tests.training.making import Stop, stopped_after


def train_whole(processes: Processes, folder: Path) -> None:
    train_made(processes, Job(parameters(), folder / f"whole-{processes.n_processes}"))


def train_whole_and_with_stops(processes: Processes, folder: Path) -> None:
    """Two trainings, of which one is stopped twice and left as it was after the second time too."""
    train_whole(processes, folder)
    stopped = Job(parameters(checkpoint_minutes=0), folder / "stopped")
    for n_batches in (3, 14, 99):
        with suppress(Stop), stopped_after(n_batches):
            train_made(processes, stopped)
        if n_batches == 14 and processes.is_first:
            copytree(stopped.folder, folder / "begun")
