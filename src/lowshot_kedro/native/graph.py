"""Native operations on graphs: symmetrising, normalising rows, merging neighbour lists."""

from typing import Any

import numpy as np
import numpy.typing as npt

from ._library import (
    call,
    check_array,
    check_no_overlap,
    explain_graph,
    explain_neighbors,
    ffi,
    lib,
    pointer,
)

INT32_MAX = int(np.iinfo(np.int32).max)


def symmetrize(
    neighbors: npt.NDArray[np.int32],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """The compressed sparse row form of A + Aᵀ, for the 0/1 matrix A of a neighbour list.

    A[i, j] = 1 if j occurs in row i at least once. So a link in one direction gets 1, a mutual link
    2, and so does the diagonal of a node that lists itself.

    Args:
        neighbors: int32 (n, k), the neighbours of each of n nodes. -1 is a missing neighbour. May
            be the first columns of a wider matrix (``wide[:, :k]``); it is not copied.

    Returns:
        ``indptr`` int64 (n + 1,), ``indices`` int32 (nnz,), sorted and distinct within each row,
        and ``values`` float32 (nnz,), each 1 or 2.

    Memory: 8 n bytes for indptr, 8 bytes for each of the n k links while working, 4 nnz for the
    values at the end, next to the input. nnz is at most 2 n k.

    Raises:
        ValueError: wrong type, shape or layout; an entry outside -1..n - 1; n over 2³¹ - 1.
    """
    stride = check_array("neighbors", neighbors, np.int32, ("n", "k"), strided=True)
    rows, width = neighbors.shape
    _check_node_count("neighbors", rows)
    explain = explain_neighbors("neighbors", neighbors, rows)
    links = (pointer(neighbors), rows, width, stride)
    indptr = np.empty(rows + 1, np.int64)
    size = ffi.new("int64_t *")
    call(lib.lowshot_symmetrize_count, *links, pointer(indptr), size, explain=explain)
    indices = np.empty(size[0], np.int32)
    call(
        lib.lowshot_symmetrize_fill,
        *links,
        pointer(indptr),
        pointer(indices),
        indices.size,
        size,
        explain=explain,
    )
    # Gives the room of merged links back to the system; nobody else has seen the array yet.
    indices.resize(size[0], refcheck=False)
    values = np.empty(size[0], np.float32)
    call(
        lib.lowshot_symmetrize_unpack,
        pointer(indices),
        pointer(values),
        indices.size,
        explain=explain,
    )
    return indptr, indices, values


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


def check_row_count(indptr: npt.NDArray[np.int64]) -> int:
    """The number of rows of a compressed sparse row matrix."""
    if indptr.size == 0:
        raise ValueError("indptr: expected n + 1 offsets, got none")
    _check_node_count("indptr", indptr.size - 1)
    return indptr.size - 1


def _check_node_count(name: str, rows: int) -> None:
    if rows > INT32_MAX:
        raise ValueError(f"{name}: expected at most {INT32_MAX} nodes, got {rows}")
