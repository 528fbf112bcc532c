"""Work that ends one of several processes ends them all, with an error."""

from pathlib import Path

import pytest

from lowshot_kedro.errors import InputError
from lowshot_kedro.training.processes import ProcessOptions, run_in_processes
from tests.training.several import leave_one


def test_a_process_that_leaves_is_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="process 1 of 2 ended with status 1"):
        run_in_processes(leave_one, None, ProcessOptions(tmp_path, 2, "cpu"))
