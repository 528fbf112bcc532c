"""The accuracies and true links of the script follow from the definition."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lowshot_kedro import native
from lowshot_kedro.graph import insert_labeled_nodes, unlabeled_nodes
from lowshot_kedro.protocol import ImageSelection
from tests.benchmarks.printed import read, rows
from tests.projects import ROOT

K = 8
N_COLUMNS, N_ROWS, N_CLASSES = 16, 1200, 24
SIZES = [
    *("--data", "synthetic", "--rows", str(N_ROWS), "--classes", str(N_CLASSES)),
    *("--columns", str(N_COLUMNS), "--k", str(K), "--iterations", "1", "3"),
]


class Modules(NamedTuple):
    """The scripts' own modules lie beside the scripts."""

    graph_accuracy: Any
    links: Any
    published: Any


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[Modules]:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    before = native.get_num_threads(), torch.get_num_threads()
    names = ("graph_accuracy", "common.links", "common.published")
    yield Modules(*(importlib.import_module(name) for name in names))
    importlib.import_module("common.machine").set_threads(before[0])
    torch.set_num_threads(before[1])


class Case(NamedTuple):
    """One choice of labelled images, by plain numpy."""

    nodes: NDArray[np.float64]
    test: NDArray[np.float64]
    classes: NDArray[np.int64]
    test_classes: NDArray[np.int64]
    is_novel: NDArray[np.bool_]


def case_of(folder: Path, mode: str, seed: int, n_labeled: int) -> Case:
    """Choose images as the published experiment does: design, section 5."""
    split = json.loads((folder / "label_idx.json").read_text())
    number = {"val": 1, "test": 2}[mode]
    base, novel = (
        {label - 1 for label in split[f"{kind}_classes_{number}"]} for kind in ("base", "novel")
    )
    features, labels = {}, {}
    for name in ("train", "val"):
        with h5py.File(folder / "features" / f"{name}.hdf5") as file:
            count = int(file["count"][0])
            features[name], labels[name] = file["all_feats"][:count], file["all_labels"][:count]
    pca = faiss.read_VectorTransform(str(folder / "features" / f"PCAR{N_COLUMNS}.vt"))

    def vectors(found: NDArray[np.float32]) -> NDArray[np.float64]:
        found = found.astype(np.float64)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    random_state = np.random.RandomState(seed)
    of_base, of_novel = [], []
    members = sorted(base | novel)
    for place, label in enumerate(members):
        positions = np.flatnonzero(labels["train"] == label)
        if label in base:
            of_base += [(position, place) for position in positions]
        else:
            random_state.shuffle(positions)
            of_novel += [(position, place) for position in positions[:n_labeled]]
    positions, classes = np.array(of_base + of_novel).T
    kept = np.isin(labels["val"], members)
    raw = folder / "features" / "f100m" / f"concatenated_PCAR{N_COLUMNS}.raw"
    background = np.fromfile(raw, "<f4").reshape(-1, N_COLUMNS)
    labeled = pca.apply(features["train"][positions])
    return Case(
        vectors(np.concatenate([labeled, background])),
        vectors(pca.apply(features["val"][kept])),
        classes,
        np.searchsorted(members, labels["val"][kept]),
        np.isin(members, sorted(novel)),
    )


def nearest(queries: NDArray[np.float64], nodes: NDArray[np.float64], k: int) -> NDArray[np.int64]:
    return np.argsort(-(queries @ nodes.T), axis=1, kind="stable")[:, :k]


def accuracies_of(case: Case, steps: int, top: int) -> dict[str, float]:
    """With dense matrices, from the formulas."""
    n_nodes = len(case.nodes)
    links = np.zeros((n_nodes, n_nodes))
    np.put_along_axis(links, nearest(case.nodes, case.nodes, K), 1, axis=1)
    weights = links + links.T
    weights /= weights.sum(axis=1, keepdims=True)
    scores = np.zeros((n_nodes, len(case.is_novel)))
    scores[np.arange(len(case.classes)), case.classes] = 1
    scores /= scores.sum(axis=0)
    for _ in range(steps):
        scores = weights @ scores
        scores /= scores.sum(axis=0)
    of_test = scores[nearest(case.test, case.nodes, K)].sum(axis=1)
    ranking = np.argsort(-of_test, axis=1, kind="stable")
    novel = case.is_novel[case.test_classes]
    result = {}
    for k in (1, top):
        hits = (ranking[:, :k] == case.test_classes[:, None]).any(axis=1)
        for group, chosen in (("", novel | True), ("_novel", novel), ("_base", ~novel)):
            result[f"top{k}{group}"] = hits[chosen].mean()
    return result


def true_counts(case: Case) -> dict[str, int]:
    """Links of every kind, itself not counted."""
    links = nearest(case.nodes, case.nodes, K)
    n_labeled = len(case.classes)
    novel = case.is_novel[case.classes]
    into = links[n_labeled:]
    into = into[into < n_labeled]
    out = links[:n_labeled] != np.arange(n_labeled)[:, None]
    return {
        "into labelled": len(into),
        "into novel": int(novel[into].sum()),
        "out of labelled": int(out.sum()),
        "out of novel": int(out[novel].sum()),
        "of test images": len(case.test) * K,
    }


def test_exact_graphs_follow_from_the_definition(
    modules: Modules, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ["--methods", "descent", "HNSW8", "--target-recalls", "0.6"]
    runs = ["--seeds", "2", "--labels", "1", "3"]
    modules.graph_accuracy.main([*SIZES, *chosen, *runs, "--folder", str(tmp_path)])
    text, content = read("graph_accuracy.py", capsys.readouterr().out)
    found = content["results"]["synthetic"]
    names = ["exact", "descent 0.6", "HNSW8"]
    assert len(found["runs"]) == 3 * 2 * 2
    (folder,) = tmp_path.iterdir()
    for run in found["runs"]:
        if run["graph"] != "exact":
            continue
        case = case_of(folder, run["mode"], run["seed"], run["n_labeled"])
        counts = {kind: true for kind, (_, true) in run["counts"].items()}
        assert counts == true_counts(case)
        assert all(hits == true for hits, true in run["counts"].values())
        assert run["n_wrong"] == 0
        for steps, accuracies in run["accuracies"].items():
            expected = accuracies_of(case, int(steps), top=5)
            assert accuracies == pytest.approx(expected, abs=1e-9), (run["mode"], steps)
            assert 0.2 < accuracies["top1"] < 0.95

    assert found["links"]["exact"] == dict.fromkeys(modules.links.KINDS, 1.0)
    of_descent = [run for run in found["runs"] if run["graph"] == "descent 0.6"]
    for kind, share in found["links"]["descent 0.6"].items():
        hits, true = np.sum([run["counts"][kind] for run in of_descent], axis=0)
        assert share == pytest.approx(hits / true)
        assert 0.5 < share <= 1
    # The background lacks neighbours, whose places labelled nodes take.
    assert sum(run["n_wrong"] for run in of_descent) > 0
    assert found["quality"]["exact"]["recall"] == 1
    assert found["quality"]["descent 0.6"]["recall"] < 0.95
    accuracy, exact_accuracy = (
        np.mean([run["accuracies"]["3"]["top1"] for run in found["runs"] if run["graph"] == name])
        for name in ("descent 0.6", "exact")
    )
    difference = accuracy - exact_accuracy
    assert found["differences"]["descent 0.6"]["3"]["top1"] == pytest.approx(difference)
    assert difference != 0
    targets = "Mean difference to exact over all runs, wanted: at most 0.002"
    assert rows(text, targets)["descent 0.6, 3"][0].startswith(f"{difference:+.4f}±")
    wanted = ("top1", "top1_novel", "top5_novel")
    for name, steps in ((name, steps) for name in names[1:] for steps in ("1", "3")):
        differences = found["differences"][name][steps]
        within = all(abs(differences[accuracy]) <= 0.002 for accuracy in wanted)
        verdict = rows(text, targets)[f"{name}, {steps}"][-1]
        assert verdict == ("reached" if within else "missed")
    title = "Accuracy after 3 steps; for the others, less that of exact"
    printed = rows(text, title)
    assert set(printed) == {
        f"{name}, {labels}" for name in names for labels in ("1 label", "3 labels")
    }
    assert list(rows(text, f"points of {N_CLASSES} classes made up: graph of 1200 vectors with "
                           "16 columns")) == names  # fmt: skip
    for name in names:
        assert set(found["seconds"][name]) == {"index", "graph", "total"}

    # What is there is not made again: the same results.
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.*")}
    again = ["--methods", "exact", "--seeds", "2", "--labels", "1", "--modes", "val"]
    modules.graph_accuracy.main([*SIZES, *again, "--folder", str(tmp_path)])
    _, content = read("graph_accuracy.py", capsys.readouterr().out)
    (run,) = content["results"]["synthetic"]["runs"]
    (same,) = (
        other for other in found["runs"]
        if (other["graph"], other["mode"], other["n_labeled"]) == ("exact", "val", 1)
    )  # fmt: skip
    assert run["accuracies"] == same["accuracies"]
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*.*")}


class Small(NamedTuple):
    """A graph with labelled nodes, and what a script says of it."""

    links: Any
    neighbors: NDArray[np.int32]
    test_neighbors: NDArray[np.int32]
    n_labeled: int


N_BACKGROUND, N_TRAIN, N_TEST = 300, 40, 25


def unit(vectors: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    found = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return found.astype(np.float32)


@pytest.fixture
def small(modules: Modules) -> Small:
    rng = np.random.default_rng(1)
    background = (3 * rng.normal(size=(N_BACKGROUND, 6))).astype(np.float32)
    train, test = (unit(rng.normal(size=(n, 6))) for n in (N_TRAIN, N_TEST))
    return inserted(modules, background, train, test)


def inserted(
    modules: Modules,
    background: NDArray[np.float32],
    train: NDArray[np.float32],
    test: NDArray[np.float32],
) -> Small:
    """Every other training image is labelled, the last ones as novel; all but one are tested."""
    positions = np.arange(len(train))[::-2].copy()
    n_labeled = len(positions)
    selection = ImageSelection(
        classes=np.array([4, 7]),
        class_names=("base", "novel"),
        is_novel=np.array([False, True]),
        labeled_positions=positions,
        labeled_classes=(np.arange(n_labeled) >= n_labeled - 3).astype(np.int32),
        unlabeled_positions=np.empty(0, np.int64),
        test_positions=np.arange(1, len(test)),
        test_classes=np.zeros(len(test) - 1, np.int32),
    )
    exact = unlabeled_nodes(background, K, "exact", "background")
    collection = modules.links.Collection(background, exact.neighbors, train, test, K)
    completed = insert_labeled_nodes(train[positions], test[1:], exact, k=K)
    return Small(
        collection.true_links(selection),
        completed.neighbors.copy(),
        completed.test_neighbors.indices.copy(),
        n_labeled,
    )


def shares(small: Small) -> dict[str, tuple[int, int]]:
    found = small.links.counts(small.neighbors, small.test_neighbors)
    return {kind: tuple(count) for kind, count in found.items()}


def test_every_kind_of_missing_link_is_counted(small: Small) -> None:
    neighbors, test_neighbors, n_labeled = small.neighbors, small.test_neighbors, small.n_labeled
    counts = shares(small)
    assert all(found == true > 10 for found, true in counts.values())
    assert counts["of test images"][1] == (N_TEST - 1) * K

    # Three links of a background image to labelled nodes, one of them novel.
    into = (neighbors[n_labeled:] < n_labeled) & (neighbors[n_labeled:] >= 0)
    rows_with, places = np.nonzero(into)
    novel = neighbors[n_labeled + rows_with, places] >= n_labeled - 3
    chosen = [*np.flatnonzero(novel)[:1], *np.flatnonzero(~novel)[:2]]
    neighbors[n_labeled + rows_with[chosen], places[chosen]] = -1
    # Four of a labelled node, two of a novel one, five of test images.
    neighbors[0, 1:5] = -1
    neighbors[n_labeled - 1, [1, 3]] = -1
    test_neighbors[7, :5] = -1
    missing = {
        "into labelled": 3,
        "into novel": 1,
        "out of labelled": 6,
        "out of novel": 2,
        "of test images": 5,
    }
    assert {kind: true - found for kind, (found, true) in shares(small).items()} == missing
    assert small.links.n_wrong(neighbors) == 0


def test_a_link_to_a_node_itself_counts_nowhere(small: Small) -> None:
    counts = shares(small)
    nodes = np.arange(small.n_labeled)
    labeled = small.neighbors[: small.n_labeled]
    assert (labeled[:, 0] == nodes).all()
    labeled[:, 0] = -1
    assert shares(small) == counts


def test_labelled_nodes_that_the_exact_graph_does_not_link_to(small: Small) -> None:
    """They take the places of neighbours that a graph lacks."""
    row = small.neighbors[small.n_labeled]
    strangers = np.setdiff1d(np.arange(small.n_labeled), row)[:2]
    row[-2:] = strangers
    assert small.links.n_wrong(small.neighbors) == 2


def test_a_node_that_is_named_twice(small: Small) -> None:
    small.test_neighbors[3, 1] = small.test_neighbors[3, 0]
    with pytest.raises(ValueError, match="a node twice in row 3"):
        shares(small)


def test_links_that_rounding_decides_count_nowhere(modules: Modules) -> None:
    """A labelled image that is a copy of a background image is as near to everybody as that."""
    rng = np.random.default_rng(2)
    background = rng.normal(size=(N_BACKGROUND, 6)).astype(np.float32)
    copied = np.arange(N_TRAIN)
    train, test = unit(background[copied]), unit(rng.normal(size=(10 * N_TEST, 6)))
    small = inserted(modules, background, train, test)
    counts = shares(small)
    # Every other image is labelled, see above.
    labeled_twins = small.n_labeled + copied[::-2]

    def swap_last(rows_of_them: NDArray[np.int32]) -> int:
        """If a twin is the last neighbour and the other is left out, take the other instead."""
        swapped = 0
        for row in rows_of_them:
            numbers = np.flatnonzero(labeled_twins == row[-1])
            if len(numbers) and numbers[0] not in row:
                row[-1] = numbers[0]
                swapped += 1
        return swapped

    assert swap_last(small.neighbors[small.n_labeled :]) > 0
    assert swap_last(small.test_neighbors) > 0
    assert shares(small) == counts
    assert small.links.n_wrong(small.neighbors) == 0


def test_images_of_fashion_mnist_go_through_the_pipelines(
    modules: Modules, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Which take too long here: what they would be started with is looked at."""
    images = tmp_path / "images"
    images.mkdir()
    names = [f"{part}-images-idx3-ubyte" for part in ("train", "t10k")]
    names += [f"{part}-labels-idx1-ubyte" for part in ("train", "t10k")]
    names[0] += ".gz"
    for name in names:
        (images / name).write_text(name)
    started = []

    def run(command: list[str], cwd: Path, **_: Any) -> None:
        started.append(command[1:])
        raw = cwd / "data" / "01_raw" / "FashionMNIST" / "raw"
        assert sorted(path.read_text() for path in raw.iterdir()) == sorted(names)
        for file in ("base/catalog.yml", "fashion_mnist/globals.yml"):
            assert (cwd / "conf" / file).read_text() == (ROOT / "conf" / file).read_text()
        assert (cwd / "pyproject.toml").is_file()

    monkeypatch.setattr(modules.published.subprocess, "run", run)
    for _ in range(2):
        files = modules.published.fashion_mnist(tmp_path, images, 32)
    command = [
        *("-m", "kedro", "run", "--env", "fashion_mnist", "--pipelines", "features,pca"),
        *("--params", "pca.n_components=32"),
    ]
    assert started == [command, command]
    assert files.features == tmp_path / "fashion-mnist" / "data" / "fashion_mnist" / "04_feature"
    assert files.background.name == "concatenated_PCAR32.raw"
    (images / names[2]).unlink()
    with pytest.raises(FileNotFoundError, match="has no train-labels-idx1-ubyte"):
        modules.published.fashion_mnist(tmp_path, images, 32)


def test_a_data_set_that_is_missing(
    modules: Modules, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    modules.graph_accuracy.main(["--fashion-mnist", str(tmp_path)])
    text, content = read("graph_accuracy.py", capsys.readouterr().out)
    reason = f"{tmp_path} has no train-images-idx3-ubyte, plain or .gz"
    assert f"skipped fashion-mnist: {reason}" in text
    assert content["skipped"] == {"fashion-mnist": reason}
    assert content["results"] == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--classes", "10"], "--classes: a multiple of 4, got 10"),
        (["--target-recalls", "0.9", "1.5"], "--target-recalls: between 0 and 1, got 1.5"),
        (["--methods", "nothing"], "--methods: got 'nothing'"),
        (["--modes", "train"], "invalid choice: 'train'"),
        ([*SIZES, "--k", "1199"], "--k: 1199 and 2 more of 1200 vectors"),
    ],
)
def test_options_that_cannot_be(
    modules: Modules, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    with pytest.raises(SystemExit):
        modules.graph_accuracy.main(options)
    assert message in " ".join(capsys.readouterr().err.split())
