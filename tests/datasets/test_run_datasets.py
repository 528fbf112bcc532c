import json
import math
import pickle
import shutil

import h5py
import numpy as np
import pytest

from lowshot_kedro.blocks import Runs
from lowshot_kedro.datasets import RunMetricsDataset, RunScoresDataset
from lowshot_kedro.datasets.runs import RunScores
from lowshot_kedro.errors import InputError
from tests.datasets.helpers import content_of, forks, killed_half_way, refused

ONE = "diffusion/test/nl2/nbg1000000/k30/seed1"
TWO = "logistic_regression/test/nl2/lr0.001/wd0.01/bs128/seed1"
THREE = "nearest_class_mean/test/nl2/seed1"
KEYS = [ONE, TWO, THREE]
PROVENANCE = {key: {"run": key, "top_k": (1, 5)} for key in KEYS}


def metrics_of(key, number=0):
    return {"final": {"top1": len(key) / 100 + number, "top5": 1.0}, "seconds": {"all": 1}}


class Computation:
    """Counts what it is asked for."""

    def __init__(self, provenance=PROVENANCE, number=0):
        self.asked = []
        self.runs = Runs(provenance, self.compute)
        self.number = number

    def compute(self, missing):
        self.asked.append(list(missing))
        for key in missing:
            yield key, metrics_of(key, self.number)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "new" / "metrics"


@pytest.fixture
def dataset(folder):
    return RunMetricsDataset(path=str(folder))


def loaded(dataset):
    return {key: read() for key, read in dataset.load().items()}


def expected(key, number=0, provenance=PROVENANCE):
    return {**metrics_of(key, number), "made_from": json.loads(json.dumps(provenance[key]))}


def times(folder):
    return {name: (folder / name).stat().st_mtime_ns for name in content_of(folder)}


# --- writing ---


def test_every_run_has_a_file_under_its_name(dataset, folder):
    dataset.save(Computation().runs)
    assert set(content_of(folder)) == {f"{key}.json" for key in KEYS}
    assert loaded(dataset) == {key: expected(key) for key in KEYS}


def test_runs_that_are_there_are_not_repeated(dataset, folder):
    dataset.save(Computation().runs)
    before = times(folder)
    again = Computation(number=1)
    dataset.save(again.runs)
    assert [keys for keys in again.asked if keys] == []
    assert times(folder) == before
    assert loaded(dataset) == {key: expected(key) for key in KEYS}


def test_only_what_is_made_from_something_else_is_repeated(dataset, folder):
    dataset.save(Computation().runs)
    before = times(folder)
    changed = {**PROVENANCE, TWO: {"run": TWO, "top_k": [1]}}
    again = Computation(changed, number=1)
    dataset.save(again.runs)
    assert again.asked == [[TWO]]
    assert {name for name, time in times(folder).items() if time != before[name]} == {f"{TWO}.json"}
    assert loaded(dataset)[TWO] == expected(TWO, 1, changed)


def test_a_run_that_was_changed_back_is_repeated_too(dataset):
    dataset.save(Computation().runs)
    dataset.save(Computation({**PROVENANCE, ONE: {"run": "other"}}, number=1).runs)
    again = Computation(number=2)
    dataset.save(again.runs)
    assert again.asked == [[ONE]]
    assert loaded(dataset)[ONE] == expected(ONE, 2)


def test_runs_beyond_those_announced_stay(dataset):
    dataset.save(Computation().runs)
    dataset.save(Computation({ONE: PROVENANCE[ONE]}).runs)
    assert set(loaded(dataset)) == set(KEYS)


DAMAGES = {
    "empty": b"",
    "cut off": b'{"final": {"top1": 0.5}, "made_from": {"run',
    "no JSON": b"top1: 0.5",
    "no text": b"\xff\xfe\x00",
    "zeros, as after a power cut": bytes(200),
    "a list": b"[1, 2]",
    "a number": b"3",
    "of somebody else": b'{"final": {"top1": 0.5}}',
    "null": b"null",
}


@pytest.mark.parametrize("content", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_made_again(dataset, folder, content):
    dataset.save(Computation().runs)
    (folder / f"{TWO}.json").write_bytes(content)
    again = Computation(number=1)
    dataset.save(again.runs)
    assert again.asked == [[TWO]]
    assert loaded(dataset)[TWO] == expected(TWO, 1)


def test_a_file_that_was_removed_is_made_again(dataset, folder):
    dataset.save(Computation().runs)
    (folder / f"{THREE}.json").unlink()
    again = Computation()
    dataset.save(again.runs)
    assert again.asked == [[THREE]]


def test_each_run_is_written_while_the_next_one_is_still_computed(dataset, folder):
    seen = []

    def compute(missing):
        for key in missing:
            seen.append(set(content_of(folder)))
            yield key, metrics_of(key)

    dataset.save(Runs(PROVENANCE, compute))
    assert seen == [set(), {f"{ONE}.json"}, {f"{ONE}.json", f"{TWO}.json"}]


def test_runs_may_come_in_any_order(dataset):
    def compute(missing):
        return [(key, metrics_of(key)) for key in reversed(missing)]

    dataset.save(Runs(PROVENANCE, compute))
    assert set(loaded(dataset)) == set(KEYS)


@pytest.mark.parametrize("error", [InputError("wrong input"), RuntimeError("a defect")])
def test_an_error_in_the_middle_keeps_what_came_before(dataset, error):
    def compute(missing):
        yield ONE, metrics_of(ONE)
        raise error

    with refused(type(error), str(error)):
        dataset.save(Runs(PROVENANCE, compute))
    assert loaded(dataset) == {ONE: expected(ONE)}
    again = Computation(number=1)
    dataset.save(again.runs)
    assert again.asked == [[TWO, THREE]]
    assert loaded(dataset)[ONE] == expected(ONE)


def test_an_interruption_keeps_what_came_before(dataset):
    def compute(missing):
        yield ONE, metrics_of(ONE)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dataset.save(Runs(PROVENANCE, compute))
    assert dataset.exists()
    assert loaded(dataset) == {ONE: expected(ONE)}


@forks
def test_a_process_that_is_killed_leaves_whole_runs_and_the_next_one_goes_on(
    dataset, folder, tmp_path
):
    def save(wait_to_be_killed):
        def compute(missing):
            yield ONE, metrics_of(ONE)
            place = (folder / f"{TWO}.json").parent
            place.mkdir(parents=True)
            (place / ".partial-seed1.json").write_text('{"final": {"to')
            wait_to_be_killed()

        dataset.save(Runs(PROVENANCE, compute))

    killed_half_way(save, tmp_path / "marker")
    assert loaded(dataset) == {ONE: expected(ONE)}
    again = Computation(number=1)
    dataset.save(again.runs)
    assert again.asked == [[TWO, THREE]]
    assert loaded(dataset) == {ONE: expected(ONE), TWO: expected(TWO, 1), THREE: expected(THREE, 1)}
    assert set(content_of(folder)) == {f"{key}.json" for key in KEYS}


def test_a_result_that_does_not_come_is_named(dataset):
    def compute(missing):
        yield TWO, metrics_of(TWO)

    with refused(ValueError, folder_of(dataset), "no result of", ONE, THREE):
        dataset.save(Runs(PROVENANCE, compute))
    assert set(loaded(dataset)) == {TWO}


def test_a_result_that_was_not_announced_is_refused(dataset, folder):
    def compute(missing):
        yield "diffusion/test/nl9/seed1", metrics_of("x")

    with refused(ValueError, folder, "diffusion/test/nl9/seed1", "not announced"):
        dataset.save(Runs(PROVENANCE, compute))
    assert content_of(folder) == {}


def folder_of(dataset):
    return dataset._describe()["filepath"]


def test_numbers_come_back_as_they_were(dataset):
    content = {"final": {"top1": 1 / 3, "top1_novel": None, "n": 2**53 + 1}, "accuracy": math.pi}
    dataset.save(Runs({ONE: {}}, lambda missing: [(ONE, content)]))
    assert loaded(dataset)[ONE] == {**content, "made_from": {}}


# --- names ---


def test_a_dataset_shows_the_runs_of_its_pattern(folder):
    RunMetricsDataset(path=str(folder)).save(
        Runs(
            {key: {} for key in ("a/val/1", "b/val/x/2", "b/test/3", "combined/val/4")},
            lambda missing: [(key, {}) for key in missing],
        )
    )

    def keys(pattern):
        return set(RunMetricsDataset(path=str(folder), keys=pattern).load())

    assert keys("*/val/*") == {"a/val/1", "b/val/x/2", "combined/val/4"}
    assert keys("combined/val/*") == {"combined/val/4"}
    assert keys("*/test/*") == {"b/test/3"}
    assert keys("*") == {"a/val/1", "b/val/x/2", "b/test/3", "combined/val/4"}


def test_a_run_of_another_pattern_is_refused_before_anything_is_computed(folder):
    computation = Computation({"b/test/1": {}, "b/val/1": {}})
    dataset = RunMetricsDataset(path=str(folder), keys="*/test/*")
    with refused(ValueError, folder, "b/val/1", "*/test/*"):
        dataset.save(computation.runs)
    assert computation.asked == []


def test_unfinished_and_foreign_files_are_no_runs(dataset, folder):
    dataset.save(Computation({ONE: {}}).runs)
    place = (folder / ONE).parent
    (place / ".partial-seed2.json").write_text("{")
    (place / "seed3.txt").write_text("a note")
    (folder / "table.csv").write_text("a,b")
    assert set(loaded(dataset)) == {ONE}


# --- reading ---


@pytest.mark.parametrize("exists", [False, True])
def test_without_runs_there_is_nothing_to_load(dataset, folder, exists):
    if exists:
        folder.mkdir(parents=True)
    assert dataset.load() == {}


def test_a_folder_that_was_written_exists_although_no_run_was_asked_for(dataset):
    # Reports are made without a combination where nobody wants one.
    assert not dataset.exists()
    dataset.save(Runs({}, lambda missing: []))
    assert dataset.exists()
    assert dataset.load() == {}


def test_runs_that_others_have_written_since_are_seen(dataset, folder):
    dataset.save(Computation({ONE: {}}).runs)
    assert set(dataset.load()) == {ONE}
    RunMetricsDataset(path=str(folder)).save(Computation({TWO: {}}).runs)
    assert set(dataset.load()) == {ONE, TWO}


def test_metrics_are_read_when_they_are_asked_for(dataset, folder):
    dataset.save(Computation({ONE: {}, TWO: {}}).runs)
    functions = dataset.load()
    assert functions[ONE]()["final"] == metrics_of(ONE)["final"]
    for content, fact in (
        ("{", "not valid JSON"),
        ("[" * 100_000, "too deep"),
        ("[]", "expected a JSON object"),
    ):
        (folder / f"{TWO}.json").write_text(content)
        with pytest.raises(InputError, match=rf"{TWO}\.json: .*{fact}"):
            functions[TWO]()


@pytest.mark.parametrize("content", ["[" * 100_000, '{"made_from": ' + "[" * 100_000, "1" * 5000])
def test_metrics_that_cannot_be_read_are_computed_anew(dataset, folder, content):
    dataset.save(Computation().runs)
    (folder / f"{ONE}.json").write_text(content)
    again = Computation(number=1)
    dataset.save(again.runs)
    assert again.asked == [[ONE]]
    assert dataset.load()[ONE]() == expected(ONE, 1)


def test_a_preview_shows_names_and_accuracies(dataset):
    assert dataset.preview()["data"] == []
    content = {
        TWO: {"final": {"iteration": 80, "top1": 0.25}},
        ONE: {"final": {"iteration": 3, "top1": 0.5, "top1_novel": None}},
    }
    dataset.save(Runs({key: {} for key in content}, lambda missing: content.items()))
    preview = dataset.preview()
    assert preview["columns"] == ["run", "top1", "top1_novel"]
    assert preview["data"] == [[ONE, 0.5, ""], [TWO, 0.25, ""]]
    json.dumps(preview)


def test_a_preview_does_not_read_thousands_of_runs(dataset):
    content = {f"a/{number:04}": {"final": {"top1": number}} for number in range(150)}
    dataset.save(Runs({key: {} for key in content}, lambda missing: content.items()))
    assert [row[0] for row in dataset.preview()["data"]] == list(content)[:100]


def test_metadata_and_the_folder_are_told(folder):
    dataset = RunMetricsDataset(path=str(folder), metadata={"layer": "reporting"})
    assert dataset.metadata == {"layer": "reporting"}
    assert str(folder) in str(dataset)
    # What is said where runs are missing.
    assert folder_of(dataset) == str(folder)


# --- scores ---

FACTS = {"run": ONE, "data": {"checksum": "5a", "sizes": [1, 2]}, "iteration": 3}
SCORES = np.random.default_rng(0).random((7, 5), dtype=np.float32)


@pytest.fixture
def store(tmp_path):
    return RunScores(tmp_path / "new" / "scores")


def test_scores_come_back_bit_for_bit(store):
    for key in KEYS:
        store.write(key, FACTS, SCORES)
        assert store.has(key, FACTS)
        found = store.read(key, FACTS)
        assert (found.dtype, found.shape, found.tobytes()) == (
            SCORES.dtype, SCORES.shape, SCORES.tobytes(),
        )  # fmt: skip
    assert store.keys() == KEYS


def test_scores_made_from_something_else_are_none(store):
    store.write(ONE, FACTS, SCORES)
    for other in ({**FACTS, "iteration": 4}, {}, {**FACTS, "more": None}):
        assert not store.has(ONE, other)
        assert store.read(ONE, other) is None
    assert store.read(TWO, FACTS) is None
    # As JSON tells them apart: the order of names, lists and tuples do not matter.
    same = {"iteration": 3, "data": {"sizes": (1, 2), "checksum": "5a"}, "run": ONE}
    assert store.has(ONE, same)


def test_scores_are_overwritten(store):
    store.write(ONE, FACTS, SCORES)
    store.write(ONE, {"iteration": 4}, 2 * SCORES)
    assert not store.has(ONE, FACTS)
    np.testing.assert_array_equal(store.read(ONE, {"iteration": 4}), 2 * SCORES)


def test_without_scores_there_are_none(store):
    assert store.keys() == []
    assert not store.has(ONE, FACTS)
    assert store.read(ONE, FACTS) is None
    assert not store.folder.exists()


@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, -1])
def test_scores_that_were_cut_off_are_none(store, kept):
    store.write(ONE, FACTS, SCORES)
    path = store.folder / f"{ONE}.hdf5"
    content = path.read_bytes()
    n_bytes = int(kept * len(content)) if isinstance(kept, float) else kept % len(content)
    path.write_bytes(content[:n_bytes])
    assert not store.has(ONE, FACTS)
    assert store.read(ONE, FACTS) is None
    store.write(ONE, FACTS, SCORES)
    assert store.has(ONE, FACTS)


def test_damaged_and_foreign_files_hold_no_scores(store):
    store.write(ONE, FACTS, SCORES)
    path = store.folder / f"{ONE}.hdf5"
    path.write_bytes(bytes(path.stat().st_size))
    assert store.read(ONE, FACTS) is None
    path.write_text("scores")
    assert store.read(ONE, FACTS) is None
    with h5py.File(path, "w") as file:
        file["scores"] = SCORES
    assert not store.has(ONE, FACTS)
    with h5py.File(path, "w") as file:
        file.attrs["made_from"] = json.dumps(FACTS, sort_keys=True)
    assert store.read(ONE, FACTS) is None


def test_an_unfinished_file_is_no_scores(store):
    store.write(ONE, FACTS, SCORES)
    path = store.folder / f"{ONE}.hdf5"
    path.rename(path.with_name(f".partial-{path.name}"))
    assert store.keys() == []
    assert not store.has(ONE, FACTS)
    store.write(ONE, FACTS, SCORES)
    assert store.keys() == [ONE]
    assert len(content_of(store.folder)) == 1


def test_an_error_while_writing_leaves_the_older_scores(store):
    store.write(ONE, FACTS, SCORES)
    with pytest.raises(TypeError):
        store.write(ONE, {"iteration": object()}, SCORES)
    assert store.has(ONE, FACTS)
    assert len(content_of(store.folder)) == 1


def test_scores_that_the_disk_has_no_room_for_are_not_begun(store, monkeypatch):
    total, used, _ = shutil.disk_usage(".")
    usage = type(shutil.disk_usage("."))(total, used, SCORES.nbytes - 1)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(OSError, match=r"seed1\.hdf5: the disk is too full"):
        store.write(ONE, FACTS, SCORES)
    assert content_of(store.folder) == {}


def test_the_folder_can_be_sent_to_other_processes(store):
    store.write(ONE, FACTS, SCORES)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(store)).read(ONE, FACTS), SCORES)


def test_the_dataset_opens_the_folder_whether_it_is_there_or_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset = RunScoresDataset(filepath="scores", metadata={"layer": "model_output"})
    assert dataset.exists()
    assert dataset.load().folder == tmp_path / "scores"
    assert dataset.preview()["data"] == []
    dataset.load().write(ONE, FACTS, SCORES)
    dataset.load().write(TWO, FACTS, SCORES)
    assert dataset.preview()["data"] == [[ONE], [TWO]]
    assert dataset.metadata == {"layer": "model_output"}
    assert "scores" in str(dataset)


def test_nothing_takes_the_place_of_the_folder(store):
    dataset = RunScoresDataset(filepath=str(store.folder))
    with refused(ValueError, store.folder, "write their scores themselves"):
        dataset.save(RunScores(store.folder))
