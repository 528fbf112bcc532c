"""One or several processes: what they tell each other, how they fail, and how they end."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from lowshot_kedro.errors import InputError
from lowshot_kedro.training.group import do_part, raise_failure
from lowshot_kedro.training.processes import (
    Processes,
    ProcessOptions,
    check_processes,
    run_in_processes,
)
from tests.other_processes import wait_for
from tests.projects import ROOT
from tests.training.several import exchange, fail, kill_one, whoami

CPU = torch.device("cpu")
ENDED_FROM_OUTSIDE = """
import sys
from pathlib import Path
from lowshot_kedro.training.processes import ProcessOptions, run_in_processes
from tests.training.several import wait_long
try:
    run_in_processes(wait_long, Path(sys.argv[1]), ProcessOptions(Path(sys.argv[1]), 2, "cpu"))
except KeyboardInterrupt:
    sys.exit("interrupted")
"""


def options_of(folder: Path, n_processes: int | None = None, **others: Any) -> ProcessOptions:
    return ProcessOptions(folder, n_processes, **{"device": "cpu", **others})


def test_one_process_works_in_place(tmp_path):
    job = object()
    found = run_in_processes(whoami, job, options_of(tmp_path))
    assert found == (0, 1, "cpu", job)
    assert found[3] is job
    assert not torch.distributed.is_initialized()
    assert not list(tmp_path.iterdir())


def test_one_process_has_nobody_to_talk_to():
    alone = Processes(0, 1, CPU)
    rows = torch.arange(6.0).reshape(3, 2)
    assert alone.is_first
    assert alone.gather(rows) is rows
    assert alone.sum(rows) is rows
    assert (alone.any(False), alone.any(True)) == (False, True)
    assert alone.broadcast("word") == "word"
    alone.barrier()


def test_what_two_processes_tell_each_other(together):
    found = together.exchanged
    assert found["rows"].tolist() == [[10, 11]]
    assert found["rows"].dtype == torch.float64
    assert found["numbers"].tolist() == [0, 0, 1]
    assert found["flags"].tolist() == [False, True]
    assert found["half"].tolist() == [[1.5], [2.5]]
    assert found["half"].dtype == torch.bfloat16
    assert found["none"].shape == (0, 3)
    one = torch.tensor([0.1, 0.2, 0.3])
    assert torch.equal(found["sum"], (one + one * 2).expand(2, 3))
    assert found["any"] == [False, True]
    assert found["broadcast"].tolist() == [7, 7]
    share = os.environ.get("OMP_NUM_THREADS") or max(1, len(os.sched_getaffinity(0)) // 2)
    assert found["threads"].tolist() == [int(share)] * 2
    # What a loader starts is started as it would be here.
    assert found["spawns"].tolist() == [multiprocessing.get_start_method() == "spawn"] * 2


def test_what_processes_log_comes_to_the_log_here(together):
    logged = together.logged
    assert ("INFO", "told by 0") in logged
    assert ("INFO", "told by 1") not in logged
    assert {("WARNING", "warned by 0"), ("WARNING", "warned by 1")} <= set(logged)


def test_an_error_about_an_input_in_one_process_is_raised_here(together):
    assert type(together.error) is InputError
    assert str(together.error) == "learning_rate: got -1, expected a number above 0"
    assert together.error.parameter == "learning_rate"
    assert "in everything" in str(together.error.__cause__)


def test_a_process_that_is_killed_is_named(tmp_path, capfd):
    before = signal.getsignal(signal.SIGINT)
    message = "^process 1 of 2 was killed by SIGKILL, probably for want of memory$"
    with pytest.raises(InputError, match=message):
        run_in_processes(kill_one, None, options_of(tmp_path, 2))
    assert signal.getsignal(signal.SIGINT) is before
    assert capfd.readouterr().err == ""


def failures(folder: Path, monkeypatch: pytest.MonkeyPatch, *errors: Exception) -> Exception:
    """What is raised when processes fail, one after the other, each with its error."""
    monkeypatch.setenv("WORLD_SIZE", "1")
    for rank, error in enumerate(errors):
        monkeypatch.setenv("RANK", str(rank))
        with pytest.raises(type(error)):
            do_part(pickle.dumps((fail, error)), "cpu", folder)
    with pytest.raises(Exception) as raised:
        raise_failure(folder, len(errors), ValueError("nobody has left an error"))
    return raised.value


def test_the_first_error_counts_and_is_told_with_its_traceback(tmp_path, monkeypatch):
    error = failures(tmp_path, monkeypatch, KeyError("a defect"), RuntimeError("closed by peer"))
    assert type(error) is RuntimeError
    assert str(error).startswith("process 0 of 2 failed:\nTraceback (most recent call last)")
    assert "in fail\n" in str(error)
    assert str(error).endswith("KeyError: 'a defect'\n")


def test_an_error_about_an_input_counts_before_others(tmp_path, monkeypatch):
    wrong = InputError(parameter="epochs", found=0)
    error = failures(tmp_path, monkeypatch, RuntimeError("closed by peer"), wrong)
    assert (type(error), str(error)) == (InputError, "epochs: got 0")


def test_an_error_of_a_file_stays_one(tmp_path, monkeypatch):
    error = failures(tmp_path, monkeypatch, FileNotFoundError(2, "No such file", "images.zip"))
    assert (type(error), error.filename) == (FileNotFoundError, "images.zip")


def test_no_error_is_left(tmp_path, monkeypatch):
    assert str(failures(tmp_path, monkeypatch)) == "nobody has left an error"


@pytest.mark.parametrize(
    ("ended_by", "whom"),
    [(signal.SIGINT, "all"), (signal.SIGINT, "parent"), (signal.SIGKILL, "parent")],
)
def test_all_processes_end_with_the_first_one(tmp_path, ended_by, whom):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    parent = subprocess.Popen(
        [sys.executable, "-c", ENDED_FROM_OUTSIDE, tmp_path],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(temporary)},
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    for rank in range(2):
        assert wait_for(tmp_path / f"{rank}.pid")
    pids = [int((tmp_path / f"{rank}.pid").read_text()) for rank in range(2)]
    (os.killpg if whom == "all" else os.kill)(parent.pid, ended_by)
    printed = parent.communicate()[1]
    assert has_ended(pids)
    if ended_by == signal.SIGINT:
        assert (parent.returncode, printed) == (1, "interrupted\n")
        assert not list(temporary.iterdir())


def has_ended(pids: list[int]) -> bool:
    """Whether processes end before the wait for them does."""
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_torchrun_leads_the_others_from_a_pipeline(project):
    result = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", "2", "-m", "tests.training.torchrun_project", str(project)),
        ],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    said = [line for line in result.stdout.splitlines() if line.startswith(("0:", "1:"))]
    assert sorted(said) == [
        "0: ended with 0",
        "0: n_processes: got 3, expected 2, as many as torchrun has started, or null",
        "0: node first [0, 0, 1]",
        "0: node second [0, 0, 1]",
        "1: ended with 0",
    ]
    assert (project / "written").read_text() == "once"


def test_options_that_cannot_be_had(tmp_path, monkeypatch):
    for wrong in ({"n_processes": 0}, {"scheduler": "local "}, {"device": "gpu"}, {"cluster": 3}):
        name = next(iter(wrong))
        with pytest.raises(InputError, match=f"^{name}: got"):
            ProcessOptions(tmp_path, **wrong)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_processes(ProcessOptions(tmp_path, 2, "cuda"))
    with pytest.raises(InputError, match="n_processes: got 3, expected at most the number of GPUs"):
        check_processes(ProcessOptions(tmp_path, 3, "cuda"))


def test_one_process_for_every_gpu(tmp_path, monkeypatch):
    from lowshot_kedro.training import launching

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(launching, "run_on_this_machine", lambda *given: given)
    options = ProcessOptions(tmp_path)
    assert run_in_processes(exchange, "job", options) == (exchange, "job", 3, options, None)
