"""Features that are computed while they are saved: continued, kept, or computed anew."""

import errno
import json
import os
import random
import shutil
import signal
import time
from itertools import pairwise, product
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kedro.io import DatasetError

from lowshot_kedro.blocks import LabeledBlock, Resumable, RowBlocks
from lowshot_kedro.datasets import HDF5FeatureBlocksDataset, HDF5FeaturesDataset, feature_writer
from lowshot_kedro.errors import InputError
from tests.datasets.extraction import N_COLUMNS, Extraction, read_with_h5py, row_content
from tests.datasets.helpers import (
    content_of,
    forked,
    forks,
    killed_half_way,
    labeled_blocks,
    refused,
)

PROBLEMS = {1: "no such file", 4: 'a, "quoted"', 7: "cut off", 8: "図"}
LISTED = 'picture,problem\n1,no such file\n4,"a, ""quoted"""\n7,cut off\n8,図\n'
NOTE = "block0.hdf5.made_from.json"
LIST = "block0.hdf5.broken_pictures.csv"
BLOCKS = ["block0.hdf5", "block1.hdf5", "block2.hdf5"]
WORK = ".partial-block0.hdf5.work"


def blocks_in(folder, rows_per_file=4, **settings):
    return HDF5FeatureBlocksDataset(filepath=str(folder), rows_per_file=rows_per_file, **settings)


def extraction(**changes):
    return Extraction(**{"problems": PROBLEMS, **changes})


def stop():
    raise InterruptedError("stopped half-way")


def interrupted(dataset, at, midway=stop, **changes):
    asked = extraction(at=at, midway=midway, **changes)
    with pytest.raises((DatasetError, InterruptedError), match="stopped half-way"):
        asked.save(dataset)
    return asked.asked


def complete(folder, rows_per_file=4, **changes):
    """What an undisturbed run leaves."""
    extraction(**changes).save(blocks_in(folder, rows_per_file))
    return content_of(folder)


@pytest.fixture
def expected(tmp_path):
    return complete(tmp_path / "undisturbed")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "f100m"


@pytest.fixture
def messages(caplog):
    caplog.set_level("INFO", logger="lowshot_kedro")
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.fixture
def commits_at_once(monkeypatch):
    monkeypatch.setattr(feature_writer, "_SECONDS_BETWEEN_COMMITS", 0)


def test_an_undisturbed_save_writes_the_files_a_note_and_a_list(folder, messages):
    assert extraction().save(blocks_in(folder)) == [0, 3, 6, 9]
    assert {path.name for path in folder.iterdir()} == {*BLOCKS, NOTE, LIST}
    for name, (first, last) in zip(BLOCKS, [(0, 4), (4, 8), (8, 10)], strict=True):
        features, labels, count = read_with_h5py(folder / name)
        for found, wanted in zip((features, labels), row_content(first, last), strict=True):
            np.testing.assert_array_equal(found, wanted, strict=True)
        assert count == [last - first]
    assert (folder / LIST).read_text(encoding="utf-8") == LISTED
    assert json.loads((folder / NOTE).read_text()) == {"n_rows": 10, "n_columns": 3, "seed": 0}
    assert messages() == []
    loaded = blocks_in(folder).load()
    np.testing.assert_array_equal(loaded.read(0, 10), row_content(0, 10)[0])
    assert list(loaded.broken_images) == list(PROBLEMS.items())


def test_one_file_for_a_training_set(tmp_path):
    dataset = HDF5FeaturesDataset(filepath=str(tmp_path / "train.hdf5"))
    interrupted(dataset, at=6)
    assert not dataset.exists()
    assert extraction().save(dataset) == [6, 9]
    assert {path.name for path in tmp_path.iterdir()} == {
        "train.hdf5",
        "train.hdf5.made_from.json",
        "train.hdf5.broken_pictures.csv",
    }
    features, labels, count = read_with_h5py(tmp_path / "train.hdf5")
    np.testing.assert_array_equal(features, row_content(0, 10)[0])
    np.testing.assert_array_equal(labels, row_content(0, 10)[1])
    assert count == [10]
    assert list(dataset.load().broken_images) == list(PROBLEMS.items())


@settings(deadline=None, max_examples=30)
@given(
    n_rows=st.integers(0, 20),
    rows_per_file=st.none() | st.integers(1, 9),
    runs=st.lists(st.tuples(st.integers(1, 8), st.integers(0, 20)), min_size=1, max_size=4),
    broken=st.sets(st.integers(0, 19)),
)
def test_whenever_runs_are_interrupted_the_files_are_those_of_an_undisturbed_one(
    tmp_path_factory, n_rows, rows_per_file, runs, broken
):
    """Batches may be of another size in every run."""
    folder = tmp_path_factory.mktemp("resumed")
    problems = {number: f"problem {number}" for number in broken if number < n_rows}

    def dataset(name):
        if rows_per_file is None:
            return HDF5FeaturesDataset(filepath=str(folder / name / "train.hdf5"))
        return blocks_in(folder / name, rows_per_file)

    done = 0
    for batch_rows, at in runs:
        changes = {"n_rows": n_rows, "batch_rows": batch_rows, "problems": problems}
        begin = done if done == n_rows else done - done % batch_rows
        firsts = list(range(begin, n_rows, batch_rows))
        if not any(first >= at for first in firsts):
            continue
        asked = interrupted(dataset("resumed"), at, **changes)
        assert asked == [first for first in firsts if first < at]
        done = min(n_rows, asked[-1] + batch_rows) if asked else begin
    last = Extraction(n_rows, runs[-1][0], problems=problems)
    begin = done if done == n_rows else done - done % last.batch_rows
    assert last.save(dataset("resumed")) == list(range(begin, n_rows, last.batch_rows))

    Extraction(n_rows, 100, problems=problems).save(dataset("undisturbed"))
    assert content_of(folder / "resumed") == content_of(folder / "undisturbed")
    assert list(dataset("resumed").load().broken_images) == sorted(problems.items())


@forks
@pytest.mark.parametrize("at", [0, 3, 6, 9])
def test_the_next_run_continues_after_the_rows_that_a_killed_process_has_counted(
    tmp_path, folder, expected, messages, commits_at_once, at
):
    killed_half_way(
        lambda wait: extraction(at=at, midway=wait).save(blocks_in(folder)), tmp_path / "marker"
    )
    assert not blocks_in(folder).exists()
    assert not {*BLOCKS, NOTE, LIST} & content_of(folder).keys()
    assert extraction().save(blocks_in(folder)) == [first for first in (0, 3, 6, 9) if first >= at]
    assert content_of(folder) == expected
    assert not (folder / WORK).exists()
    assert messages() == [f"{folder}/block0.hdf5: continuing after row {at} of 10"] * (at > 0)


@forks
def test_rows_that_a_killed_process_has_not_counted_are_computed_again(tmp_path, folder, expected):
    killed_half_way(
        lambda wait: extraction(at=9, midway=wait).save(blocks_in(folder)), tmp_path / "marker"
    )
    features, _, count = read_with_h5py(folder / ".partial-block0.hdf5")
    assert count == [0]
    np.testing.assert_array_equal(features, row_content(0, 4)[0])
    assert extraction().save(blocks_in(folder)) == [0, 3, 6, 9]
    assert content_of(folder) == expected


@forks
def test_processes_killed_at_any_moment_leave_only_rows_that_are_right(
    tmp_path, folder, monkeypatch
):
    monkeypatch.setattr(feature_writer, "_SECONDS_BETWEEN_COMMITS", 0.002)
    n_rows, rows_per_file = 700, 300
    problems = {number: f"problem {number}" for number in range(0, n_rows, 7)}

    def save(batch_rows, marker):
        """All but the last rows, slowly; then wait to be killed."""
        running = Extraction(n_rows, batch_rows, problems=problems, at=0)

        def midway():
            marker.touch()
            time.sleep(60 if running.asked and running.asked[-1] > n_rows - 20 else 0.001)

        running.midway = midway
        running.save(blocks_in(folder, rows_per_file))

    rng = random.Random(0)
    counted = []
    for attempt in range(8):
        batch_rows, marker = rng.choice([3, 4, 5]), tmp_path / f"begun {attempt}"
        process = forked(lambda rows=batch_rows, marker=marker: save(rows, marker))
        while not marker.exists():
            assert process.is_alive()
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.08))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        done = 0
        for number in range(3):
            features, labels, (count,) = read_with_h5py(folder / f".partial-block{number}.hdf5")
            first = number * rows_per_file
            expected = row_content(first, first + count)
            for found, wanted in zip((features, labels), expected, strict=True):
                np.testing.assert_array_equal(found[:count], wanted)
            done += count
        counted.append(done)
    assert any(0 < done < n_rows for done in counted)
    # Only what is not a whole batch is taken back.
    assert all(later > earlier - 5 for earlier, later in pairwise(counted))
    last = Extraction(n_rows, 3, problems=problems)
    assert last.save(blocks_in(folder, rows_per_file))[0] == counted[-1] - counted[-1] % 3
    Extraction(n_rows, 10, problems=problems).save(blocks_in(tmp_path / "fresh", rows_per_file))
    assert content_of(folder) == content_of(tmp_path / "fresh")


@pytest.mark.parametrize("error", [InterruptedError, KeyboardInterrupt, MemoryError])
def test_the_next_run_continues_after_an_error(folder, expected, error):
    def fail():
        raise error("stopped half-way")

    with pytest.raises((DatasetError, error), match="stopped half-way"):
        extraction(at=6, midway=fail).save(blocks_in(folder))
    assert not {*BLOCKS, NOTE, LIST} & content_of(folder).keys()
    assert extraction().save(blocks_in(folder)) == [6, 9]
    assert content_of(folder) == expected


def test_input_that_cannot_be_used_leaves_nothing_to_continue(folder):
    def fail():
        raise InputError("features of extractor means: found NaN")

    with refused(InputError, "found NaN"):
        extraction(at=6, midway=fail).save(blocks_in(folder))
    assert content_of(folder) == {}


def test_a_larger_batch_continues_at_its_own_beginning_and_takes_the_rest_back(folder, expected):
    interrupted(blocks_in(folder), at=9, batch_rows=3)
    # It begins again at row 5: stopped there, rows 5..8 and their problems are to be made again.
    assert interrupted(blocks_in(folder), at=5, batch_rows=5) == []
    assert extraction(batch_rows=1).save(blocks_in(folder)) == [5, 6, 7, 8, 9]
    assert content_of(folder) == expected


def hdf5(**arrays):
    def write(path):
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = array

    return write


def cut_off(path):
    os.truncate(path, path.stat().st_size - 1)


OTHER_FILES = {
    "none": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(bytes(range(256)) * 20),
    "cut off": cut_off,
    "other rows": hdf5(
        all_feats=np.ones((5, N_COLUMNS), "<f4"),
        all_labels=np.ones(5, "<i4"),
        count=np.array([4], "<i4"),
    ),
    "other columns": hdf5(
        all_feats=np.ones((4, 2), "<f4"),
        all_labels=np.ones(4, "<i4"),
        count=np.array([4], "<i4"),
    ),
    "other numbers": hdf5(
        all_feats=np.ones((4, N_COLUMNS), "<f8"),
        all_labels=np.ones(4, "<i4"),
        count=np.array([4], "<i4"),
    ),
}


@pytest.mark.parametrize("spoil", OTHER_FILES.values(), ids=OTHER_FILES)
@pytest.mark.parametrize(("number", "first"), [(0, 0), (1, 3)])
def test_an_unfinished_file_that_is_no_use_is_started_over(folder, expected, spoil, number, first):
    interrupted(blocks_in(folder), at=9)
    spoil(folder / f".partial-block{number}.hdf5")
    # Stopped once more, right after the first file is complete again.
    assert interrupted(blocks_in(folder), at=6) == [row for row in (0, 3) if row >= first]
    assert extraction().save(blocks_in(folder)) == [6, 9]
    assert content_of(folder) == expected


@pytest.mark.parametrize("n_bytes", [0, 5, 16, 20, len(LISTED.encode()) - 6, 1000])
def test_a_list_of_problems_that_was_cut_short_after_rows_were_counted(folder, n_bytes):
    # Rows count after their problems are on the list, so what is cut belongs to later rows.
    interrupted(blocks_in(folder), at=3, problems={})
    path = folder / WORK / "broken_pictures.csv"
    path.write_bytes((path.read_bytes() + LISTED.partition("\n")[2].encode())[: 16 + n_bytes])
    assert extraction(problems={4: "four"}).save(blocks_in(folder)) == [3, 6, 9]
    listed = dict(blocks_in(folder).load().broken_images)
    assert listed == {4: "four"} | ({1: PROBLEMS[1]} if n_bytes >= 16 else {})


def test_nothing_is_computed_again_from_the_same(folder, expected, messages):
    extraction().save(blocks_in(folder))
    assert extraction(batch_rows=7).save(blocks_in(folder)) == []
    assert content_of(folder) == expected
    assert messages() == [f"{folder}/block0.hdf5 is there already, made from the same: kept"]


def test_other_facts_are_computed_anew_and_the_old_files_stay_until_then(
    tmp_path, folder, expected, messages
):
    extraction().save(blocks_in(folder))

    def old_files_are_there():
        assert expected.items() <= content_of(folder).items()
        assert blocks_in(folder).load().n_rows == 10

    again = extraction(seed=1, problems={2: "two"}, at=0, midway=old_files_are_there)
    assert again.save(blocks_in(folder)) == [0, 3, 6, 9]
    assert content_of(folder) == complete(tmp_path / "other", seed=1, problems={2: "two"})
    assert messages() == [
        f"{folder}/block0.hdf5 was made from something else (seed differs): computed anew, the old "
        "one stays until then"
    ]


def test_an_interrupted_replacement_is_continued_beside_the_old_files(tmp_path, folder, expected):
    extraction().save(blocks_in(folder))
    interrupted(blocks_in(folder), at=9, seed=1)
    assert expected.items() <= content_of(folder).items()
    # The old one is still asked for by somebody: that hurts neither.
    assert extraction().save(blocks_in(folder)) == []
    assert extraction(seed=1).save(blocks_in(folder)) == [9]
    assert content_of(folder) == complete(tmp_path / "other", seed=1)


@pytest.mark.parametrize("n_rows", [2, 4, 7, 12, 15])
def test_a_collection_of_another_size_replaces_the_older_one(tmp_path, folder, n_rows):
    extraction().save(blocks_in(folder))
    interrupted(blocks_in(folder), at=3, n_rows=n_rows) if n_rows > 3 else None
    assert extraction(n_rows=n_rows).save(blocks_in(folder))[0] == (3 if n_rows > 3 else 0)
    assert content_of(folder) == complete(tmp_path / "other", n_rows=n_rows)
    assert blocks_in(folder).load().n_rows == n_rows


@pytest.mark.parametrize("n_rows", [3, 6, 14])
def test_unfinished_files_of_another_size_are_removed(tmp_path, folder, messages, n_rows):
    interrupted(blocks_in(folder), at=9)
    assert extraction(n_rows=n_rows).save(blocks_in(folder))[0] == 0
    assert content_of(folder) == complete(tmp_path / "other", n_rows=n_rows)
    assert messages()[0] == (
        f"{folder}/block0.hdf5: unfinished work was made from something else (n_rows differs) and "
        "is removed"
    )


@pytest.mark.parametrize("number", range(3))
def test_a_deleted_file_is_computed_again(folder, expected, number):
    extraction().save(blocks_in(folder))
    (folder / BLOCKS[number]).unlink()
    interrupted(blocks_in(folder), at=6)
    assert extraction().save(blocks_in(folder)) == [6, 9]
    assert content_of(folder) == expected


def named_until(monkeypatch, n_renames, save):
    """Save; the process ends before this rename, or the removal of the work. Whether it ended."""
    rename, done = Path.replace, []

    def replace(path, target):
        if len(done) == n_renames:
            raise KeyboardInterrupt
        done.append(target)
        return rename(path, target)

    def rmtree(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        if len(done) < n_renames:
            patch.setattr(shutil, "rmtree", rmtree)
        try:
            save()
        except KeyboardInterrupt:
            return True
    return False


@pytest.mark.parametrize(
    ("n_renames", "older_rows"),
    [*product(range(8), [None, 3, 10, 18])],
)
def test_a_process_that_ends_while_it_names_its_files(
    folder, expected, monkeypatch, older_rows, n_renames
):
    """Renamed are: the note of the work, two lists of problems, the note, and the three files."""
    if older_rows is not None:
        extraction(n_rows=older_rows, seed=1).save(blocks_in(folder))
    assert named_until(monkeypatch, n_renames, lambda: extraction().save(blocks_in(folder)))
    loaded = blocks_in(folder).load().n_rows if blocks_in(folder).exists() else None
    assert loaded in ({older_rows} if n_renames < 3 else {None} if n_renames < 7 else {10})
    # What is complete is not computed again.
    assert extraction().save(blocks_in(folder)) == ([] if n_renames > 1 else [0, 3, 6, 9])
    assert content_of(folder) == expected
    assert not (folder / WORK).exists()


# Files of others.


def published(folder, n_rows=10):
    """The files alone, as they may have come from elsewhere."""
    blocks_in(folder).save(labeled_blocks(*row_content(0, n_rows, 5), 100))
    return content_of(folder)


def test_published_features_are_used_as_they_are(folder, messages):
    before = published(folder)
    assert before.keys() == set(BLOCKS)
    blocks_in(folder).check_kept()
    assert extraction().save(blocks_in(folder)) == []
    assert content_of(folder) == before
    assert messages() == [
        f"{folder}/block0.hdf5 is there already, without a note of what it was made from: used as "
        "it is. Delete it to have it computed anew"
    ]
    assert blocks_in(folder).load().broken_images is None


@pytest.mark.parametrize("name", BLOCKS)
def test_published_features_of_which_some_are_missing_are_refused(folder, name):
    published(folder)
    (folder / name).unlink()
    before = content_of(folder)
    asked = extraction()
    with refused(InputError, folder, "without a note", f"{name} is missing", "10 images"):
        asked.save(blocks_in(folder))
    assert asked.asked == []
    assert content_of(folder) == before


@pytest.mark.parametrize("n_rows", [9, 11, 12])
def test_published_features_of_another_number_of_images_are_refused(folder, n_rows):
    before = published(folder)
    asked = extraction(n_rows=n_rows)
    with refused(InputError, folder, "10 images", f"there are {n_rows}"):
        asked.save(blocks_in(folder))
    assert asked.asked == []
    assert content_of(folder) == before


def test_damaged_features_are_refused_and_not_computed_over(folder):
    published(folder)
    os.truncate(folder / "block1.hdf5", 500)
    before = content_of(folder)
    asked = extraction()
    for action in (blocks_in(folder).check_kept, lambda: asked.save(blocks_in(folder))):
        with refused(ValueError, folder / "block1.hdf5", "cut off"):
            action()
    assert asked.asked == []
    assert content_of(folder) == before


def test_features_with_a_note_are_not_refused_before_they_are_made_anew(folder):
    extraction().save(blocks_in(folder))
    os.truncate(folder / "block1.hdf5", 500)
    blocks_in(folder).check_kept()
    assert extraction(seed=1).save(blocks_in(folder)) == [0, 3, 6, 9]


# Several jobs in one folder.

FIRST_JOB = {"n_rows": 8}
SECOND_JOB = {"n_rows": 7, "first_image": 8, "problems": {8: "eight", 14: "fourteen"}}


def job(folder, first_image=0, **changes):
    dataset = blocks_in(folder, i0=first_image)
    return extraction(first_image=first_image, **changes).save(dataset)


@pytest.mark.parametrize("order", [(FIRST_JOB, SECOND_JOB), (SECOND_JOB, FIRST_JOB)])
def test_jobs_that_share_a_folder_make_one_collection(folder, order):
    for facts in order:
        assert job(folder, **facts)[0] == 0
    loaded = blocks_in(folder).load()
    assert loaded.counts == (4, 4, 4, 3)
    np.testing.assert_array_equal(loaded.read(0, 15), row_content(0, 15)[0])
    np.testing.assert_array_equal(loaded.labels, row_content(0, 15)[1])
    assert list(loaded.broken_images) == [
        *((number, problem) for number, problem in PROBLEMS.items() if number < 8),
        (8, "eight"),
        (14, "fourteen"),
    ]
    of_second = blocks_in(folder, i0=8).load()
    assert of_second.counts == (4, 3)
    assert list(of_second.broken_images) == [(8, "eight"), (14, "fourteen")]
    for facts in order:
        assert job(folder, **facts) == []


@pytest.mark.parametrize("order", [(FIRST_JOB, SECOND_JOB), (SECOND_JOB, FIRST_JOB)])
def test_jobs_that_are_interrupted_or_do_their_work_again_leave_each_other_alone(folder, order):
    for facts in order:
        with pytest.raises((DatasetError, InterruptedError)):
            job(folder, **facts, at=6, midway=stop)
    for facts in order:
        assert job(folder, **facts)[0] == 6
    for facts in order:
        assert job(folder, **facts, seed=1)[0] == 0
    loaded = blocks_in(folder).load()
    np.testing.assert_array_equal(loaded.read(0, 15), row_content(0, 15, 1)[0])


def test_jobs_that_take_over_from_one_leave_each_other_alone(folder):
    """One job has done all, another one is half-way; then two share the work."""
    job(folder, n_rows=15)
    for name in ("block2.hdf5", "block3.hdf5"):
        (folder / name).unlink()
    job(folder, **SECOND_JOB, seed=1)
    assert job(folder, **FIRST_JOB, seed=1)[0] == 0
    np.testing.assert_array_equal(blocks_in(folder).load().read(0, 15), row_content(0, 15, 1)[0])

    with pytest.raises((DatasetError, InterruptedError)):
        job(folder, n_rows=15, seed=2, at=12, midway=stop)
    with pytest.raises((DatasetError, InterruptedError)):
        job(folder, **SECOND_JOB, seed=2, at=6, midway=stop)
    job(folder, **FIRST_JOB, seed=2)
    assert job(folder, **SECOND_JOB, seed=2) == [6]
    np.testing.assert_array_equal(blocks_in(folder).load().read(0, 15), row_content(0, 15, 2)[0])


def test_one_job_that_takes_over_from_two_leaves_nothing_of_theirs(tmp_path, folder):
    job(folder, **FIRST_JOB)
    job(folder, **SECOND_JOB)
    extraction(n_rows=15, seed=1).save(blocks_in(folder))
    assert content_of(folder) == complete(tmp_path / "other", n_rows=15, seed=1)
    # Their notes would have spoken for files that are no longer theirs.
    with refused(InputError, "7 images"):
        job(folder, first_image=8, n_rows=6)


@pytest.mark.parametrize("save", ["rows", "computation"])
def test_a_job_that_ends_within_a_file_does_not_move_the_rows_of_the_next_one(folder, save):
    job(folder, **SECOND_JOB)
    before = content_of(folder)
    with refused(InputError, folder / "block2.hdf5", "7 images", "block1.hdf5", "multiple of 4"):
        if save == "rows":
            blocks_in(folder).save(labeled_blocks(*row_content(0, 7), 3))
        else:
            job(folder, n_rows=7)
    assert content_of(folder) == before


def test_rows_without_a_note_replace_a_collection_up_to_the_files_of_another_job(folder):
    published(folder, 8)
    job(folder, **SECOND_JOB)
    blocks_in(folder).save(labeled_blocks(*row_content(0, 4, 1), 3))
    assert blocks_in(folder).load().n_rows == 4
    assert blocks_in(folder, i0=8).load().n_rows == 7


@pytest.mark.parametrize("rows_per_file", [0, -4, True, 2.5, "4", 10**30])
def test_blocks_without_rows_are_refused(folder, rows_per_file):
    with refused(InputError, folder, f"rows_per_file: got {rows_per_file!r}", "an integer from 1"):
        HDF5FeatureBlocksDataset(filepath=str(folder), rows_per_file=rows_per_file)


@pytest.mark.parametrize("i0", [-4, 4.0, "4", 2**32, None])
def test_a_beginning_that_is_no_number_of_an_image(folder, i0):
    with refused(InputError, folder, f"i0: got {i0!r}", "an integer from 0"):
        blocks_in(folder, i0=i0)


@pytest.mark.parametrize("i0", [1, 3, 6])
def test_a_job_begins_with_a_file(folder, i0):
    with refused(InputError, folder, f"i0 = {i0}", "multiple of 4"):
        blocks_in(folder, i0=i0)
    assert blocks_in(folder, i0=8)._describe() == {
        "filepath": str(folder),
        "rows_per_file": 4,
        "i0": 8,
    }


# A full disk.


def full_from_call(monkeypatch, name, at_call):
    function, calls = getattr(os, name), []

    def fail(*arguments):
        calls.append(arguments)
        if len(calls) >= at_call:
            raise OSError(errno.ENOSPC, "No space left on device")
        return function(*arguments)

    monkeypatch.setattr(os, name, fail)


@pytest.mark.parametrize(("name", "at_call"), [("pwrite", 1), ("pwrite", 5), ("fsync", 2)])
def test_a_disk_that_fills_up_leaves_nothing_under_a_final_name(
    folder, expected, monkeypatch, name, at_call
):
    with monkeypatch.context() as patch:
        full_from_call(patch, name, at_call)
        with refused(OSError, folder / "block0.hdf5", "the disk is full"):
            extraction().save(blocks_in(folder))
    assert not {*BLOCKS, NOTE, LIST} & content_of(folder).keys()
    assert extraction().save(blocks_in(folder)) == [0, 3, 6, 9]
    assert content_of(folder) == expected


def test_a_run_continues_after_a_disk_was_full(folder, expected, monkeypatch, commits_at_once):
    write = os.pwrite
    with monkeypatch.context() as patch:

        def full():
            full_from_call(patch, "pwrite", 1)

        with refused(OSError, folder / "block0.hdf5", "the disk is full"):
            extraction(at=6, midway=full).save(blocks_in(folder))
    assert os.pwrite is write
    assert extraction().save(blocks_in(folder)) == [6, 9]
    assert content_of(folder) == expected


def test_a_disk_that_is_full_at_the_last_moment_leaves_what_is_written(
    folder, expected, monkeypatch
):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    with (
        monkeypatch.context() as patch,
        refused(OSError, folder, "the disk is full"),
    ):
        patch.setattr(shutil, "copyfile", full)
        extraction().save(blocks_in(folder))
    assert not {*BLOCKS, NOTE, LIST} & content_of(folder).keys()
    assert extraction().save(blocks_in(folder)) == []
    assert content_of(folder) == expected


def test_room_is_asked_for_what_is_still_to_be_written(tmp_path, monkeypatch):
    n_rows, path = 10_000, tmp_path / "train.hdf5"
    needed = n_rows * (N_COLUMNS + 1) * 4
    usage = SimpleNamespace(total=1 << 40, used=1 << 39, free=needed - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    dataset = HDF5FeaturesDataset(filepath=str(path))
    large = {"n_rows": n_rows, "batch_rows": 1000}

    def is_refused():
        asked = extraction(**large)
        with refused(OSError, path, "156.2 KiB needed" if usage.free > 80_000 else "needed"):
            asked.save(dataset)
        return asked.asked == []

    assert is_refused()
    usage.free = needed
    interrupted(dataset, at=5000, **large)
    status = path.with_name(".partial-train.hdf5").stat()
    if 512 * status.st_blocks > 0.7 * status.st_size:
        pytest.skip("files on this disk have no holes")
    # A file with holes takes the room of its blocks, not that of its size.
    usage.free = needed // 2 - 20_000
    assert is_refused()
    usage.free = needed // 2
    assert extraction(**large).save(dataset) == [5000, 6000, 7000, 8000, 9000]


def test_a_computation_that_is_not_what_it_announces(folder):
    def begin(work):
        block = LabeledBlock(*row_content(0, 3))
        return RowBlocks(10, N_COLUMNS, 3, lambda first: [block])

    with refused(ValueError, folder / "block0.hdf5", "blocks of 3 rows; expected 10"):
        blocks_in(folder).save(Resumable(Extraction().provenance, begin))
    with refused(ValueError, folder / "block0.hdf5", "after row 3", "of 3 rows; expected 7"):
        blocks_in(folder).save(Resumable(Extraction().provenance, begin))
    assert not blocks_in(folder).exists()


def test_no_images_at_all(folder):
    assert Extraction(0).save(blocks_in(folder)) == []
    assert blocks_in(folder).load().counts == (0,)
    assert (folder / LIST).read_text() == "picture,problem\n"


def test_the_preview_says_how_many_images_are_broken_and_what_all_was_made_from(folder):
    extraction().save(blocks_in(folder))
    rows = [row[:2] for row in blocks_in(folder).preview()["data"]]
    assert ["broken images", "4"] in rows
    assert ["made from", "n_columns 3, n_rows 10, seed 0"] in rows


def test_rows_without_a_note_replace_the_note_and_the_list_of_a_computation(folder):
    extraction().save(blocks_in(folder))
    interrupted(blocks_in(folder), at=6, seed=1)
    assert published(folder).keys() == set(BLOCKS)
    assert not (folder / WORK).exists()
    np.testing.assert_array_equal(blocks_in(folder).load().read(0, 10), row_content(0, 10, 5)[0])
