"""Peak memory, measured in processes of their own, so that nothing else is in the figures."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from common.machine import set_threads
from common.peers import neighbor_matrix
from lowshot_kedro import native
from lowshot_kedro.diffusion import PropagationOptions, propagate, propagation_matrix
from lowshot_kedro.memory import recent_peak_rss_bytes, restart_peak

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class BuildMemory(NamedTuple):
    """Bytes taken to build A + Aᵀ.

    Attributes:
        input: Neighbours, or the matrix A.
        output: A + Aᵀ.
        beyond: What was held at the peak besides both.
    """

    input: int
    output: int
    beyond: int

    @property
    def part_beyond(self) -> float:
        """As a part of input and output."""
        return self.beyond / (self.input + self.output)


class RunMemory(NamedTuple):
    """Bytes taken by a run.

    Attributes:
        matrix: W.
        one_slice: Scores of all nodes.
        run: W and all that was added to it at the peak.
        allowed: W, two slices, and a tenth of all that.
        process: The peak of the process, with Python, its libraries and what the run starts from.
    """

    matrix: int
    one_slice: int
    run: int
    allowed: int
    process: int


def missing() -> str | None:
    """Why peaks cannot be measured here, or None."""
    if not _CLEAR_REFS.exists():
        return "peak memory is measured on Linux only"
    return None


def in_new_process(
    function: Callable[Parameters, Result],
    *arguments: Parameters.args,
    **keywords: Parameters.kwargs,
) -> Result:
    """Call a function of a module in a fresh process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments, **keywords).result()


def give_back() -> None:
    """Let the system have what the C library keeps for later, so that it is in no figure."""
    with contextlib.suppress(OSError, AttributeError):  # of another C library
        ctypes.CDLL(None).malloc_trim(0)


def native_build(neighbors: NDArray[np.int32], n_threads: int) -> BuildMemory:
    """Of this project's A + Aᵀ."""
    set_threads(n_threads)
    native.symmetrize(np.zeros((1, 1), np.int32))  # threads are there from now on
    before = _restart()
    built = native.symmetrize(neighbors)
    peak = recent_peak_rss_bytes()
    return BuildMemory(neighbors.nbytes, built.n_bytes, max(peak - before - built.n_bytes, 0))


def scipy_build(neighbors: NDArray[np.int32], n_threads: int) -> BuildMemory:
    """Of scipy's."""
    set_threads(n_threads)
    links = neighbor_matrix(neighbors, len(neighbors))
    before = _restart()
    built = links + links.T
    peak = recent_peak_rss_bytes()
    read, written = (
        array.data.nbytes + array.indices.nbytes + array.indptr.nbytes for array in (links, built)
    )
    return BuildMemory(read, written, max(peak - before - written, 0))


def native_runs(
    neighbors: NDArray[np.int32],
    labeled_classes: NDArray[np.int32],
    test_neighbors: NDArray[np.int32],
    n_classes: int,
    n_iterations: int,
    node_ordering: str,
    precisions: list[str],
    n_threads: int,
) -> dict[str, RunMemory]:
    """Of a propagation with the native back end, for each precision."""
    set_threads(n_threads)
    matrix = propagation_matrix(neighbors, node_ordering=node_ordering)
    _ = matrix.column_totals  # part of the matrix, made when first asked for
    results: dict[str, RunMemory] = {}
    for precision in precisions:
        before = _restart()
        propagate(
            matrix,
            labeled_classes,
            test_neighbors,
            n_classes,
            n_iterations,
            PropagationOptions(0, "native", precision),
            every_step=False,
        )
        peak = recent_peak_rss_bytes()
        one_slice = matrix.n_nodes * n_classes * (2 if precision == "bfloat16" else 4)
        results[precision] = RunMemory(
            matrix=matrix.n_bytes,
            one_slice=one_slice,
            run=matrix.n_bytes + peak - before,
            allowed=int(1.1 * (matrix.n_bytes + 2 * one_slice)),
            process=peak,
        )
    return results


def _restart() -> int:
    """Begin a measurement; returns what the process holds now."""
    restart_peak()
    for line in _STATUS.read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"{_STATUS} has no line VmRSS")
