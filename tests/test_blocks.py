from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lowshot_kedro.blocks import (
    Blocks,
    KnnGraph,
    LabeledBlock,
    RegionFeatures,
    RowBlocks,
    TableBlocks,
    require_finite,
    row_ranges,
    spread_rows,
    take_rows,
)
from tests.features import MemoryFeatures


def features_of(array):
    return MemoryFeatures(array, "train.hdf5")


def numbered(n_rows, n_columns=2):
    return features_of(np.arange(n_rows * n_columns).reshape(n_rows, n_columns))


@settings(deadline=None)
@given(n_rows=st.integers(0, 60), block_rows=st.integers(1, 25))
def test_row_ranges_cut_all_rows_in_order(n_rows, block_rows):
    ranges = list(row_ranges(n_rows, block_rows))
    assert [row for first, last in ranges for row in range(first, last)] == list(range(n_rows))
    assert all(0 < last - first <= block_rows for first, last in ranges)
    assert len(ranges) == -(-n_rows // block_rows)


@settings(deadline=None)
@given(data=st.data(), n_rows=st.integers(1, 40), block_rows=st.integers(1, 50))
def test_take_rows_is_fancy_indexing(data, n_rows, block_rows):
    picks = data.draw(st.lists(st.integers(0, n_rows - 1), max_size=60))
    positions = np.array(picks, dtype=np.int64)
    features = numbered(n_rows)
    taken = take_rows(features, positions, block_rows=block_rows)
    np.testing.assert_array_equal(taken, features.array[positions], strict=True)
    # Once, from front to back, and nothing in vain.
    assert features.reads == sorted(set(features.reads))
    for first, last in features.reads:
        assert last - first <= block_rows
        assert ((positions >= first) & (positions < last)).any()


@settings(deadline=None)
@given(positions=st.lists(st.integers(0, 19), max_size=30), block_rows=st.integers(1, 30))
def test_take_rows_transforms_on_the_way(positions, block_rows):
    features = numbered(20)
    matrix = np.array([[1, 2, 3], [-1, 0, 1]], dtype=np.float32)
    positions = np.array(positions, dtype=np.int64)
    taken = take_rows(features, positions, lambda block: block @ matrix, block_rows)
    np.testing.assert_array_equal(taken, features.array[positions] @ matrix, strict=True)


def test_take_rows_of_no_rows_at_all():
    assert take_rows(numbered(0, 3), np.empty(0, dtype=np.int64)).shape == (0, 3)


def test_take_rows_names_the_rows_with_nan():
    array = numbered(10).array
    array[[2, 7], 1] = np.nan
    with pytest.raises(ValueError, match=r"train\.hdf5: .*1 row\(s\), numbers 7;"):
        take_rows(features_of(array), np.array([7, 0, 3]))
    assert take_rows(features_of(array), np.array([6, 0, 3])).shape == (3, 2)


@pytest.mark.parametrize("positions", [[1, 10], [-1, 1], [12, 11]])
def test_take_rows_refuses_rows_outside_the_file(positions):
    with pytest.raises((IndexError, ValueError), match=r"train\.hdf5"):
        take_rows(numbered(10), np.array(positions))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", [0, 4])
def test_rows_that_are_not_finite_are_named(bad, column):
    block = np.ones((6, 5), dtype=np.float32)
    block[[1, 4], column] = bad
    with pytest.raises(ValueError) as caught:
        require_finite(block, np.arange(100, 106), "test.hdf5")
    for fact in ("test.hdf5", "2 row(s)", "numbers 101, 104;", "finite"):
        assert fact in str(caught.value)


def test_infinities_that_cancel_out_are_found():
    block = np.array([[np.inf, -np.inf], [1, 1]], dtype=np.float32)
    with pytest.raises(ValueError, match="numbers 0;"):
        require_finite(block, np.arange(2), "test.hdf5")


def test_only_the_first_of_many_rows_are_named():
    block = np.full((9, 2), np.nan, dtype=np.float32)
    with pytest.raises(ValueError, match=r"9 row\(s\), numbers 0, 1, 2, 3, 4, …;"):
        require_finite(block, np.arange(9), "test.hdf5")


@pytest.mark.parametrize("value", [3e38, -3e38, np.finfo(np.float32).max, 0])
def test_large_but_finite_values_are_accepted(value):
    require_finite(np.full((3, 100), value, dtype=np.float32), np.arange(3), "test.hdf5")


def test_nan_beside_large_values_is_found():
    block = np.full((3, 100), 3e38, dtype=np.float32)
    block[1, 50] = np.nan
    with pytest.raises(ValueError, match=r"1 row\(s\), numbers 1;"):
        require_finite(block, np.arange(3), "test.hdf5")


def test_an_empty_block_is_finite():
    require_finite(np.empty((0, 3), np.float32), np.empty(0, np.int64), "test.hdf5")


def test_blocks_start_afresh_each_time():
    calls = []

    def make():
        calls.append(1)
        yield from (np.zeros((2, 3)), np.ones((1, 3)))

    blocks = Blocks(n_rows=3, n_columns=3, make=make)
    assert calls == []
    assert [len(block) for block in blocks] == [2, 1]
    assert [len(block) for block in blocks] == [2, 1]
    assert len(calls) == 2


def test_blocks_of_a_table_are_those_that_are_announced():
    def table(*blocks, n_rows=3):
        return TableBlocks(n_rows, ("a", "b"), lambda: blocks)

    two, one = {"a": np.arange(2), "b": ["x", "y"]}, {"b": ["z"], "a": np.arange(1)}
    assert list(table(two, one).checked("t.csv")) == [two, one]
    for blocks, message in (
        ((two,), r"t\.csv: got blocks of 2 rows; expected 3"),
        ((two, two), r"t\.csv: got blocks of more than 3 rows; expected 3"),
        (({"a": [1]},), r"t\.csv: a block after row 0 has columns a \(1\); expected a, b"),
        ((two, {"a": [1], "b": []}), r"a block after row 2 has columns a \(1\), b \(0\)"),
    ):
        with pytest.raises(ValueError, match=message):
            list(table(*blocks).checked("t.csv"))


def test_what_belongs_to_the_rows_of_a_block_need_not_be_an_array():
    def make():
        yield LabeledBlock(np.zeros((2, 3), np.float32), np.zeros(2, np.int32), {1: "bad"})

    assert [block.problems for block in Blocks(2, 3, make)] == [{1: "bad"}]


@pytest.mark.parametrize(
    ("n_features", "n_labels", "message"),
    [
        (2, 1, r"train\.hdf5: a block after row 0 has shape \(2, 3\) and \(1,\)"),
        (3, 3, r"train\.hdf5: got blocks of more than 2 rows; expected 2"),
        (1, 1, r"train\.hdf5: got blocks of 1 rows; expected 2"),
    ],
)
def test_blocks_that_are_not_what_they_announce(n_features, n_labels, message):
    block = LabeledBlock(np.zeros((n_features, 3), np.float32), np.zeros(n_labels, np.int32))
    with pytest.raises(ValueError, match=message):
        list(Blocks(2, 3, lambda: [block]).checked("train.hdf5"))


@pytest.mark.parametrize(
    ("first", "last", "problems"),
    [
        (0, 2, {0: "zero"}),
        (2, 4, {0: "two", 1: "three"}),
        (1, 3, {1: "two"}),
        (3, 3, {}),
        (0, 4, {0: "zero", 2: "two", 3: "three"}),
    ],
)
def test_rows_of_a_labeled_block_are_views(first, last, problems):
    block = LabeledBlock(
        np.arange(8, dtype=np.float32).reshape(4, 2),
        np.arange(4, dtype=np.int32),
        {0: "zero", 2: "two", 3: "three"},
    )
    part = block.rows(first, last)
    np.testing.assert_array_equal(part.features, block.features[first:last])
    np.testing.assert_array_equal(part.labels, block.labels[first:last])
    assert part.features.base is not None
    assert part.problems == problems


def test_a_labeled_block_is_fine_unless_it_says_otherwise():
    block = LabeledBlock(np.zeros((1, 2), np.float32), np.zeros(1, np.int32))
    assert dict(block.problems) == {}
    with pytest.raises(TypeError):
        block.problems[0] = "all blocks share what is empty"


def test_blocks_of_rows_start_where_they_are_asked_to():
    def make_from(first_row):
        for first in range(first_row, 7, 3):
            yield np.arange(first, min(first + 3, 7))[:, None]

    rows = RowBlocks(7, 1, 3, make_from)
    for first in (0, 3, 6):
        blocks = rows.starting_at(first)
        assert (blocks.n_rows, blocks.n_columns) == (7 - first, 1)
        assert np.concatenate(list(blocks)).ravel().tolist() == list(range(first, 7))


@given(n_rows=st.integers(0, 300), count=st.integers(0, 300))
def test_spread_rows_are_different_and_as_far_apart_as_can_be(n_rows, count):
    rows = spread_rows(n_rows, count)
    assert rows.dtype == np.int64
    assert len(rows) == min(n_rows, count)
    if len(rows):
        steps = np.diff([*rows, n_rows])
        assert rows[0] == 0
        assert steps.min() >= 1
        assert steps.max() - steps.min() <= 1


GRAPH = KnnGraph(
    np.arange(12, dtype=np.int32).reshape(3, 4), -np.arange(12, dtype=np.float32).reshape(3, 4)
)


def test_a_part_of_a_graph_is_a_view_of_its_first_columns():
    part = GRAPH.part(1, 3, 2)
    np.testing.assert_array_equal(part.indices, [[4, 5], [8, 9]])
    np.testing.assert_array_equal(part.similarities, [[-4, -5], [-8, -9]])
    assert np.shares_memory(part.indices, GRAPH.indices)
    assert np.shares_memory(part.similarities, GRAPH.similarities)


@pytest.mark.parametrize("cuts", [[0, 3], [0, 1, 3], [0, 0, 2, 3]])
def test_joined_blocks_are_the_graph(cuts):
    parts = (GRAPH.part(first, last, 4) for first, last in pairwise(cuts))
    graph = KnnGraph.joined(parts, 4)
    np.testing.assert_array_equal(graph.indices, GRAPH.indices, strict=True)
    np.testing.assert_array_equal(graph.similarities, GRAPH.similarities, strict=True)


def test_no_blocks_join_to_an_empty_graph():
    graph = KnnGraph.joined([], 4)
    assert graph.indices.shape == graph.similarities.shape == (0, 4)
    assert (graph.indices.dtype, graph.similarities.dtype) == (np.int32, np.float32)


@given(rows=st.lists(st.integers(0, 8), max_size=12))
def test_regions_are_read_in_the_order_asked_for_and_no_others(rows):
    array = np.arange(9 * 12, dtype=np.float32).reshape(9, 12)
    features = features_of(array)
    wanted = np.array(rows, np.int64)
    found = RegionFeatures(features, (2, 3, 2)).read(wanted)
    np.testing.assert_array_equal(found, array[wanted].reshape(-1, 2, 3, 2), strict=True)
    read = [row for first, last in features.reads for row in range(first, last)]
    assert sorted(read) == sorted(rows)


def test_regions_of_neighbouring_images_are_read_at_once():
    features = numbered(9, 1)
    RegionFeatures(features, (1, 1, 1)).read(np.array([8, 3, 5, 4]))
    assert features.reads == [(3, 6), (8, 9)]


def test_regions_are_read_of_a_list_of_rows_too():
    found = RegionFeatures(numbered(3, 1), (1, 1, 1)).read([2, 0])
    np.testing.assert_array_equal(found.ravel(), [2, 0])


@pytest.mark.parametrize("row", [-1, 9])
def test_regions_of_no_image_are_refused(row):
    regions = RegionFeatures(numbered(9), (2, 1, 1))
    with pytest.raises(IndexError, match=r"train\.hdf5: rows .* of 9"):
        regions.read(np.array([0, row]))


def test_regions_that_are_no_numbers_are_refused():
    array = np.zeros((4, 2), np.float32)
    array[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"train\.hdf5: .*numbers 2;"):
        RegionFeatures(features_of(array), (2, 1, 1)).read(np.array([3, 2]))
