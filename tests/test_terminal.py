"""Log lines and progress bars in one terminal."""

import io
import logging
import multiprocessing
import re
import sys
import threading

import pytest
import rich.logging

from lowshot_kedro import progress as progress_module
from lowshot_kedro.progress import Progress, shown_progress

log = logging.getLogger("somebody")
own_log = logging.getLogger("lowshot_kedro.somewhere")


class Terminal(io.StringIO):
    """What both streams write, as it stands on the screen in the end."""

    def isatty(self):
        return True

    def screen(self):
        lines, row, column = [""], 0, 0
        for part in re.findall(r"\x1b\[[0-9;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", self.getvalue()):
            if part == "\x1b[A":
                row -= 1
            elif part == "\r":
                column = 0
            elif part == "\n":
                row, column = row + 1, 0
                lines += [""] * (row + 1 - len(lines))
            elif not part.startswith("\x1b"):
                line = lines[row].ljust(column)
                lines[row] = line[:column] + part + line[column + len(part) :]
                column += len(part)
        return [line.rstrip() for line in lines if line.strip()]


@pytest.fixture
def at_terminal(monkeypatch):
    """Puts a terminal in place of both streams. A fixture cannot: pytest puts its own there."""

    def begin():
        screen = Terminal()
        monkeypatch.setattr(sys, "stderr", screen)
        monkeypatch.setattr(sys, "stdout", screen)
        monkeypatch.setenv("COLUMNS", "80")
        return screen

    return begin


@pytest.fixture
def root():
    """The root logger, which has no handlers yet."""
    logger = logging.getLogger()
    before = logger.handlers, logger.level
    logger.handlers = []
    logger.setLevel(logging.INFO)
    yield logger
    logger.handlers = before[0]
    logger.setLevel(before[1])


def plain():
    return logging.StreamHandler(sys.stderr)


def colorful():
    return rich.logging.RichHandler(show_time=False, show_level=False, show_path=False)


def draw(logger, n_threads=2, n_lines=8):
    """Bars that move all the time, and threads that log meanwhile; what was logged."""
    started = threading.Barrier(n_threads + 1)

    def chatter(number):
        started.wait()
        for line in range(n_lines):
            logger.info("line %d of thread %d", line, number)

    threads = [threading.Thread(target=chatter, args=(number,)) for number in range(n_threads)]
    with Progress(10, "outer") as outer, Progress(10**6, "inner") as inner:
        for bar in (outer, inner):
            bar._bar.mininterval = 0
        for thread in threads:
            thread.start()
        started.wait()
        while any(thread.is_alive() for thread in threads):
            inner.update(1)
        logger.info("the last line")
        outer.update(10)
    return {
        *(f"line {line} of thread {number}" for line in range(n_lines) for number in range(2)),
        "the last line",
    }


@pytest.mark.parametrize("handler", [plain, colorful])
def test_lines_of_any_logger_stand_alone_and_bars_below_them(at_terminal, root, handler):
    terminal = at_terminal()
    handlers = [handler()]
    root.handlers = list(handlers)
    logged = draw(log)
    *lines, inner, outer = terminal.screen()
    assert len(lines) == len(logged) and set(lines) == logged
    assert re.match(r"inner: +\d+%\|", inner) and re.match(r"outer: 100%\|", outer)
    assert root.handlers == handlers


def test_a_log_that_goes_elsewhere_is_left_alone(at_terminal, root):
    terminal = at_terminal()
    elsewhere = io.StringIO()
    root.handlers = [logging.StreamHandler(elsewhere)]
    logged = draw(log)
    assert set(elsewhere.getvalue().splitlines()) == logged
    assert len(terminal.screen()) == 2


def test_whoever_asks_for_progress_without_a_log_gets_lines_and_bars(at_terminal, root):
    terminal = at_terminal()
    with shown_progress(True):
        logged = draw(own_log)
    *lines, inner, outer = terminal.screen()
    assert len(lines) == len(logged) and set(lines) == logged
    assert inner.startswith("inner: ") and outer.startswith("outer: 100%|")


def test_a_program_with_a_log_of_its_own_keeps_it_and_gets_every_line_once(at_terminal, root):
    terminal = at_terminal()
    root.handlers = [plain()]
    before = list(root.handlers)
    with shown_progress(True), Progress(3, "bar") as bar:
        bar.update(1)
        assert root.handlers == before
        own_log.info("a line")
        own_log.info("another")
        bar.update(2)
    *lines, last = terminal.screen()
    assert lines == ["a line", "another"]
    assert last.startswith("bar: 100%|")


@pytest.mark.parametrize("shown", [None, True, False])
def test_a_file_gets_lines_now_and_then_and_no_bars(monkeypatch, root, shown):
    monkeypatch.setattr(progress_module, "_SECONDS_BETWEEN_LINES", 0)
    file = io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    monkeypatch.setattr(sys, "stdout", file)
    if shown is None:
        root.handlers = [plain()]
        monkeypatch.setattr(progress_module.logger, "level", logging.INFO)
        with Progress(4, "search") as progress:
            progress.update(2)
    else:
        with shown_progress(shown), Progress(4, "search") as progress:
            progress.update(2)
    assert "\r" not in file.getvalue() and "|" not in file.getvalue()
    assert file.getvalue().startswith("search: 2 of 4 vectors (50 %)" if shown is not False else "")
    assert file.getvalue().count("\n") == (shown is not False)


def test_a_log_through_a_pipe_keeps_bars_from_the_terminal(at_terminal, root, monkeypatch):
    terminal = at_terminal()
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stdout", pipe)
    root.handlers = [logging.StreamHandler(pipe)]
    draw(log)
    assert terminal.getvalue() == ""
    with shown_progress(True), Progress(3, "bar") as bar:
        bar.update(3)
    assert "bar: 100%|" in terminal.getvalue()


def test_processes_that_work_for_another_draw_no_bars(at_terminal, root, monkeypatch):
    terminal = at_terminal()
    root.handlers = [plain()]
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: object())
    logged = draw(log)
    assert set(terminal.screen()) == logged


def test_a_terminal_that_does_not_know_its_width_gets_a_bar(at_terminal, root, monkeypatch):
    terminal = at_terminal()
    monkeypatch.delenv("COLUMNS")
    with Progress(2, "search") as progress:
        progress.update(2)
    (line,) = terminal.screen()
    assert re.match(r"search: 100%\|#+\| 2/2 ", line)
