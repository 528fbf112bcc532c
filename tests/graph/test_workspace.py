import shutil
import tempfile

import numpy as np
import pytest

from lowshot_kedro.graph import workspace as workspace_module
from lowshot_kedro.graph.workspace import (
    SPARE_BYTES,
    MemoryBudget,
    Workspace,
    temporary_folder,
)

COLUMNS = [("numbers", 3, "<i4"), ("values", 2, "<f4")]
ROW_BYTES = (12, 8)
N_ROWS, BLOCK_ROWS = 23, 5


@pytest.fixture
def memory(monkeypatch):
    """Sets what the process has, and what it can still take."""

    def change(taken, available=0):
        monkeypatch.setattr(workspace_module, "rss_bytes", lambda: taken)
        monkeypatch.setattr(workspace_module, "available_bytes", lambda: available)

    return change


@pytest.fixture
def work(tmp_path, memory):
    """A workspace that has room for 1000 bytes."""
    memory(0)
    return Workspace(tmp_path, MemoryBudget(SPARE_BYTES + 1000))


def blocks_from(rows_made):
    """Makes blocks that tell their rows, and keeps count of these."""

    def make(first, last):
        rows_made.append((first, last))
        rows = np.arange(first, last)[:, None]
        return rows * 10 + np.arange(3), rows + np.float32([0.25, 0.5])

    return make


def expected_rows():
    return blocks_from([])(0, N_ROWS)


# --- memory ---


def test_a_budget_below_what_the_process_has_is_refused(memory):
    taken = 10**9
    memory(taken)
    least = taken + SPARE_BYTES // 2
    assert MemoryBudget(least).left == 0
    message = (
        r"^memory_budget_bytes: got 1.33 GB, expected at least 1.34 GB: the process has 1 GB "
        "before it begins$"
    )
    assert 1.335e9 < least < 1.345e9
    with pytest.raises(ValueError, match=message):
        MemoryBudget(1_330_000_000)
    with pytest.raises(ValueError, match="expected at least"):
        MemoryBudget(least - 1)


def test_no_budget_is_four_fifths_of_what_is_free(memory):
    memory(10**9, available=5 * 10**9)
    budget = MemoryBudget()
    assert budget.left == 4 * 10**9 - SPARE_BYTES
    memory(3 * 10**9, available=3 * 10**9)
    assert budget.left == 2 * 10**9 - SPARE_BYTES
    memory(9 * 10**9)
    assert budget.left == 0


def test_arrays_lie_in_memory_as_long_as_there_is_room(work, memory, tmp_path):
    assert not isinstance(work.allocate("small", (250,), np.int32), np.memmap)
    assert not isinstance(work.allocate("empty", (0, 7), np.int32), np.memmap)
    assert list(tmp_path.iterdir()) == []
    large = work.allocate("large", (250, 2), np.int16)
    assert not isinstance(large, np.memmap)
    memory(1)
    large = work.allocate("large", (250, 2), np.int16)
    assert isinstance(large, np.memmap)
    assert (large.shape, large.dtype) == ((250, 2), np.int16)
    assert not isinstance(work.allocate("empty", (0, 7), np.int32), np.memmap)


def test_what_is_released_is_still_there(work, tmp_path):
    array = work.allocate("large", (1000,), np.int64)
    array[:] = np.arange(1000)
    in_memory = np.arange(5)
    work.release(in_memory)
    np.testing.assert_array_equal(array, np.arange(1000))
    np.testing.assert_array_equal(in_memory, np.arange(5))


def test_only_arrays_on_disk_that_are_still_needed_make_for_few_rows_at_a_time(work, memory):
    memory(1)
    assert work.rows_at_once(10**6) == 10**6
    large = work.allocate("large", (250, 2), np.int16)
    assert work.rows_at_once(10**6) < 10**6
    assert work.rows_at_once(10) == 10
    assert large.shape == (250, 2)
    del large
    assert work.rows_at_once(10**6) == 10**6


# --- stages ---


def test_a_stage_is_filled_block_by_block(work):
    stage = work.stage("s", N_ROWS, COLUMNS)
    assert not stage.is_complete
    made = []
    filled = stage.fill(blocks_from(made), BLOCK_ROWS, "s")
    assert made == [(0, 5), (5, 10), (10, 15), (15, 20), (20, 23)]
    assert stage.is_complete
    for found, again, wanted in zip(filled, stage.load(), expected_rows(), strict=True):
        assert isinstance(found, np.memmap)
        assert not found.flags.writeable
        np.testing.assert_array_equal(found, wanted)
        np.testing.assert_array_equal(again, wanted)


@pytest.mark.parametrize(
    ("numbers_bytes", "values_bytes", "continued_at"),
    [
        (0, 0, 0),
        (1, 0, 0),
        (5 * 12 - 1, 5 * 8, 0),
        (5 * 12, 5 * 8 - 1, 0),
        (5 * 12, 5 * 8, 5),
        (5 * 12 + 7, 5 * 8 + 3, 5),
        (23 * 12, 9 * 8, 5),
        (11 * 12, 23 * 8, 10),
        (20 * 12 + 13, 20 * 8 + 9, 20),
        (22 * 12, 23 * 8, 20),
        (23 * 12 - 1, 23 * 8, 20),
        (23 * 12, 23 * 8, None),
        (23 * 12 + 5, 23 * 8 + 1, None),
    ],
)
def test_a_stage_goes_on_after_the_last_whole_block(
    work, tmp_path, numbers_bytes, values_bytes, continued_at
):
    work.stage("s", N_ROWS, COLUMNS).fill(blocks_from([]), BLOCK_ROWS, "s")
    for part, n_bytes in (("numbers", numbers_bytes), ("values", values_bytes)):
        path = tmp_path / f"s.{part}"
        content = path.read_bytes()[:n_bytes]
        path.write_bytes(content.ljust(n_bytes, b"?"))
    made = []
    filled = work.stage("s", N_ROWS, COLUMNS).fill(blocks_from(made), BLOCK_ROWS, "s")
    assert [first for first, _ in made] == (
        [] if continued_at is None else list(range(continued_at, N_ROWS, BLOCK_ROWS))
    )
    for found, wanted in zip(filled, expected_rows(), strict=True):
        np.testing.assert_array_equal(found, wanted)
    sizes = [(tmp_path / f"s.{part}").stat().st_size for part in ("numbers", "values")]
    assert sizes == [N_ROWS * width for width in ROW_BYTES]


def test_a_stage_goes_on_where_one_file_is_gone(work, tmp_path):
    work.stage("s", N_ROWS, COLUMNS).fill(blocks_from([]), BLOCK_ROWS, "s")
    (tmp_path / "s.values").unlink()
    assert not work.stage("s", N_ROWS, COLUMNS).is_complete
    made = []
    work.stage("s", N_ROWS, COLUMNS).fill(blocks_from(made), BLOCK_ROWS, "s")
    assert made[0] == (0, 5)
    assert work.stage("s", N_ROWS, COLUMNS).is_complete


def test_an_error_leaves_the_blocks_before_it(work):
    def fails(first, last):
        if first == 10:
            raise InterruptedError("stopped")
        return blocks_from([])(first, last)

    with pytest.raises(InterruptedError, match="stopped"):
        work.stage("s", N_ROWS, COLUMNS).fill(fails, BLOCK_ROWS, "s")
    made = []
    work.stage("s", N_ROWS, COLUMNS).fill(blocks_from(made), BLOCK_ROWS, "s")
    assert made[0] == (10, 15)


def test_a_stage_without_rows_is_complete(work):
    stage = work.stage("s", 0, COLUMNS)
    assert stage.is_complete
    made = []
    assert [part.shape for part in stage.fill(blocks_from(made), 5, "s")] == [(0, 3), (0, 2)]
    assert made == []


def test_a_stage_can_be_deleted(work, tmp_path):
    stage = work.stage("s", N_ROWS, COLUMNS)
    stage.fill(blocks_from([]), BLOCK_ROWS, "s")
    stage.delete()
    assert list(tmp_path.iterdir()) == []
    stage.delete()


def test_a_temporary_folder_is_gone_even_if_its_removal_is_interrupted(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    removed = shutil.rmtree
    interruptions = iter([KeyboardInterrupt])

    def interrupted_once(path, *arguments, **options):
        # What others have left is removed whenever garbage is collected.
        if str(path).startswith(str(tmp_path)):
            for interruption in interruptions:
                raise interruption
        return removed(path, *arguments, **options)

    with pytest.raises(KeyboardInterrupt), temporary_folder() as folder:
        (folder / "file").touch()
        monkeypatch.setattr(shutil, "rmtree", interrupted_once)
    assert not list(tmp_path.iterdir())
    with pytest.raises(InterruptedError), temporary_folder() as folder:
        (folder / "file").touch()
        raise InterruptedError
    assert not list(tmp_path.iterdir())
