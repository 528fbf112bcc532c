"""What the tests of the datasets share: expecting a refusal, looking into a folder."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kedro.io import DatasetError

from lowshot_kedro.blocks import Blocks, LabeledBlock


@contextmanager
def refused(kind: type[Exception], *facts: Any) -> Iterator[None]:
    """Expect an error of a kind whose own text (not Kedro's wrapping) names all the facts."""
    with pytest.raises((DatasetError, kind)) as caught:
        yield
    error = caught.value
    if isinstance(error, DatasetError):
        error = error.__cause__
    assert isinstance(error, kind), repr(error)
    for fact in facts:
        assert str(fact) in str(error)


def refused_by_check_and_load(dataset: Any, kind: type[Exception], *facts: Any) -> None:
    for action in (dataset.check, dataset.load):
        with refused(kind, *facts):
            action()


def forks(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that starts a process as a copy of this one."""
    quiet = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
    return quiet(pytest.mark.skipif(sys.platform != "linux", reason="forks")(test))


def forked(function: Callable[[], None]) -> BaseProcess:
    """Call a function in a process that starts as a copy of this one."""
    process = multiprocessing.get_context("fork").Process(target=function)
    process.start()
    return process


def killed_half_way(save: Callable[[Callable[[], None]], None], marker: Path) -> None:
    """Save in a process of its own and kill it when it says that it is half-way.

    Args:
        save: Gets the function to call half-way.
        marker: A file that is not there yet.
    """
    with half_way(save, marker):
        pass


@contextmanager
def half_way(save: Callable[[Callable[[], None]], None], marker: Path) -> Iterator[BaseProcess]:
    """A process that saves, is half-way and goes no further; it is killed in the end.

    Args:
        save: Gets the function to call half-way.
        marker: A file that is not there yet.
    """

    def wait_to_be_killed() -> None:
        marker.touch()
        time.sleep(60)

    process = forked(lambda: save(wait_to_be_killed))
    try:
        while not marker.exists():
            assert process.is_alive(), "the process ended before it was half-way"
            time.sleep(0.005)
        yield process
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert process.exitcode == -signal.SIGKILL


def content_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path in it."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def array_blocks(*arrays: np.ndarray) -> Blocks:
    return Blocks(sum(map(len, arrays)), arrays[0].shape[1], lambda: arrays)


def labeled_blocks(features: np.ndarray, labels: np.ndarray, block_rows: int) -> Blocks:
    def make() -> Iterator[LabeledBlock]:
        for first in range(0, len(features), block_rows):
            rows = slice(first, first + block_rows)
            yield LabeledBlock(features[rows], labels[rows])

    return Blocks(len(features), features.shape[1], make)


def random_features(n_rows: int, n_columns: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n_rows)
    features = rng.standard_normal((n_rows, n_columns)).astype(np.float32)
    return features, rng.integers(0, 9, n_rows).astype(np.int32)
