"""Trainings that signals stop: they save, end with the signal's status, and go on to the same."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch.distributed.elastic.multiprocessing import SignalException

from lowshot_kedro.errors import InputError
from lowshot_kedro.training import launching, stopping
from lowshot_kedro.training.batches import LearntBatch
from lowshot_kedro.training.checkpoints import Checkpoint
from lowshot_kedro.training.loop import train
from lowshot_kedro.training.processes import Processes, ProcessOptions, run_in_processes
from lowshot_kedro.training.stopping import StoppedBySignal, stoppable
from tests.projects import ROOT
from tests.training import stand_in_for_slurm
from tests.training.making import ALONE, MadeImages, Targets, checkpoints, network, parameters
from tests.training.several import train_to_ends

N_IMAGES = 22


@pytest.fixture(autouse=True)
def _nobody_else_handles(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What this process does at signals is the same afterwards."""
    for name in ("SLURM_JOB_ID", "SUBMITIT_EXECUTOR", "SUBMITIT_PREEMPT_SIGNAL"):
        monkeypatch.delenv(name, raising=False)
    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    before = [signal.getsignal(number) for number in numbers]
    yield
    after = [signal.getsignal(number) for number in numbers]
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)
    assert after == before


@pytest.fixture
def job_41(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a job of the stand-in for SLURM, in which this process is."""
    stand_in_for_slurm.install(tmp_path / "bin")
    job = tmp_path / "jobs" / "41"
    job.mkdir(parents=True)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("STAND_IN_FOLDER", str(tmp_path / "jobs"))
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    return job


class Told(Targets):
    """Something happens before one of the batches."""

    def __init__(self, at: int, happens: Callable[[], Any]) -> None:
        super().__init__(N_IMAGES)
        self._at, self._happens = at, happens

    def __call__(self, outputs: torch.Tensor, batch: LearntBatch) -> torch.Tensor:
        if len(self.batches) == self._at:
            self._happens()
        return super().__call__(outputs, batch)


def trained(
    folder: Path, at: int = -1, happens: Callable[[], Any] = lambda: None, **changes: Any
) -> Checkpoint:
    given, made = parameters(**changes), checkpoints(folder)
    train(network(0.5), Told(at, happens), MadeImages(N_IMAGES), given, made, ALONE)
    found = made.latest()
    assert found is not None
    return found


def same(one: Checkpoint, other: Checkpoint) -> bool:
    rows = [each.read_rows("targets", 0, N_IMAGES) for each in (one, other)]
    return torch.equal(*rows) and same_state(one.state, other.state)


def same_state(one: Any, other: Any) -> bool:
    """Whether nested dictionaries and lists are the same, tensors in each bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same_state(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same_state, one, other))
    return bool(one == other)


def position(folder: Path) -> tuple[int, int]:
    found = checkpoints(folder).latest()
    assert found is not None
    return found.state["epoch"], found.state["batch"]


def raising(number: int) -> Callable[[], None]:
    return lambda: signal.raise_signal(number)


@pytest.mark.parametrize(
    ("number", "at", "reached", "after"),
    [
        (signal.SIGTERM, 2, (0, 3), "epoch 1, batch 3 of 6"),
        (signal.SIGUSR1, 7, (1, 2), "epoch 2, batch 2 of 6"),
        (signal.SIGTERM, 11, (2, 0), "epoch 2"),
        # It is done, and the process ends all the same.
        (signal.SIGTERM, 17, (3, 0), "epoch 3"),
    ],
)
def test_a_signal_saves_and_ends_with_its_status(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, number: int, at: int, reached: Any, after: str
) -> None:
    expected = trained(tmp_path / "whole")
    folder = tmp_path / "stopped"
    with pytest.raises(StoppedBySignal) as raised:
        trained(folder, at, raising(number))
    assert raised.value.code == 128 + number
    line = f"stopped by {signal.Signals(number).name} after {after}; the same command continues"
    assert str(raised.value) == str(pickle.loads(pickle.dumps(raised.value))) == line
    assert caplog.messages.count(line) == 1
    assert position(folder) == reached
    assert same(trained(folder), expected)


def test_gradients_are_not_left_in_the_middle(tmp_path: Path) -> None:
    with pytest.raises(StoppedBySignal):
        trained(tmp_path, 2, raising(signal.SIGTERM), accumulated_batches=2)
    assert position(tmp_path) == (0, 4)


def test_the_signal_of_any_process_stops_all() -> None:
    class Three(Processes):
        def stack(self, tensor: torch.Tensor) -> torch.Tensor:
            others = torch.tensor([[1, 0], [0, signal.SIGUSR1]])
            return torch.cat([tensor[None], others])

    assert stopping.ask(Three(0, 3, torch.device("cpu"))) == (True, signal.SIGUSR1)
    assert stopping.ask(ALONE, True) == (True, 0)
    assert not stopping.is_wanted(ALONE)


def test_a_second_sigterm_ends_at_once_unless_it_is_the_same_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def ends_with(seconds: float) -> int:
        pid = os.fork()
        if pid == 0:
            with stoppable():
                monkeypatch.setattr(stopping, "SECONDS_OF_ONE_REQUEST", seconds)
                signal.raise_signal(signal.SIGUSR1)
                signal.raise_signal(signal.SIGTERM)
                signal.raise_signal(signal.SIGTERM)
                os._exit(7 if stopping.is_wanted(ALONE) else 8)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert ends_with(60) == 7
    assert ends_with(-1) == -signal.SIGTERM


def test_a_signal_that_nobody_has_asked_for_is_not_lost() -> None:
    come = []
    signal.signal(signal.SIGUSR1, lambda *given: come.append(given[0]))
    with stoppable():
        with stoppable():
            signal.raise_signal(signal.SIGUSR1)
        assert not come
    assert come == [signal.SIGUSR1]
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    with stoppable():
        signal.raise_signal(signal.SIGUSR1)
        assert not stopping.is_wanted(ALONE)
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)


def test_other_handlers_come_after_the_save_and_may_let_it_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def requeue(*_: Any) -> None:
        seen.append(position(tmp_path))
        raise SystemExit(-1)

    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    signal.signal(signal.SIGUSR2, requeue)
    signal.signal(signal.SIGTERM, lambda *_: seen.append(position(tmp_path)))
    try:
        with pytest.raises(SystemExit) as raised:
            trained(tmp_path, 2, raising(signal.SIGUSR2))
        assert (raised.value.code, seen) == (-1, [(0, 3)])
        assert same(trained(tmp_path, 2, raising(signal.SIGTERM)), trained(tmp_path / "whole"))
        assert seen[1:] == [(1, 0)]
        assert "SIGTERM: saved after epoch 1" in caplog.messages
    finally:
        for number in (signal.SIGUSR2, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)


@pytest.mark.parametrize(("number", "n_times"), [(signal.SIGUSR1, 1), (signal.SIGTERM, 0)])
def test_a_job_of_slurm_is_in_the_queue_again(
    tmp_path: Path, job_41: Path, number: int, n_times: int
) -> None:
    with pytest.raises(StoppedBySignal):
        trained(tmp_path, 2, raising(number))
    assert len(list(job_41.glob("requeued"))) == n_times


def test_a_job_that_slurm_does_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    command = tmp_path / "scontrol"
    command.write_text("#!/bin/sh\necho no such job >&2\nexit 1\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    with pytest.raises(StoppedBySignal):
        trained(tmp_path, 2, raising(signal.SIGUSR1))
    assert "SLURM job 41 is not in the queue again: no such job" in caplog.messages


def outlive_a_signal(folder: Path) -> None:
    """A training with workers, all of which are told to end; what is left of it is checked."""
    workers: list[Any] = []

    def tell_all() -> None:
        workers.extend(multiprocessing.active_children())
        for name in ("TERM", "USR1"):
            pids = [str(worker.pid) for worker in workers]
            subprocess.run(["kill", f"-{name}", *pids, str(os.getpid())], check=True)

    with pytest.raises(StoppedBySignal):
        trained(folder, 2, tell_all, num_workers=2)
    assert len(workers) == 2
    assert position(folder) == (0, 3)
    # As a loader that is not closed, and the end of a process, do.
    for worker in workers:
        worker.terminate()
        worker.join(20)
        assert worker.exitcode is not None


def test_workers_outlive_a_signal_to_all_and_end_with_the_training(tmp_path: Path) -> None:
    """In a process of its own, as a training has: threads of others may take a signal away."""
    call = "import sys, pathlib; from tests.training.test_stopping import outlive_a_signal; "
    call += "outlive_a_signal(pathlib.Path(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", call, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_signal_to_whoever_has_started_processes_is_passed_on_if_they_can_be_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = launching._Asked()
    for folder in (None, tmp_path, tmp_path / "gone"):
        asked.folder, asked.number = folder, 0
        with pytest.raises(SignalException) as raised:
            asked.take(signal.SIGTERM)
        assert raised.value.sigval == signal.SIGTERM
    monkeypatch.setattr(stopping, "_leader", tmp_path)
    asked.folder, asked.number = tmp_path, 0
    with stoppable():
        assert not stopping.is_wanted(ALONE)
        asked.take(signal.SIGUSR1)
        assert stopping.ask(ALONE) == (False, signal.SIGUSR1)
        asked.take(signal.SIGTERM)
        monkeypatch.setattr(stopping, "SECONDS_OF_ONE_REQUEST", -1)
        with pytest.raises(SignalException) as raised:
            asked.take(signal.SIGTERM)
    # The launcher sends it to all of them.
    assert raised.value.sigval == signal.SIGKILL


def test_whoever_has_started_processes_puts_the_job_into_the_queue_again(
    tmp_path: Path, job_41: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = StoppedBySignal(signal.SIGUSR1, "epoch 1")
    launched = mock.Mock(return_value={0: pickle.dumps(stopped)})
    monkeypatch.setattr(launching, "elastic_launch", lambda *_: launched)
    with pytest.raises(StoppedBySignal, match="stopped by SIGUSR1 after epoch 1"):
        run_in_processes(train_to_ends, None, ProcessOptions(tmp_path, 2, "cpu"))
    assert launched.call_count == 1
    assert (job_41 / "requeued").read_text() == "again\n"
    # One of those that it has started leaves that to it.
    monkeypatch.setattr(stopping, "_leader", tmp_path)
    with pytest.raises(StoppedBySignal):
        trained(tmp_path, 2, raising(signal.SIGUSR1))
    assert (job_41 / "requeued").read_text() == "again\n"


@pytest.mark.parametrize(
    ("statuses", "reached", "max_restarts", "n_launches", "message"),
    [
        # Each entry of `reached` is what is saved before a launch.
        ([-9, -11, -9], [3, 3, 3], 2, 3, "killed by SIGKILL"),
        ([-9, -11], [3, 3], 0, 1, "killed by SIGKILL"),
        ([-9, -11, -9], [1, 2, 2], 1, 3, "killed by SIGKILL"),
        ([-9, 1], [1, 2], 3, 2, "ended with status 1"),
        ([-2], [1], 3, 1, "killed by SIGINT"),
    ],
)
def test_only_processes_that_are_killed_begin_again_and_not_for_ever(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    statuses: list[int],
    reached: list[int],
    max_restarts: int,
    n_launches: int,
    message: str,
) -> None:
    ends = [launching._Killed(1, 2, status) for status in statuses]
    launch = mock.Mock(side_effect=ends)
    monkeypatch.setattr(launching, "_launch", launch)
    options = ProcessOptions(tmp_path, 2, "cpu", max_restarts=max_restarts)
    told = iter(reached)
    with pytest.raises(InputError, match=f"process 1 of 2 (was )?{message}"):
        run_in_processes(train_to_ends, None, options, lambda: next(told))
    assert launch.call_count == n_launches


@pytest.mark.parametrize("error", [InputError("epochs: got 0"), OSError("a disk"), RuntimeError()])
def test_an_error_is_never_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    launch = mock.Mock(side_effect=error)
    monkeypatch.setattr(launching, "_launch", launch)
    with pytest.raises(type(error)):
        run_in_processes(train_to_ends, None, ProcessOptions(tmp_path, 2, "cpu", max_restarts=3))
    assert launch.call_count == 1


def test_processes_begin_again_when_one_is_killed_and_stop_together(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = ProcessOptions(tmp_path, 2, "cpu", max_restarts=1)
    with caplog.at_level(logging.INFO), pytest.raises(StoppedBySignal) as raised:
        run_in_processes(train_to_ends, tmp_path, options)
    assert raised.value.number == signal.SIGTERM
    assert caplog.messages.count(str(raised.value)) == 1
    assert (
        "process 1 of 2 was killed by SIGKILL, probably for want of memory; all begin again with "
        "what is saved (restart 1 of 1)"
    ) in caplog.messages
    told = [(tmp_path / f"told_{rank}").read_text() for rank in range(2)]
    assert (
        told == ["stopped by SIGUSR1 after epoch 1, batch 4 of 6; the same command continues"] * 2
    )
    found = {
        path.parent.parent.name: Checkpoint(path).state
        for path in tmp_path.glob("*/training-*/step-*")
    }
    assert found.keys() == {"whole", "killed", "told", "last"}
    assert found["last"]["batch"] == 4
    assert same_state(found["whole"], found["killed"])
    assert same_state(found["whole"], found["told"])
