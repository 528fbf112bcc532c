import subprocess
import sys

import pytest

SCRIPT = """
import resource
import numpy as np
from lowshot_kedro import native

matrix = native.symmetrize(np.zeros((1, 1), np.int32))
columns, blocks = 2**22, 1024
scores = native.sparse_scores(np.zeros(1, int), np.zeros(1, int), np.ones(1, "f4"), (1, columns))
many = scores._replace(spans=np.zeros(256 * blocks, np.uint64))
rows, factors = np.zeros(256 * blocks, np.int32), np.ones(columns, np.float32)
resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))
# 34 GB for the sums of columns.
for attempt in (
    lambda: native.multiply_sparse(matrix, scores, factors, 0, rows),
    lambda: native.column_sums(many),
):
    try:
        attempt()
    except MemoryError as error:
        assert str(error) == "no memory for intermediate results", error
    else:
        raise AssertionError
# For each thread 4 GB to sort what is probed, and 1.6 GB for what is linked to a row in two steps.
native.set_num_threads(4)
codes = native.Codes(np.zeros((2, 64), np.int8), np.zeros(2, np.int32))
lists = native.Lists(np.array([0, 2]))
probes = np.zeros((1, 2**22), np.int32)
pools = native.Pools(np.full((2, 1), -1, np.int32), np.zeros((2, 1), np.int32))
links = np.full((2, native.MAX_NEIGHBORS), 3, np.int32)
for attempt in (
    lambda: native.search_lists(codes, lists, codes.values[:1], probes, 1),
    lambda: native.join_neighbors(codes, pools, links, 0, 2),
):
    try:
        attempt()
    except MemoryError as error:
        assert str(error) == "no memory for intermediate results", error
    else:
        raise AssertionError
native.set_num_threads(1)
found, _ = native.multiply_sparse(matrix, scores, factors, 1)
assert found.entries.tolist() == [(1, 0)]
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a limit of address space")
def test_too_little_memory():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, (done.returncode, done.stderr)
