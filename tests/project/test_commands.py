"""Commands in messages: what is printed has to work when it is typed."""

import os
import shlex
import sys
from pathlib import Path

import pytest
from kedro.framework.cli.utils import _split_params

import lowshot_kedro
from lowshot_kedro.project.commands import Invocation, lowshot_command


def invocation(project, **changes):
    given = {"conf_source": str(project / "conf"), "env": None, "runtime_params": {}, **changes}
    return Invocation(project, **given)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The working directory, with an environment that is activated."""
    folder = tmp_path / "a project"
    binaries = folder / ".venv" / "bin"
    binaries.mkdir(parents=True)
    for name in ("python", "kedro"):
        (binaries / name).write_text("#!/bin/sh\n")
        (binaries / name).chmod(0o755)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", str(binaries), prepend=os.pathsep)
    monkeypatch.setattr(sys, "executable", str(binaries / "python"))
    monkeypatch.setattr(sys, "argv", [str(binaries / "kedro"), "run"])
    return folder


def test_the_plain_command(project):
    assert invocation(project).command("graph") == "kedro run --pipelines graph"
    assert invocation(project).command(None) == "kedro run"


def test_an_environment_that_is_not_activated_is_named(project, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert invocation(project).command("graph") == ".venv/bin/kedro run --pipelines graph"
    monkeypatch.chdir(project / ".venv")
    assert invocation(project).command("graph") == "bin/kedro run --pipelines graph"


def test_another_kedro_on_the_path_is_not_meant(project, monkeypatch):
    other = project / "other"
    other.mkdir()
    (other / "kedro").write_text("#!/bin/sh\n")
    (other / "kedro").chmod(0o755)
    monkeypatch.setenv("PATH", str(other), prepend=os.pathsep)
    assert invocation(project).command("pca") == ".venv/bin/kedro run --pipelines pca"


def test_without_a_script_python_runs_kedro(project):
    (project / ".venv" / "bin" / "kedro").unlink()
    assert invocation(project).command("pca") == "python -m kedro run --pipelines pca"


def test_the_packages_own_command_too(project, monkeypatch):
    script = project / ".venv" / "bin" / "lowshot"
    assert lowshot_command() == "python -m lowshot_kedro.project.command_line"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    assert lowshot_command() == "lowshot"
    monkeypatch.setenv("PATH", "/nowhere")
    assert lowshot_command() == ".venv/bin/lowshot"


def test_a_package_is_run_as_a_package(project, monkeypatch):
    main = Path(lowshot_kedro.__file__).with_name("__main__.py")
    monkeypatch.setattr(sys, "argv", [str(main), "--pipelines", "x"])
    source = str(project / "conf.tar.gz")
    assert invocation(project, conf_source=source).command("graph") == (
        "python -m lowshot_kedro --conf-source conf.tar.gz --pipelines graph"
    )


def test_a_project_elsewhere_is_named(project, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert invocation(project).command("graph") == f"kedro run --pipelines graph (in {project})"


def test_environment_and_source_are_kept(project):
    command = invocation(project, env="my env", conf_source="/some where/conf").command("graph")
    assert shlex.split(command) == [
        "kedro", "run", "--env", "my env", "--conf-source", "/some where/conf",
        "--pipelines", "graph",
    ]  # fmt: skip
    assert "--env" not in invocation(project, env="local").command("graph")


PARAMETERS = [
    {"experiment": {"n_labeled": 5, "seed": 2}, "graph": {"n_background": None}},
    {"diffusion": {"clamping": True, "sigma": 1e-05}, "features": {"weights": "none"}},
    {"features": {"weights": 'it\'s "my" $HOME/net`.pt'}},
    {"features": {"weights": "null", "extractor": "12", "device": "true"}},
    {"features": {"weights": " spaces ", "extractor": "", "device": "a=b"}},
    {"features": {"weights": "[1"}, "graph": {"method": "IVF1024;PQ16:x"}},
    {"features": {"weights": "größe/ok.pt", "extractor": "back\\slash"}},
    {"sweep": {"cluster": {}, "seeds": [7]}},
]


@pytest.mark.parametrize("parameters", PARAMETERS)
def test_parameters_are_read_back_as_they_were(project, parameters):
    words = shlex.split(invocation(project, runtime_params=parameters).command("graph"))
    assert words[:3] == ["kedro", "run", "--params"] and words[4:] == ["--pipelines", "graph"]
    assert _split_params(None, None, words[3]) == parameters


def test_what_params_cannot_say_is_named(project):
    parameters = {"evaluation": {"top_k": [1, 5]}, "features": {"weights": "a,b"}, "pca": {"x": 1}}
    command = invocation(project, runtime_params=parameters).command("graph")
    assert command == (
        'kedro run --params "pca.x=1" --pipelines graph (with a file for --config: '
        "evaluation.top_k, features.weights cannot be in --params)"
    )
