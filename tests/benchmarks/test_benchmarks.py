"""The scripts run, at sizes at which their times mean nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lowshot_kedro import native
from tests.benchmarks.conftest import Measured, Script
from tests.benchmarks.printed import assert_seconds, read, rows
from tests.projects import ROOT

SIZES = ["--nodes", "3000", "--neighbors", "10", "--classes", "16", "--repeat", "1"]
MKL = ["mkl", "mkl-clustered"] if native.mkl_available() else []
NATIVE = [
    "native-float32-given",
    "native-float32-clustered",
    "native-bfloat16-given",
    "native-bfloat16-clustered",
]
BUILDING = [
    "symmetrize-native", "symmetrize-scipy", "node_ordering", "symmetrize-clustered",
    "column-totals",
]  # fmt: skip
MEASURES_MEMORY = Path("/proc/self/clear_refs").exists()


def test_a_script_is_started_from_any_folder(tmp_path: Path) -> None:
    """As `make bench` does from its own; all else here runs in processes that are there."""
    script = str(ROOT / "benchmarks" / "diffusion_step.py")
    done = subprocess.run(
        [sys.executable, script, *SIZES, "--skip", "memory", "torch", "bandwidth"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    _, content = read("diffusion_step.py", done.stdout)
    assert set(content["skipped"]) >= {"memory", "torch", "bandwidth"}


def test_step(results: Measured) -> None:
    text, content = results("diffusion_step.py", *SIZES)
    steps = [*MKL, "torch", "scipy", *NATIVE]
    inspections = [f"{name}-inspection" for name in MKL]
    assert list(rows(text, "One step with scaled columns")) == steps
    graph_rows = list(rows(text, "Work done once for a graph"))
    assert set(graph_rows) == {*BUILDING, *inspections, "cluster_nodes", "renumber"}
    assert list(rows(text, "Memory of the graph")) == ["given", "clustered"]
    assert list(rows(text, "Bytes moved in a second")) == ["copy of an array", *NATIVE]
    if MEASURES_MEMORY:
        builds = ["symmetrize-native", "symmetrize-scipy"]
        assert list(rows(text, "Peak memory beyond input and output")) == builds
        assert set(content["memory"]) == {*builds, "graph_bytes_per_node"}

    assert_seconds(content, [*steps, *BUILDING, *inspections])
    assert set(content["bandwidth"]) == {"copy", *NATIVE}
    assert set(content["errors"]) == set(steps)
    assert content["sizes"]["nodes"] == 3000
    assert content["sizes"]["neighbors"] == 10
    assert 3000 * 10 < content["sizes"]["edges"] <= 2 * 3000 * 10
    assert all(
        size <= 2 * 10 * 4 + 24 for size in content["memory"]["graph_bytes_per_node"].values()
    )
    ratios = content["ratios"]
    expected = {
        f"{precision}{node_ordering}_vs_{peer.replace('-', '_')}"
        for precision in ("float32", "bfloat16")
        for node_ordering in ("", "_given")
        for peer in (*MKL, "torch", "scipy")
    }
    assert set(ratios) == {*expected, "symmetrize_vs_scipy", "numbered_graph_vs_scipy"}
    shortest = {name: parts["total"]["min"] for name, parts in content["seconds"].items()}
    assert ratios["float32_vs_scipy"] == pytest.approx(
        shortest["scipy"] / shortest["native-float32-clustered"], rel=0.02
    )
    printed = rows(text, "Ratios")
    assert set(printed) == {name for name in ratios if "_given" not in name}
    found = f"{ratios['symmetrize_vs_scipy']:.2f}"
    assert printed["symmetrize_vs_scipy"] == [found, found, "≥ 2"]
    assert content["ratios_of_medians"] == ratios  # of a single repetition


def test_step_on_a_graph_of_ones_own(
    here: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    neighbors = np.array([rng.permutation(200)[:5] for _ in range(200)], np.int32)
    neighbors[::7, 3:] = -1
    np.save(tmp_path / "graph.npy", neighbors)
    skipped = ["torch", "memory", "bandwidth", "node_ordering", "native-bfloat16-given"]
    graph = str(tmp_path / "graph.npy")
    here("diffusion_step.py", *SIZES, "--graph", graph, "--skip", *skipped)
    text, content = read("diffusion_step.py", capsys.readouterr().out)
    assert content["sizes"]["nodes"] == 200
    assert content["sizes"]["neighbors"] == 5
    assert set(skipped) == set(content["skipped"]) - {"mkl", "mkl-clustered"}
    for name in skipped:
        assert f"skipped {name}: asked to" in text
        assert name not in content["seconds"]
    assert "copy" not in content["bandwidth"]
    assert set(content["memory"]) == {"graph_bytes_per_node"}


def test_step_refuses_a_graph_that_is_none(here: Script, tmp_path: Path) -> None:
    np.save(tmp_path / "graph.npy", np.zeros((4, 2)))
    with pytest.raises(ValueError, match="expected an int32 matrix, got float64"):
        here("diffusion_step.py", "--graph", str(tmp_path / "graph.npy"))


def test_a_wrong_result_ends_a_measurement(refusal: Callable[..., str], tmp_path: Path) -> None:
    """scipy counts a neighbour that a list names twice, and the engine does not."""
    np.save(tmp_path / "graph.npy", np.array([[1, 1], [2, 0], [0, 1]], np.int32))
    message = refusal("diffusion_step.py", "--graph", str(tmp_path / "graph.npy"))
    assert "symmetrize: the graph is not scipy's A + At" in message


def test_run(results: Measured) -> None:
    text, content = results("diffusion_run.py", *SIZES, "--with-scipy")
    peers = [*MKL, "torch", "scipy"]
    once = ["graph-given", "graph-clustered", *(f"{name}-preparation" for name in peers)]
    table = rows(text, "From the labels to the scores of the test points")
    assert [name for name in table if name] == [*peers, *NATIVE, *once]
    if MEASURES_MEMORY:
        assert set(rows(text, "Peak memory of the run")) == set(NATIVE)
        assert set(content["memory"]) == set(NATIVE)
        for found in content["memory"].values():
            assert set(found) == {"matrix", "one_slice", "run", "allowed", "process"}
    assert_seconds(content, [*peers, *NATIVE, *once])
    # The first one is what the others are compared with.
    assert set(content["errors"]) == {*peers[1:], *NATIVE}
    assert content["sizes"] == {
        "nodes": 3000,
        "neighbors": 10,
        "edges": content["sizes"]["edges"],
        "classes": 16,
        "base_classes": 6,
        "novel_shots": 2,
        "labeled": 600,
        "test": 60,
        "iterations": 3,
        "labels": "cluster",
        "threads": native.get_num_threads(),
        "repeat": 1,
        "seed": 0,
        "graph": "points of 16 clusters in random order",
    }
    assert set(content["ratios"]) == {
        f"{precision}{node_ordering}{graph}_vs_{peer.replace('-', '_')}"
        for precision in ("float32", "bfloat16")
        for node_ordering in ("", "_given")
        for graph in ("", "_with_graph")
        for peer in peers
    }


def test_run_with_labels_that_know_nothing_of_clusters(
    here: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    here(
        "diffusion_run.py",
        *SIZES,
        *("--labels", "random", "--labeled", "900", "--test", "50", "--base-classes", "10"),
        *("--iterations", "2", "--threads", "1", "--skip", "memory", "native-float32-given"),
    )
    text, content = read("diffusion_run.py", capsys.readouterr().out)
    sizes = content["sizes"]
    assert (sizes["labels"], sizes["labeled"], sizes["test"]) == ("random", 900, 50)
    assert (sizes["base_classes"], sizes["iterations"], sizes["threads"]) == (10, 2, 1)
    assert "skipped native-float32-given: asked to" in text
    assert "native-float32-given" not in content["seconds"]
    assert "scipy" not in content["seconds"]


# Without Fashion-MNIST, which few machines have.
VECTORS = [
    *("--rows", "3000", "--columns", "24", "--k", "8", "--fashion-mnist", "missing"),
    *("--sample", "50", "--queries", "100", "--labeled", "200", "--test", "30"),
]
SLOW = ["pynndescent", "ours-ivf"]


def test_kernels(results: Measured) -> None:
    text, content = results(
        "kernels.py", "--rows", "1000", "--columns", "70", "--repeat", "1", "--before", str(ROOT)
    )
    available = native.available_kernels()
    columns = [*available, "before"]
    table = rows(text, "Milliseconds")
    loops = [name for name in table if name != "loop"]
    assert "search of lists" in loops and "descent" in loops
    assert all(len(table[name]) == len(columns) for name in loops)
    assert_seconds(content, columns)
    assert {*content["seconds"][available[-1]]} == {*loops, "total"}
    assert set(rows(text, "Ratios")) == set(content["ratios"])
    assert len(content["ratios"]) == len(available) * len(loops)


def test_neighbor_graph(results: Measured, tmp_path: Path) -> None:
    text, content = results(
        "knn_graph.py",
        *VECTORS,
        *("--small-rows", "1000", "--with-big-batch", "--skip", *SLOW, "exact"),
        *("--folder", str(tmp_path), "--before", str(ROOT)),
    )
    whole = ["ours-descent", "before", "original", "big-batch"]
    small = ["small-auto", "small-exact"]
    found = rows(text, "Graph of 3000 vectors")
    assert [name for name in found if name] == whole
    assert found["original"][-1] == "search extrapolated"
    assert found["big-batch"][-1] == ""
    assert list(rows(text, "Graph of the first 1000 vectors")) == small
    completed = rows(text, "Insertion with 200 labelled and 30 test points")
    assert float(completed["part of ours-descent's seconds"][0]) > 0
    n_found, n_links = content["links_to_labeled"]
    share = float(completed["part of the links to labelled points"][0])
    assert share == pytest.approx(n_found / n_links, abs=1e-5) and 0.99 < share <= 1
    assert n_links > 100
    assert_seconds(content, [*whole, *small, "insertion", "insertion-loading"])
    assert set(content["seconds"]["original"]) == {
        "read", "train", "add", "write index", "search", "total",
    }  # fmt: skip
    trained = content["seconds"]["original"]["train"]
    assert content["seconds"]["big-batch"]["train"] == trained
    assert content["measured_queries"] == {"original": {"search": 100}}
    points = [f"insertion-{name}" for name in ("labelled", "background", "test")]
    assert set(content["recall"]) == {*whole, *small, *points}
    for name in (*whole, *small, *points):
        assert 0.9 < content["recall"][name]["ids"] <= content["recall"][name]["ties"] <= 1, name
    assert set(content["memory"]) == {*whole, *small, "insertion", "libraries"}
    assert set(content["ratios"]) == {
        "before_vs_ours", "original_vs_ours", "big_batch_vs_ours", "small_exact_vs_ours",
    }  # fmt: skip
    assert set(rows(text, "Ratios")) == set(content["ratios"])
    assert content["skipped"]["pynndescent"] == "asked to"
    # Vectors stay, and nothing else.
    (vectors,) = tmp_path.iterdir()
    assert vectors.stat().st_size == 3230 * 24 * 4


def test_neighbor_graph_of_vectors_of_ones_own(results: Measured, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(20, 16))
    vectors = centers[rng.integers(0, 20, 1500)] + 0.5 * rng.normal(size=(1500, 16))
    vectors.astype("<f4").tofile(tmp_path / "vectors.raw")
    skipped = [*SLOW, "ours-descent", "original"]
    text, content = results(
        "knn_graph.py",
        *("--vectors", str(tmp_path / "vectors.raw"), "--columns", "16", "--k", "5"),
        *("--labeled", "100", "--test", "50", "--sample", "2000"),
        *("--small-rows", "1350", "--skip", *skipped),
    )
    sizes = content["sizes"]
    assert (sizes["rows"], sizes["columns"], sizes["sample"]) == (1350, 16, 1350)
    assert sizes["vectors"] == "file vectors.raw"
    assert set(content["seconds"]) == {"exact"}
    assert content["recall"]["exact"]["ties"] > 0.999
    assert content["ratios"] == {}
    for name in skipped:
        assert f"skipped {name}: " in text
    assert content["skipped"]["small-exact"] == "the whole graph is as small"
    assert content["skipped"]["big-batch"] == "only with --with-big-batch"
    assert content["skipped"]["insertion"] == "needs the graph of ours-descent"
    assert content["insertion_share"] is None


def test_growth(results: Measured, tmp_path: Path) -> None:
    sizes = [2000, 500, 1000, 500]
    text, content = results(
        "growth.py",
        *("--rows", *map(str, sizes), "--columns", "24", "--k", "8", "--fashion-mnist", "missing"),
        *("--sample", "50", "--memory-budget-gb", "4", "--threads", "1", "--repeat", "2"),
        *("--folder", str(tmp_path)),
    )
    names = ["500", "1000", "2000"]
    table = rows(text, "Growth of index and graph")
    assert list(table) == names
    assert "beside 500" in text
    assert_seconds(content, names)
    shortest = {name: parts["total"]["min"] for name, parts in content["seconds"].items()}
    for name in names:
        assert set(content["seconds"][name]) == {"index", "graph", "total"}
        each = content["microseconds"][name]
        assert each == pytest.approx(1e6 * shortest[name] / int(name), rel=0.01)
        assert content["ratios"][name] == pytest.approx(
            each / content["microseconds"]["500"], rel=0.01
        )
        assert 0.9 < content["recall"][name]["ids"] <= content["recall"][name]["ties"] <= 1
        assert 10**8 < content["memory"][name] < 4 * 10**9
        assert table[name][2:4] == [f"{each:.2f}", f"{content['ratios'][name]:.2f}"]
    assert set(content["ratios_of_medians"]) == set(names)
    assert (content["reference_rows"], content["skipped"]) == (500, {})
    assert content["sizes"]["rows"] == [500, 1000, 2000]
    assert content["sizes"]["memory_budget_bytes"] == 4 * 10**9
    # The vectors of the largest size stay, and nothing else.
    (vectors,) = tmp_path.iterdir()
    assert vectors.stat().st_size == 2000 * 24 * 4


def test_growth_leaves_out_what_the_disk_has_no_room_for(
    results: Measured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = np.random.default_rng(0).normal(size=(1200, 16)).astype("<f4")
    vectors.tofile(tmp_path / "vectors.raw")
    usage = shutil.disk_usage(tmp_path)
    # An index of 72 bytes a vector, 6 neighbours in the graph, and candidates.
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1100 * (72 + 240)))
    text, content = results(
        "growth.py",
        *("--vectors", str(tmp_path / "vectors.raw"), "--rows", "1000", "1200"),
        *("--columns", "16", "--k", "4", "--sample", "20", "--method", "ivf"),
    )
    assert list(rows(text, "Growth of index and graph")) == ["1000"]
    assert content["skipped"] == {
        "1200": "needs about 0.000374 GB of disk, 0.000343 GB are free",
    }
    assert f"skipped 1200: {content['skipped']['1200']}" in text
    assert content["ratios"] == {"1000": 1}
    assert content["sizes"]["vectors"] == "file vectors.raw"


def test_features(results: Measured) -> None:
    sizes = ["--image-size", "32", "--batch-size", "8", "--images", "24", "--repeat", "1"]
    long_run = ["--many", "60", "--many-image-size", "32"]
    text, content = results("features.py", *sizes, *long_run, "--weights", "none")
    names = [
        "network alone", "network alone, 16 to a thread", "small images", "photographs",
        "decoding small images", "decoding photographs",
    ]  # fmt: skip
    assert list(rows(text, "efficientnet_lite0, 32 × 32, batches of 8, 24 images")) == names
    assert_seconds(content, names)
    assert content["input"] == [3, 32, 32]
    seconds = {name: parts["total"]["min"] for name, parts in content["seconds"].items()}
    assert content["ratios"] == {
        f"{name.replace(' ', '_')}_vs_{peer}": pytest.approx(seconds[of] / seconds[name], rel=0.01)
        for name, peer, of in (
            ("small images", "network", "network alone"),
            ("photographs", "network", "network alone"),
            ("small images", "network_in_parts", "network alone, 16 to a thread"),
        )
    }
    if MEASURES_MEMORY:
        assert content["long_run"]["n_images"] == 60
        assert all(taken > 10**8 for taken in content["long_run"]["memory"])


def test_pca(results: Measured, tmp_path: Path) -> None:
    sizes = ["--rows", "3000", "--columns", "64", "--components", "8", "--repeat", "1"]
    text, content = results("pca.py", *sizes, "--threads", "1", "--folder", str(tmp_path))
    names = ["ours-training", "faiss-training", "ours-applying", "product"]
    assert list(rows(text, "3000 rows of 64 columns")) == names
    assert_seconds(content, names)
    assert set(content["memory"]) == {*names, "libraries"}
    assert content["memory"]["libraries"] <= content["memory"]["ours-training"]
    for quality in content["quality"].values():
        assert quality["variance_lost"] < 1e-5
        assert quality["eigenvalues"] < 1e-3
    assert set(content["quality"]) == {"ours", "faiss"}
    assert 0 <= content["difference"] < 1e-6
    assert set(content["ratios"]) == {"training_vs_faiss", "applying_vs_product"}
    shortest = {name: parts["total"]["min"] for name, parts in content["seconds"].items()}
    assert content["ratios"]["training_vs_faiss"] == pytest.approx(
        shortest["faiss-training"] / shortest["ours-training"], rel=0.01
    )
    assert content["sizes"]["threads"] == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("script", "options", "message"),
    [
        ("diffusion_step.py", ["--nodes", "5", "--neighbors", "6"], "--neighbors: 6 of only 5"),
        ("diffusion_step.py", ["--graph", "missing.npy"], "missing.npy is no file"),
        ("diffusion_step.py", ["--skip", "nothing"], "invalid choice: 'nothing'"),
        ("diffusion_run.py", ["--repeat", "0"], "expected at least 1, got 0"),
        ("diffusion_run.py", [*SIZES, "--labeled", "3000"], "--labeled: 3000 nodes, of which"),
        ("knn_graph.py", ["--columns", "785"], "--columns: at most 784, got 785"),
        ("knn_graph.py", ["--target-recall", "2"], "--target-recall: between 0 and 1, got 2"),
        ("knn_graph.py", ["--vectors", "missing.raw"], "missing.raw: no such file"),
        ("growth.py", ["--target-recall", "0"], "--target-recall: between 0 and 1, got 0"),
        ("growth.py", ["--rows", "90", "31"], "--k: 30 and 2 more of 31 vectors"),
        ("growth.py", ["--vectors", "missing.raw"], "missing.raw: no such file"),
        ("growth.py", ["--memory-budget-gb", "0"], "expected more than 0, got 0"),
        ("kernels.py", ["--rows", "499"], "--rows: at least 500, got 499"),
        ("kernels.py", ["--kernels", "fast"], "argument --kernels: invalid choice: 'fast'"),
        ("knn_graph.py", ["--before", "docs"], "docs: no built checkout of this project"),
        ("features.py", ["--images", "8"], "--images: 8 are no batch of 64"),
        ("pca.py", ["--components", "2049"], "--components: 2049 of only 2048 columns"),
        ("pca.py", ["--rows", "256"], "--components: 256 of only 2048 columns and 256 rows"),
    ],
)
def test_options_that_do_not_go_together(
    refusal: Callable[..., str], script: str, options: list[str], message: str
) -> None:
    assert message in refusal(script, *options)
