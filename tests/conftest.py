from __future__ import annotations

import os
from pathlib import Path

import pytest

# On a busy machine threads that spin while they wait for others take minutes. This is read when
# OpenMP is loaded, and holds for the processes that tests start.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from tests.projects import copy_project, kedro, write_published_files


@pytest.fixture(scope="session")
def demonstration_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project in which `kedro run` has finished. Tests leave it as it is."""
    project = copy_project(tmp_path_factory.mktemp("demonstration"))
    result = kedro(project, "run")
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
