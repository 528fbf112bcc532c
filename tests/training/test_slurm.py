"""Jobs of SLURM, on a stand-in for it: submitted, continued, found again, cancelled, refused."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import submitit

from lowshot_kedro.errors import InputError
from lowshot_kedro.extras import MissingLibraryError
from lowshot_kedro.training import slurm
from lowshot_kedro.training.processes import ProcessOptions, check_processes, run_in_processes
from tests.other_processes import wait_for
from tests.training import stand_in_for_slurm
from tests.training.several import count_up, whoami

CLUSTER = {"time": 60, "partition": "any", "cpus_per_task": 1}

WAITING = """
import sys
from pathlib import Path
from lowshot_kedro.training.processes import ProcessOptions, run_in_processes
from tests.training.several import count_up
cluster = {"time": 60, "cpus_per_task": 1}
options = ProcessOptions(Path(sys.argv[1]), 2, "cpu", "slurm", cluster)
run_in_processes(count_up, (Path(sys.argv[2]), 12), options)
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the stand-in's jobs."""
    stand_in_for_slurm.install(tmp_path / "bin")
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("STAND_IN_FOLDER", str(jobs))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    # It remembers jobs by their numbers, which begin anew.
    submitit.SlurmJob.watcher.clear()
    return jobs


def options_of(tmp_path: Path, n_processes: int | None = None, **cluster: Any) -> ProcessOptions:
    return ProcessOptions(tmp_path / "slurm", n_processes, "cpu", "slurm", CLUSTER | cluster)


def test_a_job_goes_on_after_its_time_limit_and_without_whoever_waited(
    cluster, tmp_path, monkeypatch, caplog
):
    counted = tmp_path / "counted"
    counted.mkdir()
    monkeypatch.setenv("STAND_IN_LIMIT", str(counted / "count_5"))
    arguments = [sys.executable, "-c", WAITING, tmp_path / "slurm", counted]
    waiting = subprocess.Popen(arguments, stderr=subprocess.PIPE)
    assert wait_for(counted / "count_1"), waiting.stderr.read().decode()
    waiting.kill()
    waiting.wait()
    with caplog.at_level(logging.INFO, "lowshot_kedro"):
        result = run_in_processes(count_up, (counted, 12), options_of(tmp_path, 2))
    assert result == 12
    assert "SLURM job 1 of an earlier run is waited for" in caplog.text
    assert [job.name for job in cluster.iterdir()] == ["1"]
    assert (cluster / "1" / "requeued").read_text() == "again\n"
    assert sorted(each.name for each in counted.glob("attempt_*")) == ["attempt_0", "attempt_1"]
    assert {each.read_text() for each in counted.glob("count_*")} == {"2"}
    assert len(list(counted.glob("count_*"))) == 12
    assert not (tmp_path / "slurm" / "job.json").exists()


def test_one_process_returns_and_says_what_is_wrong(cluster, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "lowshot_kedro"):
        found = run_in_processes(whoami, {"a": 1}, options_of(tmp_path))
    assert found == (0, 1, "cpu", {"a": 1})
    assert "SLURM job 1 with 1 process; its log is" in caplog.text
    with pytest.raises(InputError, match="learning_rate: got -1, expected a number above 0"):
        run_in_processes(fail_alone, None, options_of(tmp_path))


def fail_alone(processes: Any, job: Any) -> None:
    raise InputError(parameter="learning_rate", found=-1, expected="a number above 0")


def test_an_interrupt_cancels_the_job(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(slurm, "_wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_in_processes(whoami, None, options_of(tmp_path, 6, nodes=2, mem_gb=3))
    assert (cluster / "1" / "cancelled").exists()
    asked_for = (cluster / "1" / "script").read_text().splitlines()
    assert asked_for.count("#SBATCH --nodes=2") == 1
    for option in ("ntasks-per-node=3", "time=60", "mem=3GB", "job-name=lowshot-kedro"):
        assert f"#SBATCH --{option}" in asked_for


def test_a_job_that_others_end_is_told_with_its_log(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(submitit.core.core.Job, "_results_timeout_s", 0)
    watched = slurm._wait

    def ended_by_others(job: Any) -> None:
        subprocess.run(["scancel", job.job_id], check=True)
        watched(job)

    monkeypatch.setattr(slurm, "_wait", ended_by_others)
    message = r"^SLURM job 1 ended without a result, with state cancelled by 0; its log: .*\.err$"
    with pytest.raises(InputError, match=message):
        run_in_processes(whoami, None, options_of(tmp_path, 1))
    # The next call sees that it is over, and submits another.
    monkeypatch.setattr(slurm, "_wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_in_processes(whoami, None, options_of(tmp_path, 1))
    assert (cluster / "2" / "cancelled").exists()


def interrupted(job: Any) -> None:
    raise KeyboardInterrupt


def test_a_job_of_which_nothing_is_known_is_not_started_again(cluster, tmp_path):
    folder = tmp_path / "slurm"
    folder.mkdir()
    (folder / "job.json").write_text(json.dumps({"job_id": "77", "n_tasks": 1}))
    with pytest.raises(InputError, match=r"job\.json: found SLURM job 77 .* delete the file"):
        run_in_processes(whoami, None, options_of(tmp_path, 1))
    assert not list(cluster.iterdir())


@pytest.mark.parametrize(
    ("n_processes", "wrong", "message"),
    [
        (None, {"time": None}, "cluster.time: got None, expected an integer from 1"),
        (None, {"time": "1-00:00:00"}, "cluster.time: got '1-00:00:00'"),
        (None, {"partion": "gpu"}, "cluster: refused by submitit: .*partion"),
        (None, {"tasks_per_node": 2}, "cluster: tasks_per_node: unknown; use n_processes"),
        (3, {"nodes": 2}, "n_processes: got 3, expected a multiple of cluster.nodes, 2"),
        (None, {"nodes": 0}, "cluster.nodes: got 0"),
    ],
)
def test_options_that_submitit_or_slurm_would_refuse(
    cluster, tmp_path, n_processes, wrong, message
):
    options = options_of(tmp_path, n_processes, **wrong)
    with pytest.raises(InputError, match=message):
        check_processes(options)


def test_a_job_that_sbatch_refuses(cluster, tmp_path):
    options = options_of(tmp_path, partition="closed")
    check_processes(options)
    with pytest.raises(InputError, match=r"cluster: refused by sbatch: .*partition specified"):
        run_in_processes(whoami, None, options)
    assert not (tmp_path / "slurm" / "job.json").exists()


def test_processes_are_those_that_the_cluster_is_asked_for(cluster, tmp_path):
    assert slurm._executor(options_of(tmp_path))[1] == 1
    assert slurm._executor(options_of(tmp_path, nodes=2, gpus_per_node=4))[1] == 8
    assert slurm._executor(options_of(tmp_path, 6, nodes=2, gpus_per_node=4))[1] == 6


def test_what_is_missing(cluster, tmp_path, monkeypatch):
    options = options_of(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InputError, match="scheduler: got 'slurm', but there is no command sbatch"):
        check_processes(options)
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(MissingLibraryError, match=r"scheduler: .*lowshot-kedro\[cluster\]"):
        check_processes(options)
