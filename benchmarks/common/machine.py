"""What is measured on: processor, memory, versions, threads, and how fast memory is copied."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch

from common import mkl
from lowshot_kedro import native

COPIED_BYTES = 2**29
COPIES = 5


def set_threads(count: int) -> None:
    """Let every library use this many threads."""
    native.set_num_threads(count)
    torch.set_num_threads(count)
    faiss.omp_set_num_threads(count)
    if mkl.library() is not None:
        mkl.library().MKL_Set_Num_Threads(count)


def describe() -> dict[str, Any]:
    """The machine, without anything that names it."""
    return {
        "cpu": _cpu_model(),
        "cores": _cores(),
        "kernels": native.kernels_in_use(),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "python": platform.python_version(),
        "mkl": mkl.version(),
        **{name: importlib.metadata.version(name) for name in ("torch", "scipy", "numpy")},
    }


def copy_bandwidth(n_threads: int, n_bytes: int = COPIED_BYTES) -> float:
    """Bytes read and written in a second by a copy with all threads: the best of torch and numpy.

    Args:
        n_threads: How many.
        n_bytes: Of the array copied, which should be much larger than the caches.
    """
    source = np.ones(n_bytes // 4, np.float32)
    target = np.zeros_like(source)
    parts = list(
        zip(np.array_split(target, n_threads), np.array_split(source, n_threads), strict=True)
    )
    torch_source, torch_target = torch.from_numpy(source), torch.from_numpy(target)
    seconds = []
    with ThreadPoolExecutor(n_threads) as pool:
        for _ in range(COPIES):
            start = time.perf_counter()
            list(pool.map(lambda part: np.copyto(*part), parts))
            middle = time.perf_counter()
            torch_target.copy_(torch_source)
            seconds += [middle - start, time.perf_counter() - middle]
    return 2 * source.nbytes / min(seconds)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
