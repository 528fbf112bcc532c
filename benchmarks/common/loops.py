"""The native loops of the graph and of the diffusion, on vectors that are made up."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from lowshot_kedro import native

ROWS_OF_LIST = 250
PROBES = 10
CANDIDATES = 48
LINKS = 40
CLASSES = 128

Loops = dict[str, Callable[[], Iterator[Any]]]


def loops(rows: int, columns: int, seed: int) -> Loops:
    """What is timed, by name: each gives the arrays that it computes."""
    rng = np.random.default_rng(seed)
    # Neighbours stand near each other, as in the order of lists.
    centers = rng.normal(size=(rows // ROWS_OF_LIST, columns)).astype(np.float32)
    vectors = np.repeat(centers, ROWS_OF_LIST, axis=0)
    vectors += rng.normal(size=vectors.shape, scale=0.7).astype(np.float32)
    rows = len(vectors)
    signs = rng.choice(np.array([-1, 1], np.float32), native.code_width(columns))
    mean = np.zeros(columns, np.float32)
    encoder = native.Encoder(mean, signs, float(32 * np.sqrt(native.code_width(columns))))
    codes, inverse_lengths = native.encode(encoder, vectors)
    n_lists = rows // ROWS_OF_LIST
    lists = native.Lists(np.arange(0, rows + 1, ROWS_OF_LIST, dtype=np.int64))
    own = np.arange(rows, dtype=np.int32) // ROWS_OF_LIST
    n_probes = min(PROBES, n_lists)
    probes = ((own[:, None] + np.arange(n_probes, dtype=np.int32)) % n_lists).astype(np.int32)
    found = native.search_lists(codes, lists, codes.values, probes, CANDIDATES)
    pools = native.Pools(np.where(found[0] < 0, np.int32(-1), 2 * found[0] + 1), found[1])
    links = native.sample_links(pools, LINKS // 2, LINKS // 2, 0, rows)
    few = np.ascontiguousarray(codes.values[: max(1, rows // 100)])
    matrix = native.symmetrize(found[0])
    scores = rng.random((rows, CLASSES), dtype=np.float32)
    halves = native.to_bfloat16(scores)
    factors = np.ones(CLASSES, np.float32)

    def step(operand: Any) -> Iterator[Any]:
        out = np.empty_like(operand)
        yield native.multiply(matrix, operand, factors, out)
        yield out

    return {
        "encoding": lambda: iter(native.encode(encoder, vectors)[0]),
        "all pairs": lambda: iter((native.score_all(codes, few),)),
        "search of lists": lambda: iter(
            native.search_lists(codes, lists, codes.values, probes, CANDIDATES)
        ),
        "descent": lambda: iter(native.join_neighbors(codes, pools, links, 0, rows)),
        "ranking": lambda: iter(
            native.rank_candidates(vectors, inverse_lengths, vectors, found[0], CANDIDATES)
        ),
        "symmetrising": lambda: iter(
            array for array in native.symmetrize(found[0]) if array is not None
        ),
        "step, float32": lambda: step(scores),
        "step, bfloat16": lambda: step(halves),
    }


def measure(
    rows: int, columns: int, seed: int, threads: int, kernels: str | None
) -> tuple[dict[str, float], dict[str, str]]:
    """Seconds of each loop, and a checksum of what it computes.

    Args:
        rows: Vectors.
        columns: Their columns.
        seed: Of everything.
        threads: To be used.
        kernels: To be used; None: those that the code chooses.
    """
    native.set_num_threads(threads)
    if kernels is not None:
        native.use_kernels(kernels)
    seconds, checksums = {}, {}
    for name, loop in loops(rows, columns, seed).items():
        digest = hashlib.sha256()
        for array in loop():
            digest.update(np.ascontiguousarray(array).tobytes())
        checksums[name] = digest.hexdigest()
        start = time.perf_counter()
        for _ in loop():
            pass
        seconds[name] = time.perf_counter() - start
    return seconds, checksums
