import logging
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import dask
import psutil
import pytest
from distributed import Client, LocalCluster

from lowshot_kedro.errors import InputError
from lowshot_kedro.sweep import jobs as jobs_module
from lowshot_kedro.sweep.jobs import (
    Job,
    Workers,
    check_workers,
    close_idle_workers,
    run_jobs,
)
from tests.sweep import jobs_functions

PROJECT = Path(__file__).parents[2]
MB = 2**20


def squares(folder, numbers, seconds=0.0):
    return [
        Job(f"square{number}", jobs_functions.square, (number, folder, seconds), MB)
        for number in numbers
    ]


def traces(folder):
    """How often every job was called."""
    return Counter(path.name.split(".")[0] for path in folder.iterdir() if "." in path.name)


def processes(folder):
    return {int(path.read_text()) for path in folder.iterdir() if "." in path.name}


def results_by_name(pairs):
    return {job.name: result for job, result in pairs}


def wait_until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


def is_running(process):
    return psutil.pid_exists(process) and psutil.Process(process).status() != "zombie"


def test_local_runs_are_done_once_in_other_processes(tmp_path):
    before = dict(os.environ)
    level = logging.getLogger("distributed").level
    jobs = squares(tmp_path, range(6), seconds=0.1)
    pairs = list(run_jobs(jobs, Workers(n_workers=2)))
    assert [job for job, _ in pairs] != [] and all(job in jobs for job, _ in pairs)
    assert results_by_name(pairs) == {f"square{n}": n**2 for n in range(6)}
    assert traces(tmp_path) == {f"square{n}": 1 for n in range(6)}
    assert len(processes(tmp_path)) == 2
    assert os.getpid() not in processes(tmp_path)
    assert not any(is_running(process) for process in processes(tmp_path))
    assert {name: os.environ.get(name) for name in before} == before
    assert not set(os.environ) - set(before) - {"__DASK_PARENT_PID"}
    assert logging.getLogger("distributed").level == level


def test_without_workers_runs_are_done_in_this_process(tmp_path):
    pairs = list(run_jobs(squares(tmp_path, range(3)), Workers(n_workers=0)))
    assert results_by_name(pairs) == {"square0": 0, "square1": 1, "square2": 4}
    assert processes(tmp_path) == {os.getpid()}


def test_dask_is_not_imported_without_workers():
    script = (
        "import math, sys\n"
        "from lowshot_kedro.sweep.jobs import Job, Workers, check_workers, run_jobs\n"
        "check_workers(Workers()), check_workers(Workers(n_workers=0))\n"
        "jobs = [Job('root', math.sqrt, (4,), 1)]\n"
        "assert [result for _, result in run_jobs(jobs, Workers(n_workers=0))] == [2]\n"
        "print('dask' in sys.modules, 'distributed' in sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout.split() == ["False", "False"], result.stderr


PROGRAM = """
import math
from lowshot_kedro.sweep.jobs import Job, Workers, run_jobs
print("begin")
print([result for _, result in run_jobs([Job("root", math.sqrt, (4,), 1)], Workers())], __file__)
"""


def test_workers_do_not_import_the_program_that_runs(tmp_path):
    program = tmp_path / "program"
    program.write_text(PROGRAM)
    result = subprocess.run([sys.executable, program], capture_output=True, text=True)
    assert result.stdout == f"begin\n[2.0] {program}\n", result.stderr


def test_no_runs_need_no_workers():
    assert list(run_jobs([], Workers(scheduler="tcp://127.0.0.1:9"))) == []


def test_a_worker_that_dies_loses_its_run_only(tmp_path, caplog, capfd):
    caplog.set_level(logging.INFO)
    unlucky = Job("unlucky", jobs_functions.square_after_a_death, (7, tmp_path), MB)
    # The other worker is busy all the time, so that the run has to wait for a new process.
    jobs = [unlucky, *squares(tmp_path, range(4), seconds=0.5)]
    assert results_by_name(run_jobs(jobs, Workers(n_workers=2))) == {
        "unlucky": 49, "square0": 0, "square1": 1, "square2": 4, "square3": 9,
    }  # fmt: skip
    assert traces(tmp_path) == {
        "square7": 2, "square0": 1, "square1": 1, "square2": 1, "square3": 1,
    }  # fmt: skip
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "unlucky" in warning and "try 2 of 3" in warning
    assert not [record for record in caplog.records if record.name.startswith("distributed")]
    assert "distributed" not in capfd.readouterr().err


def test_a_run_that_always_kills_its_worker_is_named_and_the_others_are_done(tmp_path):
    deadly = Job("deadly", jobs_functions.die, (tmp_path,), MB)
    done = []
    expected = r"1 of 4 runs failed: deadly: its worker died 2 times, .*sweep\.memory_budget"
    with pytest.raises(InputError, match=expected):
        for job, result in run_jobs(
            [deadly, *squares(tmp_path, range(3))], Workers(n_workers=2, max_tries=2)
        ):
            done.append((job.name, result))
    assert sorted(done) == [("square0", 0), ("square1", 1), ("square2", 4)]
    assert traces(tmp_path) == {"die": 2, "square0": 1, "square1": 1, "square2": 1}


def test_workers_that_do_not_come_back_are_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs_module, "_SECONDS_WITHOUT_LOCAL_WORKERS", 0)
    deadly = Job("deadly", jobs_functions.die, (tmp_path,), MB)
    expected = "this machine: all worker processes died, and none starts, .*sweep.n_workers = 1"
    with pytest.raises(InputError, match=expected):
        list(run_jobs([deadly], Workers()))


def starting_workers(parent=None):
    """Workers of a process, this one by default, that are there, however far they are."""
    found = set()
    for child in psutil.Process(parent).children():
        with suppress(psutil.Error):
            if any("spawn_main" in part for part in child.cmdline()):
                found.add(child.pid)
    return found


@contextmanager
def killing_the_next_workers(number, spared=0):
    """So many processes that will be started are killed while they start, after those spared."""
    seen, killed, is_over = starting_workers(), [], threading.Event()

    def kill():
        n_spared = 0
        while len(killed) < number and not is_over.wait(0.005):
            for process in sorted(starting_workers() - seen):
                seen.add(process)
                if n_spared < spared:
                    n_spared += 1
                elif len(killed) < number:
                    os.kill(process, signal.SIGKILL)
                    killed.append(process)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        is_over.set()
        thread.join()


# One of two, all of them, and all again when they are replaced.
@pytest.mark.parametrize("number", [1, 4])
def test_workers_that_die_while_they_start_are_replaced(tmp_path, number, caplog, capfd):
    with killing_the_next_workers(number) as killed:
        pairs = list(run_jobs(squares(tmp_path, range(3), seconds=0.3), Workers(n_workers=2)))
    assert len(killed) == number
    assert results_by_name(pairs) == {"square0": 0, "square1": 1, "square2": 4}
    assert traces(tmp_path) == {f"square{n}": 1 for n in range(3)}
    assert not any(is_running(process) for process in processes(tmp_path))
    # Everything else that is told, the event loop's complaints too, is of our own.
    assert {record.name.partition(".")[0] for record in caplog.records} <= {"lowshot_kedro"}
    assert "distributed" not in capfd.readouterr().err


def test_a_worker_that_dies_again_while_it_is_started_anew_is_replaced(tmp_path):
    unlucky = Job("unlucky", jobs_functions.square_after_a_death, (7, tmp_path), MB)
    with killing_the_next_workers(2, spared=1) as killed:
        pairs = list(run_jobs([unlucky, *squares(tmp_path, [1])], Workers(n_workers=1)))
    assert results_by_name(pairs) == {"unlucky": 49, "square1": 1}
    assert len(killed) == 2
    assert traces(tmp_path) == {"square7": 2, "square1": 1}


@pytest.mark.parametrize("n_workers", [0, 2])
def test_the_others_go_on_after_unusable_input_and_the_end_says_what_failed(tmp_path, n_workers):
    kinds = ["input", "file", "input", "input"]
    jobs = [Job(f"bad{i}", jobs_functions.fail, (kind,), MB) for i, kind in enumerate(kinds)]
    jobs += squares(tmp_path, range(3))
    done = []
    with pytest.raises(InputError) as caught:
        for job, _ in run_jobs(jobs, Workers(n_workers=n_workers)):
            done.append(job.name)
    assert sorted(done) == ["square0", "square1", "square2"]
    message = str(caught.value)
    assert message.startswith("4 of 7 runs failed: ") and message.endswith("; …")
    assert len(re.findall(r"bad\d: (nothing of use|weights.npy is missing)", message)) == 3
    assert "\n" not in message


@pytest.mark.parametrize("n_workers", [0, 2])
def test_a_defect_keeps_its_traceback(tmp_path, capfd, n_workers):
    jobs = [
        Job("bad", jobs_functions.fail, ("input",), 2 * MB),
        Job("worse", jobs_functions.fail, ("defect",), MB),
        *squares(tmp_path, [2]),
    ]
    done = []
    with pytest.raises(RuntimeError, match=r"2 of 3 runs failed: .*worse: 'defect'") as caught:
        done.extend(job.name for job, _ in run_jobs(jobs, Workers(n_workers=n_workers)))
    assert traces(tmp_path) == {"square2": 1}
    cause = caught.value.__cause__
    assert isinstance(cause, KeyError)
    frames = []
    traceback = cause.__traceback__
    while traceback is not None:
        frames.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    assert frames[-1] == "fail"
    assert "distributed" not in capfd.readouterr().err


def occupants(folder, names):
    """Which jobs ran at the same time, whenever one of them began."""
    times = {name: tuple(map(float, (folder / name).read_text().split())) for name in names}
    at_once = [
        [name for name, (begin, end) in times.items() if begin <= moment < end]
        for moment, _ in times.values()
    ]
    return times, at_once


def test_runs_side_by_side_stay_within_the_memory_budget(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    sizes = {"s2": 2, "s3": 3, "s5": 5, "s10": 10, "s3b": 3, "s1": 1, "s1b": 1, "s4": 4}
    budget = 6
    jobs = [
        Job(name, jobs_functions.occupy, (name, tmp_path, 0.25), size * MB)
        for name, size in sizes.items()
    ]
    assert len(list(run_jobs(jobs, Workers(n_workers=3, memory_budget_bytes=budget * MB)))) == 8
    times, at_once = occupants(tmp_path, sizes)
    for names in at_once:
        assert names == ["s10"] or sum(sizes[name] for name in names) <= budget
    assert max(map(len, at_once)) >= 2
    order = sorted(times, key=lambda name: times[name])
    assert order[0] == "s10"
    assert set(order[1:3]) == {"s5", "s1"} or set(order[1:3]) == {"s5", "s1b"}
    (alone,) = [record.getMessage() for record in caplog.records if "alone" in record.getMessage()]
    assert alone.startswith("s10 ")


THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@pytest.mark.parametrize(
    "workers, expected",
    [
        (Workers(n_workers=2), "3"),
        # There is room for two of the three at a time.
        (Workers(memory_budget_bytes=5 * MB), "3"),
        (Workers(memory_budget_bytes=MB), "6"),
    ],
)
def test_workers_share_the_cores(monkeypatch, workers, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    jobs = [Job(name, jobs_functions.environment, (name,), 2 * MB) for name in THREAD_VARIABLES]
    results = results_by_name(run_jobs(jobs, workers))
    assert results == dict.fromkeys(THREAD_VARIABLES, expected)
    assert os.environ["OMP_NUM_THREADS"] == "5"


def test_libraries_in_workers_have_a_share_of_the_cores():
    expected = max(1, len(os.sched_getaffinity(0)) // 2)
    jobs = [Job(name, jobs_functions.blas_threads, (), MB) for name in "ab"]
    assert [n for _, n in run_jobs(jobs, Workers(n_workers=2))] == [expected, expected]


def test_whoever_stops_early_stops_the_workers(tmp_path):
    jobs = [Job(f"sleep{i}", jobs_functions.sleep_long, (tmp_path,), 2) for i in range(3)]
    jobs += [Job("square", jobs_functions.square, (3, tmp_path), 3)]
    pairs = run_jobs(jobs, Workers(n_workers=2))
    assert next(pairs)[1] == 9
    wait_until(lambda: traces(tmp_path)["sleep"])
    begin = time.monotonic()
    pairs.close()
    assert time.monotonic() - begin < 4
    assert not any(is_running(process) for process in processes(tmp_path))
    assert traces(tmp_path)["sleep"] < 3


def test_workers_that_are_kept_end_without_a_word(tmp_path, caplog, capfd):
    caplog.set_level(logging.INFO)
    workers = Workers(n_workers=1, is_kept=True)
    for number in (1, 2):
        assert results_by_name(run_jobs(squares(tmp_path, [number]), workers))
    assert len(processes(tmp_path)) == 1
    close_idle_workers()
    assert not any(is_running(process) for process in processes(tmp_path))
    # How many there are is said once, for they are the same.
    (line,) = [(record.name, record.getMessage()) for record in caplog.records]
    assert line[0] == "lowshot_kedro.sweep.jobs" and line[1].startswith("1 worker process with ")
    assert "distributed" not in capfd.readouterr().err


def test_progress_counts_runs_and_not_jobs(tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(jobs_module, "_SECONDS_BETWEEN_LINES", 0)
    jobs = [
        Job(f"square{number}", jobs_functions.square, (number, tmp_path), MB, n_runs)
        for number, n_runs in enumerate([118, 180, 8])
    ]
    list(run_jobs(jobs, Workers(n_workers=0), "validation"))
    lines = [record.getMessage() for record in caplog.records]
    assert [line.partition(" (")[0] for line in lines] == [
        "validation: 118 of 306 runs", "validation: 298 of 306 runs", "validation: 306 of 306 runs",
    ]  # fmt: skip


def begin_coordinator(folder):
    return subprocess.Popen(
        [sys.executable, "-m", "tests.sweep.jobs_coordinator", str(folder)],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # Whoever runs the tests in the background has them ignore it, and all that they start.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


@pytest.fixture
def coordinator(tmp_path):
    """A process whose two workers have begun to work."""
    process = begin_coordinator(tmp_path)
    try:
        wait_until(lambda: traces(tmp_path)["sleep"] == 2)
        yield process
    finally:
        process.kill()
        process.communicate()


def test_workers_do_not_survive_the_death_of_their_master(coordinator, tmp_path):
    assert all(is_running(process) for process in processes(tmp_path))
    coordinator.kill()
    wait_until(lambda: not any(is_running(process) for process in processes(tmp_path)))


def test_an_interrupt_from_the_keyboard_ends_all_processes(coordinator, tmp_path):
    os.killpg(coordinator.pid, signal.SIGINT)
    output, _ = coordinator.communicate(timeout=60)
    assert not any(is_running(process) for process in processes(tmp_path))
    assert output.count("Traceback") == output.count("KeyboardInterrupt\n") == 1, output


@pytest.mark.parametrize("seconds", [0, 0.3])
def test_an_interrupt_while_workers_start_ends_them_without_a_word(tmp_path, seconds):
    with begin_coordinator(tmp_path) as process:
        wait_until(lambda: starting_workers(process.pid))
        started = starting_workers(process.pid)
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert started and not any(is_running(worker) for worker in started)
    assert output.count("Traceback") == output.count("KeyboardInterrupt\n") == 1, output


def start_cluster(n_workers):
    return LocalCluster(
        n_workers=n_workers,
        threads_per_worker=1,
        memory_limit=0,
        silence_logs=logging.CRITICAL,
        scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
    )


@pytest.fixture(scope="module")
def cluster():
    with start_cluster(2) as cluster:
        yield cluster


def test_a_scheduler_at_an_address_is_used_and_left_as_it_was(cluster, tmp_path):
    workers = Workers(scheduler=cluster.scheduler_address)
    check_workers(workers)
    unlucky = Job("unlucky", jobs_functions.square_after_a_death, (7, tmp_path), MB)
    with Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(2)
        before = set(client.run(os.getpid).values())
        results = {}
        for job, result in run_jobs([unlucky, *squares(tmp_path, range(5))], workers):
            results[job.name] = result
            # What has been taken is not kept by the scheduler: only two can be running.
            wait_until(lambda: len(cluster.scheduler.tasks) <= 2)
        assert results == {"unlucky": 49} | {f"square{n}": n**2 for n in range(5)}
        assert before & processes(tmp_path)
        client.wait_for_workers(2)
        wait_until(lambda: not cluster.scheduler.tasks)
        assert client.submit(abs, -1).result() == 1


def test_runs_wait_for_workers_of_a_scheduler(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    with start_cluster(0) as empty:
        pairs = run_jobs(squares(tmp_path, [3]), Workers(scheduler=empty.scheduler_address))
        timer = threading.Timer(1, empty.scale, (1,))
        timer.start()
        assert results_by_name(pairs) == {"square3": 9}
        timer.join()
    assert sum("waiting" in record.getMessage() for record in caplog.records) == 1


def test_a_scheduler_that_goes_away_is_told_of(tmp_path):
    with start_cluster(1) as lost:
        timer = threading.Timer(1, lost.close)
        timer.start()
        with pytest.raises(ConnectionError, match=r"127\.0\.0\.1:.* went away"):
            list(run_jobs(squares(tmp_path, [1], 1.5), Workers(scheduler=lost.scheduler_address)))
        timer.join()


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "127.0.0.1:9", "carrier://pigeon:1"])
def test_an_address_at_which_nobody_answers_is_refused(address, monkeypatch):
    monkeypatch.setattr(jobs_module, "_SECONDS_TO_CONNECT", 1)
    with pytest.raises(InputError, match=f"sweep.scheduler: .*{address}"):
        check_workers(Workers(scheduler=address))


SBATCH = """#!/bin/bash
number=1
until mkdir {folder}/$number 2>/dev/null; do number=$((number + 1)); done
cp "$1" {folder}/$number.script
setsid bash {folder}/$number.script >{folder}/$number.log 2>&1 </dev/null &
echo $! >{folder}/$number.pid
echo Submitted batch job $number
"""
SCANCEL = """#!/bin/bash
echo "$1" >>{folder}/cancelled
kill -- -$(cat {folder}/$1.pid)
"""


def write_command(path, text):
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A folder of the jobs that the commands of SLURM were given, which they run at once."""
    commands, queue = tmp_path / "bin", tmp_path / "queue"
    commands.mkdir()
    queue.mkdir()
    write_command(commands / "sbatch", SBATCH.format(folder=queue))
    write_command(commands / "scancel", SCANCEL.format(folder=queue))
    monkeypatch.setenv("PATH", str(commands), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    yield queue
    for path in queue.glob("*.pid"):
        subprocess.run(["kill", "-9", "--", f"-{path.read_text().strip()}"], capture_output=True)


SLURM_ARGUMENTS = {
    "queue": "short",
    "cores": 6,
    "memory": "4 GB",
    "interface": "lo",
    "job_script_prologue": ["export GREETING=hello"],
    "job_extra_directives": ["--gres=gpu:1"],
}


def group_is_gone(path):
    try:
        os.killpg(int(path.read_text()), 0)
    except ProcessLookupError:
        return True
    return False


def test_runs_on_slurm_have_a_job_of_the_queue_each(slurm, tmp_path):
    workers = Workers(scheduler="slurm", cluster=SLURM_ARGUMENTS, n_workers=2)
    check_workers(workers)
    assert not list(slurm.iterdir())
    names = [f"occupant{number}" for number in range(6)]
    jobs = [Job(name, jobs_functions.occupy, (name, tmp_path, 0.3), MB) for name in names]
    for name in ("OMP_NUM_THREADS", "GREETING"):
        jobs.append(Job(name, jobs_functions.environment, (name,), MB))
    assert results_by_name(run_jobs(jobs, workers)) == dict.fromkeys(names) | {
        "OMP_NUM_THREADS": "6", "GREETING": "hello"
    }  # fmt: skip
    # One run at a time on each, whatever cores it has.
    _, at_once = occupants(tmp_path, names)
    assert max(map(len, at_once)) <= 2
    assert {path.name for path in slurm.glob("*.script")} == {"1.script", "2.script"}
    script = (slurm / "1.script").read_text()
    for line in ("-p short", "--cpus-per-task=6", "--mem=4G", "--gres=gpu:1"):
        assert f"#SBATCH {line}\n" in script
    wait_until(lambda: all(group_is_gone(path) for path in slurm.glob("*.pid")))


def test_a_lost_job_of_the_queue_is_replaced(slurm, tmp_path):
    # All its processes are killed, as at its time limit.
    group = Job("group", jobs_functions.square_after_the_death_of_the_group, (7, tmp_path), MB)
    workers = Workers(scheduler="slurm", cluster=SLURM_ARGUMENTS)
    with dask.config.set({"distributed.deploy.lost-worker-timeout": "500 ms"}):
        assert results_by_name(run_jobs([group], workers)) == {"group": 49}
    assert len(list(slurm.glob("*.script"))) == 2


def test_jobs_of_the_queue_end_when_the_sweep_is_stopped(slurm, tmp_path):
    jobs = [*squares(tmp_path, [3]), Job("sleep", jobs_functions.sleep_long, (tmp_path,), 1)]
    workers = Workers(scheduler="slurm", cluster=SLURM_ARGUMENTS, n_workers=1)
    pairs = run_jobs(jobs, workers)
    assert next(pairs)[1] == 9
    # The worker goes on while nobody asks for its results.
    wait_until(lambda: traces(tmp_path)["sleep"])
    begin = time.monotonic()
    pairs.close()
    assert time.monotonic() - begin < 10
    wait_until(lambda: all(group_is_gone(path) for path in slurm.glob("*.pid")))


def test_a_job_that_the_queue_refuses_is_told_of(slurm, tmp_path):
    write_command(tmp_path / "bin" / "sbatch", "#!/bin/sh\necho invalid partition >&2\nexit 1\n")
    workers = Workers(scheduler="slurm", cluster=SLURM_ARGUMENTS)
    with pytest.raises(InputError, match=r"sweep\.cluster: .*invalid partition"):
        list(run_jobs(squares(tmp_path, [1]), workers))


def test_a_run_that_needs_more_than_a_job_of_the_queue_has_is_refused(slurm, tmp_path):
    workers = Workers(scheduler="slurm", cluster=SLURM_ARGUMENTS | {"processes": 2})
    big = Job("big", jobs_functions.square, (1, tmp_path), 3 * 10**9)
    with pytest.raises(InputError, match=r"sweep.cluster.memory: 1.9 GiB .* big takes .* 2.8 GiB"):
        list(run_jobs([big], workers))
    assert not list(slurm.iterdir())


@pytest.mark.parametrize(
    "workers, message",
    [
        (Workers(scheduler="slrum"), "sweep.scheduler: got 'slrum'.*local.*slurm"),
        (Workers(scheduler="pbs"), "sweep.scheduler: got 'pbs'.*no command qsub"),
        (Workers(scheduler="slurm", n_workers=0), "sweep.n_workers: got 0"),
        (Workers(scheduler="slurm", cluster={"memory": "4GB"}), "sweep.cluster: .*cores"),
        (
            Workers(scheduler="slurm", cluster=SLURM_ARGUMENTS | {"quue": "short"}),
            "sweep.cluster: .*quue",
        ),
        (
            Workers(scheduler="slurm", cluster=SLURM_ARGUMENTS | {"n_workers": 3}),
            "sweep.cluster.n_workers",
        ),
    ],
)
def test_workers_that_cannot_be_had_are_refused(slurm, workers, message):
    with pytest.raises(InputError, match=message):
        check_workers(workers)
    assert not list(slurm.iterdir())
