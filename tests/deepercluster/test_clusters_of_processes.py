"""Any number of processes finds the same clusters, bit for bit."""

import os
import pickle

import numpy as np
import pytest

from tests.other_processes import fork

from .processes import NUMBERS, cluster, work

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="forks"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """By the number of processes, what each of them has found."""
    folder = tmp_path_factory.mktemp("processes")
    pids = [fork(lambda rank=rank: work(folder, rank)) for rank in range(max(NUMBERS))]
    for pid in pids:
        os.waitpid(pid, 0)
    of_each = [pickle.loads((folder / f"{rank}.pickle").read_bytes()) for rank in range(len(pids))]
    return {number: [found[number] for found in of_each if number in found] for number in NUMBERS}


@pytest.fixture(scope="module")
def expected():
    return cluster()


@pytest.mark.parametrize("n_processes", NUMBERS)
def test_all_find_what_one_finds(n_processes, results, expected):
    assert len(results[n_processes]) == n_processes
    for found, _ in results[n_processes]:
        for number, (part, whole) in enumerate(zip(found, expected, strict=True)):
            assert part.dtype == whole.dtype and np.array_equal(part, whole), number


@pytest.mark.parametrize("n_processes", NUMBERS)
def test_all_refuse_together(n_processes, results):
    for _, refusals in results[n_processes]:
        assert "in row 150," in refusals["nan"]
        assert refusals["rows"] == refusals["k"]
        assert "found different ones in the processes" in refusals["k"]
