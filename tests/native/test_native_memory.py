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
found, _ = native.multiply_sparse(matrix, scores, factors, 1)
assert found.entries.tolist() == [(1, 0)]
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a limit of address space")
def test_too_little_memory_for_sums_of_columns():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, (done.returncode, done.stderr)
