"""Arrays no one should pass: through the wrappers, and straight to the compiled functions."""

import re

import numpy as np
import pytest

from lowshot_kedro import native
from lowshot_kedro.native._library import ffi, lib, pointer

NODES = 10
NEIGHBORS = np.arange(30, dtype=np.int32).reshape(NODES, 3) % NODES
SIMILARITIES = np.array([[3, 2, 1]] * NODES, np.float32)
SCORES = np.ones((NODES, 4), np.float32)


def refused(message):
    return pytest.raises(ValueError, match=re.escape(message))


def graph():
    return native.symmetrize(NEIGHBORS)


def changed(array, position, value):
    array = array.copy()
    array[position] = value
    return array


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
    (
        np.zeros(121, np.uint8)[1:].view(np.int32).reshape(10, 3),
        "got int32 (10, 3) at an unaligned address",
    ),
]


@pytest.mark.parametrize(("neighbors", "found"), LAYOUTS)
def test_neighbors_of_wrong_layout(neighbors, found):
    expected = "neighbors: expected a C-contiguous int32 array of shape ({}, k)"
    with refused(expected.format("n")) as caught:
        native.symmetrize(neighbors)
    assert found in str(caught.value)
    with refused(expected.format("m")) as caught:
        native.sum_neighbors(neighbors, SCORES)
    assert found in str(caught.value)


@pytest.mark.parametrize("value", [10, 17, -2, 2**31 - 1, -(2**31)])
@pytest.mark.parametrize("width", [2, 3])
def test_neighbors_out_of_range(value, width):
    neighbors = changed(NEIGHBORS, (3, 1), value)
    message = f"neighbors: row 3, column 1 holds {value}, expected -1 or 0..9"
    with refused(message):
        native.symmetrize(neighbors[:, :width])
    with refused(message):
        native.sum_neighbors(neighbors[:, :width], SCORES)


def test_neighbors_in_a_graph_without_nodes():
    with refused("row 0, column 1 holds 1, expected -1 (there are no nodes)"):
        native.sum_neighbors(np.array([[-1, 1]], np.int32), np.empty((0, 2), np.float32))


BAD_OFFSETS = [
    (0, 1, "indptr: entry 0 holds 1, expected 0: offsets start at 0"),
    (0, -1, "indptr: entry 0 holds -1, expected 0"),
    (4, -5, "indptr: entry 4 holds -5 after"),
    (4, 2**62, "indptr: entry 5 holds"),
    (-1, 2**62, "expected {edges}: offsets end at the number of edges"),
    (-1, -(2**63), "indptr: entry 10 holds -9223372036854775808 after"),
]


@pytest.mark.parametrize(("position", "value", "message"), BAD_OFFSETS)
@pytest.mark.parametrize("product", ["own", "auto"])
def test_bad_offsets(position, value, message, product):
    indptr, indices, values = graph()
    indptr[position] = value
    with refused(message.format(edges=indices.size)):
        native.diffusion_step(indptr, indices, values, SCORES, np.empty_like(SCORES), product)
    with refused(message.format(edges=indices.size)):
        native.normalize_rows(indptr, values)


@pytest.mark.parametrize("value", [-1, NODES, 2**31 - 1, -(2**31)])
@pytest.mark.parametrize("product", ["own", "auto"])
def test_bad_column_indices(value, product):
    indptr, indices, values = graph()
    indices[7] = value
    with refused(f"indices: entry 7 holds {value}, expected 0..9"):
        native.diffusion_step(indptr, indices, values, SCORES, np.empty_like(SCORES), product)


def test_diffusion_step_with_wrong_arrays():
    indptr, indices, values = graph()
    out = np.empty_like(SCORES)

    def step(**changes):
        arguments = {
            "indptr": indptr,
            "indices": indices,
            "values": values,
            "scores": SCORES,
            "out": out,
        }
        native.diffusion_step(**{**arguments, **changes})

    with refused("indptr: expected a C-contiguous int64 array of shape (n + 1,), got int32 (11,)"):
        step(indptr=indptr.astype(np.int32))
    with refused("indptr: expected n + 1 offsets, got none"):
        step(indptr=indptr[:0])
    with refused("indices: expected a C-contiguous int32 array of shape (nnz,), got int64"):
        step(indices=indices.astype(np.int64))
    with refused(f"values: expected a C-contiguous float32 array of shape ({indices.size},)"):
        step(values=values[:-1])
    with refused("scores: expected a C-contiguous float32 array of shape (10, c), got float32 (9"):
        step(scores=SCORES[:-1])
    with refused("scores: expected a C-contiguous float32 array of shape (10, c), got float32"):
        step(scores=np.ones((NODES, 8), np.float32)[:, :4])
    with refused("out: expected a writeable C-contiguous float32 array of shape (10, 4), got"):
        step(out=out[:, :3].copy())
    read_only = out.copy()
    read_only.flags.writeable = False
    with refused("got float32 (10, 4), read-only"):
        step(out=read_only)
    with refused("product: expected one of auto, own, mkl, got 'fast'"):
        step(product="fast")
    with refused("out: expected memory of its own, got memory shared with scores"):
        step(out=SCORES)
    overlapping = np.ones((NODES + 3, 4), np.float32)
    with refused("shared with scores"):
        step(scores=overlapping[3:], out=overlapping[:-3])
    buffer = np.zeros(indices.size + 40, np.int32)
    buffer[: indices.size] = indices
    with refused("shared with indices"):
        step(
            indices=buffer[: indices.size],
            out=buffer[indices.size - 1 : -1].view(np.float32).reshape(NODES, 4),
        )


def test_normalize_in_place_needs_memory_of_its_own():
    buffer = np.zeros(4, np.int64)
    with refused("values: expected memory of its own, got memory shared with indptr"):
        native.normalize_rows(buffer, buffer.view(np.float32))
    read_only = SCORES.copy()
    read_only.flags.writeable = False
    with refused("scores: expected a writeable"):
        native.normalize_columns(read_only)
    with refused("values: expected a writeable"):
        native.normalize_rows(np.zeros(1, np.int64), read_only[0])


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


def test_merge_with_wrong_sizes():
    with refused("second_indices: expected a C-contiguous int32 array of shape (10, k2)"):
        merge(second_indices=NEIGHBORS[:4])
    for k in (0, -3):
        with refused(f"k: expected at least 1 neighbour, got {k}"):
            merge(k=k)


# From here on, without the wrappers.


def direct(function, *arguments):
    fault = ffi.new("struct lowshot_fault *")
    with_pointers = [
        pointer(argument) if isinstance(argument, np.ndarray) else argument
        for argument in arguments
    ]
    kind = function(*with_pointers, fault)
    assert kind == fault.kind or kind == lib.LOWSHOT_OK
    return kind


HUGE = 2**62
NULL = ffi.NULL


@pytest.mark.parametrize(
    "sizes", [(-1, 3, 3), (10, -3, 3), (10, 3, 2), (10, 3, -3), (HUGE, 3, HUGE), (2**31, 3, 3)]
)
def test_direct_sizes(sizes):
    indptr, total = np.zeros(NODES + 1, np.int64), ffi.new("int64_t *")
    out = np.empty_like(SCORES)
    assert direct(lib.lowshot_symmetrize_count, NEIGHBORS, *sizes, indptr, total) != lib.LOWSHOT_OK
    entries = np.empty(60, np.int32)
    arguments = (NEIGHBORS, *sizes, indptr, entries, 60, total)
    assert direct(lib.lowshot_symmetrize_fill, *arguments) != lib.LOWSHOT_OK
    if sizes[0] != 2**31:
        arguments = (NEIGHBORS, *sizes, SCORES, NODES, 4, out)
        assert direct(lib.lowshot_sum_neighbors, *arguments) != lib.LOWSHOT_OK


def test_direct_null_pointers_and_negative_sizes():
    bad = lib.LOWSHOT_BAD_SIZE
    indptr, indices, values = graph()
    edges = indices.size
    out = np.empty_like(SCORES)
    total = ffi.new("int64_t *")
    assert direct(lib.lowshot_symmetrize_count, NULL, 10, 3, 3, indptr, total) == bad
    assert direct(lib.lowshot_symmetrize_count, NEIGHBORS, 10, 3, 3, NULL, total) == bad
    assert direct(lib.lowshot_symmetrize_fill, NEIGHBORS, 10, 3, 3, indptr, NULL, 9, total) == bad
    assert direct(lib.lowshot_symmetrize_unpack, NULL, values, 3) == bad
    assert direct(lib.lowshot_symmetrize_unpack, indices, values, -3) == bad
    assert direct(lib.lowshot_normalize_rows, NULL, values, 10, edges) == bad
    assert direct(lib.lowshot_normalize_rows, indptr, values, -10, edges) == bad
    assert direct(lib.lowshot_normalize_rows, indptr, NULL, 10, edges) == bad
    assert direct(lib.lowshot_normalize_columns, NULL, 10, 4) == bad
    assert direct(lib.lowshot_normalize_columns, SCORES, 10, -4) == bad
    assert direct(lib.lowshot_normalize_columns, SCORES, HUGE, HUGE) == bad
    step = lib.lowshot_diffusion_step
    assert direct(step, indptr, indices, values, 10, edges, NULL, 4, out) == bad
    assert direct(step, indptr, indices, values, 10, edges, SCORES, 4, NULL) == bad
    assert direct(step, indptr, indices, values, 10, -1, SCORES, 4, out) == bad
    assert direct(step, NULL, indices, values, 10, edges, SCORES, 4, out) == bad
    assert direct(lib.lowshot_merge_neighbors, NULL, NULL, 10, 3, NEIGHBORS, SIMILARITIES) == bad
    assert lib.lowshot_normalize_columns(NULL, 10, 4, NULL) == bad


def test_direct_no_memory_for_column_sums():
    # The number of columns is a lie, but nothing reads the matrix before the sums have room.
    kind = direct(lib.lowshot_normalize_columns, SCORES, 1, 2**59)
    assert kind == lib.LOWSHOT_NO_MEMORY


def test_direct_fill_with_offsets_that_are_not_its_own():
    true, total = np.zeros(NODES + 1, np.int64), ffi.new("int64_t *")
    assert direct(lib.lowshot_symmetrize_count, NEIGHBORS, 10, 3, 3, true, total) == 0
    assert total[0] == 60
    rng = np.random.default_rng(0)
    wrong = [np.zeros_like(true), true + 50, true - 3, true + 2**62]
    wrong += [rng.integers(-2, 62, NODES + 1) for _ in range(300)]
    for indptr in wrong:
        entries = np.empty(60, np.int32)
        arguments = (NEIGHBORS, 10, 3, 3, indptr, entries, 60, total)
        assert direct(lib.lowshot_symmetrize_fill, *arguments) == lib.LOWSHOT_BAD_OFFSET


def test_direct_indices_and_offsets():
    indptr, indices, values = graph()
    edges = indices.size
    out = np.empty_like(SCORES)
    step = lib.lowshot_diffusion_step
    for value in (-1, 10, 2**31 - 1, -(2**31)):
        bad = changed(indices, 5, value)
        kind = direct(step, indptr, bad, values, 10, edges, SCORES, 4, out)
        assert kind == lib.LOWSHOT_BAD_INDEX
    for position, value, _ in BAD_OFFSETS:
        bad = changed(indptr, position, value)
        kind = direct(step, bad, indices, values, 10, edges, SCORES, 4, out)
        assert kind == lib.LOWSHOT_BAD_OFFSET
        kind = direct(lib.lowshot_normalize_rows, bad, values, 10, edges)
        assert kind == lib.LOWSHOT_BAD_OFFSET
