"""The same results from every set of instructions that the processor has."""

import os
import re
import subprocess
import sys
from functools import cache

import numpy as np
import pytest

from lowshot_kedro import native

from .searching import random_codes
from .test_native_threads import everything

SHOW = "from lowshot_kedro import native; print(native.kernels_in_use())"


@cache
def results_of_plain_c():
    native.use_kernels("plain")
    return [array.copy() for array in everything()]


def test_all_kernels_give_the_same_bits(each_kernels):
    found = [array.copy() for array in everything()]
    for place, (expected, array) in enumerate(zip(results_of_plain_c(), found, strict=True)):
        assert expected.tobytes() == array.tobytes(), place


# Around what is widened at a time.
@pytest.mark.parametrize("width", [64, 448, 512, 576, 1088])
@pytest.mark.parametrize("rows", [1, 15, 16, 17, 33, 100])
def test_scores_are_exact(each_kernels, width, rows):
    rng = np.random.default_rng(rows)
    codes = random_codes(rng, rows, width)
    codes.values[::3] = -128
    queries = random_codes(rng, 11, width).values
    queries[4] = -128
    exact = queries.astype(np.int64) @ codes.values.astype(np.int64).T
    np.testing.assert_array_equal(native.score_all(codes, queries), exact + codes.biases)
    numbers = rng.integers(0, rows, 11, dtype=np.int32)
    of_pairs = native.score_pairs(codes, numbers, queries)
    np.testing.assert_array_equal(
        of_pairs, exact[np.arange(11), numbers] + codes.biases[numbers].astype(np.int64)
    )


@pytest.mark.parametrize("width", [1, 3, 4, 5, 15, 16, 17, 31])
def test_links_are_caught_whatever_the_width(each_kernels, width):
    rng = np.random.default_rng(width)
    nodes = 700
    neighbors = rng.integers(-1, nodes, (nodes, width), dtype=np.int32)
    weights = rng.integers(1, 5, neighbors.shape).astype(np.float32)
    matrix = native.symmetrize(neighbors, weights)
    dense = np.zeros((nodes, nodes), np.float32)
    for row, links in enumerate(neighbors):
        # Of a neighbour that is listed twice the first entry counts.
        for column in range(width - 1, -1, -1):
            if links[column] >= 0:
                dense[row, links[column]] = weights[row, column]
    expected = dense + dense.T
    for row in range(nodes):
        begin, end = matrix.indptr[row : row + 2]
        found = np.zeros(nodes, np.float32)
        found[matrix.indices[begin:end]] = matrix.values[begin:end]
        np.testing.assert_array_equal(found, expected[row])


def test_plain_c_is_always_there_and_the_last_is_the_default():
    available = native.available_kernels()
    assert available[0] == "plain" and len(set(available)) == len(available)
    assert shown() == available[-1]


def test_kernels_that_the_processor_has_not_got(restored_kernels):
    before = native.kernels_in_use()
    other = "avx2" if "neon" in native.available_kernels() else "neon"
    for name in (other, "sse", ""):
        expected = f"LOWSHOT_KERNELS: found '{name}', expected what this processor has: plain"
        with pytest.raises(ValueError, match=re.escape(expected)):
            native.use_kernels(name)
        assert native.kernels_in_use() == before


def shown(**environment):
    without = {name: value for name, value in os.environ.items() if name != "LOWSHOT_KERNELS"}
    without["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-c", SHOW], env=without | environment, capture_output=True, text=True
    )
    return done.stdout.strip() if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


def test_the_environment_variable():
    assert shown(LOWSHOT_KERNELS="plain") == "plain"
    assert shown(LOWSHOT_KERNELS="") == native.available_kernels()[-1]
    refused = shown(LOWSHOT_KERNELS="fast")
    assert "ValueError: LOWSHOT_KERNELS: found 'fast', expected what this processor" in refused
