"""A file carries its name when it is complete, whatever happens while it is written."""

import errno
import multiprocessing
import os
import resource
import shutil
import signal
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from kedro.io import DatasetError

from lowshot_kedro.datasets import files
from tests.datasets.helpers import content_of, forks, half_way, killed_half_way, refused
from tests.datasets.writers import WRITERS, nothing


def writers() -> pytest.MarkDecorator:
    """Parametrise over all writers."""
    return pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS.keys())


def stop() -> None:
    raise InterruptedError("stopped half-way")


def disk_full() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@writers()
def test_nothing_is_left_of_a_first_attempt_that_fails(tmp_path, writer):
    dataset = writer.make(tmp_path)
    with pytest.raises((DatasetError, InterruptedError), match="stopped half-way"):
        writer.save(dataset, 1, stop)
    assert not dataset.exists()
    leftovers = [name for name in content_of(tmp_path) if not name.startswith("train/")]
    assert leftovers == []


@writers()
def test_an_older_file_survives_an_attempt_that_fails(tmp_path, writer):
    dataset = writer.make(tmp_path)
    writer.save(dataset, 1, nothing)
    older = content_of(tmp_path)
    with pytest.raises((DatasetError, InterruptedError), match="stopped half-way"):
        writer.save(dataset, 2, stop)
    assert content_of(tmp_path) == older


@writers()
def test_a_later_attempt_replaces_the_older_file(tmp_path, writer):
    fresh, replaced = tmp_path / "fresh", tmp_path / "replaced"
    writer.save(writer.make(fresh), 2, nothing)
    writer.save(writer.make(replaced), 1, nothing)
    older = content_of(replaced)
    writer.save(writer.make(replaced), 2, nothing)
    assert content_of(replaced).keys() == content_of(fresh).keys() == older.keys()
    assert content_of(replaced) != older
    assert all((replaced / final).exists() for final in writer.finals)


def save_killed_half_way(writer, folder: Path, marker: Path) -> None:
    killed_half_way(lambda wait: writer.save(writer.make(folder), 2, wait), marker)


@forks
@writers()
def test_a_killed_process_leaves_no_final_name_and_does_not_hinder_the_next(tmp_path, writer):
    folder, marker = tmp_path / "killed", tmp_path / "half-way"
    save_killed_half_way(writer, folder, marker)
    assert not writer.make(folder).exists()
    assert not any((folder / final).exists() for final in writer.finals)
    assert content_of(folder), "nothing had been written yet, so the kill proves nothing"

    writer.save(writer.make(folder), 3, nothing)
    writer.save(writer.make(tmp_path / "fresh"), 3, nothing)
    assert content_of(folder).keys() == content_of(tmp_path / "fresh").keys()


@forks
@writers()
def test_an_older_file_survives_a_killed_process(tmp_path, writer):
    folder, marker = tmp_path / "killed", tmp_path / "half-way"
    writer.save(writer.make(folder), 1, nothing)
    older = content_of(folder)
    save_killed_half_way(writer, folder, marker)
    found = content_of(folder)
    assert {name: found.get(name) for name in older} == older
    assert found.keys() != older.keys(), "nothing had been written yet"


@forks
@writers()
@pytest.mark.parametrize("value", [2, 3], ids=["the same", "something else"])
def test_two_processes_never_write_at_a_time(tmp_path, monkeypatch, writer, value):
    monkeypatch.setattr(files, "SECONDS_TO_WAIT", 0)
    folder, marker = tmp_path / "two", tmp_path / "half-way"
    writer.save(writer.make(folder), 1, nothing)
    older = content_of(folder)
    with half_way(lambda wait: writer.save(writer.make(folder), 2, wait), marker) as other:
        begun = content_of(folder)
        with refused(ValueError, folder, f"process {other.pid}", "has been writing it since"):
            writer.save(writer.make(folder), value, lambda: pytest.fail("it began to write"))
        assert content_of(folder) == begun
        assert older.items() <= begun.items()
    # What the other one has held is free, although it was killed.
    writer.save(writer.make(folder), value, nothing)
    writer.save(writer.make(tmp_path / "fresh"), value, nothing)
    fresh = content_of(tmp_path / "fresh")
    assert content_of(folder).keys() == fresh.keys()


@pytest.mark.parametrize("renames", [0, 1])
@pytest.mark.parametrize("name", ["graph", "feature blocks"])
def test_files_that_belong_together_are_never_mixed(tmp_path, monkeypatch, name, renames):
    """A process that ends between two renames: no partial clean-up is assumed."""
    writer = WRITERS[name]
    dataset = writer.make(tmp_path)
    writer.save(dataset, 1, nothing)
    older = content_of(tmp_path)
    rename, done = Path.replace, []

    def replace(path, target):
        if len(done) == renames:
            raise KeyboardInterrupt
        done.append(target)
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            writer.save(dataset, 2, nothing)
    assert len(done) == renames
    assert not dataset.exists() or content_of(tmp_path) == older
    writer.save(dataset, 2, nothing)
    writer.save(writer.make(tmp_path / "fresh"), 2, nothing)
    fresh = content_of(tmp_path / "fresh")
    assert {name: len(content_of(tmp_path)[name]) for name in fresh} == {
        name: len(content) for name, content in fresh.items()
    }


@pytest.mark.parametrize(
    "name", ["graph", "feature blocks", "raw matrix", "features", "arrays", "index"]
)
def test_a_disk_without_room_is_noticed_before_writing(tmp_path, monkeypatch, name):
    writer = WRITERS[name]
    usage = SimpleNamespace(total=1 << 40, used=(1 << 40) - 10, free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with refused(OSError, tmp_path / writer.finals[0], "needed", "only 10 B free"):
        writer.save(writer.make(tmp_path), 1, lambda: pytest.fail("it began to write"))
    assert content_of(tmp_path) == {}


@writers()
def test_a_disk_that_fills_up_is_reported_with_the_name_of_the_file(tmp_path, writer):
    with refused(OSError, tmp_path / writer.finals[0].split("/")[0], "the disk is full"):
        writer.save(writer.make(tmp_path), 1, disk_full)


SAVED, REFUSED = 1, 0
# What was there under the unfinished name is removed, not written to.
MADE_ANEW = ("zip shards", "labelled list", "features", "feature blocks")


@forks
@writers()
def test_a_file_whose_last_bytes_do_not_fit_never_gets_its_name(tmp_path, writer):
    """The system refuses the last byte, as a full disk would."""
    fresh, limited = tmp_path / "fresh", tmp_path / "limited"
    writer.save(writer.make(fresh), 1, nothing)
    largest = max(map(len, content_of(fresh).values()))

    def save() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest - 1, largest - 1))
        with suppress(Exception):
            writer.save(writer.make(limited), 1, nothing)
            os._exit(SAVED)
        os._exit(REFUSED)

    process = multiprocessing.get_context("fork").Process(target=save)
    process.start()
    process.join()
    assert not any((limited / final).exists() for final in writer.finals)
    # The HDF5 library itself may crash when it cannot write while it closes a file.
    assert process.exitcode in (REFUSED, -signal.SIGSEGV, -signal.SIGABRT)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("name", [name for name in WRITERS if name not in MADE_ANEW])
def test_a_device_that_is_full_is_reported_with_the_name_of_the_file(tmp_path, name):
    # The unfinished file is a link to a device on which every write fails with ENOSPC.
    writer = WRITERS[name]
    (tmp_path / f".partial-{writer.finals[0]}").symlink_to("/dev/full")
    with refused(OSError, tmp_path / writer.finals[0], "the disk is full"):
        writer.save(writer.make(tmp_path), 1, nothing)
    assert not any((tmp_path / final).exists() for final in writer.finals)
