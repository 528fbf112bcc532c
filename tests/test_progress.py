import io
import logging
from functools import partial

from lowshot_kedro import progress as progress_module
from lowshot_kedro.progress import Stopwatch, logged_step


def test_a_stopwatch_goes_forward():
    watch = Stopwatch()
    first = watch.seconds
    assert 0 <= first <= watch.seconds


def test_a_step_is_logged_with_time_and_memory(caplog):
    with caplog.at_level(logging.INFO), logged_step("graph"):
        assert caplog.text == ""
    assert caplog.records[0].getMessage().startswith("graph: ")
    assert caplog.records[0].getMessage().endswith("iB")
    assert " s, peak " in caplog.text


# --- memory that is left ---


def test_long_loops_say_in_the_log_how_far_they_are(monkeypatch, caplog):
    monkeypatch.setattr(progress_module, "_SECONDS_BETWEEN_LINES", 0)
    with caplog.at_level("INFO"), progress_module.Progress(400, "search", done=100) as progress:
        progress.update(100)
        progress.update(200)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert lines[0].startswith("search: 200 of 400 vectors (50 %), ")
    assert lines[1].startswith("search: 400 of 400 vectors (100 %), ")
    assert ", 0 s left, " in lines[1]


def test_what_is_known_so_far_is_shown_behind_the_bar_and_in_lines(monkeypatch, caplog):
    monkeypatch.setattr(progress_module, "_SECONDS_BETWEEN_LINES", 0)
    with caplog.at_level("INFO"), progress_module.Progress(2, "episodes") as progress:
        progress.update(1, "66.5 ± 0.3 %")
        progress.update(1)
    first, second = (record.getMessage() for record in caplog.records)
    assert first.endswith("iB, 66.5 ± 0.3 %")
    assert second.endswith("iB")
    screen = io.StringIO()
    monkeypatch.setattr(progress_module, "can_show_bars", lambda stdout_too: True)
    bar = partial(progress_module.tqdm, file=screen, mininterval=0)
    monkeypatch.setattr(progress_module, "tqdm", bar)
    with progress_module.shown_progress(True), progress_module.Progress(2, "episodes") as progress:
        progress.update(1, "66.5 ± 0.3 %")
    assert "66.5 ± 0.3 %" in screen.getvalue()


def test_short_loops_say_nothing(caplog):
    with caplog.at_level("INFO"), progress_module.Progress(10, "search") as progress:
        progress.update(10)
    assert caplog.records == []
