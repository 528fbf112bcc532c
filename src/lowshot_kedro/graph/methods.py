"""The ways to build a graph, by name, and which of them `auto` takes."""

from __future__ import annotations

import re

import faiss

from lowshot_kedro.devices import gpu_available
from lowshot_kedro.errors import InputError
from lowshot_kedro.extras import require

METHODS = ("auto", "exact", "ivf", "descent", "pynndescent")

# From so many vectors on, descent, preparations included, is faster than comparing every pair
# (docs/performance.md).
EXACT_BELOW = 20_000
# From so many on it is faster than a GPU that compares them: reckoned, not measured.
EXACT_BELOW_ON_GPUS = 200_000
# Digits of a number in a description for faiss.index_factory, which keeps it below 10⁸.
_MAX_DIGITS = 8


def is_factory_string(method: str) -> bool:
    """Whether a method is a description of an index for faiss.index_factory."""
    return method not in METHODS


def choose_method(method: str, n_vectors: int, exact_below: int | None = None) -> str:
    """What `auto` stands for; any other method stands for itself.

    Memory needs no choice: descent keeps on disk what the budget has no room for.

    Args:
        method: A name of :data:`METHODS` or a description, as a person gives it.
        n_vectors: How many vectors there are.
        exact_below: For how many comparing every pair is faster; None: that depends on whether
            faiss has GPUs.
    """
    if method != "auto":
        return method
    if exact_below is None:
        exact_below = EXACT_BELOW_ON_GPUS if n_gpus() else EXACT_BELOW
    return "exact" if n_vectors < exact_below else "descent"


def n_gpus() -> int:
    """How many GPUs faiss can use."""
    return faiss.get_num_gpus() if gpu_available() else 0


def require_method(method: str, dimension: int) -> None:
    """Refuse what is neither a method nor an index that faiss knows, or whose library is missing.

    Args:
        method: A name of :data:`METHODS` or a description, as a person gives it.
        dimension: Columns of the vectors.

    Raises:
        InputError: For the parameter `method`, naming the methods.
    """
    if method == "pynndescent":
        require("pynndescent", parameter="method", found=method)
    if not is_factory_string(method):
        return
    try:
        # Faiss would take memory for so many lists at once.
        if any(len(digits) > _MAX_DIGITS for digits in re.findall("[0-9]+", method)):
            raise RuntimeError("a number is too large")
        faiss.index_factory(dimension, method, faiss.METRIC_INNER_PRODUCT)
    except (RuntimeError, MemoryError) as error:
        raise InputError(
            parameter="method",
            found=method,
            expected=f"one of: {', '.join(METHODS)}; or a description for faiss.index_factory such "
            f"as IVF4096,Flat or HNSW32 (for {dimension} columns)",
        ) from error
