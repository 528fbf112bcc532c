"""Work side by side: calls of faiss in several threads, and steps of a pipeline that overlap.

Calls of faiss give results that do not depend on the number of threads. A matrix product that a
BLAS library spreads over several threads is rounded differently for every number of them, and a
last bit decides which of two nearly equal neighbours comes first. So every call gets one thread and
a part of the rows that is always the same, and the parts run side by side.

Faiss lets signal handlers run in the main thread, and nobody stop it in others. So a call in
another thread gets work for part of a second, as :func:`rows_at_once` reckons from sizes alone.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import faiss
import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.blocks import row_ranges
from lowshot_kedro.deprecated import old_names
from lowshot_kedro.interruption import (
    SECONDS_BETWEEN_LOOKS,
    require_no_stop,
    result_of,
    stopping_at,
)

Item = TypeVar("Item")
Result = TypeVar("Result")

CHUNK_ROWS = 1024
# Multiplications of a call that cannot be stopped: a core does 10^10 a second, or more.
MAX_MULTIPLICATIONS = 2**31
# A matrix product of fewer rows takes longer for each.
MIN_ROWS = 64


_numbers = itertools.count()


@contextmanager
def thread_names(purpose: str) -> Iterator[str]:
    """A name for threads, none of which is left afterwards.

    A signal that comes while a thread is being started is raised by ``start()``, and whoever called
    it cannot join what is going to run all the same.

    Args:
        purpose: What the threads do, in a word.

    Yields:
        The beginning of their names. Whoever asks for it has to tell them to end.
    """
    name = f"{purpose}-{next(_numbers)}-"
    try:
        yield name
    finally:
        for thread in threading.enumerate():
            if thread.name.startswith(name) and thread is not threading.current_thread():
                _join(thread)


def _join(thread: threading.Thread) -> None:
    while True:
        try:
            return thread.join()
        except RuntimeError:  # it has not begun yet
            time.sleep(0.001)


def _use_one_thread() -> None:
    # OpenMP keeps this number for every thread apart, so it holds in a worker only.
    faiss.omp_set_num_threads(1)


def rows_at_once(multiplications: int, max_rows: int = CHUNK_ROWS, min_rows: int = MIN_ROWS) -> int:
    """How many rows a call of faiss gets that cannot be stopped.

    Args:
        multiplications: Multiplications that each row takes.
        max_rows: The most rows.
        min_rows: The fewest rows.
    """
    return max(min_rows, min(max_rows, MAX_MULTIPLICATIONS // max(multiplications, 1)))


@contextmanager
def _one_thread() -> Iterator[None]:
    n_threads = faiss.omp_get_max_threads()
    _use_one_thread()
    try:
        yield
    finally:
        faiss.omp_set_num_threads(n_threads)


def run_in_one_thread(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call a function of faiss that is to start no threads, in this thread.

    Args:
        function: For instance the training of a PCA. It may take long, since faiss looks for
            signals in the main thread.
        arguments: Its arguments.
    """
    with _one_thread():
        return function(*arguments)


def map_rows(
    function: Callable[[NDArray[np.float32]], Result],
    rows: NDArray[np.float32],
    chunk_rows: int = CHUNK_ROWS,
) -> list[Result]:
    """Call a function of faiss on every chunk of rows, in as many threads as faiss has.

    Args:
        function: Takes float32 (m, d), m ≤ chunk_rows. May be called from several threads at a
            time.
        rows: float32 (n, d).
        chunk_rows: The same in every run, or results may differ in the last bit.

    Returns:
        The results in row order.
    """
    parts = (rows[first:last] for first, last in row_ranges(len(rows), chunk_rows))
    return list(map_in_threads(function, parts))


def map_in_threads(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    n_waiting: int = 2,
    n_threads: int | None = None,
) -> Generator[Result, None, None]:
    """Call a function on every item, in several threads, some items ahead.

    Args:
        function: May call faiss, which has one thread in it. May be called from several threads at
            a time.
        items: Taken when there is a thread for them.
        n_waiting: How many results may wait besides one for every thread.
        n_threads: How many threads; None: as many as faiss has.

    Yields:
        The results in the order of the items. Whoever stops early, by an error or Ctrl-C, stops
        compiled loops in these threads too, and so does whoever stops this thread.
    """
    if n_threads is None:
        n_threads = faiss.omp_get_max_threads()
    pending: deque[Future[Result]] = deque()
    given_up = threading.Event()

    def work(item: Item) -> Result:
        with stopping_at(given_up):
            require_no_stop()
            return function(item)

    def next_result() -> Result:
        result = result_of(pending[0])
        pending.popleft()
        return result

    with (
        thread_names("prefetch") as name,
        ThreadPoolExecutor(n_threads, name, _use_one_thread) as pool,
    ):
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) > n_threads + n_waiting:
                    yield next_result()
            while pending:
                yield next_result()
        finally:
            given_up.set()
            for future in pending:
                future.cancel()


class _End(NamedTuple):
    """The last thing that :func:`prefetch` gets from its thread: what stopped it, if any."""

    error: BaseException | None


def prefetch(items: Iterable[Item], depth: int = 2) -> Generator[Item, None, None]:
    """Iterate in a thread of its own: the next items are made while earlier ones are used.

    Args:
        items: What to iterate over; an error that it raises is raised here.
        depth: How many items may wait. In memory are these, one being made and one being used.

    Yields:
        The items in order. Whoever stops early stops the thread too.
    """
    iterator = iter(items)
    waiting: queue.Queue[Item | _End] = queue.Queue(depth)
    is_over = threading.Event()

    def put(item: Item | _End) -> bool:
        while not is_over.is_set():
            with suppress(queue.Full):
                waiting.put(item, timeout=SECONDS_BETWEEN_LOOKS)
                return True
        return False

    def work() -> None:
        error = None
        try:
            with stopping_at(is_over):
                for item in iterator:
                    if not put(item):
                        break
        except BaseException as raised:
            error = raised
        put(_End(error))
        # A generator has to be left in the thread it ran in.
        if isinstance(iterator, Generator):
            iterator.close()

    def get() -> Item | _End:
        while True:
            with suppress(queue.Empty):
                return waiting.get(timeout=SECONDS_BETWEEN_LOOKS)
            require_no_stop()

    with thread_names("prefetch") as name:
        thread = threading.Thread(target=work, name=name, daemon=True)
        try:
            thread.start()
            while not isinstance(item := get(), _End):
                yield item
            if item.error is not None:
                raise item.error
        finally:
            is_over.set()


if not TYPE_CHECKING:
    __getattr__ = old_names(__name__)
