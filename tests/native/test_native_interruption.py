"""Calls that are stopped, and calls in a process that was forked."""

import multiprocessing
import os
import signal
import threading

import numpy as np
import pytest

from lowshot_kedro import native
from lowshot_kedro.interruption import Stopped, stopping_at
from lowshot_kedro.native import _library
from lowshot_kedro.native._library import lib

from .searching import random_codes, random_encoder, random_pools
from .strategies import random_neighbors, to_sparse

ROWS, COLUMNS, WIDTH = 1500, 5, 6
RNG = np.random.default_rng(0)
NEIGHBORS = random_neighbors(ROWS, WIDTH)
WEIGHTS = RNG.random((ROWS, WIDTH), dtype=np.float32)
RANKED = -np.sort(-WEIGHTS)
SCORES = RNG.random((ROWS, COLUMNS), dtype=np.float32)
FACTORS = np.ones(COLUMNS, np.float32)
ORDER = np.arange(ROWS, dtype=np.int32)
CODES = random_codes(RNG, ROWS, 64)
WIDE = random_codes(RNG, ROWS, 192)
CENTROIDS = WIDE.part(slice(0, 1))
POOLS = random_pools(RNG, ROWS, WIDTH)
LINKS = native.sample_links(POOLS, 2, 2, 0, ROWS)
VECTORS = RNG.normal(size=(ROWS, 20)).astype(np.float32)
ONES = np.ones(ROWS, np.float32)
MATRIX = native.symmetrize(NEIGHBORS)
WEIGHTED = native.symmetrize(NEIGHBORS, WEIGHTS)
SPARSE = to_sparse(SCORES)
LISTS = native.Lists(np.array([0, ROWS], np.int64))
PROBES = np.zeros((ROWS, 1), np.int32)
MANY_CENTROIDS = RNG.normal(size=(3000, 64)).astype(np.float32)
READY = native.Centroids(VECTORS[:40].copy(), 9.0)
UNKNOWN = np.full(ROWS, -1, np.int32)


def out():
    return np.empty((ROWS, COLUMNS), np.float32)


CALLS = {
    "cluster_nodes": lambda: native.cluster_nodes(NEIGHBORS),
    "renumber": lambda: native.renumber(NEIGHBORS, ORDER, ORDER),
    "symmetrize": lambda: native.symmetrize(NEIGHBORS),
    "symmetrize with weights": lambda: native.symmetrize(NEIGHBORS, WEIGHTS),
    "normalize_rows": lambda: native.normalize_rows(WEIGHTED.indptr, WEIGHTED.values.copy()),
    "check_matrix": lambda: native.check_matrix(MATRIX),
    "column_totals": lambda: native.column_totals(MATRIX),
    "multiply": lambda: native.multiply(MATRIX, SCORES, FACTORS, out()),
    "multiply sparse": lambda: native.multiply(MATRIX, SPARSE, FACTORS, out()),
    "multiply_sparse": lambda: native.multiply_sparse(MATRIX, SPARSE, FACTORS, ROWS * COLUMNS),
    "sum_neighbors": lambda: native.sum_neighbors(NEIGHBORS, SCORES, FACTORS),
    "column_sums": lambda: native.column_sums(SCORES),
    "column_sums sparse": lambda: native.column_sums(SPARSE),
    "scale_columns": lambda: native.scale_columns(SCORES.copy(), FACTORS),
    "merge_neighbors": lambda: native.merge_neighbors(
        np.abs(NEIGHBORS), RANKED, np.abs(NEIGHBORS), RANKED, 3, second_offset=ROWS
    ),
    "encode": lambda: native.encode(random_encoder(np.random.default_rng(0), 20), VECTORS),
    "score_all": lambda: native.score_all(CODES, CODES.values),
    "score_pairs": lambda: native.score_pairs(CODES, ORDER, CODES.values),
    "search_lists": lambda: native.search_lists(CODES, LISTS, CODES.values, PROBES, 3),
    "search_lists by prefixes": lambda: native.search_lists(
        WIDE, LISTS, WIDE.values, PROBES, 3, WIDE.biases, native.Prefix(WIDE.biases, 0.5)
    ),
    "search_lists_in_reach": lambda: native.search_lists_in_reach(
        WIDE, LISTS.offsets, CENTROIDS, WIDE, WIDE.biases, WIDE.biases, 3, (0.5, 0.7)
    ),
    "search_points_in_reach": lambda: native.search_points_in_reach(
        WIDE, CENTROIDS, LISTS.offsets, WIDE, WIDE.biases, WIDE.biases, 3, (0.5, 0.7)
    ),
    "take_vectors": lambda: native.take_vectors(VECTORS, ONES, ORDER),
    "place_codes": lambda: native.place_codes(CODES, ORDER, CODES),
    "shift_neighbors": lambda: native.shift_neighbors(
        NEIGHBORS, RANKED, ROWS, 3, np.empty_like(NEIGHBORS)
    ),
    "sample_links": lambda: native.sample_links(POOLS, 2, 2, 0, ROWS),
    "join_neighbors": lambda: native.join_neighbors(CODES, POOLS, LINKS, 0, ROWS),
    "rank_candidates": lambda: native.rank_candidates(
        VECTORS, ONES, VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True), NEIGHBORS, 3
    ),
    "copy_rows": lambda: native.copy_rows(
        VECTORS, ONES, ORDER, ORDER.astype(np.int64), np.empty_like(VECTORS)
    ),
    "Centroids": lambda: native.Centroids(MANY_CENTROIDS, 9.0),
    "assign": lambda: READY.assign(VECTORS, UNKNOWN.copy(), np.empty(ROWS)),
    "add_to_clusters": lambda: native.add_to_clusters(
        VECTORS, np.zeros(ROWS, np.int32), 1.0, np.zeros((1, 20), np.int64)
    ),
    "solve_transport": lambda: native.solve_transport(
        WEIGHTS.reshape(-1, 2, WIDTH).astype(float),
        np.full((ROWS // 2, 2), WIDTH / 2.0),
        np.ones((ROWS // 2, WIDTH)),
    ),
    "checksum_rows": lambda: native.checksum_rows(VECTORS, np.ones(20, np.uint64)),
}
each_call = pytest.mark.parametrize("name", CALLS)


@pytest.fixture
def asked_always():
    """Loops ask at every look instead of ten times a second."""
    lib.lowshot_set_poll(lib.lowshot_poll, 0)
    yield
    lib.lowshot_set_poll(lib.lowshot_poll, _library.MILLISECONDS_BETWEEN_POLLS)


@pytest.fixture
def one_thread():
    """Of several, the one that asks may come too late to get any rows."""
    before = native.get_num_threads()
    native.set_num_threads(1)
    yield
    native.set_num_threads(before)


def flat(result):
    """All arrays in what a function has returned."""
    if isinstance(result, np.ndarray):
        return [result.tobytes()]
    if isinstance(result, tuple):
        return [part for each in result for part in flat(each)]
    return []


@each_call
def test_a_call_stops_when_it_is_told_to(asked_always, one_thread, name):
    event = threading.Event()
    event.set()
    with stopping_at(event), pytest.raises(Stopped):
        CALLS[name]()


# Where the rows of a sparse product stand in memory may differ from call to call.
REPEATABLE = [name for name in CALLS if name != "multiply_sparse"]


@pytest.mark.parametrize("name", REPEATABLE)
def test_being_asked_changes_nothing(name):
    expected = flat(CALLS[name]())
    lib.lowshot_set_poll(lib.lowshot_poll, 0)
    try:
        assert flat(CALLS[name]()) == expected
    finally:
        lib.lowshot_set_poll(lib.lowshot_poll, _library.MILLISECONDS_BETWEEN_POLLS)


class _Alarm(Exception):
    pass


def test_a_signal_handler_runs_during_a_call_and_what_it_raises_ends_the_call():
    def ring(*_):
        raise _Alarm

    codes = random_codes(np.random.default_rng(0), 20_000, 64)
    everything = native.Lists(np.array([0, 20_000], np.int64))
    queries = np.tile(codes.values, (60, 1))
    probes = np.zeros((len(queries), 1), np.int32)
    # Ends by itself after seconds; nothing but the handler makes it raise.
    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(_Alarm):
            native.search_lists(codes, everything, queries, probes, 3)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    # The next call knows nothing of it.
    native.search_lists(codes, everything, queries[:10], probes[:10], 3)


def test_without_a_poll_nobody_is_asked():
    event = threading.Event()
    event.set()
    lib.lowshot_set_poll(_library.ffi.NULL, 0)
    try:
        with stopping_at(event):
            native.column_sums(SCORES)
    finally:
        lib.lowshot_set_poll(lib.lowshot_poll, _library.MILLISECONDS_BETWEEN_POLLS)


def _results(connection):
    connection.send({name: flat(CALLS[name]()) for name in REPEATABLE})
    connection.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_gets_the_same_results():
    before = native.get_num_threads()
    native.set_num_threads(3)
    try:
        expected = {name: flat(CALLS[name]()) for name in REPEATABLE}
        receiver, sender = multiprocessing.Pipe(duplex=False)
        child = multiprocessing.get_context("fork").Process(target=_results, args=(sender,))
        child.start()
        sender.close()
        # A child that waits for its parent's threads never answers.
        answered = receiver.poll(60)
        found = receiver.recv() if answered else None
        child.kill()
        child.join()
        assert found == expected
    finally:
        native.set_num_threads(before)
