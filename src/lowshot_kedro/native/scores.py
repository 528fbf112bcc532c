"""Native operations on score matrices: diffusion steps, column normalisation, neighbour sums."""

import numpy as np
import numpy.typing as npt

from . import mkl
from ._library import (
    AnyArray,
    call,
    check_array,
    check_no_overlap,
    explain_graph,
    explain_neighbors,
    lib,
    pointer,
)
from .graph import INT32_MAX, check_row_count

PRODUCTS = ("auto", "own", "mkl")


def normalize_columns(scores: npt.NDArray[np.float32]) -> None:
    """Scales every column to sum 1, in place.

    scores[i, c] ← scores[i, c] / Σ_i scores[i, c], with the sum taken in double precision. A column
    whose sum is exactly zero stays as it is.

    Args:
        scores: float32 (n, c), changed in place. Scores may have either sign; a column with values
            that are not finite ends without meaning, the others are not touched by it.

    Memory: 8 c bytes for each block of rows; there are at most 1024 blocks, of at least 256 rows.

    Raises:
        ValueError: wrong type, shape or layout.
        MemoryError: no room for the sums.
    """
    check_array("scores", scores, np.float32, ("n", "c"), writeable=True)
    call(lib.lowshot_normalize_columns, pointer(scores), *scores.shape, explain=_never)


def diffusion_step(
    indptr: npt.NDArray[np.int64],
    indices: npt.NDArray[np.int32],
    values: npt.NDArray[np.float32],
    scores: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
    product: str = "auto",
) -> None:
    """One step of diffusion: out = W scores, then every column of out scaled to sum 1.

    Products are summed in single precision, column sums in double. A column whose sum is exactly
    zero stays as it is. For one choice of ``product`` the result does not depend on the number of
    threads; between the two it differs by rounding.

    Args:
        indptr: int64 (n + 1,), offsets of the rows of W, n × n, in compressed sparse row form.
        indices: int32 (nnz,), column indices of W, in any order within a row.
        values: float32 (nnz,), values of W.
        scores: float32 (n, c).
        out: float32 (n, c), overwritten; shares no memory with the other arrays.
        product: "own" for this module's loop, "mkl" for Intel MKL's sparse product, "auto" for MKL
            where it is installed and the own loop elsewhere.

    Memory: 8 c bytes for each block of rows; there are at most 1024 blocks, of at least 256 rows.
    With MKL at most about 50 MB more, for offsets.

    Raises:
        ValueError: wrong type, shape or layout; offsets that do not start at 0, decrease, or do not
            end at nnz; a column index outside 0..n - 1; an unknown ``product``; ``out`` shares
            memory with another array.
        RuntimeError: ``product`` is "mkl" and MKL is not installed, or MKL reports an error.
        MemoryError: no room for the sums.
    """
    if product not in PRODUCTS:
        raise ValueError(f"product: expected one of {', '.join(PRODUCTS)}, got {product!r}")
    check_array("indptr", indptr, np.int64, ("n + 1",))
    rows = check_row_count(indptr)
    check_array("indices", indices, np.int32, ("nnz",))
    edges = indices.size
    check_array("values", values, np.float32, (edges,))
    check_array("scores", scores, np.float32, (rows, "c"))
    columns = scores.shape[1]
    check_array("out", out, np.float32, (rows, columns), writeable=True)
    check_no_overlap("out", out, scores=scores, indptr=indptr, indices=indices, values=values)
    explain = explain_graph(indptr, indices, edges, rows)

    if product == "own" or (product == "auto" and not mkl.available()):
        call(
            lib.lowshot_diffusion_step,
            pointer(indptr),
            pointer(indices),
            pointer(values),
            rows,
            edges,
            pointer(scores),
            columns,
            pointer(out),
            explain=explain,
        )
        return
    mkl.require()
    call(
        lib.lowshot_check_graph,
        pointer(indptr),
        pointer(indices),
        rows,
        rows,
        edges,
        explain=explain,
    )
    mkl.multiply(indptr, indices, values, scores, out)
    normalize_columns(out)


def sum_neighbors(
    neighbors: npt.NDArray[np.int32], scores: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """For every row of a neighbour list, the plain sum of its neighbours' scores.

    result[r] = Σ_j scores[neighbors[r, j]], in single precision, over the entries that are not -1.
    A neighbour that a row lists twice counts twice.

    Args:
        neighbors: int32 (m, k); may be the first columns of a wider matrix.
        scores: float32 (n, c).

    Returns:
        float32 (m, c).

    Memory: the result, nothing else.

    Raises:
        ValueError: wrong type, shape or layout; an entry outside -1..n - 1; n over 2³¹ - 1.
    """
    stride = check_array("neighbors", neighbors, np.int32, ("m", "k"), strided=True)
    check_array("scores", scores, np.float32, ("n", "c"))
    nodes, columns = scores.shape
    if nodes > INT32_MAX:
        raise ValueError(f"scores: expected at most {INT32_MAX} nodes, got {nodes}")
    rows, width = neighbors.shape
    out: AnyArray = np.empty((rows, columns), np.float32)
    call(
        lib.lowshot_sum_neighbors,
        pointer(neighbors),
        rows,
        width,
        stride,
        pointer(scores),
        nodes,
        columns,
        pointer(out),
        explain=explain_neighbors("neighbors", neighbors, nodes),
    )
    return out


def _never(kind: int, which: int, row: int, column: int) -> str:
    return "scores: changed during the call"
