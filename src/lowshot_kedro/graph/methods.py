"""The ways to build a graph, by name, and which of them `auto` takes."""

from __future__ import annotations

import faiss

from lowshot_kedro.errors import InputError

METHODS = ("auto", "exact", "ivf", "descent", "pynndescent")

# Where descent, with all that it has to prepare, begins to be faster than comparing every pair
# (docs/performance.md).
EXACT_BELOW = 20_000


def is_factory_string(method: str) -> bool:
    """Whether a method is a description of an index for faiss.index_factory."""
    return method not in METHODS


def choose_method(method: str, n_vectors: int) -> str:
    """What `auto` stands for; any other method stands for itself.

    Args:
        method: As a person gives it.
        n_vectors: How many vectors there are.
    """
    if method != "auto":
        return method
    return "exact" if n_vectors < EXACT_BELOW else "descent"


def require_method(method: str, dimension: int, name: str = "graph.method") -> None:
    """Refuse what is neither a method nor an index that faiss knows.

    Args:
        method: As a person gives it.
        dimension: Of the vectors.
        name: Of the parameter.

    Raises:
        ValueError: Naming the methods.
    """
    if not is_factory_string(method):
        return
    try:
        faiss.index_factory(dimension, method, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise InputError(
            f"{name}: got {method!r}, expected one of: {', '.join(METHODS)}; or a description for "
            f"faiss.index_factory such as IVF4096,Flat or HNSW32 (for {dimension} columns)"
        ) from error
