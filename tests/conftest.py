from __future__ import annotations

import fcntl
import gc
import os
from pathlib import Path

import pytest

# On a busy machine threads that spin while they wait for others take minutes. This is read when
# OpenMP is loaded, and holds for the processes that tests start.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from tests.projects import copy_project, kedro, write_published_files

# What is imported stays. Looking through it for garbage, and copying it to a forked process because
# it was looked through, took a fifth of the tests' time.
gc.disable()


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def demonstration_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project in which `kedro run` has finished. Tests leave it as it is.

    Where several processes test, the first that asks for it makes it for all.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    project, log = folder / "demonstration", folder / "demonstration.log"
    with (folder / "demonstration.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not log.exists():
            project.mkdir()
            result = kedro(copy_project(project), "run")
            assert result.returncode == 0, result.stdout + result.stderr
            log.write_text(result.stdout + result.stderr)
    return project


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
