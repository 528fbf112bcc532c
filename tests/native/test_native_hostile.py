"""Arrays no one should pass: through the wrappers, and straight to the compiled functions."""

import numpy as np
import pytest

from lowshot_kedro import native
from lowshot_kedro.native._library import ffi, lib

from .hostile import (
    BAD_SIZE,
    HUGE,
    KINDS,
    NULL,
    OK,
    changed,
    direct,
    garbage_numbers,
    refused,
    require_refusals,
    structure,
    unaligned,
)
from .strategies import to_sparse

NODES = 10
COLUMNS = 4
NEIGHBORS = np.arange(30, dtype=np.int32).reshape(NODES, 3) % NODES
SIMILARITIES = np.array([[3, 2, 1]] * NODES, np.float32)
WEIGHTS = np.ones((NODES, 3), np.float32)
SCORES = np.ones((NODES, COLUMNS), np.float32)
SPARSE = to_sparse(SCORES)
FACTORS = np.ones(COLUMNS, np.float32)
ORDER = np.array([9, 4, 3, 0, 1, 2, 8, 7, 6, 5], np.int32)
RANK = np.argsort(ORDER).astype(np.int32)
MUTUAL = native.symmetrize(NEIGHBORS)
VALUED = native.symmetrize(NEIGHBORS, WEIGHTS)
EDGES = MUTUAL.indices.size


LAYOUTS = [
    ([[1, 2]], "got a list"),
    (NEIGHBORS.astype(float), "got float64 (10, 3)"),
    (NEIGHBORS.astype(np.int64), "got int64 (10, 3)"),
    (NEIGHBORS.astype(np.uint32), "got uint32 (10, 3)"),
    (NEIGHBORS.astype(">i4"), "got int32 (10, 3) in foreign byte order"),
    (NEIGHBORS[0], "got int32 (3,)"),
    (NEIGHBORS[None], "got int32 (1, 10, 3)"),
    (NEIGHBORS.T, "got int32 (3, 10) with strides"),
    (np.asfortranarray(NEIGHBORS), "got int32 (10, 3) with strides"),
    (NEIGHBORS[:, ::2], "got int32 (10, 2) with strides"),
    (NEIGHBORS[::-1], "got int32 (10, 3) with strides"),
    (NEIGHBORS[:, ::-1], "got int32 (10, 3) with strides"),
    (np.broadcast_to(NEIGHBORS[0], (5, 3)), "got int32 (5, 3) with strides (0, 4)"),
    (unaligned(NEIGHBORS), "got int32 (10, 3) at an unaligned address"),
]


@pytest.mark.parametrize(("neighbors", "found"), LAYOUTS)
def test_neighbors_of_wrong_layout(neighbors, found):
    expected = "neighbors: expected a C-contiguous int32 array of shape ({}, k)"

    def renumber(neighbors):
        return native.renumber(neighbors, ORDER, RANK)

    for function in (native.symmetrize, native.cluster_nodes, renumber):
        with refused(expected.format("n")) as caught:
            function(neighbors)
        assert found in str(caught.value)
    for scores in (SCORES, SPARSE):
        with refused(expected.format("m")) as caught:
            native.sum_neighbors(neighbors, scores)
        assert found in str(caught.value)


@pytest.mark.parametrize("value", [10, 17, -2, 2**31 - 1, -(2**31)])
@pytest.mark.parametrize("width", [2, 3])
def test_neighbors_out_of_range(value, width):
    neighbors = changed(NEIGHBORS, (3, 1), value)[:, :width]
    message = f"neighbors: row 3, column 1 holds {value}, expected -1 or 0..9"
    with refused(message):
        native.symmetrize(neighbors)
    with refused(message):
        native.cluster_nodes(neighbors)
    with refused(message):
        native.renumber(neighbors, ORDER, RANK)
    for scores in (SCORES, native.to_bfloat16(SCORES), SPARSE):
        with refused(message):
            native.sum_neighbors(neighbors, scores)


def test_neighbors_in_a_graph_without_nodes():
    nothing = np.empty((0, 2), np.float32)
    for scores in (nothing, to_sparse(nothing)):
        with refused("row 0, column 1 holds 1, expected -1 (there are no nodes)"):
            native.sum_neighbors(np.array([[-1, 1]], np.int32), scores)


def on_matrix(function, base):
    """The function with the arrays of a matrix as arguments of their own."""

    def call(indptr, indices, **rest):
        parts = {name: rest.pop(name, None) for name in ("mutual", "values")}
        return function(native.SparseMatrix(indptr, indices, **parts), **rest)

    return call, {name: array for name, array in base._asdict().items() if array is not None}


def on_sparse(function):
    """The function with the arrays of sparse scores as arguments of their own."""

    def call(**arguments):
        scores = native.SparseScores(
            arguments.pop("scores.spans"), arguments.pop("scores.entries"), COLUMNS, np.float32
        )
        return function(scores=scores, **arguments)

    return call, {"scores.spans": SPARSE.spans, "scores.entries": SPARSE.entries}


def on_both(function, base):
    """The function with the arrays of a matrix and of sparse scores as arguments."""
    call, sparse = on_sparse(lambda matrix, **rest: function(matrix, **rest))
    split, arrays = on_matrix(lambda matrix, **rest: call(matrix=matrix, **rest), base)
    return split, {**arrays, **sparse}


def calls():
    """Every function with good arguments; of those that write, one that is made anew."""
    dense = {"scores": SCORES, "factors": FACTORS}
    out = {"out": np.empty_like(SCORES), "rows": ORDER}
    table = {
        "symmetrize": (native.symmetrize, {"neighbors": NEIGHBORS, "weights": WEIGHTS}),
        "cluster_nodes": (native.cluster_nodes, {"neighbors": NEIGHBORS}),
        "renumber": (
            native.renumber,
            {"neighbors": NEIGHBORS, "order": ORDER, "rank": RANK},
        ),
        "normalize_rows": (
            native.normalize_rows,
            {"indptr": VALUED.indptr, "values": VALUED.values.copy()},
        ),
        "column_sums": (
            native.column_sums,
            {"scores": SCORES, "row_weights": np.ones(NODES, "f4")},
        ),
        "column_sums of bfloat16": (native.column_sums, {"scores": native.to_bfloat16(SCORES)}),
        "scale_columns": (native.scale_columns, {"scores": SCORES.copy(), "factors": FACTORS}),
        "sum_neighbors": (native.sum_neighbors, {"neighbors": NEIGHBORS, **dense}),
        "to_bfloat16": (native.to_bfloat16, {"values": SCORES}),
        "from_bfloat16": (native.from_bfloat16, {"bits": native.to_bfloat16(SCORES)}),
    }
    for name, base in (("mutual", MUTUAL), ("values", VALUED)):
        for function in (native.check_matrix, native.column_totals):
            table[f"{function.__name__} with {name}"] = on_matrix(function, base)
        call, arrays = on_matrix(native.multiply, base)
        table[f"multiply with {name}"] = (call, {**arrays, **dense, **out})
        call, arrays = on_both(native.multiply, base)
        table[f"multiply sparse with {name}"] = (call, {**arrays, "factors": FACTORS, **out})
        call, arrays = on_both(
            lambda matrix, **rest: native.multiply_sparse(matrix, capacity=99, **rest), base
        )
        arrays = {**arrays, "factors": FACTORS, "rows": ORDER}
        table[f"multiply_sparse with {name}"] = (call, arrays)
    call, arrays = on_sparse(native.column_sums)
    table["column_sums of sparse scores"] = (call, {**arrays, "row_weights": np.ones(NODES, "f4")})
    call, arrays = on_sparse(native.sum_neighbors)
    arrays = {**arrays, "neighbors": NEIGHBORS, "factors": FACTORS}
    table["sum_neighbors of sparse scores"] = (call, arrays)
    if native.mkl_available():
        call, arrays = on_matrix(native.multiply_mkl, VALUED)
        arrays = {**arrays, "scores": SCORES, "out": np.empty_like(SCORES)}
        table["multiply_mkl"] = (call, arrays)
    return table


CALLS = calls()
ARGUMENTS = [(call, name) for call, (_, arguments) in CALLS.items() for name in arguments]
# These take any layout, for numpy does the work.
ELEMENTWISE = {"values of to_bfloat16", "bits of from_bfloat16"}
# Lengths that nothing else has to agree with.
FREE = {
    "neighbors": {*CALLS},
    "indices": {*CALLS},
    "values": {"normalize_rows"},
    "rows": {*CALLS},
    "scores": {"column_sums", "column_sums of bfloat16", "scale_columns", "sum_neighbors"},
    "scores.entries": {*CALLS},
    "scores.spans": {"column_sums of sparse scores", "sum_neighbors of sparse scores"},
    "indptr": {*CALLS},
}
WRITTEN = {"out": {*CALLS}, "values": {"normalize_rows"}, "scores": {"scale_columns"}}


@pytest.mark.parametrize(("call", "name"), ARGUMENTS)
def test_every_argument_is_checked(call, name):
    require_refusals(
        *CALLS[call],
        name,
        any_layout=f"{name} of {call}" in ELEMENTWISE,
        any_length=call in FREE.get(name, ()),
        is_written=call in WRITTEN.get(name, ()),
    )


def products():
    """What multiplies a matrix: dense, sparse, from sparse to sparse."""

    def dense(matrix, rows=None, scores=SCORES):
        size = NODES if rows is None else len(rows)
        native.multiply(matrix, scores, FACTORS, np.empty((size, COLUMNS), np.float32), rows)

    return {
        "float32": dense,
        "bfloat16": lambda *arguments: dense(*arguments, scores=native.to_bfloat16(SCORES)),
        "sparse": lambda *arguments: dense(*arguments, scores=SPARSE),
        "to sparse": lambda matrix, rows=None: native.multiply_sparse(
            matrix, SPARSE, FACTORS, 99, rows
        ),
    }


PRODUCTS = products()
MATRIX_READERS = {
    "check_matrix": native.check_matrix,
    "column_totals": native.column_totals,
    **{f"multiply {name}": function for name, function in PRODUCTS.items()},
}
if native.mkl_available():
    MATRIX_READERS["mkl"] = lambda matrix: native.multiply_mkl(
        matrix, SCORES, np.empty_like(SCORES)
    )
BAD_OFFSETS = [
    (0, 1, "indptr: entry 0 holds 1, expected 0: offsets start at 0"),
    (0, -1, "indptr: entry 0 holds -1, expected 0"),
    (4, -5, "indptr: entry 4 holds -5 after"),
    (4, 2**62, "indptr: entry 5 holds"),
    (5, 0, "indptr: entry 5 holds 0 after"),
    (-1, EDGES - 1, f"expected {EDGES}: offsets end at the number of edges"),
    (-1, EDGES + 1, f"expected {EDGES}: offsets end at the number of edges"),
    (-1, 2**62, f"expected {EDGES}: offsets end at the number of edges"),
    (-1, -(2**63), "indptr: entry 10 holds -9223372036854775808 after"),
]


@pytest.fixture(params=["mutual", "values"])
def matrix(request):
    return MUTUAL if request.param == "mutual" else VALUED


# MKL takes no matrices without values.
READERS = [
    (reader, matrix)
    for reader in MATRIX_READERS
    for matrix in (MUTUAL, VALUED)
    if reader != "mkl" or matrix is VALUED
]
each_reader = pytest.mark.parametrize(
    ("reader", "matrix"),
    READERS,
    ids=[f"{reader}-{'mutual' if matrix is MUTUAL else 'values'}" for reader, matrix in READERS],
)


@pytest.mark.parametrize(("position", "value", "message"), BAD_OFFSETS)
@each_reader
def test_bad_offsets(position, value, message, reader, matrix):
    bad = matrix._replace(indptr=changed(matrix.indptr, position, value))
    with refused(message):
        MATRIX_READERS[reader](bad)


@pytest.mark.parametrize(("position", "value", "message"), BAD_OFFSETS)
def test_bad_offsets_of_rows_to_normalize(position, value, message):
    indptr = changed(VALUED.indptr, position, value)
    with refused(message):
        native.normalize_rows(indptr, VALUED.values.copy())


@each_reader
@pytest.mark.parametrize("value", [-1, NODES, 2**31 - 1, -(2**31)])
def test_bad_column_indices(reader, value, matrix):
    bad = matrix._replace(indices=changed(matrix.indices, 7, value))
    with refused(f"indices: entry 7 holds {value}, expected 0..9"):
        MATRIX_READERS[reader](bad)


@pytest.mark.parametrize("reader", sorted({*MATRIX_READERS} - {"mkl"}))
@pytest.mark.parametrize("value", [-1, 7, 2**31 - 1, -(2**31)])
def test_bad_counts_of_mutual_links(reader, value):
    links = MUTUAL.indptr[5] - MUTUAL.indptr[4]
    bad = MUTUAL._replace(mutual=changed(MUTUAL.mutual, 4, value))
    with refused(f"mutual: entry 4 holds {value}, expected 0..{links}"):
        MATRIX_READERS[reader](bad)


@pytest.mark.parametrize("reader", MATRIX_READERS)
def test_matrices_that_are_none(reader):
    act = MATRIX_READERS[reader]
    both = VALUED._replace(mutual=MUTUAL.mutual)
    for matrix in (both, VALUED._replace(values=None)):
        with refused("mutual and values: expected one of them, got both or neither"):
            act(matrix)
    with refused("indptr: expected n + 1 offsets, got none"):
        act(VALUED._replace(indptr=VALUED.indptr[:0]))


def test_matrices_without_nodes_that_hold_links():
    nothing = native.SparseMatrix(
        np.zeros(1, np.int64), np.zeros(3, np.int32), np.empty(0, np.int32), None
    )
    with refused("indptr: entry 0 holds 0, expected 3: offsets end at the number of edges"):
        native.check_matrix(nothing)


@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("value", [-1, NODES, 2**31 - 1, -(2**31)])
def test_rows_out_of_range(product, value, matrix):
    with refused(f"rows: entry 2 holds {value}, expected 0..9"):
        PRODUCTS[product](matrix, np.array([3, 4, value, 5], np.int32))


def test_orders_that_are_none():
    message = "order: expected every node once, and rank to be its inverse"
    for value in (-1, NODES, 2**31 - 1, -(2**31), ORDER[5]):
        with refused(message):
            native.renumber(NEIGHBORS, changed(ORDER, 4, value), RANK)
        with refused(message):
            native.renumber(NEIGHBORS, ORDER, changed(RANK, 4, value))
    with refused(message):
        native.renumber(NEIGHBORS, np.zeros(NODES, np.int32), np.zeros(NODES, np.int32))
    with refused(message):
        native.renumber(NEIGHBORS, ORDER, ORDER)


BAD_SPANS = [
    len(SPARSE.entries) << 24 | 1,
    (len(SPARSE.entries) - 1) << 24 | 2,
    2**64 - 1,
    (2**40 - 1) << 24,
    2**24 - 1,
]
SCORE_READERS = {
    "column_sums": native.column_sums,
    "sum_neighbors": lambda scores: native.sum_neighbors(NEIGHBORS, scores),
    "multiply": lambda scores: native.multiply(MUTUAL, scores, FACTORS, np.empty_like(SCORES)),
    "multiply_sparse": lambda scores: native.multiply_sparse(MUTUAL, scores, FACTORS, 99),
}


@pytest.mark.parametrize("reader", SCORE_READERS)
def test_sparse_scores_out_of_range(reader):
    for span in BAD_SPANS:
        for row in (0, NODES - 1):
            with refused("{}: ".format("neighbors" if reader == "sum_neighbors" else "scores")):
                SCORE_READERS[reader](SPARSE._replace(spans=changed(SPARSE.spans, row, span)))
    first = int(SPARSE.spans[3] >> np.uint64(24))
    for column in (-1, COLUMNS, 2**31 - 1, -(2**31)):
        entries = SPARSE.entries.copy()
        entries["column"][first] = column
        with refused("{}: ".format("neighbors" if reader == "sum_neighbors" else "scores")):
            SCORE_READERS[reader](SPARSE._replace(entries=entries))


@pytest.mark.parametrize("reader", SCORE_READERS)
def test_sparse_scores_of_wrong_width_or_type(reader):
    for columns in (-1, 2**24, 2**62):
        with pytest.raises(ValueError, match=r"(n_columns|factors): expected"):
            SCORE_READERS[reader](SPARSE._replace(n_columns=columns))
    with pytest.raises(ValueError, match=r"scores.dtype: expected"):
        SCORE_READERS[reader](SPARSE._replace(dtype=np.dtype(float)))


def test_sparse_scores_from_wrong_arrays():
    def make(shape=(NODES, COLUMNS), dtype=np.float32, **changes):
        arguments = {
            "rows": np.array([1, 2]),
            "columns": np.array([3, 0]),
            "values": np.ones(2, np.float32),
        }
        return native.sparse_scores(**{**arguments, **changes}, shape=shape, dtype=dtype)

    make()
    for value, found in ((-1, "-1..1"), (NODES, "1..10"), (2**62, f"1..{2**62}")):
        with refused(f"rows: found {found}, expected 0..9"):
            make(rows=np.array([1, value]))
    for value, found in ((-1, "-1..0"), (COLUMNS, "0..4"), (2**62, f"0..{2**62}")):
        with refused(f"columns: found {found}, expected 0..3"):
            make(columns=np.array([value, 0]))
    for name in ("rows", "columns", "values"):
        for wrong in (np.ones(1, np.float32), np.ones(3, np.float32), np.ones(2), [1, 2]):
            with pytest.raises(ValueError, match=f"{name}: "):
                make(**{name: wrong})
    with refused("rows, columns: expected each pair at most once"):
        make(rows=np.array([1, 1]), columns=np.array([3, 3]))
    with refused("dtype: "):
        make(dtype=float)
    for columns in (-1, 2**24):
        with refused("shape: "):
            make(shape=(NODES, columns), rows=np.array([], int), columns=np.array([], int),
                 values=np.ones(0, np.float32))  # fmt: skip


def test_capacity_of_sparse_results():
    with refused("capacity: expected "):
        native.multiply_sparse(MUTUAL, SPARSE, FACTORS, -1)
    with pytest.raises((ValueError, MemoryError)):
        native.multiply_sparse(MUTUAL, SPARSE, FACTORS, 2**60)


def test_float32_scores_are_not_rounded_by_a_product():
    out = np.empty((NODES, COLUMNS), np.uint16)
    for scores in (SCORES, SPARSE):
        with refused("out: expected float32 for float32 scores, got uint16 (bfloat16)"):
            native.multiply(MUTUAL, scores, FACTORS, out)


def test_out_needs_memory_of_its_own(matrix):
    def multiply(out, matrix=matrix, scores=SCORES, factors=FACTORS, rows=None):
        native.multiply(matrix, scores, factors, out, rows)

    message = "out: expected memory of its own, got memory shared with "
    scores = SCORES.copy()
    with refused(message + "scores"):
        multiply(scores, scores=scores)
    overlapping = np.ones((NODES + 3, COLUMNS), np.float32)
    with refused(message + "scores"):
        multiply(overlapping[:-3], scores=overlapping[3:])
    buffer = np.ones(NODES * COLUMNS + 30, np.float32)
    out = buffer[: NODES * COLUMNS].reshape(NODES, COLUMNS)
    with refused(message + "factors"):
        multiply(out, factors=buffer[NODES * COLUMNS - 1 :][:COLUMNS])
    with refused(message + "rows"):
        multiply(out, rows=buffer[NODES * COLUMNS - 1 :][:NODES].view(np.int32))
    for place, array in enumerate(matrix):
        if array is not None:
            shared = np.zeros(array.nbytes // 4 + NODES * COLUMNS, np.float32)
            copy = shared[: array.nbytes // 4].view(array.dtype)
            copy[:] = array
            out = shared[array.nbytes // 4 - 1 :][: NODES * COLUMNS].reshape(NODES, COLUMNS)
            parts = [*matrix]
            parts[place] = copy
            with refused(f"{message}matrix[{place}]"):
                multiply(out, native.SparseMatrix(*parts))
    for name in ("spans", "entries"):
        array = getattr(SPARSE, name)
        shared = np.zeros(array.nbytes // 4 + NODES * COLUMNS, np.float32)
        copy = shared[: array.nbytes // 4].view(array.dtype)
        copy[:] = array
        out = shared[array.nbytes // 4 - 1 :][: NODES * COLUMNS].reshape(NODES, COLUMNS)
        with refused(message + name):
            multiply(out, scores=SPARSE._replace(**{name: copy}))


def test_results_in_place_need_memory_of_their_own():
    buffer = np.zeros(4, np.int64)
    with refused("values: expected memory of its own, got memory shared with indptr"):
        native.normalize_rows(buffer, buffer.view(np.float32))
    scores = SCORES.copy()
    with refused("scores: expected memory of its own, got memory shared with factors"):
        native.scale_columns(scores, scores[0])


def merge(k=3, **changes):
    arguments = {
        "first_indices": NEIGHBORS,
        "first_similarities": SIMILARITIES,
        "second_indices": NEIGHBORS,
        "second_similarities": SIMILARITIES,
    }
    return native.merge_neighbors(**{**arguments, **changes}, k=k)


@pytest.mark.parametrize("which", ["first", "second"])
def test_merge_with_wrong_lists(which):
    indices, similarities = f"{which}_indices", f"{which}_similarities"
    with refused(f"{indices}: row 4, column 1 holds -2, expected -1 or a node number"):
        merge(**{indices: changed(NEIGHBORS, (4, 1), -2)})
    with refused(f"{indices}: row 4, column 1 holds 3 after a missing neighbour, expected -1"):
        merge(**{indices: changed(NEIGHBORS, (4, 0), -1)})
    with refused(f"{indices}: row 0, column 1 holds 1, which with the offset 2147483647 is not"):
        merge(**{f"{which}_offset": 2**31 - 1})
    with refused(f"{indices}: row 0, column 0 holds 0, which with the offset -1 is not in 0"):
        merge(**{f"{which}_offset": -1})
    with refused(f"{which}_offset: expected -2147483647..2147483647, got 2147483648"):
        merge(**{f"{which}_offset": 2**31})
    for value in (np.nan, np.inf, -np.inf):
        with refused(f"{similarities}: row 5, column 1 holds {value}, expected a finite number"):
            merge(**{similarities: changed(SIMILARITIES, (5, 1), value)})
    with refused(f"{similarities}: row 5, column 1 holds 9.0 after 3.0, expected decreasing"):
        merge(**{similarities: changed(SIMILARITIES, (5, 1), 9)})
    with refused(f"{similarities}: expected a C-contiguous float32 array of shape (10, 3)"):
        merge(**{similarities: SIMILARITIES[:, :2]})
    with refused(f"{indices}: expected a C-contiguous int32 array"):
        merge(**{indices: SIMILARITIES})


def shift(indices=NEIGHBORS, similarities=SIMILARITIES, n_nodes=NODES, offset=7, shifted=None):
    shifted = np.zeros_like(NEIGHBORS) if shifted is None else shifted
    native.shift_neighbors(indices, similarities, n_nodes, offset, shifted)


def test_shifted_neighbors_that_are_none():
    for value in (NODES, -2, 2**31 - 1, -(2**31)):
        with refused(f"indices: row 4, column 1 holds {value}, expected -1 or 0..9"):
            shift(changed(changed(NEIGHBORS, (4, 1), value), (6, 0), -5))
    for value in (np.nan, np.inf, -np.inf):
        similarities = changed(SIMILARITIES, (5, 2), value)
        with refused(f"similarities: row 5, column 2 holds {value}, expected a finite number"):
            shift(similarities=similarities)
        shift(changed(NEIGHBORS, (5, 2), -1), similarities)
    for offset in (-1, 2**31 - NODES, 2**40):
        with refused(f"offset: expected 0..{2**31 - 1 - NODES}, got {offset}"):
            shift(offset=offset)
    shift(offset=2**31 - 1 - NODES)
    with refused("shifted: expected a C-contiguous int32 array of shape (10, 3), got int32 (9, 3)"):
        shift(shifted=np.zeros((9, 3), np.int32))
    with refused("similarities: expected "):
        shift(similarities=SIMILARITIES[:9])


def test_merge_with_wrong_sizes():
    with refused("second_indices: expected a C-contiguous int32 array of shape (10, k2)"):
        merge(second_indices=NEIGHBORS[:4])
    for k in (0, -3):
        with refused(f"k: expected at least 1 neighbour, got {k}"):
            merge(k=k)


# From here on, without the wrappers.

FIELDS = {
    "neighbors": {"indices": NEIGHBORS, "rows": NODES, "width": 3, "stride": 3},
    "links": {
        "rows": NODES,
        "nodes": NODES,
        "edges": EDGES,
        "indptr": MUTUAL.indptr,
        "indices": MUTUAL.indices,
        "mutual": MUTUAL.mutual,
    },
    "dense": {
        "values": ffi.cast("void *", SCORES.ctypes.data),
        "rows": NODES,
        "columns": COLUMNS,
        "stride": COLUMNS,
        "format": lib.LOWSHOT_FLOAT32,
    },
    "sparse": {
        "spans": SPARSE.spans,
        "entries": SPARSE.entries,
        "rows": NODES,
        "columns": COLUMNS,
        "capacity": len(SPARSE.entries),
        "format": lib.LOWSHOT_FLOAT32,
    },
}


def good(kind, **changes):
    return structure(kind, **{**FIELDS[kind], **changes})


class Workshop:
    """Room for the results of every function, and what they are called with."""

    def __init__(self):
        self.out_memory = np.empty((NODES, COLUMNS), np.float32)
        self.out = self.dense_out()
        self.sums = np.empty(COLUMNS)
        self.spans = np.empty(NODES, np.uint64)
        self.entries = np.empty(NODES * COLUMNS, SPARSE.entries.dtype)
        self.sparse_out = good(
            "sparse", spans=self.spans, entries=self.entries, capacity=NODES * COLUMNS
        )
        self.used = ffi.new("int64_t *")
        self.order = np.empty(NODES, np.int32)
        self.incoming = np.empty(2, np.int64)
        self.indptr = np.zeros(NODES + 1, np.int64)
        self.mutual = np.empty(NODES, np.int32)
        self.indices = np.empty(60, np.int32)
        self.totals = np.empty(NODES, np.float32)
        self.renumbered = np.empty((NODES, 3), np.int32)

    def dense_out(self, **changes):
        values = ffi.cast("void *", self.out_memory.ctypes.data)
        return good("dense", **{"values": values, **changes})

    def call(self, function, **changes):
        arguments = {**self.arguments(function), **changes}
        return direct(getattr(lib, f"lowshot_{function}"), *arguments.values())

    def arguments(self, function):
        product = {"links": good("links"), "selection": NULL, "selected": NODES}
        return {
            "cluster_nodes": {"neighbors": good("neighbors"), "order": self.order},
            "count_incoming": {
                "neighbors": good("neighbors"),
                "range_rows": 5,
                "incoming": self.incoming,
            },
            "symmetrize_range": {
                "neighbors": good("neighbors"),
                "weights": NULL,
                "reciprocal": 0,
                "first": 0,
                "last": NODES,
                "capacity": 60,
                "indptr": self.indptr,
                "mutual": self.mutual,
                "indices": self.indices,
                "values": NULL,
            },
            "renumber": {
                "neighbors": good("neighbors"),
                "order": ORDER,
                "rank": RANK,
                "renumbered": self.renumbered,
            },
            "check_links": {"links": good("links")},
            "column_totals": {"links": good("links"), "totals": self.totals},
            "gather": {
                **product,
                "in": good("dense"),
                "factors": FACTORS,
                "out": self.out,
                "sums": self.sums,
            },
            "gather_sparse": {
                **product,
                "in": good("sparse"),
                "factors": FACTORS,
                "out": self.out,
                "sums": self.sums,
            },
            "gather_to_sparse": {
                **product,
                "in": good("sparse"),
                "factors": FACTORS,
                "out": self.sparse_out,
                "used": self.used,
                "sums": self.sums,
            },
            "column_sums": {"scores": good("dense"), "row_weights": NULL, "sums": self.sums},
            "column_sums_sparse": {
                "scores": good("sparse"),
                "row_weights": NULL,
                "sums": self.sums,
            },
            "scale_columns": {"scores": self.out, "factors": FACTORS},
            "normalize_rows": {
                "indptr": VALUED.indptr,
                "values": VALUED.values.copy(),
                "rows": NODES,
                "edges": EDGES,
            },
        }[function]


STRUCTURES = {
    "cluster_nodes": {"neighbors": "neighbors"},
    "count_incoming": {"neighbors": "neighbors"},
    "symmetrize_range": {"neighbors": "neighbors"},
    "renumber": {"neighbors": "neighbors"},
    "check_links": {"links": "links"},
    "column_totals": {"links": "links"},
    "gather": {"links": "links", "in": "dense", "out": "dense"},
    "gather_sparse": {"links": "links", "in": "sparse", "out": "dense"},
    "gather_to_sparse": {"links": "links", "in": "sparse", "out": "sparse"},
    "column_sums": {"scores": "dense"},
    "column_sums_sparse": {"scores": "sparse"},
    "scale_columns": {"scores": "dense"},
}

# What may be missing.
OPTIONAL = {"weights", "selection", "row_weights", "values of symmetrize_range"}
OPTIONAL |= {f"sums of {name}" for name in ("gather", "gather_sparse", "gather_to_sparse")}


@pytest.mark.parametrize("function", [*STRUCTURES, "normalize_rows"])
def test_direct_null_pointers(function):
    workshop = Workshop()
    assert workshop.call(function) == OK
    for name, argument in workshop.arguments(function).items():
        if isinstance(argument, int) or {name, f"{name} of {function}"} & OPTIONAL:
            continue
        assert workshop.call(function, **{name: NULL}) == BAD_SIZE, name


GARBAGE = {
    "neighbors": [
        *({"rows": rows} for rows in (-1, 2**31, 2**32 + 5, 2**56, HUGE, -HUGE)),
        *({"width": width} for width in (-1, 4, HUGE)),
        *({"stride": stride} for stride in (-3, 2, HUGE)),
        {"indices": NULL},
    ],
    "links": [
        *({"rows": rows} for rows in (-1, 2**31, HUGE)),
        *({"nodes": nodes} for nodes in (-1, 2**31, HUGE)),
        *({"edges": edges} for edges in (-1, HUGE)),
        {"indices": NULL},
        {"weights": VALUED.values},
        {"indptr": NULL},
        {"indptr": NULL, "mutual": NULL, "width": 3, "stride": 2},
        {"indptr": NULL, "mutual": NULL, "width": -3, "stride": 2},
        {"indptr": NULL, "mutual": NULL, "width": 3, "stride": HUGE},
        {"indptr": NULL, "mutual": NULL, "width": 3, "stride": 3, "edges": 31},
        {"indptr": NULL, "mutual": NULL, "width": 3, "stride": 3, "edges": HUGE},
    ],
    "dense": [
        *({"rows": rows} for rows in (-1, 2**31, HUGE)),
        *({"columns": columns} for columns in (-1, 5, HUGE)),
        *({"stride": stride} for stride in (-1, 3, HUGE)),
        *({"format": number} for number in (-1, 2, 2**31 - 1)),
        {"values": NULL},
    ],
    "sparse": [
        *({"rows": rows} for rows in (-1, 2**31, HUGE)),
        *({"columns": columns} for columns in (-1, 2**24, HUGE)),
        *({"capacity": capacity} for capacity in (-1, 2**40, HUGE)),
        *({"format": number} for number in (-1, 2, 2**31 - 1)),
        {"spans": NULL},
        {"entries": NULL},
    ],
}


@pytest.mark.parametrize("function", STRUCTURES)
def test_direct_garbage_in_structures(function):
    workshop = Workshop()
    for name, kind in STRUCTURES[function].items():
        for changes in GARBAGE[kind]:
            argument = good(kind, **changes)
            assert workshop.call(function, **{name: argument}) == BAD_SIZE, (name, changes)


@pytest.mark.parametrize(
    ("function", "changes"),
    [
        ("count_incoming", {"range_rows": 0}),
        ("count_incoming", {"range_rows": -HUGE}),
        ("symmetrize_range", {"first": -1}),
        ("symmetrize_range", {"first": 6, "last": 5}),
        ("symmetrize_range", {"last": NODES + 1}),
        ("symmetrize_range", {"last": HUGE}),
        ("symmetrize_range", {"capacity": -1}),
        ("symmetrize_range", {"capacity": HUGE}),
        ("symmetrize_range", {"weights": WEIGHTS}),
        ("symmetrize_range", {"values": SCORES}),
        ("gather", {"selected": -1}),
        ("gather", {"selected": NODES - 1}),
        ("gather", {"selected": HUGE, "selection": ORDER}),
        ("gather_sparse", {"selected": -1}),
        ("gather_sparse", {"selected": NODES - 1}),
        ("gather_to_sparse", {"selected": -1}),
        ("gather_to_sparse", {"selected": NODES + 1, "selection": ORDER}),
        ("normalize_rows", {"rows": -1}),
        ("normalize_rows", {"rows": HUGE}),
        ("normalize_rows", {"edges": -1}),
        ("normalize_rows", {"edges": HUGE}),
    ],
)
def test_direct_garbage_sizes(function, changes):
    assert Workshop().call(function, **changes) == BAD_SIZE


def test_direct_sizes_that_do_not_agree():
    workshop = Workshop()
    short = workshop.dense_out(rows=NODES - 1)
    narrow = workshop.dense_out(columns=COLUMNS - 1)
    rounded = workshop.dense_out(format=lib.LOWSHOT_BFLOAT16)
    for function in ("gather", "gather_sparse"):
        for out in (short, narrow, rounded):
            assert workshop.call(function, out=out) == BAD_SIZE
    for changes in ({"rows": NODES - 1}, {"columns": COLUMNS - 1}):
        assert workshop.call("gather_to_sparse", out=good("sparse", **changes)) == BAD_SIZE
        for function in ("gather_sparse", "gather_to_sparse"):
            assert workshop.call(function, **{"in": good("sparse", **changes)}) == BAD_SIZE
    assert workshop.call("scale_columns", scores=rounded) == BAD_SIZE
    assert workshop.call("gather", **{"in": good("dense", rows=NODES - 1)}) == BAD_SIZE
    square = good("links", nodes=NODES + 1)
    assert workshop.call("column_totals", links=square) == BAD_SIZE


def test_direct_no_memory_for_column_sums():
    # The number of columns is a lie, but nothing reads the matrix before the sums have room.
    workshop = Workshop()
    wide = good("dense", rows=1, columns=2**59, stride=2**59)
    assert workshop.call("column_sums", scores=wide) == lib.LOWSHOT_NO_MEMORY


def test_direct_little_room():
    workshop = Workshop()
    assert workshop.call("symmetrize_range") == OK
    needed = int(workshop.indptr[-1])
    for capacity in range(needed):
        kind = workshop.call(
            "symmetrize_range", capacity=capacity, indices=np.empty(capacity, "i4")
        )
        assert kind == lib.LOWSHOT_FULL
    exact = np.empty(needed, np.int32)
    assert workshop.call("symmetrize_range", capacity=needed, indices=exact) == OK
    for capacity in range(NODES * COLUMNS):
        entries = np.empty(capacity, SPARSE.entries.dtype)
        out = good("sparse", spans=workshop.spans, entries=entries, capacity=capacity)
        assert workshop.call("gather_to_sparse", out=out) == lib.LOWSHOT_FULL


def test_direct_ranges_that_begin_with_a_wrong_offset():
    workshop = Workshop()
    for offset in (-1, -(2**63), 61, 2**63 - 1):
        workshop.indptr[5] = offset
        kind = workshop.call("symmetrize_range", first=5)
        assert kind in (lib.LOWSHOT_FULL, lib.LOWSHOT_BAD_OFFSET)


def test_direct_faults_in_links():
    workshop = Workshop()
    readers = ["check_links", "column_totals", "gather", "gather_sparse", "gather_to_sparse"]
    for function in readers:
        for position, value, _ in BAD_OFFSETS[2:4]:
            indptr = changed(MUTUAL.indptr, position, value)
            kind = workshop.call(function, links=good("links", indptr=indptr))
            assert kind == lib.LOWSHOT_BAD_OFFSET
        for value in (-1, NODES, 2**31 - 1, -(2**31)):
            indices = changed(MUTUAL.indices, 5, value)
            kind = workshop.call(function, links=good("links", indices=indices))
            assert kind == lib.LOWSHOT_BAD_INDEX
        for value in (-1, 7, 2**31 - 1, -(2**31)):
            mutual = changed(MUTUAL.mutual, 5, value)
            kind = workshop.call(function, links=good("links", mutual=mutual))
            assert kind == lib.LOWSHOT_BAD_MUTUAL
    for function in ("cluster_nodes", "count_incoming", "renumber"):
        for value in (-2, NODES, 2**31 - 1, -(2**31)):
            neighbors = changed(NEIGHBORS, (3, 1), value)
            kind = workshop.call(function, neighbors=good("neighbors", indices=neighbors))
            assert kind == lib.LOWSHOT_BAD_INDEX
    for position, value, _ in BAD_OFFSETS:
        indptr = changed(VALUED.indptr, position, value)
        assert workshop.call("normalize_rows", indptr=indptr) == lib.LOWSHOT_BAD_OFFSET


@pytest.mark.parametrize("seed", range(40))
def test_direct_garbage_in_arrays(seed):
    """Nothing is read or written where it should not be; the sanitizer looks closer."""
    rng = np.random.default_rng(seed)
    workshop = Workshop()
    nodes, edges = NODES, EDGES
    indptr = np.sort(garbage_numbers(rng, nodes + 1, np.int64, edges + 1))
    if seed % 2:
        rng.shuffle(indptr)
    fields = {
        "indptr": indptr,
        "indices": garbage_numbers(rng, edges, np.int32, nodes),
        "mutual": garbage_numbers(rng, nodes, np.int32, 7),
    }
    begins = rng.integers(0, len(SPARSE.entries) + 1, nodes)
    spans = begins.astype(np.uint64) << np.uint64(24) | rng.integers(0, 9, nodes).astype(np.uint64)
    entries = SPARSE.entries.copy()
    entries["column"] = garbage_numbers(rng, len(entries), np.int32, COLUMNS)
    neighbors = garbage_numbers(rng, (nodes, 3), np.int32, nodes)
    order = garbage_numbers(rng, nodes, np.int32, nodes)
    few = np.empty(7, SPARSE.entries.dtype)
    sparse_in = good("sparse", spans=spans, entries=entries)
    trials = {
        "cluster_nodes": {"neighbors": good("neighbors", indices=neighbors)},
        "count_incoming": {"neighbors": good("neighbors", indices=neighbors)},
        "symmetrize_range": {
            "neighbors": good("neighbors", indices=neighbors),
            "indptr": indptr.copy(),
            "first": seed % 3 * 2,
        },
        "renumber": {
            "neighbors": good("neighbors"),
            "order": order,
            "rank": garbage_numbers(rng, nodes, np.int32, nodes),
        },
        "check_links": {"links": good("links", **fields)},
        "column_totals": {"links": good("links", **fields)},
        "gather": {"links": good("links", **fields), "selection": order},
        "gather_sparse": {"links": good("links", **fields), "selection": order, "in": sparse_in},
        "gather_to_sparse": {
            "links": good("links", **fields),
            "selection": order,
            "in": sparse_in,
            "out": good("sparse", spans=workshop.spans, entries=few, capacity=len(few)),
        },
        "column_sums_sparse": {"scores": sparse_in},
        "normalize_rows": {"indptr": indptr},
    }
    for function, changes in trials.items():
        assert workshop.call(function, **changes) in KINDS
    listed = good("links", indptr=NULL, mutual=NULL, width=3, stride=3, edges=30, indices=neighbors)
    for function, scores in (("gather", good("dense")), ("gather_sparse", sparse_in)):
        assert workshop.call(function, links=listed, **{"in": scores}) in KINDS
