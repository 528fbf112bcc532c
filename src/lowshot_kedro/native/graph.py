"""Native operations on graphs: node ordering, symmetrising, normalising, merging neighbours."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ._library import (
    INT32_MAX,
    Explain,
    call,
    check_array,
    check_no_overlap,
    check_node_count,
    explain_graph,
    explain_neighbors,
    ffi,
    lib,
    pointer,
)

# A range of rows is symmetrised at a time, and its links are held three times over meanwhile.
SYMMETRIZE_RANGES = 24
# Smaller ranges than this save nothing worth the threads' waiting for each other.
MIN_RANGE_ROWS = 16384


class SparseMatrix(NamedTuple):
    """A sparse n × n matrix in compressed sparse rows, with or without an array of values.

    Attributes:
        indptr: int64 (n + 1,). The entries of row i stand at indptr[i]..indptr[i + 1] - 1.
        indices: int32 (nnz,), their columns.
        mutual: int32 (n,), or None. If given there are no values: the first mutual[i] entries of
            row i are twice as large as its other ones, and a row that has entries sums to 1.
        values: float32 (nnz,), or None.
    """

    indptr: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int32]
    mutual: npt.NDArray[np.int32] | None
    values: npt.NDArray[np.float32] | None

    @property
    def n_nodes(self) -> int:
        """Rows and columns."""
        return len(self.indptr) - 1

    @property
    def n_bytes(self) -> int:
        """Memory of the arrays."""
        return sum(array.nbytes for array in self if array is not None)


def cluster_nodes(neighbors: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """An order of the nodes in which neighbours are near each other.

    Groups form by min-wise hashing of neighbourhoods and are then refined by label propagation
    (Raghavan, Albert and Kumara, "Near linear time algorithm to detect community structures in
    large-scale networks", Physical Review E 76, 2007); nodes are sorted by group.

    Args:
        neighbors: int32 (n, k), most similar first, -1 for none; may be the first columns of a
            wider matrix.

    Returns:
        int32 (n,): the node that comes first, second, and so on.

    Memory: 16 n bytes next to the result.

    Raises:
        ValueError: wrong type, shape or layout; an entry outside -1..n - 1; n over 2³¹ - 1.
        MemoryError: no room.
    """
    structure, explain = _neighbors(neighbors)
    order = np.empty(len(neighbors), np.int32)
    call(lib.lowshot_cluster_nodes, structure, pointer(order), explain=explain)
    return order


def symmetrize(
    neighbors: npt.NDArray[np.int32],
    weights: npt.NDArray[np.float32] | None = None,
    reciprocal: bool = False,
) -> SparseMatrix:
    """A + Aᵀ, for the matrix A of a neighbour list.

    Without weights A[i, j] = 1 if j occurs in row i. Each row of the result then holds its mutual
    links, where A + Aᵀ is 2, before those in one direction, where it is 1, and ``mutual`` counts
    the former. With weights A[i, j] is that of the first j in row i, and the result has values.
    Either way entries are sorted by column within the mutual ones and within the others.

    Args:
        neighbors: int32 (n, k), the neighbours of each of n nodes. -1 is a missing neighbour. May
            be the first columns of a wider matrix (``wide[:, :k]``); it is not copied.
        weights: float32 (n, k), or None.
        reciprocal: keep only mutual links.

    Memory: 12 n bytes and, for each entry, 4 bytes (8 with weights) for the result, and while
    working at most a tenth of that. nnz is at most 2 n k.

    Raises:
        ValueError: wrong type, shape or layout; an entry outside -1..n - 1; n over 2³¹ - 1.
        MemoryError: no room.
    """
    structure, explain = _neighbors(neighbors)
    rows, width = neighbors.shape
    if weights is not None:
        check_array("weights", weights, np.float32, (rows, width))
    indptr = np.zeros(rows + 1, np.int64)
    mutual = np.empty(rows, np.int32)
    indices = np.empty(0, np.int32)
    values = None if weights is None else np.empty(0, np.float32)
    range_rows = max(-(-rows // SYMMETRIZE_RANGES), MIN_RANGE_ROWS)
    incoming = np.empty(-(-rows // range_rows), np.int64)
    call(lib.lowshot_count_incoming, structure, range_rows, pointer(incoming), explain=explain)
    for number, first in enumerate(range(0, rows, range_rows)):
        last = min(first + range_rows, rows)
        room = int(indptr[first] + incoming[number] + (last - first) * width)
        # Growing moves pages, not their contents. Nobody else has seen the arrays yet.
        indices.resize(max(room, len(indices)), refcheck=False)
        if values is not None:
            values.resize(len(indices), refcheck=False)
        call(
            lib.lowshot_symmetrize_range,
            structure,
            ffi.NULL if weights is None else pointer(weights),
            int(reciprocal),
            first,
            last,
            len(indices),
            pointer(indptr),
            pointer(mutual),
            pointer(indices),
            ffi.NULL if values is None else pointer(values),
            explain=explain,
        )
    indices.resize(indptr[-1], refcheck=False)
    if values is None:
        return SparseMatrix(indptr, indices, mutual, None)
    values.resize(indptr[-1], refcheck=False)
    return SparseMatrix(indptr, indices, None, values)


def renumber(
    neighbors: npt.NDArray[np.int32], order: npt.NDArray[np.int32], rank: npt.NDArray[np.int32]
) -> npt.NDArray[np.int32]:
    """The same neighbour lists with nodes in another order.

    Args:
        neighbors: int32 (n, k), -1 for none; may be the first columns of a wider matrix.
        order: int32 (n,), every node once: the node that becomes number 0, 1, and so on.
        rank: int32 (n,), its inverse: the number that each node gets.

    Returns:
        int32 (n, k): row i lists the new numbers of the neighbours of node order[i].

    Memory: the result, nothing else.

    Raises:
        ValueError: wrong type, shape or layout; an entry outside -1..n - 1; an order that is no
            permutation, or not the inverse of rank.
    """
    structure, explain = _neighbors(neighbors)
    rows, width = neighbors.shape
    check_array("order", order, np.int32, (rows,))
    check_array("rank", rank, np.int32, (rows,))
    renumbered = np.empty((rows, width), np.int32)

    def explain_order(kind: int, which: int, row: int, column: int) -> str:
        if kind == lib.LOWSHOT_BAD_ORDER:
            return "order: expected every node once, and rank to be its inverse"
        return explain(kind, which, row, column)

    call(
        lib.lowshot_renumber,
        structure,
        pointer(order),
        pointer(rank),
        pointer(renumbered),
        explain=explain_order,
    )
    return renumbered


def check_matrix(matrix: SparseMatrix) -> None:
    """Raises ValueError if offsets, counts or columns of a matrix are out of range."""
    links, explain = matrix_links(matrix)
    call(lib.lowshot_check_links, links, explain=explain)


def column_totals(matrix: SparseMatrix) -> npt.NDArray[np.float32]:
    """The sum of each column, float32 (n,), added in double precision.

    Memory: 8 n bytes next to the result.

    Raises:
        ValueError: wrong type, shape or layout; offsets, counts or columns out of range.
    """
    links, explain = matrix_links(matrix)
    totals = np.empty(matrix.n_nodes, np.float32)
    call(lib.lowshot_column_totals, links, pointer(totals), explain=explain)
    return totals


def normalize_rows(indptr: npt.NDArray[np.int64], values: npt.NDArray[np.float32]) -> None:
    """Divides each row of a sparse matrix by the sum of its absolute values, in place.

    The sum is taken in double precision. A row whose sum is zero stays as it is.

    Args:
        indptr: int64 (n + 1,), offsets of the rows of a compressed sparse row matrix.
        values: float32 (nnz,), its values, changed in place.

    Memory: none besides the arguments.

    Raises:
        ValueError: wrong type, shape or layout; offsets that do not start at 0, decrease, or do not
            end at nnz; arguments that share memory.
    """
    check_array("indptr", indptr, np.int64, ("n + 1",))
    check_array("values", values, np.float32, ("nnz",), writeable=True)
    check_no_overlap("values", values, indptr=indptr)
    rows = check_row_count(indptr)
    call(
        lib.lowshot_normalize_rows,
        pointer(indptr),
        pointer(values),
        rows,
        values.size,
        explain=explain_graph(indptr, None, values.size, rows),
    )


def shift_neighbors(
    indices: npt.NDArray[np.int32],
    similarities: npt.NDArray[np.float32],
    n_nodes: int,
    offset: int,
    shifted: npt.NDArray[np.int32],
) -> None:
    """Numbers of neighbours moved up by an offset, of nodes before which others are put.

    Args:
        indices: int32 (n, k), -1 for none. Like the similarities, this may be the first columns of
            a wider matrix.
        similarities: float32 (n, k), only looked at.
        n_nodes: Number of nodes.
        offset: Added to every number but -1.
        shifted: int32 (n, k), C-contiguous, for the result.

    Raises:
        ValueError: Wrong type, shape or layout; a number that is neither -1 nor a node; a
            similarity of a neighbour that is not finite.
    """
    indices_stride = check_array("indices", indices, np.int32, ("n", "k"), strided=True)
    rows, columns = indices.shape
    stride = check_array("similarities", similarities, np.float32, (rows, columns), strided=True)
    check_array("shifted", shifted, np.int32, (rows, columns))
    if not 0 <= offset <= INT32_MAX - n_nodes:
        raise ValueError(f"offset: expected 0..{INT32_MAX - n_nodes}, got {offset}")

    def explain(kind: int, which: int, row: int, column: int) -> str:
        if kind == lib.LOWSHOT_NOT_FINITE:
            return (
                f"similarities: row {row}, column {column} holds {similarities[row, column]}, "
                "expected a finite number"
            )
        return (
            f"indices: row {row}, column {column} holds {indices[row, column]}, expected -1 or "
            f"0..{n_nodes - 1}"
        )

    call(
        lib.lowshot_shift_neighbors,
        ffi.new(
            "struct lowshot_ranking *",
            {
                "indices": pointer(indices),
                "similarities": pointer(similarities),
                "width": columns,
                "indices_stride": indices_stride,
                "similarities_stride": stride,
                "offset": offset,
            },
        ),
        rows,
        n_nodes,
        pointer(shifted),
        explain=explain,
    )


def merge_neighbors(
    first_indices: npt.NDArray[np.int32],
    first_similarities: npt.NDArray[np.float32],
    second_indices: npt.NDArray[np.int32],
    second_similarities: npt.NDArray[np.float32],
    k: int,
    first_offset: int = 0,
    second_offset: int = 0,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Of two ranked neighbour lists per row, keeps the k most similar entries of both together.

    Every input row is ordered by decreasing similarity, with missing neighbours (index -1, whose
    similarity is not looked at) at the end. On equal similarity the first list's entries come
    before the second's, and each list's entries keep their order. Entries are not compared by
    index: the lists are taken to speak of different sets of nodes.

    Args:
        first_indices: int32 (n, k1). Like the other three arrays, this may be the first columns of
            a wider matrix.
        first_similarities: float32 (n, k1).
        second_indices: int32 (n, k2).
        second_similarities: float32 (n, k2).
        k: number of neighbours to keep, at least 1.
        first_offset: added to every valid index of the first list.
        second_offset: added to every valid index of the second list.

    Returns:
        ``indices`` int32 (n, k) and ``similarities`` float32 (n, k), in decreasing similarity; rows
        with fewer than k entries end in -1 and minus infinity.

    Memory: the result, nothing else.

    Raises:
        ValueError: wrong type, shape or layout; an index below -1, or that with its offset leaves
            0..2³¹ - 1; a valid index after a missing one; a similarity of a valid index that is not
            finite, or larger than the one before.
    """
    first_stride = check_array("first_indices", first_indices, np.int32, ("n", "k1"), strided=True)
    rows, first_width = first_indices.shape
    first_similarities_stride = check_array(
        "first_similarities", first_similarities, np.float32, (rows, first_width), strided=True
    )
    second_stride = check_array(
        "second_indices", second_indices, np.int32, (rows, "k2"), strided=True
    )
    second_width = second_indices.shape[1]
    second_similarities_stride = check_array(
        "second_similarities", second_similarities, np.float32, (rows, second_width), strided=True
    )
    if k < 1:
        raise ValueError(f"k: expected at least 1 neighbour, got {k}")
    offsets = {"first_offset": first_offset, "second_offset": second_offset}
    for name, offset in offsets.items():
        if abs(offset) > INT32_MAX:
            raise ValueError(f"{name}: expected -{INT32_MAX}..{INT32_MAX}, got {offset}")

    lists: list[tuple[str, npt.NDArray[Any], npt.NDArray[Any]]] = [
        ("first", first_indices, first_similarities),
        ("second", second_indices, second_similarities),
    ]

    def explain(kind: int, which: int, row: int, column: int) -> str:
        name, indices_array, similarities_array = lists[which]
        where = f"row {row}, column {column}"
        index = f"{name}_indices: {where} holds {indices_array[row, column]}"
        similarity = f"{name}_similarities: {where} holds {similarities_array[row, column]}"
        if kind == lib.LOWSHOT_BAD_INDEX:
            return f"{index}, expected -1 or a node number"
        if kind == lib.LOWSHOT_VALID_AFTER_MISSING:
            return f"{index} after a missing neighbour, expected -1 to the end of the row"
        if kind == lib.LOWSHOT_SHIFTED_INDEX_TOO_LARGE:
            offset = offsets[f"{name}_offset"]
            return f"{index}, which with the offset {offset} is not in 0..{INT32_MAX}"
        if kind == lib.LOWSHOT_NOT_FINITE:
            return f"{similarity}, expected a finite number"
        return (
            f"{similarity} after {similarities_array[row, column - 1]}, "
            "expected decreasing similarities"
        )

    indices = np.empty((rows, k), np.int32)
    similarities = np.empty((rows, k), np.float32)
    first = ffi.new(
        "struct lowshot_ranking *",
        (
            pointer(first_indices),
            pointer(first_similarities),
            first_width,
            first_stride,
            first_similarities_stride,
            first_offset,
        ),
    )
    second = ffi.new(
        "struct lowshot_ranking *",
        (
            pointer(second_indices),
            pointer(second_similarities),
            second_width,
            second_stride,
            second_similarities_stride,
            second_offset,
        ),
    )
    call(
        lib.lowshot_merge_neighbors,
        first,
        second,
        rows,
        k,
        pointer(indices),
        pointer(similarities),
        explain=explain,
    )
    return indices, similarities


def matrix_links(matrix: SparseMatrix) -> tuple[Any, Explain]:
    """The C structure of a matrix, which keeps nothing alive, and its error messages."""
    indptr, indices, mutual, values = matrix
    check_array("indptr", indptr, np.int64, ("n + 1",))
    rows = check_row_count(indptr)
    check_array("indices", indices, np.int32, ("nnz",))
    if (mutual is None) == (values is None):
        raise ValueError("mutual and values: expected one of them, got both or neither")
    if mutual is not None:
        check_array("mutual", mutual, np.int32, (rows,))
    if values is not None:
        check_array("values", values, np.float32, (indices.size,))
    links = ffi.new(
        "struct lowshot_links *",
        {
            "rows": rows,
            "nodes": rows,
            "edges": indices.size,
            "indptr": pointer(indptr),
            "indices": pointer(indices),
            "mutual": ffi.NULL if mutual is None else pointer(mutual),
            "weights": ffi.NULL if values is None else pointer(values),
        },
    )
    explain = explain_graph(indptr, indices, indices.size, rows, mutual)
    # Loops over rows look at both ends of each, and would leave out what lies before and behind.
    for row, offset in ((0, 0), (rows, indices.size)):
        if indptr[row] != offset:
            raise ValueError(explain(lib.LOWSHOT_BAD_OFFSET, 0, row, 0))
    return links, explain


def check_row_count(indptr: npt.NDArray[np.int64]) -> int:
    """The number of rows of a compressed sparse row matrix."""
    if indptr.size == 0:
        raise ValueError("indptr: expected n + 1 offsets, got none")
    check_node_count("indptr", indptr.size - 1)
    return indptr.size - 1


def _neighbors(neighbors: npt.NDArray[np.int32]) -> tuple[Any, Explain]:
    """The C structure of a graph's neighbour list, and its error messages."""
    stride = check_array("neighbors", neighbors, np.int32, ("n", "k"), strided=True)
    rows, width = neighbors.shape
    check_node_count("neighbors", rows)
    structure = ffi.new(
        "struct lowshot_neighbors *",
        {"indices": pointer(neighbors), "rows": rows, "width": width, "stride": stride},
    )
    return structure, explain_neighbors("neighbors", neighbors, rows)
