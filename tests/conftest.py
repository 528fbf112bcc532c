from __future__ import annotations

import os
import subprocess
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


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as it is published."""
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def new_environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment in which the wheel is installed, not this repository."""
    return install_wheel(wheel, tmp_path_factory.mktemp("environment")).parent


@pytest.fixture(scope="session")
def demonstration_project(new_environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of one's own, by the wheel alone, in which `kedro run` has finished.

    Tests leave it as it is.
    """
    project = tmp_path_factory.mktemp("demonstration") / "project"
    environment = {**os.environ, "PYTHONPATH": ""}
    subprocess.run([new_environment / "lowshot", "new", project], check=True, env=environment)
    result = kedro(project, "run", python=new_environment / "python", PYTHONPATH="")
    assert result.returncode == 0, result.stdout + result.stderr
    (project / "log.txt").write_text(result.stdout + result.stderr)
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
