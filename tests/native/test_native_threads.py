import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

from lowshot_kedro import native

from .strategies import random_neighbors

COUNTS = [1, 2, 3, 16]


@pytest.fixture(autouse=True)
def restore_thread_count():
    before = native.get_num_threads()
    yield
    native.set_num_threads(before)


def everything(product):
    rows, columns = 20_000, 13
    neighbors = random_neighbors(rows, 6)
    graph = native.symmetrize(neighbors)
    native.normalize_rows(graph[0], graph[2])
    scores = np.random.default_rng(1).random((rows, columns), dtype=np.float32)
    out = np.empty_like(scores)
    native.diffusion_step(*graph, scores, out, product=product)
    native.normalize_columns(scores)
    sums = native.sum_neighbors(neighbors, scores)
    ranked = -np.sort(-scores[:, :6], axis=1)
    merged = native.merge_neighbors(
        np.abs(neighbors), ranked, np.abs(neighbors), ranked, 8, second_offset=rows
    )
    return [*graph, scores, out, sums, *merged]


def digest(product):
    return hashlib.sha256(b"".join(array.tobytes() for array in everything(product))).hexdigest()


def test_results_do_not_depend_on_the_number_of_threads():
    results = []
    for count in COUNTS:
        native.set_num_threads(count)
        results.append(everything("own"))
    for other in results[1:]:
        for expected, found in zip(results[0], other, strict=True):
            assert expected.tobytes() == found.tobytes()


@pytest.mark.parametrize("product", ["own", "mkl"])
def test_results_do_not_depend_on_omp_num_threads(product):
    if product == "mkl" and not native.mkl_available():
        pytest.skip("MKL is not installed")
    script = f"from {__name__} import digest; print(digest({product!r}))"
    path = os.pathsep.join(filter(None, sys.path))
    digests = set()
    for count in COUNTS:
        # MKL would else use no more threads than there are processors.
        environment = {
            "OMP_NUM_THREADS": str(count),
            "MKL_NUM_THREADS": str(count),
            "MKL_DYNAMIC": "FALSE",
            "PYTHONPATH": path,
        }
        done = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, **environment},
        )
        assert done.returncode == 0, done.stderr
        digests.add(done.stdout)
    assert len(digests) == 1


def test_faults_are_the_first_ones_whatever_the_number_of_threads():
    neighbors = random_neighbors(20_000, 6)
    neighbors[[700, 9000, 19_999], 4] = 20_000
    for count in COUNTS:
        native.set_num_threads(count)
        with pytest.raises(ValueError, match="row 700, column 4 holds 20000, expected -1 or 0"):
            native.symmetrize(neighbors)


@pytest.mark.parametrize("count", [0, -1, 1025])
def test_set_num_threads_refuses(count):
    with pytest.raises(ValueError, match=f"expected 1..1024 threads, got {count}"):
        native.set_num_threads(count)
