import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

from lowshot_kedro import native

from .searching import random_codes, random_encoder, random_pools, search_results
from .strategies import positive_factors, random_neighbors, to_sparse

# That any number of threads agrees is tested without the sanitizers.
COUNTS = [1, 3] if "NATIVE_HYPOTHESIS_PROFILE" in os.environ else [1, 2, 3, 16]


@pytest.fixture(autouse=True)
def restore_thread_count():
    before = native.get_num_threads()
    yield
    native.set_num_threads(before)


def merged(neighbors, scores):
    ranked = -np.sort(-scores[:, : neighbors.shape[1]], axis=1)
    lists = (np.abs(neighbors), ranked)
    return native.merge_neighbors(*lists, *lists, 8, second_offset=len(neighbors))


def products(matrix, scores, factors, rows):
    """What multiply makes of dense and sparse scores, in float32 and bfloat16."""
    nodes, columns = scores.shape
    for operand in (scores, native.to_bfloat16(scores)):
        dense = np.empty((nodes, columns), operand.dtype)
        yield from (native.multiply(matrix, operand, factors, dense), dense)
        sparse = to_sparse(operand[:500])
        spans = np.concatenate([sparse.spans, np.zeros(nodes - 500, np.uint64)])
        sparse = sparse._replace(spans=spans)
        yield from (native.multiply(matrix, sparse, factors, dense), dense.copy())
        # Where the rows stand in memory may differ.
        found, sums = native.multiply_sparse(matrix, sparse, factors, dense.size)
        yield from (sums, found.to_dense(), native.column_sums(found))
        some = np.empty((len(rows), columns), np.float32)
        yield from (native.multiply(matrix, operand, factors, some, rows), some)
        found, sums = native.multiply_sparse(matrix, sparse, factors, some.size, rows)
        yield from (sums, found.to_dense())


def everything():
    nodes, columns = 5000, 13
    rng = np.random.default_rng(1)
    neighbors = random_neighbors(nodes, 6)
    weights = rng.normal(size=neighbors.shape).astype(np.float32)
    scores = rng.random((nodes, columns), dtype=np.float32)
    factors = positive_factors(columns)
    rows = rng.integers(0, nodes, 700, dtype=np.int32)
    order = native.cluster_nodes(neighbors)
    yield from (order, native.renumber(neighbors, order, np.argsort(order).astype(np.int32)))
    for weighted in (None, weights):
        for reciprocal in (False, True):
            matrix = native.symmetrize(neighbors, weighted, reciprocal)
            if matrix.values is not None:
                native.normalize_rows(matrix.indptr, matrix.values)
            yield from filter(lambda array: array is not None, matrix)
        yield native.column_totals(matrix)
        yield from products(matrix, scores, factors, rows)
    for operand in (scores, native.to_bfloat16(scores), to_sparse(scores)):
        yield native.sum_neighbors(neighbors, operand, factors)
        yield native.column_sums(operand)
        yield native.column_sums(operand, weights[:, 0].copy())
    native.scale_columns(scores, factors)
    yield scores
    yield from merged(neighbors, scores)
    yield from search_results()
    yield from clusters()


def clusters():
    """Nearest centroids of rows that all threads take part in, and sums of these."""
    rng = np.random.default_rng(2)
    rows = rng.standard_normal((3000, 70), dtype=np.float32)
    labels, distances = np.full(len(rows), -1, np.int32), np.empty(len(rows))
    native.Centroids(rows[:1500].copy(), 9.0).assign(rows, labels, distances)
    yield from (labels, distances)
    sums = np.zeros((1500, 70), np.int64)
    for _ in range(3):
        native.add_to_clusters(rows, labels, 2.0**30, sums)
    yield sums


def mkl_product():
    neighbors = random_neighbors(5000, 6)
    matrix = native.symmetrize(neighbors, np.ones(neighbors.shape, np.float32))
    scores = np.random.default_rng(1).random((5000, 13), dtype=np.float32)
    out = np.empty_like(scores)
    native.multiply_mkl(matrix, scores, out)
    yield out


def digest(results):
    return hashlib.sha256(b"".join(array.tobytes() for array in results)).hexdigest()


def test_results_do_not_depend_on_the_number_of_threads():
    results = []
    for count in COUNTS:
        native.set_num_threads(count)
        results.append([array.copy() for array in everything()])
    for other in results[1:]:
        for place, (expected, found) in enumerate(zip(results[0], other, strict=True)):
            assert expected.tobytes() == found.tobytes(), place


@pytest.mark.parametrize("nodes", [0, 1, 2, 15, 17])
def test_more_threads_than_rows(nodes):
    neighbors = np.arange(nodes, dtype=np.int32)[:, None] // 2
    scores = np.ones((nodes, 3), np.float32)
    results = []
    for count in COUNTS:
        native.set_num_threads(count)
        matrix = native.symmetrize(neighbors)
        out = np.empty_like(scores)
        native.multiply(matrix, scores, np.ones(3, np.float32), out)
        found = (native.cluster_nodes(neighbors), matrix.indptr, matrix.mutual, matrix.indices, out)
        results.append(digest(found))
    assert len(set(results)) == 1


def test_results_do_not_depend_on_omp_num_threads():
    results = "everything()"
    if native.mkl_available():
        results += ", *mkl_product()"
    script = f"from {__name__} import *; print(digest([*{results}]))"
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
        with pytest.raises(ValueError, match="row 700, column 4 holds 20000, expected -1 or 0"):
            native.cluster_nodes(neighbors)
        with pytest.raises(ValueError, match="row 700, column 4 holds 20000, expected -1 or 0"):
            native.sum_neighbors(neighbors, np.ones((20_000, 2), np.float32))


def test_faults_of_searching_are_the_first_ones_whatever_the_number_of_threads():
    rng = np.random.default_rng(0)
    rows = 20_000
    codes = random_codes(rng, rows, 64)
    queries = codes.values[:3000]
    lists = native.Lists(np.array([0, 900, rows]))
    probes = np.zeros((3000, 2), np.int32)
    probes[:, 1] = 1
    probes[[700, 900, 2999], 1] = 2
    vectors = rng.normal(size=(rows, 8)).astype(np.float32)
    infinite = vectors.copy()
    infinite[[700, 9000, 19_999], 3] = np.inf
    candidates = np.tile(np.arange(6, dtype=np.int32), (rows, 1))
    candidates[[700, 9000, 19_999], 4] = rows
    pools = random_pools(rng, rows, 4)
    links = np.full((rows, 3), -1, np.int32)
    links[[700, 9000, 19_999], 0] = 2 * rows
    ones = np.ones(rows, np.float32)
    for count in COUNTS:
        native.set_num_threads(count)
        with pytest.raises(ValueError, match="probes: row 700, column 1 holds 2, expected"):
            native.search_lists(codes, lists, queries, probes, 3)
        with pytest.raises(ValueError, match="vectors: row 700 holds NaN or infinity"):
            native.encode(random_encoder(rng, 8), infinite)
        with pytest.raises(ValueError, match="candidates: row 700, column 4 holds 20000, expec"):
            native.rank_candidates(vectors, ones, vectors, candidates, 3)
        with pytest.raises(ValueError, match="queries: the similarity of row 700 to vector 0 is"):
            native.rank_candidates(vectors, ones, infinite, candidates[:, :4].copy(), 3)
        with pytest.raises(ValueError, match="sampled: a link followed from row 700 leads to no"):
            native.join_neighbors(codes, pools, links, 0, rows)


@pytest.mark.parametrize("count", [0, -1, 1025])
def test_set_num_threads_refuses(count):
    with pytest.raises(ValueError, match=f"expected 1..1024 threads, got {count}"):
        native.set_num_threads(count)
