import logging

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


def test_short_loops_say_nothing(caplog):
    with caplog.at_level("INFO"), progress_module.Progress(10, "search") as progress:
        progress.update(10)
    assert caplog.records == []
