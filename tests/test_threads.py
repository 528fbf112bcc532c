"""Calls of faiss side by side, and steps of a pipeline that overlap."""

import gc
import subprocess
import sys
import threading
import time
import weakref

import faiss
import numpy as np
import pytest
import torch

from lowshot_kedro.interruption import Stopped, require_no_stop, stopping_at
from lowshot_kedro.threads import (
    CHUNK_ROWS,
    MAX_MULTIPLICATIONS,
    MIN_ROWS,
    map_in_threads,
    map_rows,
    prefetch,
    rows_at_once,
    run_in_one_thread,
    thread_names,
)
from lowshot_kedro.torch_threads import single_threaded_tasks


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


@pytest.fixture(autouse=True)
def no_thread_stays():
    yield
    assert threads() == []


class Signal(Exception):
    """What a handler raises."""


@pytest.fixture
def signal_at_start(monkeypatch):
    """A signal arrives just before start() returns, and the thread begins only after that."""

    def begin(count=0):
        calls = iter(range(count + 1))

        def start(self):
            if next(calls, None) != count:
                return plainly(self)
            run = self.run

            def late():
                time.sleep(0.2)
                run()

            self.run = late
            plainly(self)
            raise Signal

        plainly = threading.Thread.start
        monkeypatch.setattr(threading.Thread, "start", start)

    return begin


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_signal_while_a_thread_is_started_for_map_ahead(signal_at_start, count):
    signal_at_start(count)
    done = []
    with pytest.raises(Signal):
        list(map_in_threads(done.append, range(100), n_threads=3))
    assert threads() == []
    assert len(done) < 100


def test_a_signal_while_a_thread_is_started_for_ahead(signal_at_start):
    signal_at_start()
    made = []
    with pytest.raises(Signal):
        list(prefetch(made.append(number) for number in range(100)))
    assert threads() == []
    assert len(made) <= 1


@pytest.mark.parametrize("count", [0, 1])
def test_a_signal_while_a_thread_is_started_for_torch(signal_at_start, count):
    n_threads, before = torch.get_num_threads(), set(threading.enumerate())
    signal_at_start(count)
    with pytest.raises(Signal), single_threaded_tasks(3):
        raise AssertionError("not reached")
    assert set(threading.enumerate()) == before
    assert torch.get_num_threads() == n_threads


def test_threads_are_waited_for_by_name():
    ended = []

    def work():
        time.sleep(0.1)
        ended.append(threading.current_thread().name)

    with thread_names("prefetch") as name, thread_names("ahead") as other:
        assert name != other
        threading.Thread(target=work, name=f"{name}0").start()
    assert ended == [f"{name}0"]


def test_items_come_in_order():
    assert list(prefetch(range(1000))) == list(range(1000))
    assert list(prefetch(iter("abc"), depth=1)) == ["a", "b", "c"]


@pytest.mark.parametrize("items", [[], iter(()), (number for number in ())])
def test_nothing_is_nothing(items):
    assert list(prefetch(items)) == []


def test_anything_can_be_an_item():
    items = [None, StopIteration(), (), ValueError("not raised"), False]
    assert list(prefetch(items)) == items


def test_they_are_made_in_another_thread_while_others_are_used():
    made_in, used, is_made = [], threading.Event(), threading.Event()

    def items():
        made_in.append(threading.current_thread())
        yield 0
        is_made.set()
        assert used.wait(10)
        yield 1

    found = prefetch(items())
    assert made_in == []
    assert next(found) == 0
    # The thread goes on by itself.
    assert is_made.wait(10)
    used.set()
    assert list(found) == [1]
    assert made_in[0] is not threading.current_thread()


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_only_so_many_items_wait(depth):
    made = []

    def items():
        for number in range(100):
            made.append(number)
            yield number

    found = prefetch(items(), depth)
    for used in range(1, 4):
        next(found)
        # In use, waiting, and one for which there is no room yet.
        deadline = time.monotonic() + 30
        while len(made) < used + depth + 1 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)
        assert len(made) == used + depth + 1
    found.close()


def test_so_many_items_are_in_memory():
    class Item:
        pass

    alive = weakref.WeakSet()

    def items():
        for _ in range(50):
            item = Item()
            alive.add(item)
            yield item

    most = 0
    for _ in prefetch(items(), depth=2):
        time.sleep(0.002)
        most = max(most, len(alive))
    assert most <= 4


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, StopAsyncIteration])
def test_an_error_is_raised_after_the_items_before_it(error):
    def items():
        yield 1
        yield 2
        raise error("while the third was made")

    found = []
    with pytest.raises(error, match="while the third was made") as caught:
        for item in prefetch(items()):
            found.append(item)
    assert found == [1, 2]
    # Where it came from can be seen.
    assert any(entry.name == "items" for entry in caught.traceback)


def test_what_cannot_be_iterated_over_is_an_error_at_once():
    class Broken:
        def __iter__(self):
            raise InterruptedError("no iterator")

    with pytest.raises(InterruptedError, match="no iterator"):
        next(prefetch(Broken()))
    with pytest.raises(TypeError, match="not iterable"):
        next(prefetch(5))


class Source:
    """Items without an end, and which thread began and which one ended them."""

    def __init__(self):
        self.began = self.ended = None

    def __iter__(self):
        self.began = threading.get_ident()
        try:
            number = 0
            while True:
                yield number
                number += 1
        finally:
            self.ended = threading.get_ident()


def stop_by_break(found):
    for item in found:
        if item == 3:
            break
    found.close()


def stop_by_error(found):
    with pytest.raises(InterruptedError):
        for item in found:
            if item == 3:
                raise InterruptedError


def stop_by_close(found):
    assert next(found) == 0
    found.close()


def stop_by_forgetting(found):
    assert next(found) == 0


@pytest.mark.parametrize("stop", [stop_by_break, stop_by_error, stop_by_close, stop_by_forgetting])
def test_whoever_stops_early_stops_the_thread_and_the_generator_in_it(stop):
    source = Source()
    found = prefetch(source)
    stop(found)
    del found
    gc.collect()
    assert threads() == []
    assert source.began == source.ended != threading.get_ident()


def test_what_was_never_asked_for_never_begins():
    source = Source()
    found = prefetch(source)
    found.close()
    assert source.began is None


def test_one_inside_another():
    source = Source()
    found = prefetch(prefetch(prefetch(source)))
    assert [next(found) for _ in range(10)] == list(range(10))
    assert len(threads()) == 3
    found.close()
    assert threads() == []
    assert source.ended is not None
    assert list(prefetch(prefetch(range(50)))) == list(range(50))


def test_an_error_inside_another():
    def items():
        yield 1
        raise InterruptedError("deep inside")

    with pytest.raises(InterruptedError, match="deep inside"):
        list(prefetch(prefetch(items())))


def test_a_process_ends_although_a_thread_waits_for_room():
    code = (
        "from itertools import count\n"
        "from lowshot_kedro.threads import prefetch\n"
        "found = prefetch(count())\n"
        "print(next(found))\n"
        "import sys; sys.exit(3)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (3, b"0\n", b"")


# Calls of faiss.


def test_rows_are_mapped_in_chunks_and_in_order():
    rows = np.arange(25, dtype=np.float32).reshape(25, 1)
    sums = map_rows(lambda chunk: (len(chunk), float(chunk.sum())), rows, chunk_rows=10)
    assert sums == [(10, 45.0), (10, 145.0), (5, 110.0)]
    assert map_rows(len, rows[:0]) == []


def test_a_function_of_faiss_starts_no_threads_of_its_own():
    before = faiss.omp_get_max_threads()
    assert run_in_one_thread(faiss.omp_get_max_threads) == 1
    found = map_rows(lambda chunk: faiss.omp_get_max_threads(), np.zeros((5, 1), np.float32), 1)
    assert found == [1] * 5
    assert faiss.omp_get_max_threads() == before


def test_an_error_in_a_function_of_faiss_is_raised():
    def fail(chunk):
        raise InterruptedError("in a chunk")

    with pytest.raises(InterruptedError, match="in a chunk"):
        map_rows(fail, np.zeros((5, 1), np.float32), 2)
    with pytest.raises(InterruptedError, match="in a chunk"):
        run_in_one_thread(fail, None)


@pytest.fixture
def four_threads():
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(4)
    yield
    faiss.omp_set_num_threads(before)


@pytest.mark.parametrize("n_items", [0, 1, 3, 200])
def test_results_come_in_the_order_of_the_items_whichever_is_done_first(four_threads, n_items):
    def slow_at_first(item):
        time.sleep(0.01 if item % 5 == 0 else 0)
        return item * item

    found = list(map_in_threads(slow_at_first, range(n_items)))
    assert found == [number**2 for number in range(n_items)]


def test_several_threads_work_and_each_gives_faiss_one(four_threads):
    together = threading.Barrier(4, timeout=10)

    def work(item):
        together.wait()
        return faiss.omp_get_max_threads()

    assert list(map_in_threads(work, range(8))) == [1] * 8
    assert faiss.omp_get_max_threads() == 4


@pytest.mark.parametrize("n_waiting", [0, 2, 7])
def test_only_some_items_are_taken_ahead(four_threads, n_waiting):
    taken = []

    def items():
        for number in range(100):
            taken.append(number)
            yield number

    found = map_in_threads(str, items(), n_waiting)
    for number in range(20):
        assert next(found) == str(number)
        assert len(taken) == number + 1 + 4 + n_waiting
    found.close()


def test_an_error_comes_where_the_result_would_and_ends_the_work(four_threads):
    done = []

    def work(item):
        if item == 3:
            raise ValueError("three")
        done.append(item)
        return item

    found = map_in_threads(work, range(1000))
    assert [next(found), next(found), next(found)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(found)
    assert len(done) < 20
    assert list(found) == []


@pytest.mark.parametrize(
    "make", [map_in_threads, lambda function, items: prefetch(map(function, items))]
)
def test_whoever_waits_for_threads_can_be_stopped_and_stops_them(make):
    """As where threads have threads: the inner ones would otherwise work to the end."""
    is_over, has_begun = threading.Event(), threading.Event()
    raised = []

    def until_stopped(_):
        has_begun.set()
        while True:
            require_no_stop()
            time.sleep(0.001)

    def work():
        try:
            with stopping_at(is_over):
                list(make(until_stopped, range(3)))
        except Stopped as error:
            raised.append(error)

    thread = threading.Thread(target=work, name="ahead of all")
    thread.start()
    assert has_begun.wait(30)
    is_over.set()
    thread.join(30)
    assert len(raised) == 1


def test_rows_at_once_depend_on_sizes_alone():
    assert rows_at_once(1) == rows_at_once(0) == CHUNK_ROWS
    assert rows_at_once(MAX_MULTIPLICATIONS // 100) == 100
    assert rows_at_once(MAX_MULTIPLICATIONS) == MIN_ROWS
    assert rows_at_once(MAX_MULTIPLICATIONS, min_rows=3) == 3
    assert rows_at_once(MAX_MULTIPLICATIONS // 100, max_rows=70) == 70
