"""The script of the estimator runs, at sizes at which its times mean nothing."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsClassifier

from tests.benchmarks.conftest import Measured
from tests.benchmarks.digits import digits, write_digits
from tests.benchmarks.printed import rows
from tests.projects import ROOT

HAS_POISSON = importlib.util.find_spec("graphlearning") is not None
ALL_PEERS = ["LabelSpreading", "LabelSpreading, alpha 0.9", "Poisson learning"]
PEERS = [
    "LabelSpreading",
    "LabelSpreading, alpha 0.9",
    *(["Poisson learning"] if HAS_POISSON else []),
]
EVERYBODY = ["LabelDiffusion", *PEERS]


class Modules(NamedTuple):
    """The scripts' own modules lie beside the scripts."""

    estimator: Any
    labeled: Any
    limits: Any
    spreading: Any


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Modules:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    names = ("estimator", "common.labeled", "common.limits", "common.spreading")
    return Modules(*(importlib.import_module(name) for name in names))


@pytest.fixture(scope="module")
def loaded_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four files as those of Fashion-MNIST, two of them compressed."""
    return write_digits(tmp_path_factory.mktemp("images"))


def test_all(results: Measured, loaded_images: Path) -> None:
    text, content = results(
        "estimator.py",
        *("--rows", "2000", "1000", "--image-rows", "400", "600", "--columns", "20"),
        *("--labels", "1", "2", "--draws", "2", "--n-neighbors", "8"),
        *("--fashion-mnist", str(loaded_images), "--equal-rows", "300"),
    )
    tables = rows(text, "tabular")
    assert list(tables) == [*(f"{n}, {name}" for n in (1000, 2000) for name in EVERYBODY)]
    images = rows(text, "images")
    names = ["400, 1 a class", "400, 2 a class", "600, 2 a class"]
    assert list(images) == [*(f"{name}, {who}" for name in names for who in EVERYBODY)]

    assert list(rows(text, "equal")) == [f"300, {name}" for name in EVERYBODY]

    assert len(content["results"]) == (2 + 3 + 1) * len(EVERYBODY)
    for found in content["results"]:
        name = f"{found['n_rows']}, {found['labels']}, {found['method']}"
        assert found["reason"] is None, name
        assert found["seconds"] > 0
        assert 10**7 < found["before"] <= found["peak"]
        # Two draws, but for copies of images and for tables.
        assert len(found["accuracies"]) == (2 if found["n_rows"] == 400 else 1), name
        # Of two classes, of ten, and of equal rows, which tell nothing.
        least = {"tabular": 0.55, "images": 0.35, "equal": 0}[found["case"]]
        assert all(least < accuracy <= 1 for accuracy in found["accuracies"]), name
        if found["method"] == "LabelDiffusion":
            assert found["times_ours"] == 1
        else:
            assert found["times_ours"] > 0
    assert {target["verdict"] for target in content["targets"]} == {"not measured"}
    assert content["versions"]["scikit-learn"] is not None
    reason = "graphlearning is not installed"
    assert (f"skipped Poisson learning: {reason}" in text) == (not HAS_POISSON)


def test_images_that_are_missing_and_peers_that_are_not_wanted(
    modules: Modules, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:  # fmt: skip
    missing = ["--fashion-mnist", str(tmp_path), "--cases", "images"]
    modules.estimator.main([*missing, "--skip", *ALL_PEERS])
    printed = capsys.readouterr().out
    assert f"skipped images: {tmp_path} has no train-images-idx3-ubyte, plain or .gz" in printed
    assert "skipped tabular: not asked for" in printed
    assert "skipped LabelSpreading: asked to" in printed


def test_a_peer_that_is_not_installed(modules: Modules, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> None:
        assert name == "graphlearning"

    monkeypatch.setattr(importlib.util, "find_spec", nothing)
    assert "graphlearning is not installed" in modules.spreading.missing("Poisson learning")
    assert modules.spreading.missing("LabelSpreading") is None


# What would have to be measured for hours: (seconds, peak, accuracies), or why there is nothing.
Outcomes = dict[tuple[int, str], Any]


def measured(
    modules: Modules, monkeypatch: pytest.MonkeyPatch, case: str, outcomes: Outcomes
) -> Any:
    """A benchmark whose processes only say what they should have found."""
    spreading, limits = modules.spreading, modules.limits

    def pretend(_: Any, __: Any, method: str, task: Any, report_to: Any) -> Any:
        # One setting of LabelSpreading is like the other.
        outcome = outcomes[len(task.classes), method.removesuffix(", alpha 0.9")]
        if isinstance(outcome, str):
            return limits.Ended([spreading.Ready(1)], outcome, 3 * 10**9)
        seconds, peak, accuracies = outcome
        reports = [spreading.Ready(1)]
        for draw, accuracy in zip(task.draws, accuracies, strict=False):
            timed = (seconds, peak) if draw.timed else (None, None)
            reports.append(spreading.Fit(draw.labels, accuracy, *timed))
        enough = len(accuracies) == len(task.draws)
        return limits.Ended(reports, None if enough else "stopped after 300 s", 3 * 10**9)

    monkeypatch.setattr(modules.estimator, "run_within", pretend)
    benchmark = modules.estimator.EstimatorBenchmark(10, limits.Limits(300, 1e10))
    for n_rows in sorted({n_rows for n_rows, _ in outcomes}):
        classes = np.arange(n_rows) % 2
        if case == "tabular":
            draws = modules.estimator.draws_of_table(classes, 0)
        else:
            draws = modules.estimator.draws_of_images(classes, [1, 2, 5], 2, 0)
        benchmark.measure(case, Path("nowhere"), classes, draws)
    return benchmark


def verdicts(benchmark: Any, what: str) -> list[tuple[str, str, str]]:
    return [target[1:] for target in benchmark.targets() if what in target.name]


def test_what_was_stopped_is_not_tried_on_more_rows(
    modules: Modules, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing: Outcomes = {
        (1000, "LabelDiffusion"): (2.0, 10**9, [0.9]),
        (1000, "LabelSpreading"): "stopped after 300 s",
        (1000, "Poisson learning"): "out of memory: more than 10.0 GB",
        (700_000, "LabelDiffusion"): (100.0, 2 * 10**9, [0.9]),
    }
    benchmark = measured(modules, monkeypatch, "tabular", nothing)
    benchmark.print_tables({"tabular": "rows of nothing"})
    text = capsys.readouterr().out
    assert "rows of nothing" in text
    found = rows(text, "tabular")
    assert found["1000, LabelDiffusion"] == ["2.00", "1", "1.00", "0.00", "90.00"]
    assert found["1000, LabelSpreading"] == ["> 300.00", "> 150", "≥ 3.00", "0.00", ""]
    assert found["1000, Poisson learning"] == ["out of memory", "", "≥ 3.00", "0.00", ""]
    assert found["700000, LabelSpreading"] == ["not tried", "", "", "", ""]
    reason = "not tried: stopped after 300 s at 1000 rows (0 of 1 fits)"
    assert f"700000, LabelSpreading: {reason}" in text
    assert verdicts(benchmark, "seconds")[0] == ("100", "< 120", "reached")
    assert verdicts(benchmark, "peak GB") == [("2", "< 2", "missed")]


def test_targets_of_images(modules: Modules, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws alternate between 1, 2 and 5 labels a class."""
    nothing: Outcomes = {
        (70_000, "LabelDiffusion"): (5.0, 10**9, [0.5, 0.6, 0.7, 0.5, 0.6, 0.7]),
        (70_000, "LabelSpreading"): (100.0, 10**9, [0.4, 0.6, 0.8, 0.4, 0.6, 0.6]),
        # Stopped before the last draw.
        (70_000, "Poisson learning"): (60.0, 10**9, [0.4, 0.7, 0.5, 0.4, 0.7]),
    }
    benchmark = measured(modules, monkeypatch, "images", nothing)
    assert verdicts(benchmark, "seconds / ours") == [("20", "≥ 20", "reached")] * 3
    assert verdicts(benchmark, "accuracy, and LabelSpreading's") == [
        ("50", "≥ 40", "reached"), ("60", "≥ 60", "reached"), ("70", "≥ 70", "reached"),
    ]  # fmt: skip
    assert verdicts(benchmark, "accuracy, and Poisson") == [
        ("50", "≥ 40", "reached"), ("60", "≥ 70", "missed"), ("70", "", "not measured"),
    ]  # fmt: skip


def test_a_peer_that_was_stopped_early_proves_nothing(
    modules: Modules, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing: Outcomes = {
        (70_000, "LabelDiffusion"): (16.0, 10**9, [0.5] * 6),
        (70_000, "LabelSpreading"): "stopped after 300 s",
        (70_000, "Poisson learning"): "ValueError: of its own",
    }
    found = verdicts(measured(modules, monkeypatch, "images", nothing), "a class")
    assert {verdict for *_, verdict in found} == {"not measured"}
    nothing[70_000, "LabelDiffusion"] = (15.0, 10**9, [0.5] * 6)
    found = verdicts(measured(modules, monkeypatch, "images", nothing), "seconds / ours")
    # Only the first of the fits was begun.
    assert [verdict for *_, verdict in found] == ["reached", "not measured", "not measured"]


def test_ours_that_fails_has_missed(modules: Modules, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing: Outcomes = {
        (70_000, "LabelDiffusion"): "ValueError: X: a mistake",
        (70_000, "LabelSpreading"): (50.0, 10**9, [0.4] * 6),
        (70_000, "Poisson learning"): (50.0, 10**9, [0.4] * 6),
    }
    found = verdicts(measured(modules, monkeypatch, "images", nothing), "a class")
    assert set(found) == {("ValueError", "", "missed")}


# Begun by name in another process, which should not import all that this module does.
WORKERS = """
import os, signal, time

def fast(first, second, report):
    print("not into the results")
    report(first)
    report(second)

def slow(report):
    report("begun")
    time.sleep(60)

def hungry(report):
    report("begun")
    taken = bytearray(b"x") * (6 * 10**8)
    time.sleep(60)

def wrong(report):
    report("begun")
    raise ValueError("of its\\nown")

def out_of_memory(report):
    raise MemoryError("for an array")

def killed(report):
    os.kill(os.getpid(), signal.SIGKILL)

def gone(report):
    report("begun")
    os._exit(3)
"""


@pytest.mark.parametrize(
    ("name", "arguments", "reports", "reason"),
    [
        ("fast", (1, 2), [1, 2], None),
        ("slow", (), ["begun"], "stopped after 0.5 s"),
        ("hungry", (), ["begun"], "out of memory: more than 0.4 GB"),
        ("wrong", (), ["begun"], "ValueError: of its own"),
        ("out_of_memory", (), [], "out of memory: for an array"),
        ("killed", (), [], "out of memory: killed by the system"),
        ("gone", (), ["begun"], "ended with exit code 3"),
    ],
)
def test_a_process_within_limits(
    modules: Modules, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
    tmp_path: Path, name: str, arguments: tuple[int, ...], reports: list[Any], reason: str | None,
) -> None:  # fmt: skip
    if name == "hungry" and not Path("/proc/self/status").exists():
        pytest.skip("nobody tells how much memory another process has")
    (tmp_path / "workers.py").write_text(WORKERS)
    monkeypatch.syspath_prepend(str(tmp_path))
    worker = getattr(importlib.import_module("workers"), name)
    limits = modules.limits.Limits(0.5 if name == "slow" else 50, 4e8)
    seen: list[Any] = []
    ended = modules.limits.run_within(limits, worker, *arguments, report_to=seen.append)
    assert ended.reports == seen == reports
    assert ended.reason == reason
    printed = capfd.readouterr()
    assert printed.out == ""
    assert ("not into the results" in printed.err) == (name == "fast")


@pytest.mark.parametrize("method", PEERS)
def test_a_graph_that_is_kept_gives_what_a_new_one_gives(modules: Modules, method: str) -> None:
    images, classes = digits()
    vectors = images.reshape(len(images), -1).astype(np.float32)
    contestant = modules.spreading.METHODS[method]()

    def labels(seed: int) -> NDArray[np.int64]:
        draw = modules.estimator.draws_of_images(classes, [3], 1, seed)[0]
        found = np.full(len(classes), -1)
        found[draw.rows] = classes[draw.rows]
        return found

    contestant.fit(vectors, labels(0), 10)
    again = contestant.fit_again(vectors, labels(1), 10)
    np.testing.assert_array_equal(again, contestant.fit(vectors, labels(1), 10))
    assert np.mean(again == classes) > 0.5


def test_draws(modules: Modules) -> None:
    classes = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [50, 100, 850]))
    draws = modules.estimator.draws_of_images(classes, [1, 5], 3, seed=0)
    assert [draw.labels for draw in draws] == ["1 a class", "5 a class"] * 3
    assert [draw.timed for draw in draws] == [True, True, False, False, False, False]
    for draw, count in zip(draws, [1, 5] * 3, strict=True):
        assert np.bincount(classes[draw.rows]).tolist() == [count] * 3
        assert len(set(draw.rows.tolist())) == 3 * count
    assert len({tuple(draw.rows.tolist()) for draw in draws}) == 6
    (draw,) = modules.estimator.draws_of_table(classes, seed=0)
    assert np.bincount(classes[draw.rows]).tolist() == [1, 2, 17]
    assert len(set(draw.rows.tolist())) == 20


@pytest.mark.parametrize("n_rows", [300, 500, 700])
def test_rows_of_images_and_their_classes(
    modules: Modules, loaded_images: Path, tmp_path: Path, n_rows: int
) -> None:
    read = modules.labeled.read_images(loaded_images)
    images, classes = digits()
    np.testing.assert_array_equal(read.pixels, images.reshape(len(images), -1))
    np.testing.assert_array_equal(read.classes, classes)
    found = modules.labeled.image_rows(tmp_path / "rows.npy", read, n_rows, 20, seed=0)
    vectors = np.load(found.vectors)
    assert (vectors.shape, vectors.dtype) == ((n_rows, 20), np.float32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    known = np.bincount(classes, minlength=10)
    assert (np.bincount(found.classes, minlength=10) <= 2 * known).all()
    # Rows that are near each other show the same digit.
    half = n_rows // 2
    nearest = KNeighborsClassifier(1).fit(vectors[:half], found.classes[:half])
    assert nearest.score(vectors[half:], found.classes[half:]) > 0.7
    if n_rows == 500:
        np.testing.assert_array_equal(np.bincount(found.classes), known)


def test_a_table(modules: Modules, tmp_path: Path) -> None:
    found = modules.labeled.table(tmp_path / "table.npy", 400, seed=0)
    rows_of_it = np.load(found.vectors)
    assert (rows_of_it.shape, rows_of_it.dtype) == ((400, 15), np.float32)
    nearest = KNeighborsClassifier(5).fit(rows_of_it[:300], found.classes[:300])
    assert nearest.score(rows_of_it[300:], found.classes[300:]) > 0.7


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-labels-idx1-ubyte", [0x803, 400], "no idx file of classes"),
        ("t10k-labels-idx1-ubyte", [0x801, 101], "no idx file of classes"),
        ("t10k-images-idx3-ubyte", [0x803, 0, 28, 29], "no idx file of images of 28 × 28"),
        ("t10k-labels-idx1-ubyte", [0x801, 0], "not as many labels as images"),
    ],
)
def test_a_file_of_something_else(
    modules: Modules,
    loaded_images: Path,
    tmp_path: Path,
    name: str,
    content: list[int],
    message: str,
) -> None:
    for path in loaded_images.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / name).write_bytes(np.array(content, ">i4").tobytes())
    with pytest.raises(ValueError, match=message):
        modules.labeled.read_images(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--columns", "785"], "--columns: at most 784, got 785"),
        (["--time-limit", "0"], "--time-limit: above 0, got 0"),
        (["--memory-limit-gb", "-1"], "--memory-limit-gb: above 0, got -1"),
        (["--image-rows", "2000000"], "--image-rows: at most 1820000, got 2000000"),
        (["--cases", "nothing"], "invalid choice: 'nothing'"),
    ],
)
def test_options_that_cannot_be(
    modules: Modules, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    with pytest.raises(SystemExit):
        modules.estimator.parse(options)
    assert message in " ".join(capsys.readouterr().err.split())
