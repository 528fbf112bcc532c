"""A run that is killed leaves nothing that looks complete, and the next run mends it."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from tests.projects import read_arrays, run


def test_killed_while_features_are_written(demonstration_project: Path, tmp_path: Path) -> None:
    project = Path(shutil.copytree(demonstration_project, tmp_path / "project"))
    features = project / "data" / "04_feature"
    expected = read_arrays(features / "train.hdf5")["all_feats"]
    for path in features.rglob("*.hdf5"):
        path.unlink()

    command = [sys.executable, "-m", "kedro", "run", "--pipeline", "features"]
    with subprocess.Popen(command, cwd=project, stdout=subprocess.DEVNULL) as process:
        # Which collection comes first is up to Kedro.
        deadline = time.monotonic() + 120
        while not (unfinished := list(features.rglob(".partial-*"))):
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    final = unfinished[0].with_name(unfinished[0].name.removeprefix(".partial-"))
    assert unfinished[0].exists()
    assert not final.exists()

    run(project, "features")
    assert final.exists()
    assert not list(features.rglob(".partial-*"))
    np.testing.assert_array_equal(read_arrays(features / "train.hdf5")["all_feats"], expected)
