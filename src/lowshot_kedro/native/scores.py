"""Native operations on score matrices: products, sums over neighbours, sums over columns.

Scores are float32, or bfloat16, which numpy does not know: its bits are kept as uint16. While few
rows hold anything, they are kept sparse.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import mkl
from ._library import (
    Explain,
    LibraryFault,
    call,
    check_array,
    check_no_overlap,
    check_node_count,
    explain_neighbors,
    ffi,
    lib,
    pointer,
    where_openmp_works,
)
from .graph import SparseMatrix, check_matrix, matrix_links

ENTRY = np.dtype([("value", np.float32), ("column", np.int32)], align=True)
MAX_SPARSE_COLUMNS = 2**24 - 1

# bfloat16 is stored as its bits.
FORMATS = {np.dtype(np.float32): lib.LOWSHOT_FLOAT32, np.dtype(np.uint16): lib.LOWSHOT_BFLOAT16}

DenseScores = npt.NDArray[np.float32] | npt.NDArray[np.uint16]


class SparseScores(NamedTuple):
    """Scores (n, c) of which most are zero.

    Attributes:
        spans: uint64 (n,). Row i has ``spans[i] & 0xffffff`` entries, from ``spans[i] >> 24`` on.
        entries: (m,) pairs of value and column, columns increasing within a row.
        n_columns: c.
        dtype: float32, or uint16 if values are rounded to bfloat16.
    """

    spans: npt.NDArray[np.uint64]
    entries: npt.NDArray[Any]
    n_columns: int
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        """Memory of the arrays."""
        return self.spans.nbytes + self.entries.nbytes

    def to_dense(self) -> npt.NDArray[np.float32]:
        """float32 (n, c)."""
        counts = (self.spans & np.uint64(0xFFFFFF)).astype(np.int64)
        begins = (self.spans >> np.uint64(24)).astype(np.int64)
        rows = np.repeat(np.arange(len(counts)), counts)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        entries = self.entries[np.repeat(begins, counts) + within]
        dense = np.zeros((len(counts), self.n_columns), np.float32)
        dense[rows, entries["column"]] = entries["value"]
        return dense


def sparse_scores(
    rows: npt.NDArray[np.integer[Any]],
    columns: npt.NDArray[np.integer[Any]],
    values: npt.NDArray[np.float32],
    shape: tuple[int, int],
    dtype: npt.DTypeLike = np.float32,
) -> SparseScores:
    """Sparse scores from their entries, in any order.

    Args:
        rows: (m,), 0..n - 1.
        columns: (m,), 0..c - 1; each pair of row and column at most once.
        values: float32 (m,).
        shape: n and c.
        dtype: float32, or uint16 for values rounded to bfloat16.

    Raises:
        ValueError: for rows or columns out of range, pairs that occur twice, or wrong types.
    """
    if not 0 <= shape[1] <= MAX_SPARSE_COLUMNS:
        raise ValueError(f"shape: expected 0..{MAX_SPARSE_COLUMNS} columns, got {shape[1]}")
    if np.dtype(dtype) not in FORMATS:
        raise ValueError(f"dtype: expected float32 or uint16 (bfloat16), got {np.dtype(dtype)}")
    for name, numbers, limit in (("rows", rows, shape[0]), ("columns", columns, shape[1])):
        found = getattr(numbers, "dtype", np.dtype(object))
        if not np.issubdtype(found, np.integer) or numbers.shape != (rows.size,):
            raise ValueError(f"{name}: expected an array of integers, one for each row")
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < limit:
            raise ValueError(
                f"{name}: found {numbers.min()}..{numbers.max()}, expected 0..{limit - 1}"
            )
    _check_dtype("values", values, np.float32)
    if values.shape != rows.shape:
        raise ValueError(f"values: expected as many as there are rows, got shape {values.shape}")
    order = np.lexsort((columns, rows))
    rows, columns, values = rows[order], columns[order], values[order]
    if np.any((np.diff(rows) == 0) & (np.diff(columns) == 0)):
        raise ValueError("rows, columns: expected each pair at most once")
    entries = np.empty(len(rows), ENTRY)
    entries["value"] = values
    if np.dtype(dtype) == np.uint16:
        entries["value"] = from_bfloat16(to_bfloat16(values))
    entries["column"] = columns
    spans = np.zeros(shape[0], np.uint64)
    filled, begins, counts = np.unique(rows, return_index=True, return_counts=True)
    spans[filled] = (begins.astype(np.uint64) << np.uint64(24)) | counts.astype(np.uint64)
    return SparseScores(spans, entries, shape[1], np.dtype(dtype))


def to_bfloat16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """The nearest bfloat16 numbers, ties to even, as their bits. NaN does not stay NaN."""
    _check_dtype("values", values, np.float32)
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + (np.uint32(0x7FFF) + ((bits >> 16) & 1))) >> 16).astype(np.uint16)


def from_bfloat16(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """float32 numbers of bfloat16 bits."""
    _check_dtype("bits", bits, np.uint16)
    return (bits.astype(np.uint32) << 16).view(np.float32)


def multiply(
    matrix: SparseMatrix,
    scores: DenseScores | SparseScores,
    factors: npt.NDArray[np.float32],
    out: DenseScores,
    rows: npt.NDArray[np.int32] | None = None,
) -> npt.NDArray[np.float64]:
    """Sets out[r, c] = factors[c] Σ_j W[rows[r], j] scores[j, c].

    Products are summed in single precision, columns of the result in double. Whether the scores are
    dense or sparse changes no bit of the result, if they and the factors are finite and not
    negative.

    Args:
        matrix: W, n × n.
        scores: (n, c), or the first c columns of a wider matrix.
        factors: float32 (c,).
        out: (m, c), or the first c columns of a wider matrix; overwritten. float32 from float32,
            either from bfloat16.
        rows: int32 (m,), the rows wanted; None: all n.

    Returns:
        float64 (c,): the sum of each column of out.

    Memory: 8 c bytes for each block of rows; there are at most 1024 blocks, of at least 256 rows.
    With sparse scores also about 16 c bytes a thread.

    Raises:
        ValueError: wrong type, shape or layout; an offset, count, column or row out of range;
            ``out`` shares memory with another array.
        MemoryError: no room.
    """
    links, explain = matrix_links(matrix)
    n_columns = _n_columns(scores)
    selection, count = _selection(rows, matrix.n_nodes)
    check_array("factors", factors, np.float32, (n_columns,))
    out_structure = _dense("out", out, (count, n_columns), writeable=True)
    check_no_overlap(
        "out",
        out,
        factors=factors,
        **({} if rows is None else {"rows": rows}),
        **{f"matrix[{i}]": a for i, a in enumerate(matrix) if a is not None},
    )
    sums = np.empty(n_columns, np.float64)
    _gather(links, (selection, count), scores, factors, out, out_structure, sums,
            _explain_scores(explain, rows, matrix.n_nodes))  # fmt: skip
    return sums


def multiply_sparse(
    matrix: SparseMatrix,
    scores: SparseScores,
    factors: npt.NDArray[np.float32],
    capacity: int,
    rows: npt.NDArray[np.int32] | None = None,
) -> tuple[SparseScores, npt.NDArray[np.float64]] | None:
    """The product of :func:`multiply` as sparse scores, if they have at most ``capacity`` entries.

    Returns:
        The scores and the sums of their columns; or None if there is not enough room.

    Memory: 8 bytes a row and 8 an entry of the capacity; 8 c bytes for each block of rows and 280 c
    bytes a thread while working.

    Raises:
        ValueError: as for :func:`multiply`.
        MemoryError: no room.
    """
    links, explain = matrix_links(matrix)
    selection, count = _selection(rows, matrix.n_nodes)
    n_columns = _n_columns(scores)
    if capacity < 0:
        raise ValueError(f"capacity: expected at least 0 entries, got {capacity}")
    check_array("factors", factors, np.float32, (n_columns,))
    structure = _sparse("scores", scores, matrix.n_nodes)
    out = SparseScores(
        np.empty(count, np.uint64), np.empty(capacity, ENTRY), n_columns, scores.dtype
    )
    sums = np.empty(n_columns, np.float64)
    used = ffi.new("int64_t *")
    try:
        call(
            lib.lowshot_gather_to_sparse,
            links,
            selection,
            count,
            structure,
            pointer(factors),
            _sparse("out", out, count),
            used,
            pointer(sums),
            explain=_explain_scores(explain, rows, matrix.n_nodes),
        )
    except LibraryFault as fault:
        if fault.kind == lib.LOWSHOT_FULL:
            return None
        raise
    # Only what was written to has taken memory so far; this gives the rest of the addresses back.
    out.entries.resize(used[0], refcheck=False)
    return out, sums


def sum_neighbors(
    neighbors: npt.NDArray[np.int32],
    scores: DenseScores | SparseScores,
    factors: npt.NDArray[np.float32] | None = None,
) -> npt.NDArray[np.float32]:
    """For every row of a neighbour list, the plain sum of its neighbours' scores.

    result[r, c] = factors[c] Σ_j scores[neighbors[r, j], c], in single precision, over the entries
    that are not -1. A neighbour that a row lists twice counts twice.

    Args:
        neighbors: int32 (m, k); may be the first columns of a wider matrix.
        scores: (n, c).
        factors: float32 (c,); None: 1.

    Returns:
        float32 (m, c).

    Memory: the result; with sparse scores also about 16 c bytes a thread.

    Raises:
        ValueError: wrong type, shape or layout; an entry outside -1..n - 1; n over 2³¹ - 1.
    """
    stride = check_array("neighbors", neighbors, np.int32, ("m", "k"), strided=True)
    n_columns = _n_columns(scores)
    nodes = len(scores.spans) if isinstance(scores, SparseScores) else len(scores)
    check_node_count("scores", nodes)
    if factors is None:
        factors = np.ones(n_columns, np.float32)
    check_array("factors", factors, np.float32, (n_columns,))
    rows, width = neighbors.shape
    links = ffi.new(
        "struct lowshot_links *",
        {
            "rows": rows,
            "nodes": nodes,
            "edges": max((rows - 1) * stride + width, 0) if rows else 0,
            "width": width,
            "stride": stride,
            "indices": pointer(neighbors),
        },
    )
    out = np.empty((rows, n_columns), np.float32)
    out_structure = _dense("out", out, out.shape)
    _gather(links, (ffi.NULL, rows), scores, factors, out, out_structure, None,
            explain_neighbors("neighbors", neighbors, nodes))  # fmt: skip
    return out


def multiply_mkl(
    matrix: SparseMatrix, scores: npt.NDArray[np.float32], out: npt.NDArray[np.float32]
) -> None:
    """The product W scores, by Intel MKL.

    Args:
        matrix: W, n × n, with values.
        scores: float32 (n, c).
        out: float32 (n, c), overwritten with the product; shares no memory with the others.

    Memory: at most about 50 MB, for offsets.

    Raises:
        ValueError: wrong type, shape or layout; an offset or column out of range.
        RuntimeError: MKL is not installed, or reports an error.
    """
    mkl.require()
    check_matrix(matrix)
    if matrix.values is None:
        raise ValueError("values: expected a float32 array, got None")
    check_array("scores", scores, np.float32, (matrix.n_nodes, "c"))
    check_array("out", out, np.float32, scores.shape, writeable=True)
    check_no_overlap(
        "out",
        out,
        scores=scores,
        indptr=matrix.indptr,
        indices=matrix.indices,
        values=matrix.values,
    )
    values = matrix.values
    where_openmp_works(lambda: mkl.multiply(matrix.indptr, matrix.indices, values, scores, out))


def column_sums(
    scores: DenseScores | SparseScores, row_weights: npt.NDArray[np.float32] | None = None
) -> npt.NDArray[np.float64]:
    """Σ_i row_weights[i] scores[i, c] for every column c, in double precision.

    Args:
        scores: (n, c).
        row_weights: float32 (n,); None: 1.

    Returns:
        float64 (c,).

    Memory: 8 c bytes for each block of rows; there are at most 1024 blocks, of at least 256 rows.

    Raises:
        ValueError: wrong type, shape or layout.
        MemoryError: no room.
    """
    n_columns = _n_columns(scores)
    n_rows = len(scores.spans) if isinstance(scores, SparseScores) else len(scores)
    if row_weights is not None:
        check_array("row_weights", row_weights, np.float32, (n_rows,))
    weights = ffi.NULL if row_weights is None else pointer(row_weights)
    sums = np.empty(n_columns, np.float64)
    if isinstance(scores, SparseScores):
        function, structure = lib.lowshot_column_sums_sparse, _sparse("scores", scores, n_rows)
    else:
        function, structure = lib.lowshot_column_sums, _dense("scores", scores, ("n", "c"))
    call(function, structure, weights, pointer(sums), explain=_changed)
    return sums


def scale_columns(scores: npt.NDArray[np.float32], factors: npt.NDArray[np.float32]) -> None:
    """scores[i, c] ← factors[c] scores[i, c], in place.

    Args:
        scores: float32 (n, c).
        factors: float32 (c,).

    Memory: none besides the arguments.

    Raises:
        ValueError: wrong type, shape or layout.
    """
    check_array("scores", scores, np.float32, ("n", "c"), writeable=True, strided=True)
    check_array("factors", factors, np.float32, (scores.shape[1],))
    check_no_overlap("scores", scores, factors=factors)
    structure = _dense("scores", scores, ("n", "c"))
    call(lib.lowshot_scale_columns, structure, pointer(factors), explain=_changed)


def block_sum_bytes(n_rows: int) -> int:
    """Memory that sums of columns take for each column: doubles, for blocks of rows."""
    return 8 * min(-(-n_rows // 256), 1024)


def _gather(
    links: Any,
    selection: tuple[Any, int],
    scores: DenseScores | SparseScores,
    factors: npt.NDArray[np.float32],
    out: DenseScores,
    out_structure: Any,
    sums: npt.NDArray[np.float64] | None,
    explain: Explain,
) -> None:
    nodes = links.nodes
    if isinstance(scores, SparseScores):
        function, structure = lib.lowshot_gather_sparse, _sparse("scores", scores, nodes)
        check_no_overlap("out", out, spans=scores.spans, entries=scores.entries)
    else:
        function, structure = lib.lowshot_gather, _dense("scores", scores, (nodes, "c"))
        check_no_overlap("out", out, scores=scores)
    if scores.dtype == np.float32 and out.dtype != np.float32:
        raise ValueError("out: expected float32 for float32 scores, got uint16 (bfloat16)")
    call(
        function,
        links,
        *selection,
        structure,
        pointer(factors),
        out_structure,
        ffi.NULL if sums is None else pointer(sums),
        explain=explain,
    )


def _n_columns(scores: DenseScores | SparseScores) -> int:
    if isinstance(scores, SparseScores):
        if not 0 <= scores.n_columns <= MAX_SPARSE_COLUMNS:
            raise ValueError(
                f"scores.n_columns: expected 0..{MAX_SPARSE_COLUMNS}, got {scores.n_columns}"
            )
        if np.dtype(scores.dtype) not in FORMATS:
            raise ValueError(f"scores.dtype: expected float32 or uint16, got {scores.dtype}")
        check_array("scores.spans", scores.spans, np.uint64, ("n",))
        return scores.n_columns
    _dense("scores", scores, ("n", "c"))
    return int(scores.shape[1])


def _check_dtype(name: str, array: object, dtype: npt.DTypeLike) -> None:
    """Raises ValueError unless an array of any shape and layout has the type."""
    found = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
    if found != np.dtype(dtype):
        raise ValueError(f"{name}: expected a {np.dtype(dtype)} array, got {found}")


def _dense(
    name: str, scores: DenseScores, shape: tuple[int | str, ...], writeable: bool = False
) -> Any:
    found = getattr(scores, "dtype", None)
    dtype: type[Any] = np.uint16 if found == np.dtype(np.uint16) else np.float32
    stride = check_array(name, scores, dtype, shape, strided=True, writeable=writeable)
    check_node_count(name, len(scores))
    return ffi.new(
        "struct lowshot_dense *",
        {
            "values": ffi.cast("void *", scores.ctypes.data),
            "rows": scores.shape[0],
            "columns": scores.shape[1],
            "stride": stride,
            "format": FORMATS[scores.dtype],
        },
    )


def _sparse(name: str, scores: SparseScores, rows: int) -> Any:
    check_array(f"{name}.spans", scores.spans, np.uint64, (rows,))
    check_array(f"{name}.entries", scores.entries, ENTRY, ("m",))
    return ffi.new(
        "struct lowshot_sparse *",
        {
            "spans": pointer(scores.spans),
            "entries": ffi.cast("struct lowshot_entry *", scores.entries.ctypes.data),
            "rows": rows,
            "columns": scores.n_columns,
            "capacity": scores.entries.size,
            "format": FORMATS[np.dtype(scores.dtype)],
        },
    )


def _selection(rows: npt.NDArray[np.int32] | None, n_rows: int) -> tuple[Any, int]:
    if rows is None:
        return ffi.NULL, n_rows
    check_array("rows", rows, np.int32, ("m",))
    check_node_count("rows", rows.size)
    return pointer(rows), rows.size


def _explain_scores(explain: Explain, rows: npt.NDArray[np.int32] | None, n_rows: int) -> Explain:
    def explain_product(kind: int, which: int, row: int, column: int) -> str:
        if kind == lib.LOWSHOT_BAD_SELECTION and rows is not None:
            return f"rows: entry {row} holds {rows[row]}, expected 0..{n_rows - 1}"
        if kind == lib.LOWSHOT_BAD_SCORES:
            return "scores: found entries or columns out of range, or changed during the call"
        return explain(kind, which, row, column)

    return explain_product


def _changed(kind: int, which: int, row: int, column: int) -> str:
    return "scores: found entries or columns out of range, or changed during the call"
