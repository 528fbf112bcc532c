"""A fit that is stopped leaves nothing behind, and one in a process that was forked ends."""

import gc
import multiprocessing
import os
import signal
import tempfile
import threading
from functools import cache

import faiss
import joblib
import numpy as np
import pytest
from sklearn.model_selection import cross_val_score
from tqdm import TMonitor

from lowshot_kedro import LabelDiffusion
from lowshot_kedro.native import _library
from lowshot_kedro.native._library import lib
from lowshot_kedro.progress import Progress

from .making import clusters, few_labels

N_ROWS, N_CLASSES = 1500, 3
# What a child may take that does not wait for ever.
TIMEOUT = 60


pytestmark = pytest.mark.filterwarnings("ignore:LabelDiffusion. .* rows:UserWarning")


class Stop(Exception):
    """What nobody but these tests raises."""


@cache
def rows(kind="usual"):
    points, classes = clusters(N_ROWS, N_CLASSES, dimension=8)
    if kind == "far":
        points[::300] *= 1e6
    return points.astype(np.float32), few_labels(classes, 5)


FITS = {
    "descent": ("usual", {"graph_method": "descent"}),
    "descent, cosine": ("usual", {"graph_method": "descent", "metric": "cosine"}),
    "ivf": ("usual", {"graph_method": "ivf"}),
    "exact": ("usual", {"graph_method": "exact"}),
    "HNSW": ("usual", {"graph_method": "HNSW8"}),
    "IVF of faiss": ("usual", {"graph_method": "IVF20,Flat"}),
    "plain lists": ("far", {"graph_method": "descent"}),
}
each_fit = pytest.mark.parametrize("name", FITS)


def results(name, n_jobs=3):
    kind, parameters = FITS[name]
    points, labels = rows(kind)
    model = LabelDiffusion(n_jobs=n_jobs, **parameters).fit(points, labels)
    shares = model.predict_proba(points[:100] + np.float32(0.1))
    return [part.tobytes() for part in (model.neighbors_, model.label_distributions_, shares)]


expected = cache(results)


def test_far_rows_are_compared_as_they_are(caplog):
    """That is, the fits below go all the ways that there are."""
    with caplog.at_level("INFO", "lowshot_kedro"):
        results("plain lists")
    assert "vectors are compared as they are" in caplog.text


@pytest.fixture
def nothing_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = set(threading.enumerate())

    def check():
        gc.collect()
        assert not list(tmp_path.iterdir())
        new = set(threading.enumerate()) - before
        assert not {thread.name for thread in new if not isinstance(thread, TMonitor)}

    return check


def stopped(name):
    """Whether a fit is stopped."""
    try:
        results(name)
    except Stop:
        return True
    return False


def stop_at(count, action):
    """Calls the action at one of the calls, and counts all."""
    calls = iter(range(10**9))
    return lambda: action() if next(calls) == count else None


def raise_stop():
    raise Stop


@each_fit
@pytest.mark.parametrize("place", [0, 5])
def test_stopped_between_two_blocks(monkeypatch, nothing_stays, name, place):
    wanted = expected(name)
    update = Progress.update
    tick = stop_at(place, raise_stop)

    def stopping_update(self, *arguments):
        tick()
        update(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Progress, "update", stopping_update)
        was_stopped = stopped(name)
    # Small data has few blocks.
    assert was_stopped or place > 0
    nothing_stays()
    assert results(name) == wanted


@each_fit
@pytest.mark.parametrize("place", [0, 20])
def test_stopped_in_compiled_loops(monkeypatch, nothing_stays, name, place):
    wanted = expected(name)
    lib.lowshot_set_poll(lib.lowshot_poll, 0)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(_library, "require_no_stop", stop_at(place, raise_stop))
            assert stopped(name)
    finally:
        lib.lowshot_set_poll(lib.lowshot_poll, _library.MILLISECONDS_BETWEEN_POLLS)
    nothing_stays()
    assert results(name) == wanted


@pytest.fixture
def ringing():
    """A signal whose handler raises Stop."""
    before = signal.signal(signal.SIGUSR1, lambda *_: raise_stop())
    yield lambda: os.kill(os.getpid(), signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs signals")
@pytest.mark.parametrize("name", ["exact", "plain lists", "descent"])
@pytest.mark.parametrize("place", [0, 1])
def test_a_signal_while_other_threads_compare(monkeypatch, nothing_stays, ringing, name, place):
    wanted = expected(name)
    knn = faiss.knn
    ring = stop_at(place, ringing)

    def ringing_knn(*arguments, **options):
        ring()
        return knn(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(faiss, "knn", ringing_knn)
        assert stopped(name)
    nothing_stays()
    assert results(name) == wanted


# Forked processes.


def answer_of(process_of, function):
    """What a child sends, or None if it does not; it is ended in any case."""
    receiver, sender = multiprocessing.Pipe(duplex=False)

    def send():
        receiver.close()
        try:
            answer = function()
        except Exception as error:
            answer = repr(error)
        sender.send(answer)
        sender.close()

    kill = process_of(send)
    sender.close()
    try:
        return receiver.recv() if receiver.poll(TIMEOUT) else None
    except EOFError:
        return None
    finally:
        kill()
        receiver.close()


def kill_group(pid):
    """A child and its own children, which might wait for ever."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:  # no group of its own yet, or gone
        os.kill(pid, signal.SIGKILL)


def by_os_fork(function):
    pid = os.fork()
    if pid == 0:
        try:
            os.setpgid(0, 0)
            function()
        finally:
            os._exit(0)

    def kill():
        kill_group(pid)
        os.waitpid(pid, 0)

    return kill


def by_multiprocessing(function):
    def work():
        os.setpgid(0, 0)
        function()

    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()

    def kill():
        kill_group(child.pid)
        child.join()

    return kill


def from_another_thread(function):
    """Forked by a thread that has used OpenMP itself."""
    kills = []

    def work():
        results("descent")
        kills.append(by_os_fork(function))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return kills[0]


def in_a_child_of_the_child(function):
    return by_os_fork(lambda: by_os_fork_and_wait(function))


def by_os_fork_and_wait(function):
    # The first child has threads of its own when it forks.
    results("exact")
    pid = os.fork()
    if pid == 0:
        try:
            function()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
no_warning = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@needs_fork
@no_warning
@each_fit
def test_a_forked_child_finds_the_same(name):
    wanted = expected(name)
    assert answer_of(by_os_fork, lambda: results(name)) == wanted


@needs_fork
@no_warning
@pytest.mark.parametrize("n_jobs", [None, 1])
def test_in_a_child_threads_change_nothing(n_jobs):
    wanted = expected("descent")
    assert answer_of(by_os_fork, lambda: results("descent", n_jobs)) == wanted


@needs_fork
@no_warning
@pytest.mark.parametrize(
    "process_of", [by_multiprocessing, from_another_thread, in_a_child_of_the_child]
)
@pytest.mark.parametrize("name", ["descent", "exact"])
def test_whoever_forks_and_how(name, process_of):
    wanted = expected(name)
    assert answer_of(process_of, lambda: results(name)) == wanted


@needs_fork
@no_warning
def test_a_child_can_be_stopped(monkeypatch):
    expected("descent")

    def work():
        lib.lowshot_set_poll(lib.lowshot_poll, 0)
        signal.signal(signal.SIGUSR1, lambda *_: raise_stop())
        ring = stop_at(5, lambda: os.kill(os.getpid(), signal.SIGUSR1))
        require_no_stop = _library.require_no_stop

        def ringing():
            ring()
            require_no_stop()

        monkeypatch.setattr(_library, "require_no_stop", ringing)
        was_stopped = stopped("descent")
        return was_stopped, results("descent") == expected("descent")

    assert answer_of(by_os_fork, work) == (True, True)


@needs_fork
@no_warning
def test_cross_validation_in_forked_processes():
    points, classes = clusters(N_ROWS, N_CLASSES, dimension=8)
    model = LabelDiffusion(n_jobs=3, graph_method="descent").fit(points, classes)

    def scores():
        return cross_val_score(model, points, classes, cv=2).tolist()

    def side_by_side():
        with joblib.parallel_backend("multiprocessing", n_jobs=2):
            return cross_val_score(model, points, classes, cv=2).tolist()

    # In a child, so that it can be ended if its own children wait for ever.
    assert answer_of(by_os_fork, side_by_side) == scores()
