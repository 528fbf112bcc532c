"""One start of processes for all that two of them do together."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import pytest
import torch

from lowshot_kedro.training.processes import ProcessOptions, run_in_processes
from tests.training.several import everything


@dataclass
class Together:
    """What two processes did, and what was seen of them.

    Attributes:
        exchanged: What they told each other.
        normalized: For each type what their networks gave.
        error: How their work ended.
        logged: Level and message of what was logged meanwhile.
    """

    exchanged: dict[str, torch.Tensor]
    normalized: dict[torch.dtype, list[dict[str, torch.Tensor]]]
    error: BaseException
    logged: list[tuple[str, str]] = field(default_factory=list)


@pytest.fixture(scope="package")
def together(tmp_path_factory: pytest.TempPathFactory) -> Together:
    from tests.training.test_batch_norm import cases

    logged: list[tuple[str, str]] = []
    handler = logging.Handler()
    handler.emit = lambda record: logged.append((record.levelname, record.getMessage()))  # type: ignore[method-assign]
    package = logging.getLogger("lowshot_kedro")
    level = package.level
    package.addHandler(handler)
    package.setLevel(logging.INFO)
    folder = Path(tmp_path_factory.mktemp("processes"))
    networks = {dtype: cases(dtype) for dtype in (torch.float32, torch.float64)}
    job = list(chain(*networks.values())), folder / "results"
    try:
        with pytest.raises(Exception) as raised:
            run_in_processes(everything, job, ProcessOptions(folder, 2, "cpu"))
    finally:
        package.removeHandler(handler)
        package.setLevel(level)
    exchanged, normalized = torch.load(folder / "results")
    found = iter(normalized)
    by_type = {dtype: [next(found) for _ in given] for dtype, given in networks.items()}
    return Together(exchanged, by_type, raised.value, logged)
