"""A cluster of one machine: what sbatch, srun, scontrol, sacct and scancel do, as far as needed.

Called by the name of the command. Jobs are folders below $STAND_IN_FOLDER. When the file
$STAND_IN_LIMIT appears, a job has reached its time limit, for the first time.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

COMMANDS = ("sbatch", "srun", "scontrol", "sacct", "scancel")
FOLDER = Path(os.environ.get("STAND_IN_FOLDER", "."))


def install(folder: Path) -> None:
    """Write the commands into a folder."""
    folder.mkdir()
    for name in COMMANDS:
        command = folder / name
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" {name} "$@"\n')
        command.chmod(0o755)


def set_state(job: Path, state: str) -> None:
    unfinished = job / "state.unfinished"
    unfinished.write_text(state)
    unfinished.rename(job / "state")


def sbatch(script: str) -> None:
    if "--partition=closed" in Path(script).read_text():
        sys.exit("sbatch: error: invalid partition specified: closed")
    number = len(list(FOLDER.iterdir())) + 1
    job = FOLDER / str(number)
    job.mkdir()
    (job / "script").write_text(Path(script).read_text())
    set_state(job, "PENDING")
    subprocess.Popen(
        [sys.executable, __file__, "run", str(job)],
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    print(f"Submitted batch job {number}")


def run(folder: str) -> None:
    job = Path(folder)
    options = dict(re.findall(r"#SBATCH --([a-z-]+)=(\S+)", (job / "script").read_text()))
    nodes, tasks = int(options.get("nodes", 1)), int(options["ntasks-per-node"])
    environment = {
        **os.environ,
        "SLURM_JOB_ID": job.name,
        "SLURM_JOB_NUM_NODES": str(nodes),
        "SLURM_NTASKS": str(nodes * tasks),
        "SLURM_JOB_NODELIST": "localhost",
    }
    while (job / "state").read_text() == "PENDING" and not (job / "cancelled").exists():
        set_state(job, "RUNNING")
        status = subprocess.run(["bash", job / "script"], env=environment, check=False).returncode
        if (job / "state").read_text() == "RUNNING":
            set_state(job, "FAILED" if status else "COMPLETED")
    if (job / "cancelled").exists():
        set_state(job, "CANCELLED by 0")


def srun(*arguments: str) -> None:
    arguments = arguments[1:]
    streams = {}
    while arguments[0] in ("--output", "--error"):
        streams[arguments[0]] = arguments[1].replace("%j", os.environ["SLURM_JOB_ID"])
        arguments = arguments[2:]
    job = FOLDER / os.environ["SLURM_JOB_ID"]
    tasks = []
    for rank in range(int(os.environ["SLURM_NTASKS"])):
        output, errors = (
            Path(streams[name].replace("%t", str(rank))) for name in ("--output", "--error")
        )
        numbers = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_NODEID": "0"}
        environment = {**os.environ, **numbers}
        with output.open("a") as stdout, errors.open("a") as stderr:
            tasks.append(subprocess.Popen(arguments, env=environment, stdout=stdout, stderr=stderr))
    limit = os.environ.get("STAND_IN_LIMIT")
    while any(task.poll() is None for task in tasks):
        time.sleep(0.02)
        told = job / "told"
        if limit and Path(limit).exists() and not told.exists():
            told.touch()
            for task in tasks:
                task.send_signal(signal.SIGUSR2)
        gone = tasks[0].poll() is not None and (job / "state").read_text() == "PENDING"
        if gone or (job / "cancelled").exists():
            for task in tasks:
                task.kill()
    sys.exit(max(abs(task.returncode) for task in tasks))


def scontrol(action: str, number: str) -> None:
    assert action == "requeue"
    with (FOLDER / number / "requeued").open("a") as file:
        file.write("again\n")
    set_state(FOLDER / number, "PENDING")


def sacct(*arguments: str) -> None:
    print("JobID|State|NodeList")
    for flag, number in pairwise(arguments):
        if flag == "-j" and (FOLDER / number).is_dir():
            print(f"{number}|{(FOLDER / number / 'state').read_text()}|localhost")


def scancel(number: str) -> None:
    (FOLDER / number / "cancelled").touch()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
