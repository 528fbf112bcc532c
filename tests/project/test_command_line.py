"""The command `lowshot`, as it is typed in the repository; test_package.py types it without."""

import sys
from pathlib import Path

import pytest
import yaml
from kedro.framework.startup import bootstrap_project

from lowshot_kedro.project.command_line import main
from tests.projects import ROOT


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_new_project_has_settings_and_folders_and_says_no_to_telemetry(tmp_path, capsys):
    folder = tmp_path / "my project"
    assert main(["new", str(folder)]) == 0
    found = files_in(folder)
    shared = {
        name: content
        for name, content in files_in(ROOT / "conf").items()
        if not name.startswith("local/")
    }
    assert {
        name.removeprefix("conf/"): content
        for name, content in found.items()
        if name.startswith("conf/")
    } == {**shared, "local/.gitkeep": b""}
    layers = [path.name for path in (ROOT / "data").iterdir() if (path / ".gitkeep").is_file()]
    assert sorted(path.name for path in (folder / "data").iterdir()) == sorted(layers)
    assert yaml.safe_load(found[".telemetry"]) == {"consent": False}
    assert {".gitignore", "README.md", "src/.gitkeep", "docs/own_images.md"} <= set(found)
    assert "notebooks/explore_catalog.ipynb" in found
    *_, last = capsys.readouterr().out.splitlines()
    assert last.startswith(f"Next:  cd '{folder}' && ") and last.endswith("kedro run")
    metadata = bootstrap_project(folder)
    assert (metadata.package_name, metadata.source_dir) == ("lowshot_kedro", folder / "src")
    sys.path.remove(str(folder / "src"))


def test_the_git_of_a_new_project_keeps_what_the_repositorys_does(tmp_path):
    main(["new", str(tmp_path)])

    def kept(folder):
        lines = (folder / ".gitignore").read_text().splitlines()
        return {line for line in lines if line.lstrip("!").startswith(("/data", "/conf"))}

    assert kept(tmp_path) == kept(ROOT)


@pytest.mark.parametrize(("name", "found"), [("settings.yml", "is a file"), (".", "is not empty")])
def test_what_is_there_is_left_alone(tmp_path, capsys, name, found):
    (tmp_path / "settings.yml").write_text("a: 1\n")
    folder = tmp_path / name
    assert main(["new", str(folder)]) == 1
    assert capsys.readouterr().err == (
        f"lowshot new: {folder}: {found}; expected a folder that is new or empty\n"
    )
    assert files_in(tmp_path) == {"settings.yml": b"a: 1\n"}


def test_whoever_has_no_kedro_is_told_first(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "kedro_datasets", None)
    assert main(["new", str(tmp_path / "project")]) == 0
    assert capsys.readouterr().out.splitlines()[1] == (
        "First: the pipelines: needs kedro_datasets, which is not installed; "
        'type: pip install "lowshot-kedro[kedro]"'
    )


def test_downloading_is_the_command_it_was(capsys, monkeypatch):
    monkeypatch.delenv("DDIR", raising=False)
    assert main(["download", "--list"]) == 1
    assert capsys.readouterr().err.startswith("lowshot download: no folder: expected --folder")
    with pytest.raises(SystemExit):
        main(["download", "--help"])
    assert "usage: lowshot download" in capsys.readouterr().out


def test_without_a_command_there_is_a_list_of_them(capsys):
    with pytest.raises(SystemExit):
        main([])
    assert "{new,download}" in capsys.readouterr().err
