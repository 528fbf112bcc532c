"""The package without its project: `python -m lowshot_kedro` in some folder."""

import subprocess
import sys
import tarfile
from pathlib import Path

import yaml

import lowshot_kedro
from tests.projects import ROOT


def test_the_package_logs_as_the_project_does():
    ours = Path(lowshot_kedro.__file__).with_name("logging.yml")
    assert yaml.safe_load(ours.read_text()) == yaml.safe_load(
        (ROOT / "conf" / "logging.yml").read_text()
    )


def test_advice_is_about_the_package_and_nothing_else_is_printed(tmp_path):
    with tarfile.open(tmp_path / "conf.tar.gz", "w:gz") as archive:
        archive.add(ROOT / "conf", arcname="conf-lowshot_kedro")
    command = [sys.executable, "-m", "lowshot_kedro", "--conf-source", "conf.tar.gz"]
    result = subprocess.run(
        [*command, "--pipelines", "graph"], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 1
    (line,) = (result.stdout + result.stderr).splitlines()
    assert line.startswith(f"Error: background_vectors: {tmp_path}/data/")
    assert line.endswith(" -m lowshot_kedro --conf-source conf.tar.gz --pipelines pca")
    assert [path.name for path in tmp_path.iterdir()] == ["conf.tar.gz"]
