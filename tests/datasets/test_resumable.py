"""A result that is computed while it is saved: continued, kept, or computed anew."""

import errno
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import faiss
import numpy as np
import pytest
from kedro.io import DatasetError

from lowshot_kedro.blocks import Blocks, InvertedFile, KnnGraph, ListBlock, Resumable, RowBlocks
from lowshot_kedro.datasets import FaissIndexDataset, KnnGraphDataset, resumable
from lowshot_kedro.datasets.resumable import ResumableFiles
from lowshot_kedro.locks import Claims, ResultInUseError
from tests.datasets.helpers import (
    array_blocks,
    content_of,
    forks,
    half_way,
    killed_half_way,
    random_features,
    refused,
)
from tests.other_processes import another_process, written

N_ROWS, K, BLOCK_ROWS = 10, 3, 4
ROW_BYTES = 4 * K
INDICES = np.arange(N_ROWS * K, dtype=np.int32).reshape(N_ROWS, K)
GRAPH = KnnGraph(INDICES, -INDICES.astype(np.float32))
OTHER = KnnGraph(INDICES + 1000, 1 - INDICES.astype(np.float32))
PROVENANCE = {"method": "ivf", "n": N_ROWS, "sizes": (1, 2)}
NOTE = "ndis10_k3.made_from.json"
NOTE_TEXT = """{
  "method": "ivf",
  "n": 10,
  "sizes": [
    1,
    2
  ]
}
"""
FIRST, SECOND = "ndis10_k3_I_11.int32", "ndis10_k3_D_11.float32"
COMPLETE = {
    NOTE: NOTE_TEXT.encode(),
    FIRST: GRAPH.indices.tobytes(),
    SECOND: GRAPH.similarities.tobytes(),
}
WORK = ".partial-ndis10_k3.work"


def nothing() -> None:
    pass


def stop() -> None:
    raise InterruptedError("stopped half-way")


def dataset_in(folder: Path, n_rows: int | None = N_ROWS) -> KnnGraphDataset:
    return KnnGraphDataset(filepath=str(folder / "ndis10_k3"), k=K, n_rows=n_rows)


class Computation:
    """The graph, computed in blocks, and what has been computed of it.

    `at` is the step ("begin" or the first row of a block) before which `midway` is called.
    """

    def __init__(self, graph=GRAPH, at=None, midway=nothing, **facts):
        self.graph, self.at, self.midway = graph, at, midway
        self.provenance = PROVENANCE | facts
        self.steps = []
        self.found = set()

    def step(self, name):
        if name == self.at:
            self.midway()
        self.steps.append(name)

    def begin(self, folder):
        self.found = {path.name for path in folder.iterdir()}
        (folder / "centroids").write_text(str(self.provenance))
        self.step("begin")
        return RowBlocks(N_ROWS, K, BLOCK_ROWS, self.blocks)

    def blocks(self, first_row):
        assert first_row % BLOCK_ROWS == 0
        for first in range(first_row, N_ROWS, BLOCK_ROWS):
            self.step(first)
            yield self.graph.part(first, first + BLOCK_ROWS, K)

    def save(self, folder):
        dataset_in(folder).save(Resumable(self.provenance, self.begin))
        return self.steps


def interrupted(folder, at, midway=stop, **settings):
    with pytest.raises((DatasetError, InterruptedError), match="stopped half-way"):
        Computation(at=at, midway=midway, **settings).save(folder)


@pytest.fixture
def messages(caplog):
    caplog.set_level("INFO", logger="lowshot_kedro")
    return lambda: [record.getMessage() for record in caplog.records]


def test_an_undisturbed_save_writes_the_files_and_a_note(tmp_path, messages):
    assert Computation().save(tmp_path) == ["begin", 0, 4, 8]
    assert content_of(tmp_path) == COMPLETE
    assert not (tmp_path / WORK).exists()
    assert messages() == []
    np.testing.assert_array_equal(dataset_in(tmp_path).load().indices, GRAPH.indices)


@forks
@pytest.mark.parametrize("at", [0, 4, 8])
def test_the_next_run_continues_after_the_rows_of_a_killed_process(tmp_path, messages, at):
    folder = tmp_path / "killed"
    killed_half_way(lambda wait: Computation(at=at, midway=wait).save(folder), tmp_path / "marker")
    assert not dataset_in(folder).exists()
    assert not {FIRST, SECOND, NOTE} & content_of(folder).keys()

    computation = Computation()
    assert computation.save(folder) == ["begin", *range(at, N_ROWS, BLOCK_ROWS)]
    assert computation.found == {"made_from.json", "centroids"}
    assert content_of(folder) == COMPLETE
    assert messages() == [f"{folder / FIRST}: continuing after row {at} of 10"] * (at > 0)


@forks
def test_what_was_begun_before_a_kill_is_there_for_the_next_run(tmp_path, messages):
    folder = tmp_path / "killed"
    killed_half_way(
        lambda wait: Computation(at="begin", midway=wait).save(folder), tmp_path / "marker"
    )
    assert content_of(folder)[f"{WORK}/made_from.json"] == NOTE_TEXT.encode()
    computation = Computation()
    assert computation.save(folder) == ["begin", 0, 4, 8]
    assert computation.found == {"made_from.json", "centroids"}
    assert content_of(folder) == COMPLETE
    assert messages() == []


@pytest.mark.parametrize("error", [InterruptedError, KeyboardInterrupt, MemoryError])
def test_the_next_run_continues_after_an_error(tmp_path, error):
    def fail():
        raise error("stopped half-way")

    with pytest.raises((DatasetError, error), match="stopped half-way"):
        Computation(at=8, midway=fail).save(tmp_path)
    assert not {FIRST, SECOND, NOTE} & content_of(tmp_path).keys()
    assert Computation().save(tmp_path) == ["begin", 8]
    assert content_of(tmp_path) == COMPLETE


@pytest.mark.parametrize(
    ("indices_bytes", "similarities_bytes", "first_row"),
    [
        (4 * ROW_BYTES + 5, 4 * ROW_BYTES, 4),
        (5 * ROW_BYTES, 4 * ROW_BYTES + 1, 4),
        (8 * ROW_BYTES, 3 * ROW_BYTES, 0),
        (8 * ROW_BYTES, 8 * ROW_BYTES - 1, 4),
        (9 * ROW_BYTES, 9 * ROW_BYTES + 7, 8),
        (10 * ROW_BYTES, 10 * ROW_BYTES, 10),
        (10 * ROW_BYTES, 10 * ROW_BYTES - 1, 8),
        (10 * ROW_BYTES + 1, 10 * ROW_BYTES, 0),
        (8 * ROW_BYTES, None, 0),
        (None, None, 0),
    ],
)
def test_continues_after_the_last_whole_block(
    tmp_path, indices_bytes, similarities_bytes, first_row
):
    interrupted(tmp_path, at=0)
    for name, size in ((FIRST, indices_bytes), (SECOND, similarities_bytes)):
        path = tmp_path / f".partial-{name}"
        path.unlink()
        if size is not None:
            path.write_bytes((COMPLETE[name] + b"more")[:size])
    assert Computation().save(tmp_path) == ["begin", *range(first_row, N_ROWS, BLOCK_ROWS)]
    assert content_of(tmp_path) == COMPLETE


def test_nothing_is_computed_again_from_the_same(tmp_path, messages):
    Computation().save(tmp_path)
    # As JSON holds it: a tuple is a list.
    assert Computation(OTHER, sizes=[1, 2]).save(tmp_path) == []
    assert content_of(tmp_path) == COMPLETE
    assert messages() == [f"{tmp_path / FIRST} is there already, made from the same: kept"]


def test_other_facts_are_computed_anew_and_the_old_files_stay_until_then(tmp_path, messages):
    Computation().save(tmp_path)

    def old_files_are_there():
        assert COMPLETE.items() <= content_of(tmp_path).items()
        dataset_in(tmp_path).check()

    computation = Computation(
        OTHER, at=8, midway=old_files_are_there, method="exact", seed=1, sizes=[1, 2]
    )
    assert computation.save(tmp_path) == ["begin", 0, 4, 8]
    found = content_of(tmp_path)
    assert found[FIRST] == OTHER.indices.tobytes()
    assert found[SECOND] == OTHER.similarities.tobytes()
    assert json.loads(found[NOTE]) == {"method": "exact", "n": 10, "seed": 1, "sizes": [1, 2]}
    assert found.keys() == COMPLETE.keys()
    assert messages() == [
        f"{tmp_path / FIRST} was made from something else (method, seed differ): computed anew, "
        "the old one stays until then"
    ]


def test_an_interrupted_replacement_is_continued_beside_the_old_files(tmp_path):
    Computation().save(tmp_path)
    interrupted(tmp_path, at=8, graph=OTHER, method="exact")
    assert COMPLETE.items() <= content_of(tmp_path).items()
    # The old one is still asked for by somebody: that hurts neither.
    assert Computation().save(tmp_path) == []
    assert Computation(OTHER, method="exact").save(tmp_path) == ["begin", 8]
    assert content_of(tmp_path)[FIRST] == OTHER.indices.tobytes()


def test_unfinished_work_from_something_else_is_removed(tmp_path, messages):
    interrupted(tmp_path, at=8, graph=OTHER, method="exact")
    computation = Computation()
    assert computation.save(tmp_path) == ["begin", 0, 4, 8]
    assert computation.found == {"made_from.json"}
    assert content_of(tmp_path) == COMPLETE
    assert messages() == [
        f"{tmp_path / FIRST}: unfinished work was made from something else (method differs) and is "
        "removed"
    ]


@forks
@pytest.mark.parametrize("at", ["begin", 0, 4, 8])
@pytest.mark.parametrize("graph", [GRAPH, OTHER], ids=["the same", "something else"])
def test_two_processes_never_compute_at_a_time(tmp_path, monkeypatch, graph, at):
    monkeypatch.setattr(resumable, "_SECONDS_TO_END", 0)
    folder, facts = tmp_path / "two", {"from": "other" if graph is OTHER else "same"}
    ours = Computation(graph, **facts)
    with half_way(
        lambda wait: Computation(at=at, midway=wait, **{"from": "same"}).save(folder),
        tmp_path / "half-way",
    ) as other:
        begun = content_of(folder)
        with refused(ValueError, folder, f"process {other.pid}", "has been writing it since"):
            ours.save(folder)
        assert ours.steps == []
        assert content_of(folder) == begun
    ours.save(folder)
    assert json.loads((folder / NOTE).read_text())["from"] == facts["from"]
    assert (folder / FIRST).read_bytes() == graph.indices.tobytes()
    assert (folder / SECOND).read_bytes() == graph.similarities.tobytes()
    assert set(content_of(folder)) == set(COMPLETE)


@forks
def test_what_is_kept_is_used_by_two_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(resumable, "_SECONDS_TO_END", 0)
    folder = tmp_path / "two"
    Computation().save(folder)

    def keep(wait):
        # It reads, as a run does.
        claims = Claims()
        claims.to_read(dataset_in(folder).files_in_use())
        wait()

    with half_way(keep, tmp_path / "half-way") as other:
        assert Computation().save(folder) == []
        with refused(ValueError, folder, f"process {other.pid}", "has been reading it since"):
            Computation(OTHER, method="exact").save(folder)
    assert content_of(folder).items() >= COMPLETE.items()
    assert Computation(OTHER, method="exact").save(folder) == ["begin", 0, 4, 8]


@forks
def test_what_is_kept_is_looked_at_while_nobody_writes(tmp_path, monkeypatch):
    Computation().save(tmp_path)
    looked = []

    def check(self):
        for path in (tmp_path / FIRST, tmp_path / SECOND):
            with (
                pytest.raises(ResultInUseError, match=f"process {os.getpid()} .* reading it"),
                another_process(written, path),
            ):
                raise AssertionError("not reached")
        looked.append(self)

    monkeypatch.setattr(KnnGraphDataset, "check", check)
    assert Computation().save(tmp_path) == []
    assert len(looked) == 1
    assert content_of(tmp_path) == COMPLETE


@forks
@pytest.mark.parametrize("at", ["begin", 4])
def test_whoever_keeps_a_result_leaves_the_work_of_others_on_it(tmp_path, monkeypatch, at):
    monkeypatch.setattr(resumable, "_SECONDS_TO_END", 0)
    folder = tmp_path / "two"
    Computation().save(folder)
    with half_way(
        lambda wait: Computation(OTHER, at=at, midway=wait, method="exact").save(folder),
        tmp_path / "half-way",
    ) as other:
        begun = content_of(folder)
        with refused(ValueError, folder, f"process {other.pid}", "has been writing it since"):
            Computation().save(folder)
        assert content_of(folder) == begun


def test_unfinished_work_without_a_note_is_removed(tmp_path, messages):
    interrupted(tmp_path, at=8, graph=OTHER)
    (tmp_path / WORK / "made_from.json").unlink()
    computation = Computation()
    assert computation.save(tmp_path) == ["begin", 0, 4, 8]
    assert computation.found == {"made_from.json"}
    assert content_of(tmp_path) == COMPLETE
    assert messages() == [
        f"{tmp_path / FIRST}: unfinished work was made from something else (no note of what from) "
        "and is removed"
    ]


def test_a_published_graph_is_used_as_it_is(tmp_path, messages):
    dataset_in(tmp_path).save(OTHER)
    published = content_of(tmp_path)
    assert published.keys() == {FIRST, SECOND}
    assert Computation().save(tmp_path) == []
    assert content_of(tmp_path) == published
    assert messages() == [
        f"{tmp_path / FIRST} is there already, without a note of what it was made from: used as it "
        "is. Delete it to have it computed anew"
    ]


@pytest.mark.parametrize("with_note", [False, True])
def test_a_damaged_graph_is_refused_and_not_computed_over(tmp_path, with_note):
    Computation().save(tmp_path)
    if not with_note:
        (tmp_path / NOTE).unlink()
    os.truncate(tmp_path / SECOND, 5)
    before = content_of(tmp_path)
    computation = Computation()
    with refused(ValueError, SECOND, "5 bytes", "cut off"):
        computation.save(tmp_path)
    assert computation.steps == []
    assert content_of(tmp_path) == before


def test_a_note_that_cannot_be_read_is_like_another(tmp_path, messages):
    Computation().save(tmp_path)
    (tmp_path / NOTE).write_text("{")
    assert Computation().save(tmp_path) == ["begin", 0, 4, 8]
    assert content_of(tmp_path) == COMPLETE
    assert "(method, n, sizes differ)" in messages()[0]


def test_what_json_cannot_hold_is_refused(tmp_path):
    for value, kind, message in (
        (np.int64(1), TypeError, "int64 is not JSON serializable"),
        (float("nan"), ValueError, "JSON compliant"),
    ):
        with refused(kind, message):
            Computation(seed=value).save(tmp_path)
    assert content_of(tmp_path) == {}


def test_a_deleted_file_is_computed_again(tmp_path):
    for name in (FIRST, SECOND):
        Computation().save(tmp_path)
        (tmp_path / name).unlink()
        # Interrupted: the note of the deleted files must not make these look complete.
        interrupted(tmp_path, at=4)
        assert not dataset_in(tmp_path).exists()
        assert Computation().save(tmp_path) == ["begin", 4, 8]
        assert content_of(tmp_path) == COMPLETE


@pytest.mark.parametrize("replacing", [False, True])
@pytest.mark.parametrize("renames", range(4))
def test_a_process_that_ends_while_it_names_its_files(tmp_path, monkeypatch, replacing, renames):
    """Renamed are the note, the similarities and the indices, and then the work is removed."""
    if replacing:
        Computation(OTHER, method="exact").save(tmp_path)
    rename, remove, done = Path.replace, shutil.rmtree, []

    def replace(path, target):
        if len(done) == renames:
            raise KeyboardInterrupt
        done.append(target)
        return rename(path, target)

    def rmtree(path):
        assert renames == 3
        raise KeyboardInterrupt

    def from_now_on():
        patch.setattr(Path, "replace", replace)
        patch.setattr(shutil, "rmtree", rmtree)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        Computation(at=8, midway=from_now_on).save(tmp_path)
    assert shutil.rmtree is remove
    assert [path.name for path in done] == [NOTE, SECOND, FIRST][:renames]
    assert dataset_in(tmp_path).exists() == (renames == 3)

    # What is complete is not computed again.
    assert Computation().save(tmp_path) == (["begin"] if renames == 0 else [])
    assert content_of(tmp_path) == COMPLETE
    assert not (tmp_path / WORK).exists()


@forks
def test_a_plain_save_is_not_taken_for_the_beginning_of_another_one(tmp_path):
    folder = tmp_path / "killed"
    interrupted(folder, at=4)

    def save(wait):
        def blocks():
            yield OTHER.part(0, 8, K)
            # More than a file object keeps back.
            os.truncate(folder / f".partial-{FIRST}", 8 * ROW_BYTES)
            os.truncate(folder / f".partial-{SECOND}", 8 * ROW_BYTES)
            wait()
            yield OTHER.part(8, 10, K)

        dataset_in(folder).save(Blocks(N_ROWS, K, blocks))

    killed_half_way(save, tmp_path / "marker")
    assert (folder / f".partial-{FIRST}").stat().st_size == 8 * ROW_BYTES
    assert Computation().save(folder) == ["begin", 0, 4, 8]
    assert content_of(folder) == COMPLETE


def test_a_plain_save_removes_the_note_of_what_it_replaces(tmp_path):
    Computation().save(tmp_path)
    dataset_in(tmp_path).save(OTHER)
    assert content_of(tmp_path).keys() == {FIRST, SECOND}


def test_a_disk_that_fills_up_leaves_what_is_written(tmp_path):
    def full():
        raise OSError(errno.ENOSPC, "No space left on device")

    with refused(OSError, tmp_path / FIRST, "the disk is full"):
        Computation(at=8, midway=full).save(tmp_path)
    with refused(OSError, tmp_path / FIRST, "the disk is full"):
        Computation(at="begin", midway=full).save(tmp_path)
    assert Computation().save(tmp_path) == ["begin", 8]
    assert content_of(tmp_path) == COMPLETE


def test_a_disk_that_is_full_at_the_last_moment_leaves_what_is_written(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with (
        monkeypatch.context() as patch,
        refused(OSError, tmp_path / FIRST, "the disk is full"),
    ):
        Computation(at=8, midway=lambda: patch.setattr(os, "fsync", full)).save(tmp_path)
    work = {f"{WORK}/made_from.json", f"{WORK}/centroids"}
    assert content_of(tmp_path).keys() == {f".partial-{FIRST}", f".partial-{SECOND}"} | work
    assert Computation().save(tmp_path) == ["begin"]
    assert content_of(tmp_path) == COMPLETE


def test_room_is_asked_for_what_is_still_to_be_written(tmp_path, monkeypatch):
    interrupted(tmp_path, at=8)
    remaining = 2 * 2 * ROW_BYTES
    usage = SimpleNamespace(total=1 << 40, used=1 << 39, free=remaining - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    computation = Computation()
    for action in (dataset_in(tmp_path).check_space, lambda: computation.save(tmp_path)):
        with refused(OSError, tmp_path / FIRST, "48 B needed but only 47 B free"):
            action()
    assert computation.steps == ["begin"]
    usage.free = remaining
    dataset_in(tmp_path).check_space()
    assert Computation().save(tmp_path) == ["begin", 8]
    usage.free = 0
    dataset_in(tmp_path).check_space()
    assert Computation().save(tmp_path) == []


def test_refuses_another_number_of_columns_and_of_rows(tmp_path):
    narrow = Resumable({}, lambda folder: RowBlocks(N_ROWS, 2, 4, lambda first: []))
    with refused(ValueError, tmp_path / FIRST, "got 2 columns, expected 3"):
        dataset_in(tmp_path).save(narrow)
    interrupted(tmp_path, at=4)
    short = RowBlocks(N_ROWS, K, BLOCK_ROWS, lambda first: [GRAPH.part(first, 9, K)])
    with refused(ValueError, tmp_path / FIRST, "after row 4", "blocks of 5 rows; expected 6"):
        dataset_in(tmp_path).save(Resumable(PROVENANCE, lambda folder: short))
    assert not dataset_in(tmp_path).exists()


def test_a_graph_of_no_rows(tmp_path):
    def make_from(first_row):
        pytest.fail("there is nothing to compute")

    content = RowBlocks(0, K, BLOCK_ROWS, make_from)
    dataset_in(tmp_path, None).save(Resumable({}, lambda folder: content))
    assert content_of(tmp_path) == {FIRST: b"", SECOND: b"", NOTE: b"{}\n"}


def test_the_preview_shows_the_short_facts(tmp_path):
    Computation(checksum="0123456789" * 6).save(tmp_path)
    rows = dataset_in(tmp_path).preview()["data"]
    assert ["made from", "method ivf, n 10"] in [row[:2] for row in rows]
    (tmp_path / NOTE).unlink()
    assert "made from" not in str(dataset_in(tmp_path).preview())


# Files that must not stand beside new ones.


def files_in(folder: Path) -> ResumableFiles:
    obsolete = [folder / "2", folder / "absent"]
    return ResumableFiles(folder / "0", folder / "0", folder / "1", obsolete=obsolete)


def write_both(content, paths):
    for path in paths:
        path.write_text(content)


@pytest.fixture
def older(tmp_path):
    for name in ("0", "1", "2", "3"):
        (tmp_path / name).write_text("old")
    (tmp_path / "0.made_from.json").write_text('{"seed": 0}')
    return content_of(tmp_path)


def save_both(folder, write=write_both):
    files_in(folder).save(Resumable({"seed": 1}, lambda work: "new"), stop, write)


def test_what_is_obsolete_goes_when_the_new_files_come(tmp_path, older):
    def old_ones_are_there(content, paths):
        assert older.items() <= content_of(tmp_path).items()
        write_both(content, paths)

    save_both(tmp_path, old_ones_are_there)
    assert content_of(tmp_path) == {
        "0": b"new",
        "1": b"new",
        "3": b"old",
        "0.made_from.json": b'{\n  "seed": 1\n}\n',
    }


def test_what_is_obsolete_stays_where_the_new_files_do_not_come(tmp_path, older):
    with pytest.raises(InterruptedError):
        save_both(tmp_path, lambda content, paths: stop())
    assert older.items() <= content_of(tmp_path).items()
    with pytest.raises(InterruptedError), files_in(tmp_path).written_anew():
        stop()
    assert content_of(tmp_path) == older


def test_what_is_obsolete_goes_with_a_note(tmp_path, older):
    with files_in(tmp_path).written_anew() as paths:
        write_both("new", paths)
    assert content_of(tmp_path) == {"0": b"new", "1": b"new", "3": b"old"}


def test_what_unfinished_work_is_made_from_can_be_asked(tmp_path, older):
    assert files_in(tmp_path).unfinished_provenance() is None
    with pytest.raises(InterruptedError):
        save_both(tmp_path, lambda content, paths: stop())
    assert files_in(tmp_path).unfinished_provenance() == {"seed": 1}
    assert files_in(tmp_path).provenance() == {"seed": 0}
    save_both(tmp_path)
    assert files_in(tmp_path).unfinished_provenance() is None


# The index.

VECTORS, _ = random_features(20, 4)
INDEX = "ndis20.index"


def flat_index() -> faiss.Index:
    index = faiss.IndexFlatIP(4)
    index.add(VECTORS)
    return index


def flat_blocks() -> Blocks:
    return array_blocks(VECTORS[:15], VECTORS[15:])


def inverted_file(blocks=None) -> InvertedFile:
    block = ListBlock(np.arange(20), VECTORS, np.array([12, 8]))
    return InvertedFile(VECTORS[:2], block.counts, 1, blocks or (lambda: [block]))


CONTENTS = {"index": flat_index, "flat": flat_blocks, "inverted file": inverted_file}


def index_in(folder: Path, n_rows: int = 20) -> FaissIndexDataset:
    return FaissIndexDataset(filepath=str(folder / INDEX), n_columns=4, n_rows=n_rows)


def save_index(folder, make, **facts):
    """Save; the folders that were handed out, with what was in them."""
    begun = []

    def begin(work_folder):
        begun.append((work_folder.name, {path.name for path in work_folder.iterdir()}))
        (work_folder / "centroids").touch()
        return make()

    index_in(folder).save(Resumable(PROVENANCE | facts, begin))
    return begun


@pytest.mark.parametrize("make", CONTENTS.values(), ids=CONTENTS)
def test_an_index_is_computed_once(tmp_path, messages, make):
    assert save_index(tmp_path, make) == [(f".partial-{INDEX}.work", {"made_from.json"})]
    index_in(tmp_path / "plain").save(make())
    complete = {
        INDEX: (tmp_path / "plain" / INDEX).read_bytes(),
        f"{INDEX}.made_from.json": NOTE_TEXT.encode(),
    }
    shutil.rmtree(tmp_path / "plain")
    assert content_of(tmp_path) == complete
    assert "method ivf, n 10" in str(index_in(tmp_path).preview())
    assert save_index(tmp_path, lambda: pytest.fail("computed again")) == []
    assert content_of(tmp_path) == complete
    assert messages() == [f"{tmp_path / INDEX} is there already, made from the same: kept"]
    assert len(save_index(tmp_path, flat_index, seed=1)) == 1
    assert json.loads(content_of(tmp_path)[f"{INDEX}.made_from.json"])["seed"] == 1


@pytest.mark.parametrize("n_rows", [20, 21])
def test_a_published_index_is_used_as_it_is_or_refused(tmp_path, messages, n_rows):
    index_in(tmp_path).save(flat_index())
    published = content_of(tmp_path)
    data = Resumable(PROVENANCE, lambda folder: pytest.fail("computed"))
    if n_rows == 20:
        index_in(tmp_path, n_rows).save(data)
        assert "used as it is" in messages()[0]
    else:
        with refused(ValueError, tmp_path / INDEX, "20 vectors", "graph.n_background = 21"):
            index_in(tmp_path, n_rows).save(data)
    assert content_of(tmp_path) == published


def interrupted_lists(midway):
    yield ListBlock(np.arange(12), VECTORS[:12], np.array([12, 0]))
    midway()
    yield ListBlock(np.arange(12, 20), VECTORS[12:], np.array([0, 8]))


@forks
@pytest.mark.parametrize("killed", [True, False])
def test_an_interrupted_index_starts_over_with_what_was_begun(tmp_path, monkeypatch, killed):
    folder = tmp_path / "killed"

    def save(midway):
        save_index(folder, lambda: inverted_file(lambda: interrupted_lists(midway)))

    if killed:
        killed_half_way(save, tmp_path / "marker")
    else:
        with pytest.raises((DatasetError, InterruptedError), match="stopped half-way"):
            save(stop)
    assert not index_in(folder).exists()
    # Useless for the next run, it must not take away its room.
    assert (folder / f".partial-{INDEX}").exists() == killed

    def make():
        return inverted_file(lambda: interrupted_lists(nothing))

    assert save_index(folder, make) == [
        (f".partial-{INDEX}.work", {"made_from.json", "centroids"}),
    ]
    save_index(tmp_path / "fresh", make)
    assert content_of(folder) == content_of(tmp_path / "fresh")


def test_a_plain_index_removes_the_note_of_what_it_replaces(tmp_path):
    save_index(tmp_path, flat_index)
    index_in(tmp_path).save(flat_index())
    assert content_of(tmp_path).keys() == {INDEX}


def test_room_for_an_index_is_asked_for_unless_it_is_there(tmp_path, monkeypatch):
    # Vectors, numbers, centroids, sizes.
    needed = 4 * 20 * 4 + 8 * 20 + 4 * 2 * 4 + 8 * 2
    usage = SimpleNamespace(total=1 << 40, used=1 << 39, free=needed - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with refused(OSError, tmp_path / INDEX, f"{needed} B needed but only {needed - 1} B free"):
        save_index(tmp_path, inverted_file)
    usage.free = needed
    save_index(tmp_path, inverted_file)
    usage.free = 0
    index_in(tmp_path).check_space()


def test_an_index_that_was_cut_short_gives_its_room_back(tmp_path, monkeypatch):
    with pytest.raises((DatasetError, InterruptedError), match="stopped half-way"):
        save_index(tmp_path, stop)
    partial = tmp_path / f".partial-{INDEX}"
    partial.write_bytes(b"x" * 300)

    def usage(path):
        left_over = partial.stat().st_size if partial.exists() else 0
        return SimpleNamespace(total=1 << 40, used=1 << 39, free=4 * 20 * 4 - left_over)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    index_in(tmp_path).check_space()
    save_index(tmp_path, flat_blocks)
    assert index_in(tmp_path).load().ntotal == 20
