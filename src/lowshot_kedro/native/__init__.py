"""Compiled loops over graphs and score matrices, with a numpy interface.

Offsets are int64, so that a graph may have more than 2³¹ edges; node numbers are int32. Every
function checks what it is given and raises ValueError naming the argument, what was found and what
was expected. Results are the same bit for bit for any number of threads. Arrays must not change
while a function works on them. A process that has called one must not fork and call another in the
child: OpenMP's threads do not come along, and the child waits for them.
"""

from ._library import get_num_threads, set_num_threads
from .graph import merge_neighbors, normalize_rows, symmetrize
from .mkl import available as mkl_available
from .scores import diffusion_step, normalize_columns, sum_neighbors

__all__ = [
    "diffusion_step",
    "get_num_threads",
    "merge_neighbors",
    "mkl_available",
    "normalize_columns",
    "normalize_rows",
    "set_num_threads",
    "sum_neighbors",
    "symmetrize",
]
