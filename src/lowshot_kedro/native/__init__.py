"""Compiled loops over graphs and score matrices, with a numpy interface.

Offsets are int64, so that a graph may have more than 2³¹ edges; node numbers are int32. Every
function checks what it is given and raises ValueError naming the argument, what was found and what
was expected. Results are the same bit for bit for any number of threads. Arrays must not change
while a function works on them. Signal handlers run about ten times a second while a function works
in the main thread; what one raises, such as KeyboardInterrupt, ends the function. In a child that
was forked functions work in a thread of their own, because OpenMP's threads do not come along.
"""

from ._library import get_num_threads, set_num_threads
from .graph import (
    SparseMatrix,
    check_matrix,
    cluster_nodes,
    column_totals,
    merge_neighbors,
    normalize_rows,
    renumber,
    shift_neighbors,
    symmetrize,
)
from .mkl import available as mkl_available
from .scores import (
    DenseScores,
    SparseScores,
    block_sum_bytes,
    column_sums,
    from_bfloat16,
    multiply,
    multiply_mkl,
    multiply_sparse,
    scale_columns,
    sparse_scores,
    sum_neighbors,
    to_bfloat16,
)
from .search import (
    CODE_WIDTH_UNIT,
    MAX_NEIGHBORS,
    Codes,
    Encoder,
    Lists,
    Pools,
    Prefix,
    code_width,
    encode,
    join_neighbors,
    largest_bias,
    place_codes,
    rank_candidates,
    sample_links,
    score_all,
    score_pairs,
    search_lists,
    search_lists_in_reach,
    search_points_in_reach,
    take_vectors,
)

__all__ = [
    "CODE_WIDTH_UNIT",
    "MAX_NEIGHBORS",
    "Codes",
    "DenseScores",
    "Encoder",
    "Lists",
    "Pools",
    "Prefix",
    "SparseMatrix",
    "SparseScores",
    "block_sum_bytes",
    "check_matrix",
    "cluster_nodes",
    "code_width",
    "column_sums",
    "column_totals",
    "encode",
    "from_bfloat16",
    "get_num_threads",
    "join_neighbors",
    "largest_bias",
    "merge_neighbors",
    "mkl_available",
    "multiply",
    "multiply_mkl",
    "multiply_sparse",
    "normalize_rows",
    "place_codes",
    "rank_candidates",
    "renumber",
    "sample_links",
    "scale_columns",
    "score_all",
    "score_pairs",
    "search_lists",
    "search_lists_in_reach",
    "search_points_in_reach",
    "set_num_threads",
    "shift_neighbors",
    "sparse_scores",
    "sum_neighbors",
    "symmetrize",
    "take_vectors",
    "to_bfloat16",
]
