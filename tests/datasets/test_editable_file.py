import os
import signal

import pytest
import yaml

from lowshot_kedro.datasets import EditableFileDataset, whole_file
from lowshot_kedro.datasets.files import written_whole
from tests.datasets.helpers import content_of, forked, forks, refused

FIRST = {"diffusion": {"nl2": {"k": 30}}}
SECOND = {"diffusion": {"nl2": {"k": 10}}}
THIRD = {"diffusion": {"nl2": {"k": 5}}}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new folder" / "hyperparameters.yml"


@pytest.fixture
def dataset(path):
    return EditableFileDataset(
        dataset={"type": "yaml.YAMLDataset", "filepath": str(path)}, metadata={"layer": "reporting"}
    )


def read(path):
    return yaml.safe_load(path.read_text())


def test_a_file_is_written_and_read(dataset, path):
    assert not dataset.exists()
    dataset.save(FIRST)
    assert read(path) == dataset.load() == FIRST
    assert dataset.metadata == {"layer": "reporting"}


def test_a_file_that_nobody_has_changed_is_overwritten_time_and_again(dataset, path, caplog):
    for content in (FIRST, SECOND, FIRST, THIRD, THIRD):
        dataset.save(content)
        assert read(path) == content
    assert "changed by hand" not in caplog.text


def test_what_was_changed_by_hand_is_kept_and_said(dataset, path, caplog):
    dataset.save(FIRST)
    path.write_text("diffusion: {nl2: {k: 7}}  # better\n")
    for content in (SECOND, FIRST, SECOND):
        dataset.save(content)
        assert path.read_text() == "diffusion: {nl2: {k: 7}}  # better\n"
    assert f"{path} was changed by hand: kept; remove it" in caplog.text
    assert dataset.load() == {"diffusion": {"nl2": {"k": 7}}}


def test_any_change_counts(dataset, path):
    dataset.save(FIRST)
    changed = path.read_text() + "\n"
    path.write_text(changed)
    dataset.save(SECOND)
    assert path.read_text() == changed


def test_a_file_that_somebody_has_put_there_is_kept(dataset, path, caplog):
    path.parent.mkdir()
    path.write_text("diffusion: {}\n")
    dataset.save(FIRST)
    assert path.read_text() == "diffusion: {}\n"
    assert "changed by hand" in caplog.text


def test_a_file_that_was_removed_is_written_anew(dataset, path, caplog):
    dataset.save(FIRST)
    path.write_text("diffusion: {}\n")
    dataset.save(SECOND)
    path.unlink()
    dataset.save(SECOND)
    assert read(path) == SECOND
    caplog.clear()
    dataset.save(THIRD)
    assert read(path) == THIRD
    assert "changed by hand" not in caplog.text


def test_an_older_file_that_somebody_has_put_back_is_kept(dataset, path):
    dataset.save(FIRST)
    older = path.read_text()
    dataset.save(SECOND)
    path.write_text(older)
    dataset.save(THIRD)
    assert path.read_text() == older


def test_a_change_that_was_taken_back_does_not_count(dataset, path):
    dataset.save(FIRST)
    written = path.read_bytes()
    path.write_text("diffusion: {}\n")
    dataset.save(SECOND)
    path.write_bytes(written)
    dataset.save(SECOND)
    assert read(path) == SECOND


def test_a_lost_note_keeps_the_file(dataset, path):
    # Whether it was changed is not known any more.
    dataset.save(FIRST)
    (note,) = (file for file in path.parent.iterdir() if file != path)
    note.unlink()
    dataset.save(SECOND)
    assert read(path) == FIRST


def test_data_that_cannot_be_written_leave_everything_as_it_was(dataset, path):
    dataset.save(FIRST)
    before = content_of(path.parent)
    with refused(TypeError, "generator"):
        dataset.save({"diffusion": (k for k in (5, 10))})
    assert content_of(path.parent) == before
    dataset.save(SECOND)
    assert read(path) == SECOND


def moments(dataset, content, monkeypatch, stop_at):
    """Save, and be killed before file number `stop_at` gets its name."""
    n_renamed = 0
    rename = type(dataset._filepath).replace

    def counted(self, target):
        nonlocal n_renamed
        if n_renamed == stop_at:
            os.kill(os.getpid(), signal.SIGKILL)
        n_renamed += 1
        return rename(self, target)

    monkeypatch.setattr(type(dataset._filepath), "replace", counted)
    dataset.save(content)


@forks
@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("stop_at", range(4))
def test_a_process_that_is_killed_has_not_changed_the_file_by_hand(
    dataset, path, caplog, monkeypatch, exists, stop_at
):
    if exists:
        dataset.save(FIRST)
    process = forked(lambda: moments(dataset, SECOND, monkeypatch, stop_at))
    process.join()
    # Whatever files there are to be renamed, one after the other, there are not four.
    assert process.exitcode == (0 if stop_at == 3 else -signal.SIGKILL)
    assert not path.exists() or read(path) in (FIRST, SECOND)
    dataset.save(THIRD)
    assert read(path) == THIRD
    dataset.save(FIRST)
    assert read(path) == FIRST
    assert "changed by hand" not in caplog.text
    path.write_text("diffusion: {}\n")
    dataset.save(SECOND)
    assert path.read_text() == "diffusion: {}\n"


def test_both_files_are_written_whole(dataset, path, monkeypatch):
    names = []

    def noting(*paths, **options):
        names.extend(file.name for file in paths)
        return written_whole(*paths, **options)

    monkeypatch.setattr(whole_file, "written_whole", noting)
    dataset.save(FIRST)
    assert set(names) == set(content_of(path.parent))
