"""Threads that share the work of torch, in such a way that their number changes no bit."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from lowshot_kedro.extras import LazyModule
from lowshot_kedro.threads import thread_names

if TYPE_CHECKING:
    import torch
else:
    torch = LazyModule("torch", "tasks in threads", globals())

Task = Callable[[], Any]
RunTasks = Callable[[Sequence[Task]], None]


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch, and OpenMP with it, have this many threads where this thread calls them.

    Args:
        count: With one, rounding is always alike.
    """
    n_before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(n_before)


@contextmanager
def single_threaded_tasks(n_threads: int) -> Iterator[RunTasks]:
    """Tasks side by side, in each of which torch has one thread, so that rounding is always alike.

    Args:
        n_threads: How many tasks run at a time; this thread does its share.

    Yields:
        A function that calls tasks, in any order, and returns when all are done.
    """
    with torch_threads(1), thread_names("torch") as name:
        helpers = _Helpers(n_threads - 1, name)
        try:
            helpers.start()
            yield helpers.run
        finally:
            helpers.close()


class _Helpers:
    """Threads that wait for work; to wake one takes less time than with an executor.

    Args:
        count: How many threads.
        name: Of each.
    """

    def __init__(self, count: int, name: str) -> None:
        self._waiting: SimpleQueue[Task | None] = SimpleQueue()
        self._finished: SimpleQueue[BaseException | None] = SimpleQueue()
        self._threads = [threading.Thread(target=self._help, name=name) for _ in range(count)]

    def start(self) -> None:
        """Let the threads wait for work."""
        for thread in self._threads:
            thread.start()

    def run(self, tasks: Sequence[Task]) -> None:
        """Call all tasks, and raise the first error."""
        to_do = deque(tasks)

        def work() -> None:
            while True:
                try:
                    task = to_do.popleft()
                except IndexError:
                    return
                task()

        n_asked = max(min(len(self._threads), len(tasks) - 1), 0)
        for _ in range(n_asked):
            self._waiting.put(work)
        try:
            work()
        finally:
            errors = [self._finished.get() for _ in range(n_asked)]
        for error in errors:
            if error is not None:
                raise error

    def close(self) -> None:
        """Let the threads end."""
        for _ in self._threads:
            self._waiting.put(None)

    def _help(self) -> None:
        # What torch is told here holds for the thread that tells it.
        torch.set_num_threads(1)
        while (work := self._waiting.get()) is not None:
            try:
                work()
            except BaseException as error:
                self._finished.put(error)
            else:
                self._finished.put(None)
