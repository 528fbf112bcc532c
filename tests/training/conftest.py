"""One start of processes for all that two of them do together."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lowshot_kedro.training.processes import ProcessOptions, run_in_processes
from tests.training.several import everything


class Logged(list):
    """What was logged while processes worked: (level, message)."""


@pytest.fixture(scope="package")
def together(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What two processes exchange, what their networks normalise, and what was logged meanwhile."""
    import logging

    from tests.training.test_batch_norm import cases

    logged = []
    handler = logging.Handler()
    handler.emit = lambda record: logged.append((record.levelname, record.getMessage()))
    package = logging.getLogger("lowshot_kedro")
    level = package.level
    package.addHandler(handler)
    package.setLevel(logging.INFO)
    options = ProcessOptions(Path(tmp_path_factory.mktemp("processes")), 2, "cpu")
    single, double = cases(torch.float32), cases(torch.float64)
    try:
        exchanged, normalized = run_in_processes(everything, single + double, options)
    finally:
        package.removeHandler(handler)
        package.setLevel(level)
    n_single = len(single)
    by_type = {torch.float32: normalized[:n_single], torch.float64: normalized[n_single:]}
    return exchanged, by_type, logged
