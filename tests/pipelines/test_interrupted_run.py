"""A run that is killed leaves nothing that looks complete, and the next run continues it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from pathlib import Path

import h5py

from tests.quick_kedro import Command

# Rows are counted as soon as they are written.
COUNTING_AT_ONCE = """
from lowshot_kedro.datasets import feature_writer
feature_writer._SECONDS_BETWEEN_COMMITS = 0
"""


def rows_counted(path: Path) -> tuple[int, int]:
    """Rows that an unfinished file counts, and those it will have."""
    try:
        with h5py.File(path, "r") as file:
            return int(file["count"][0]), len(file["all_labels"])
    except (OSError, KeyError):  # being laid out, or named already
        return 0, 0


def half_way(features: Path) -> Path | None:
    """An unfinished file of which some rows count, and most are still to come."""
    for path in features.rglob(".partial-*.hdf5"):
        done, n_rows = rows_counted(path)
        if 0 < done < n_rows / 2:
            return path
    return None


def test_killed_while_features_are_written(demonstration_project: Path, tmp_path: Path) -> None:
    project = Path(shutil.copytree(demonstration_project, tmp_path / "project"))
    features = project / "data" / "04_feature"
    paths = sorted(features.rglob("*.hdf5"))
    expected = {path: path.read_bytes() for path in paths}
    assert len(paths) == 3
    # Those of the training images are there, and stay.
    for path in paths[:2]:
        path.unlink()

    command = Command(project, "run", "--pipelines", "features", first=COUNTING_AT_ONCE)
    # Which collection comes first is up to Kedro.
    deadline = time.monotonic() + 120
    while not (unfinished := half_way(features)):
        assert command.is_running(), "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(command.pid, signal.SIGKILL)
    assert command.wait()[0] == -signal.SIGKILL
    done, n_rows = rows_counted(unfinished)
    final = unfinished.with_name(unfinished.name.removeprefix(".partial-"))
    assert not final.exists()
    complete = {path: path.stat().st_mtime_ns for path in paths if path.exists()}
    assert paths[2] in complete

    status, printed = Command(project, "run", "--pipelines", "features").wait()
    printed = " ".join(printed.split())
    assert status == 0, printed
    assert re.findall(r"continuing after row (\d+) of (\d+)", printed) == [(str(done), str(n_rows))]
    assert printed.count("made from the same: kept") == len(complete)
    assert {path: path.stat().st_mtime_ns for path in complete} == complete
    assert {path: path.read_bytes() for path in paths} == expected
    assert not list(features.rglob(".partial-*"))
    assert (project / "data" / "08_reporting" / "broken_images.json").read_bytes() == (
        demonstration_project / "data" / "08_reporting" / "broken_images.json"
    ).read_bytes()
