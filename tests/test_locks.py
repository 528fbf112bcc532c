"""One writer at a time for each result, across processes, and no lock that outlives its process."""

import errno
import fcntl
import json
import logging
import os
import signal
import socket
import threading

import pytest

from lowshot_kedro import locks
from lowshot_kedro.locks import ResultInUseError, lock_path, written_by_one
from tests.datasets.helpers import forked
from tests.other_processes import another_process, claimed, fork, join, read, wait_for, written

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="forks"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]


@pytest.fixture
def result(tmp_path):
    return tmp_path / "scores.hdf5"


WRITERS = [written, claimed]


@pytest.mark.parametrize("ours", WRITERS)
@pytest.mark.parametrize("theirs", [written, claimed, read])
def test_what_another_process_uses_is_not_written(result, ours, theirs):
    with another_process(theirs, result) as pid:
        doing = "reading" if theirs is read else "writing"
        message = rf"{result}: process {pid} \(.+\) has been {doing} it since 20.+; wait"
        with pytest.raises(ResultInUseError, match=message) as caught, ours(result):
            raise AssertionError("not reached")
        assert "\n" not in str(caught.value)
    # It has ended.
    with ours(result):
        assert lock_path(result).exists()
    assert list(result.parent.iterdir()) == []


@pytest.mark.parametrize("theirs", WRITERS)
def test_what_another_process_writes_is_not_read(result, theirs):
    with (
        another_process(theirs, result),
        pytest.raises(ResultInUseError, match="has been writing it"),
        read(result),
    ):
        raise AssertionError("not reached")
    with read(result):
        pass


def test_several_processes_read(result):
    with another_process(read, result), another_process(read, result), read(result):
        assert lock_path(result).exists()
    assert list(result.parent.iterdir()) == []


def test_another_result_beside_it_is_free(result, tmp_path):
    with another_process(written, result), written(tmp_path / "other.hdf5"):
        pass


@pytest.mark.parametrize("theirs", [written, claimed, read])
def test_a_lock_ends_with_its_process(result, theirs):
    with another_process(theirs, result) as pid:
        os.kill(pid, signal.SIGKILL)
        join(pid)
        assert lock_path(result).exists()
        with written(result):
            pass
    assert list(result.parent.iterdir()) == []


def test_a_lock_ends_although_a_child_of_its_process_goes_on(result, tmp_path):
    begun, end = tmp_path / "begun", tmp_path / "end"

    def work():
        with written(result):
            fork(lambda: (begun.touch(), wait_for(end)))
            wait_for(end)

    pid = fork(work)
    try:
        assert wait_for(begun)
        os.kill(pid, signal.SIGKILL)
        join(pid)
        with written(result):
            pass
    finally:
        end.touch()


def test_a_result_that_is_free_again_is_waited_for(result):
    with another_process(written, result) as pid:
        with pytest.raises(ResultInUseError), written_by_one(result, seconds_to_wait=0.2):
            raise AssertionError("not reached")
        ending = threading.Timer(0.3, os.kill, (pid, signal.SIGKILL))
        ending.start()
        with written_by_one(result, seconds_to_wait=60):
            pass
        ending.join()


def test_a_run_writes_what_it_has_claimed(result):
    with claimed(result), written(result), written(result):
        with another_process(read, result.with_name("other")):
            pass
        assert lock_path(result).exists()
    assert not lock_path(result).exists()


def test_a_reader_becomes_a_writer_and_a_reader_again(result):
    with read(result):
        with (
            written(result),
            pytest.raises(ResultInUseError, match="has been writing it"),
            another_process(read, result),
        ):
            raise AssertionError("not reached")
        with (
            another_process(read, result),
            pytest.raises(ResultInUseError, match="has been reading it"),
            written(result),
        ):
            raise AssertionError("not reached")
        with written(result):
            pass
    assert list(result.parent.iterdir()) == []


def test_two_threads_never_write_at_a_time(result):
    found = []

    def work():
        try:
            with written(result):
                pass
        except ResultInUseError as error:
            found.append(str(error))

    with claimed(result):
        with written(result):
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert found == [f"{result}: another thread of this process is writing it"]


def test_all_or_none_of_several(tmp_path):
    paths = [tmp_path / name for name in ("b", "a", "c")]
    with another_process(written, paths[0]):
        with pytest.raises(ResultInUseError, match=f"{paths[0]}: "), written_by_one(*paths):
            raise AssertionError("not reached")
        assert [path.name for path in tmp_path.iterdir()] == [".partial-b.lock"]


def test_one_result_by_two_names(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    result = tmp_path / "folder" / "scores.hdf5"
    with (
        another_process(written, tmp_path / "link" / "scores.hdf5"),
        pytest.raises(ResultInUseError),
        written(tmp_path / "link" / ".." / "folder" / "scores.hdf5"),
    ):
        raise AssertionError("not reached")
    with written(result), written(tmp_path / "link" / "scores.hdf5"):
        pass
    assert list(result.parent.iterdir()) == []


def test_an_error_ends_it(result):
    with pytest.raises(ZeroDivisionError), written(result):
        raise ZeroDivisionError
    with another_process(written, result):
        pass


def test_a_worker_of_the_process_that_has_claimed_it_writes(result):
    def work():
        with written(result):
            os._exit(17)

    with claimed(result):
        process = forked(work)
        process.join()
        assert process.exitcode == 17
        # What it says about us is still there for others.
        assert json.loads(lock_path(result).read_text())["pid"] == os.getpid()
    with read(result):
        process = forked(work)
        process.join()
    assert process.exitcode == 17


def test_another_machine_is_named(result, monkeypatch):
    with another_process(written, result):
        user = json.loads(lock_path(result).read_text())
        line = json.dumps({**user, "host": "node-17", "command": "kedro run\n--pipeline graph"})
        lock_path(result).write_text(line + "\n")
        message = (
            rf"process {user['pid']} on node-17 \(kedro run --pipeline graph\) has been writing"
        )
        with pytest.raises(ResultInUseError, match=message), written(result):
            raise AssertionError("not reached")


@pytest.mark.parametrize("left", [b"", b"no line of ours\n", b'{"pid": 1}\n', b"\xff\n[]\n"])
def test_what_else_is_in_the_file_does_not_hinder(result, left):
    lock_path(result).write_bytes(left)
    with written(result):
        pass
    with another_process(written, result):
        lock_path(result).write_bytes(left)
        with (
            pytest.raises(ResultInUseError, match="another process is using it; wait"),
            written(result),
        ):
            raise AssertionError("not reached")


def test_without_locks_a_warning_is_all(result, monkeypatch, caplog):
    def lockf(descriptor, kind):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", lockf)
    monkeypatch.setattr(locks, "_warned", set())
    with caplog.at_level(logging.WARNING), written(result), read(result), claimed(result):
        pass
    with written(result):
        pass
    assert [record.message for record in caplog.records] == [
        f"{result.parent}: no locks on this file system; let one process at a time write"
    ]
    assert list(result.parent.iterdir()) == []


def test_what_nobody_can_write_is_read_without_a_lock(result, monkeypatch):
    def no_file(*arguments):
        raise OSError(errno.EROFS, "Read-only file system", str(result))

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", no_file)
        with read(result), read(result):
            pass
        with pytest.raises(OSError, match="Read-only"), written(result):
            raise AssertionError("not reached")
    with read(result.parent / "no folder" / "scores.hdf5"):
        pass
    assert list(result.parent.iterdir()) == []


def test_many_processes_count_to_a_hundred(result):
    """Each adds to a number in a file; without locks some of that would be lost."""
    result.write_text("0")

    def work():
        for _ in range(25):
            with written_by_one(result, seconds_to_wait=60):
                number = int(result.read_text())
                result.write_text(str(number + 1))

    for pid in [fork(work) for _ in range(4)]:
        join(pid)
    assert result.read_text() == "100"
    assert [path.name for path in result.parent.iterdir()] == [result.name]


def test_others_who_share_the_folder_can_lock_it_too(result):
    umask = os.umask(0o077)
    try:
        with written(result):
            assert lock_path(result).stat().st_mode & 0o777 == 0o666
    finally:
        os.umask(umask)


def test_readers_never_keep_readers_away_and_leave_nothing(result, tmp_path):
    refusals = tmp_path / "refusals"

    def work():
        try:
            for _ in range(300):
                with read(result):
                    pass
        except ResultInUseError as error:
            refusals.write_text(str(error))

    for pid in [fork(work) for _ in range(3)]:
        join(pid)
    assert list(tmp_path.iterdir()) == []


def test_the_line_tells_who_it_is(result, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/somewhere/bin/kedro", "run", "--pipeline", "graph"])
    with written(result):
        user = json.loads(lock_path(result).read_text())
    assert (user["pid"], user["host"]) == (os.getpid(), socket.gethostname())
    assert user["command"] == "kedro run --pipeline graph"
