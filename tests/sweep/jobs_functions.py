"""What the jobs of test_jobs.py do, in a module, so that worker processes can import it."""

import os
import signal
import time
import uuid
from pathlib import Path

from lowshot_kedro.errors import InputError


def leave_trace(folder: Path, name: str) -> None:
    """A file for every call: whose process it was."""
    (folder / f"{name}.{uuid.uuid4().hex}").write_text(str(os.getpid()))


def square(number: int, folder: Path, seconds: float = 0) -> int:
    leave_trace(folder, f"square{number}")
    time.sleep(seconds)
    return number**2


def square_after_a_death(number: int, folder: Path) -> int:
    marker = folder / f"died_in_{number}"
    leave_trace(folder, f"square{number}")
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number**2


def square_after_the_death_of_the_group(number: int, folder: Path) -> int:
    marker = folder / f"died_in_{number}"
    if not marker.exists():
        marker.touch()
        os.killpg(0, signal.SIGKILL)
    return number**2


def die(folder: Path) -> None:
    leave_trace(folder, "die")
    os.kill(os.getpid(), signal.SIGKILL)


def fail(kind: str) -> None:
    if kind == "input":
        raise InputError("nothing\nof use")
    if kind == "file":
        raise FileNotFoundError("weights.npy is missing")
    raise KeyError(kind)


def occupy(name: str, folder: Path, seconds: float) -> None:
    begin = time.monotonic()
    time.sleep(seconds)
    (folder / name).write_text(f"{begin} {time.monotonic()}")


def sleep_long(folder: Path) -> None:
    leave_trace(folder, "sleep")
    time.sleep(600)


def blas_threads() -> int:
    import numpy as np
    import threadpoolctl

    assert np.ones((2, 2)).sum() == 4
    pools = threadpoolctl.threadpool_info()
    (n_threads,) = {pool["num_threads"] for pool in pools if pool["user_api"] == "blas"}
    return int(n_threads)


def environment(name: str) -> str | None:
    return os.environ.get(name)
