"""The package as it is published: the wheel, and a run without the repository."""

from __future__ import annotations

import configparser
import email
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

from tests.projects import ROOT

TEMPLATE = "lowshot_kedro/project/new_project"


@pytest.fixture(scope="module")
def archive(wheel: Path) -> Iterator[ZipFile]:
    with ZipFile(wheel) as opened:
        yield opened


def metadata(archive: ZipFile, name: str) -> str:
    (path,) = [path for path in archive.namelist() if path.endswith(f".dist-info/{name}")]
    return archive.read(path).decode()


def test_one_wheel_is_for_every_python(wheel: Path, archive: ZipFile) -> None:
    python, interface, _ = wheel.stem.split("-")[2:]
    assert (python, interface) == ("cp310", "abi3")
    assert [name for name in archive.namelist() if name.endswith(".so")] == [
        "lowshot_kedro/native/_native.abi3.so"
    ]


def test_the_wheel_has_every_module_and_nothing_to_compile(archive: ZipFile) -> None:
    names = set(archive.namelist())
    modules = {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src" / "lowshot_kedro").rglob("*.py")
    }
    assert {name for name in names if name.endswith(".py")} == modules - {
        "lowshot_kedro/native/build_native.py"
    }
    assert "lowshot_kedro/py.typed" in names
    assert not {Path(name).suffix for name in names} & {".c", ".h", ".pyc", ".o"}


def test_the_wheel_has_what_a_page_of_labels_is_made_of(archive: ZipFile) -> None:
    folder = ROOT / "src" / "lowshot_kedro" / "reporting" / "labels_page"
    names = {f"page.{suffix}" for suffix in ("html", "css", "js")}
    for name in names:
        content = archive.read(f"lowshot_kedro/reporting/labels_page/{name}")
        assert content == (folder / name).read_bytes()


def test_the_wheel_has_the_settings_of_the_repository_and_nobodys_own(archive: ZipFile) -> None:
    local = ROOT / "conf" / "local"
    expected = {
        path.relative_to(ROOT).as_posix(): path.read_bytes()
        for path in (ROOT / "conf").rglob("*")
        if path.is_file() and local not in path.parents
    }
    assert len(expected) > 20
    found = {
        name.removeprefix(f"{TEMPLATE}/"): archive.read(name)
        for name in archive.namelist()
        if name.startswith(f"{TEMPLATE}/conf/")
    }
    assert found == {**expected, "conf/local/.gitkeep": b""}


def test_the_core_is_light_and_everything_else_an_extra(archive: ZipFile) -> None:
    about = email.message_from_string(metadata(archive, "METADATA"))
    required: dict[str, set[str]] = {}
    for line in about.get_all("Requires-Dist", []):
        requirement = Requirement(line)
        marker = str(requirement.marker or "")
        extra = marker.rpartition('extra == "')[2].rstrip('"') if "extra" in marker else ""
        required.setdefault(extra, set()).add(requirement.name)
    assert required[""] == {
        "cffi", "faiss-cpu", "numpy", "scikit-learn", "scipy", "threadpoolctl", "tqdm",
    }  # fmt: skip
    assert set(required) - {""} == {
        "all", "bench", "cluster", "dev", "episodes", "kedro", "lab", "maps", "mkl", "pynndescent",
        "torch",
    }  # fmt: skip
    # Both own the module faiss.
    assert "faiss-gpu" not in set().union(*required.values())
    assert {"Paper", "Original code"} <= {
        url.partition(", ")[0] for url in about.get_all("Project-URL", [])
    }


def test_the_commands(archive: ZipFile) -> None:
    points = configparser.ConfigParser()
    points.read_string(metadata(archive, "entry_points.txt"))
    assert set(points["console_scripts"]) == {"lowshot", "lowshot-download"}


def run_alone(folder: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Without this repository on the path."""
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
    )


def test_the_demonstration_ran_without_the_repository(
    demonstration_project: Path, new_environment: Path
) -> None:
    """The fixture has run it; other tests look at what came out."""
    where = "import lowshot_kedro; print(lowshot_kedro.__file__)"
    found = run_alone(demonstration_project, new_environment / "python", "-c", where).stdout
    assert Path(found.strip()).is_relative_to(new_environment.parent)
    assert not any((demonstration_project / "src").rglob("*.py"))
    assert (demonstration_project / "data" / "08_reporting" / "metrics_table.csv").is_file()
    assert (demonstration_project / ".telemetry").read_text() == "consent: false\n"


def test_advice_is_about_the_package_and_nothing_else_is_printed(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "conf.tar.gz", "w:gz") as packed:
        packed.add(ROOT / "conf", arcname="conf-lowshot_kedro")
    command = [sys.executable, "-m", "lowshot_kedro", "--conf-source", "conf.tar.gz"]
    result = subprocess.run(
        [*command, "--pipelines", "graph"], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 1
    (line,) = (result.stdout + result.stderr).splitlines()
    assert line.startswith(f"Error: background_vectors: {tmp_path}/data/")
    assert line.endswith(" -m lowshot_kedro --conf-source conf.tar.gz --pipelines pca")
    assert [path.name for path in tmp_path.iterdir()] == ["conf.tar.gz"]


def test_without_settings_it_says_how_to_get_some(tmp_path: Path, new_environment: Path) -> None:
    result = run_alone(tmp_path, new_environment / "python", "-m", "lowshot_kedro")
    (line,) = (result.stdout + result.stderr).splitlines()
    assert line.startswith(f"Error: {tmp_path}/conf/base: not there, expected the settings; ")
    (command,) = re.findall(r"`(.*) new FOLDER`", line)
    assert run_alone(tmp_path, command, "new", "project").returncode == 0
    assert (tmp_path / "project" / "conf" / "base").is_dir()
