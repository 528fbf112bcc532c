"""Nothing is sent, however the package is started, unless a person has agreed."""

import os

import kedro_telemetry.plugin
import pytest
from kedro.framework.cli import cli as kedro_cli
from kedro.framework.session import KedroSession

from lowshot_kedro.project.telemetry import before_any_command
from tests.projects import ROOT, configure_kedro

pytestmark = pytest.mark.filterwarnings(
    "ignore:register_new_resolver:UserWarning", "ignore:'BaseCommand':DeprecationWarning"
)

VARIABLES = ("KEDRO_DISABLE_TELEMETRY", "DO_NOT_TRACK", "GITHUB_REPOSITORY_OWNER")


@pytest.fixture
def sent(monkeypatch):
    """What the plugin would have sent; nobody has said anything about it."""
    events = []
    monkeypatch.setattr(
        kedro_telemetry.plugin,
        "_send_heap_event",
        lambda event_name, **_: events.append(event_name),
    )
    monkeypatch.setattr(kedro_telemetry.plugin, "_get_or_create_uuid", lambda: "somebody")
    plugin = kedro_telemetry.plugin.telemetry_hook
    for name, value in vars(kedro_telemetry.plugin.KedroTelemetryHook()).items():
        monkeypatch.setattr(plugin, name, value)
    for name in VARIABLES:
        # Set first, so that it is taken back whatever happens to it.
        monkeypatch.setenv(name, "1")
        monkeypatch.delenv(name)
    return events


def begin_session(folder):
    """As a notebook does, or `python -m lowshot_kedro`, or kedro-viz."""
    configure_kedro()
    with KedroSession.create(project_path=folder, conf_source=str(ROOT / "conf")) as session:
        assert len(list(session.load_context().catalog)) > 10


def run_command(folder, monkeypatch):
    """`kedro --version` without the process; what comes before it is what matters."""
    monkeypatch.chdir(folder)
    before_any_command()
    commands = kedro_cli.KedroCLI(project_path=folder)
    with pytest.raises(SystemExit):
        commands.main(["--version"])


def test_a_session_in_a_folder_without_an_answer_sends_nothing(sent, tmp_path):
    begin_session(tmp_path)
    assert sent == []


def test_a_command_in_a_copy_without_hidden_files_sends_nothing(sent, project, monkeypatch):
    (project / ".telemetry").unlink()
    before = (project / "pyproject.toml").read_bytes()
    run_command(project, monkeypatch)
    assert sent == []
    assert (project / "pyproject.toml").read_bytes() == before


def test_a_command_outside_of_any_project_sends_nothing(sent, tmp_path, monkeypatch):
    run_command(tmp_path, monkeypatch)
    assert sent == []


def test_a_person_who_agrees_is_heard(sent, project, monkeypatch):
    (project / ".telemetry").write_text("consent: true\n")
    run_command(project, monkeypatch)
    assert sent == ["CLI command"]
    begin_session(project)
    assert sent == ["CLI command", "Kedro Project Statistics"]


@pytest.mark.parametrize("answer", ["consent: false", "consent: maybe", "", "{", "[true]", "true"])
def test_every_other_answer_is_no(sent, tmp_path, answer):
    (tmp_path / ".telemetry").write_text(answer)
    begin_session(tmp_path)
    assert sent == []


def test_other_projects_are_left_alone(sent, tmp_path, monkeypatch):
    text = '[tool.kedro]\npackage_name = "other"\nproject_name = "lowshot_kedro"\n'
    (tmp_path / "pyproject.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    before_any_command()
    assert not any(name in os.environ for name in VARIABLES)


def test_kedro_is_told_what_to_call_before_any_command():
    target = f"{before_any_command.__module__}:{before_any_command.__name__}"
    entry_point = f'[project.entry-points."kedro.init"]\nlowshot-kedro = "{target}"\n'
    assert entry_point in (ROOT / "pyproject.toml").read_text()
