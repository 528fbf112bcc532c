from __future__ import annotations

import fcntl
import gc
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

# On a busy machine threads that spin while they wait for others take minutes. This is read when
# OpenMP is loaded, and holds for the processes that tests start.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from tests.projects import (
    build_wheel,
    copy_project,
    install_wheel,
    kedro,
    write_published_files,
)

# What is imported stays. Looking through it for garbage, and copying it to a forked process because
# it was looked through, took a fifth of the tests' time.
gc.disable()


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.enable()


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that is made by the first who asks for it, where several processes test."""
    folder = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    made, done = folder / name, folder / f"{name}.done"
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            made.mkdir()
            make(made)
            done.touch()
    return made


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as it is published."""
    (wheel,) = made_once(tmp_path_factory, "wheel", build_wheel).glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def new_environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment in which the wheel is installed, not this repository."""

    def make(folder: Path) -> None:
        install_wheel(wheel, folder)

    return made_once(tmp_path_factory, "environment", make) / "bin"


@pytest.fixture(scope="session")
def demonstration_project(new_environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of one's own, by the wheel alone, in which `kedro run` has finished.

    Tests leave it as it is.
    """

    def make(project: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": ""}
        subprocess.run([new_environment / "lowshot", "new", project], check=True, env=environment)
        result = kedro(project, "run", python=new_environment / "python", PYTHONPATH="")
        assert result.returncode == 0, result.stdout + result.stderr
        (project / "log.txt").write_text(result.stdout + result.stderr)

    return made_once(tmp_path_factory, "demonstration", make)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project without data."""
    folder = tmp_path / "project"
    folder.mkdir()
    return copy_project(folder)


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of files in the published formats, which DDIR names."""
    folder = write_published_files(tmp_path / "published")
    monkeypatch.setenv("DDIR", str(folder))
    return folder
