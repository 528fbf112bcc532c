"""Processes on the nodes of a cluster: a job of SLURM, submitted by submitit and waited for.

At its time limit, or when another job takes its place, SLURM tells the job beforehand. A training
saves what it has done (:mod:`~lowshot_kedro.training.stopping`). The job is then put into the queue
again under the same number, and does the same work from the beginning: whoever is to go on in the
middle keeps checkpoints.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lowshot_kedro.child_processes import environment
from lowshot_kedro.errors import InputError, in_one_line
from lowshot_kedro.extras import needed_by
from lowshot_kedro.parameters import refuse, require_integer
from lowshot_kedro.training.group import do_part, raise_failure
from lowshot_kedro.training.processes import Job, Processes, ProcessOptions, Result

if TYPE_CHECKING:
    import submitit
    from submitit.helpers import DelayedSubmission

logger = logging.getLogger(__name__)

# As often as a training may be continued: submitit's own 3 would end one of more than three days.
_MAX_TIME_OUTS = 1000
_OF_EXECUTOR = {"max_num_timeout": _MAX_TIME_OUTS, "python": None}
_OURS = {"tasks_per_node", "ntasks_per_node"}
_SECONDS_BETWEEN_LOOKS = 1
# Its processes can go on. submitit takes them for ended.
_PAUSED = ("SUSPENDED", "STOPPED", "RESIZING", "SIGNALING", "STAGE_OUT")


def check_slurm(options: ProcessOptions) -> None:
    """Refuse a job of SLURM that cannot be submitted, without submitting anything.

    Raises:
        InputError: Naming the option that cannot be used.
    """
    _executor(options)


def run_by_slurm(
    work: Callable[[Processes, Job], Result], job: Job, options: ProcessOptions
) -> Result:
    """Do a piece of work in a job of SLURM, and wait for its end.

    A job that an earlier call has left in the folder, because its process was killed, is waited for
    and no other one is submitted. Ctrl-C ends the job.

    Args:
        work: As for :func:`~lowshot_kedro.training.processes.run_in_processes`.
        job: Likewise.
        options: Likewise.

    Returns:
        What the first process returns.

    Raises:
        InputError: If that is what a process raised, or if the job was refused or ended by others.
        RuntimeError: If a process failed for another reason.
        KeyboardInterrupt: At Ctrl-C.
    """
    executor, n_tasks = _executor(options)
    record = options.folder / "job.json"
    submitted = _left_behind(record)
    if submitted is None:
        task = _Task(pickle.dumps((work, job)), options.device, options.folder.absolute())
        submitted = _submit(executor, task, n_tasks, record)
    try:
        _wait(submitted)
    except KeyboardInterrupt:
        logger.info("SLURM job %s is cancelled", submitted.job_id)
        submitted.cancel(check=False)
        raise
    result: Result = _result(submitted, record)
    return result


class _Task:
    """What every process of the job does; submitit calls it, and asks it for what is left to do."""

    def __init__(self, call: bytes, device: str, folder: Path) -> None:
        self._call, self._device, self._folder = call, device, folder

    def __call__(self) -> bytes | None:
        """Join the other processes and work with them."""
        import torch
        from submitit import JobEnvironment
        from submitit.helpers import TorchDistributedEnvironment

        # SLURM tells all processes of the time limit, and those that load data would answer too.
        number = getattr(signal, f"SIG{JobEnvironment.USR_SIG}")
        os.register_at_fork(after_in_child=lambda: signal.signal(number, signal.SIG_IGN))
        here = TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
        cores = os.environ.get("SLURM_CPUS_PER_TASK")
        if cores is not None and "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(int(cores))
        level = logging.INFO if here.rank == 0 else logging.WARNING
        logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(message)s")
        return do_part(self._call, self._device, self._folder)

    def checkpoint(self) -> DelayedSubmission:
        """The same again: the work finds its own checkpoints."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _executor(options: ProcessOptions) -> tuple[submitit.AutoExecutor, int]:
    """What submits jobs as the options ask for, and the number of their processes."""
    with (
        needed_by(parameter="scheduler", found=options.scheduler),
        # Otherwise it sets up the log of the whole process, and closes what writes it.
        environment({"SUBMITIT_LOG_LEVEL": "NOCONFIG"}),
    ):
        import submitit
    for command in ("sbatch", "srun"):
        if shutil.which(command) is None:
            raise InputError(
                f"but there is no command {command} here", parameter="scheduler", found="slurm"
            )
    given = {name: value for name, value in options.cluster.items() if value is not None}
    for name in sorted(_OURS & set(given)):
        raise InputError(f"{name}: unknown; use n_processes", parameter="cluster")
    # submitit asks for 5 minutes otherwise, and reckons with minutes.
    minutes = given.get("time", given.get("timeout_min"))
    require_integer("cluster.time", minutes, 1, alternative="minutes until the job is queued again")
    nodes, gpus = given.get("nodes", 1), given.get("gpus_per_node", 0)
    require_integer("cluster.nodes", nodes, 1)
    require_integer("cluster.gpus_per_node", gpus, 0)
    n_tasks = options.n_processes or nodes * max(gpus, 1)
    if n_tasks % nodes:
        raise refuse("n_processes", n_tasks, f"a multiple of cluster.nodes, {nodes}")
    given = {"name": "lowshot-kedro", **given, "tasks_per_node": n_tasks // nodes}
    prefixed = {f"slurm_{name}": value for name, value in given.items()}
    made_with = {f"slurm_{name}": given.pop(name, _OF_EXECUTOR[name]) for name in _OF_EXECUTOR}
    try:
        executor = submitit.AutoExecutor(options.folder, cluster="slurm", **made_with)
        executor.update_parameters(
            **{name: value for name, value in prefixed.items() if name not in made_with}
        )
    except (ValueError, TypeError, NameError) as error:
        reason = str(error).splitlines()[0].partition(" Valid arguments")[0]
        raise InputError(f"refused by submitit: {reason}", parameter="cluster") from error
    return executor, n_tasks


def _submit(
    executor: submitit.AutoExecutor, task: _Task, n_tasks: int, record: Path
) -> submitit.Job[Any]:
    from submitit.helpers import clean_env

    record.parent.mkdir(parents=True, exist_ok=True)
    for left in record.parent.glob("error_*.pickle"):
        left.unlink()
    try:
        # A job within a job would take over what that was given.
        with clean_env() if "SLURM_JOB_ID" in os.environ else environment({}):
            submitted = executor.submit(task)
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        raise InputError(f"refused by sbatch: {in_one_line(error)}", parameter="cluster") from error
    unfinished = record.with_name(f".partial-{record.name}")
    unfinished.write_text(json.dumps({"job_id": submitted.job_id, "n_tasks": n_tasks}))
    unfinished.replace(record)
    logger.info(
        "SLURM job %s with %d process%s; its log is %s",
        submitted.job_id,
        n_tasks,
        "" if n_tasks == 1 else "es",
        _first(submitted).paths.stderr,
    )
    return submitted


def _left_behind(record: Path) -> submitit.Job[Any] | None:
    """The job of an earlier call, if it is in the queue, runs, or has left a result."""
    from submitit import SlurmJob

    if not record.is_file():
        return None
    left = json.loads(record.read_text())
    job: submitit.Job[Any] = SlurmJob(record.parent, left["job_id"], range(left["n_tasks"]))
    state = job.get_info(mode="force").get("State", "")
    if not _first(job).paths.result_pickle.exists():
        if not state:
            raise InputError(
                f"{record}: found SLURM job {job.job_id} of an earlier run, of which sacct knows "
                "nothing; wait if it was submitted just now, and delete the file if it is over"
            )
        if _is_over(job):
            return None
    logger.info("SLURM job %s of an earlier run is waited for (%s)", job.job_id, state.lower())
    return job


def _first(job: submitit.Job[Any]) -> submitit.Job[Any]:
    """The first process of a job, which is the one with the result."""
    return job.task(0)


def _wait(job: submitit.Job[Any]) -> None:
    logged = ""
    while not _is_over(job):
        state = job.state
        if state != logged:
            logger.info("SLURM job %s: %s", job.job_id, state.lower())
            logged = state
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _is_over(job: submitit.Job[Any]) -> bool:
    return bool(_first(job).done()) and job.state not in _PAUSED


def _result(job: submitit.Job[Any], record: Path) -> Any:
    from submitit.core.utils import FailedJobError, UncompletedJobError

    first, failed = _first(job), None
    try:
        result = pickle.loads(first.result())
    except UncompletedJobError as error:
        failed = error
    if first.paths.result_pickle.exists():
        # It is over for certain, and the next call is another attempt.
        record.unlink(missing_ok=True)
    if failed is None:
        return result
    if isinstance(failed, FailedJobError):
        raise_failure(record.parent, job.num_tasks, RuntimeError(str(failed)))
    # Errors that are left are perhaps those of an earlier attempt, which was queued again.
    raise InputError(
        f"SLURM job {job.job_id} ended without a result, with state {job.state.lower()}; its log: "
        f"{first.paths.stderr}"
    ) from failed
