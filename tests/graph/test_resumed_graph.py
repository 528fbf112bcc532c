"""A graph whose process is killed at any moment is continued, and is the same bit for bit."""

import json
import multiprocessing
import os
import signal
from multiprocessing import forkserver

import numpy as np
import pytest

from lowshot_kedro.datasets import KnnGraphDataset, knn_graph
from lowshot_kedro.graph import background_graph, descent, index_in_memory
from lowshot_kedro.graph.workspace import MemoryBudget, Stage

from .making import joined, same_bits
from .truth import assert_well_formed, clustered_vectors, recall_of

N_VECTORS, K, BLOCK_ROWS = 3000, 8, 400
TARGET_RECALL = 0.995


def vectors():
    """Loose clusters, so that descent takes rounds."""
    return clustered_vectors(N_VECTORS, 48, members=100, noise=1.5)


def save(folder, method):
    """Write the graph into a folder, in small blocks."""
    descent.BLOCK_ROWS = BLOCK_ROWS
    index = index_in_memory(vectors(), "ivf", 0.9)
    graph = background_graph(index, vectors(), K, method, TARGET_RECALL)
    KnnGraphDataset(filepath=str(folder / "graph"), k=K, n_rows=N_VECTORS).save(graph)


def content_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def save_until(folder, method, step, row):
    """Save, but be killed before a step.

    The step is the block of a stage that begins at a row, the noting of a round, or the writing of
    final rows.
    """
    fill, keep, write_rows = Stage.fill, descent._Rounds.keep, knn_graph.write_rows

    def dying_fill(self, make, block_rows, description):
        def dying_make(first, last):
            if self.name == step and first <= row < last:
                # Half of the block is in the files.
                for path, _, _ in self._files:
                    with path.open("ab") as file:
                        file.write(b"?" * 1001)
                die()
            return make(first, last)

        return fill(self, dying_make, block_rows, description)

    def dying_keep(self, pools):
        if step == "keep" and len(self.recalls) == row:
            die()
        keep(self, pools)
        if step == "kept" and len(self.recalls) == row + 1:
            die()

    def dying_write_rows(file, array, dtype):
        if step == "final" and file.tell() >= row * 4 * K:
            file.flush()
            die()
        write_rows(file, array, dtype)

    Stage.fill, descent._Rounds.keep = dying_fill, dying_keep
    knn_graph.write_rows = dying_write_rows
    save(folder, method)


@pytest.fixture(scope="module")
def processes():
    """Makes processes from one that has loaded this module, and that has no threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        forkserver.ensure_running()
    return context


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The files of runs that nothing has stopped."""
    before = descent.BLOCK_ROWS
    contents = {}
    for method in ("descent", "ivf"):
        folder = tmp_path_factory.mktemp(method)
        save(folder, method)
        contents[method] = content_of(folder)
    descent.BLOCK_ROWS = before
    return contents


@pytest.fixture
def killed(processes, tmp_path):
    """Saves in a process that is killed before a step."""

    def run(method, step, row):
        process = processes.Process(target=save_until, args=(tmp_path, method, step, row))
        process.start()
        process.join(300)
        assert process.exitcode == -signal.SIGKILL

    return run


@pytest.mark.parametrize(
    "steps",
    [
        [("round0", 1500), ("keep", 0), ("round1", 900), ("kept", 1)],
        [("kept", 0), ("keep", 1), ("ranked", 1234), ("final", 1200)],
    ],
    ids=lambda steps: "-".join(f"{step}@{row}" for step, row in steps),
)
def test_descent_goes_on_where_it_was_killed(monkeypatch, tmp_path, killed, expected, steps):
    for step, row in steps:
        killed("descent", step, row)
        assert set(content_of(tmp_path)).isdisjoint(expected["descent"])
    monkeypatch.setattr(descent, "BLOCK_ROWS", BLOCK_ROWS)
    save(tmp_path, "descent")
    assert content_of(tmp_path) == expected["descent"]
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_list_search_goes_on_where_it_was_killed(monkeypatch, tmp_path, killed, expected):
    killed("ivf", "round0", 2000)
    killed("ivf", "final", 0)
    monkeypatch.setattr(descent, "BLOCK_ROWS", BLOCK_ROWS)
    save(tmp_path, "ivf")
    assert content_of(tmp_path) == expected["ivf"]


def test_what_is_done_is_not_done_again(monkeypatch, tmp_path):
    monkeypatch.setattr(descent, "BLOCK_ROWS", BLOCK_ROWS)
    index = index_in_memory(vectors(), "ivf", 0.9)
    graph = background_graph(index, vectors(), K, "descent", TARGET_RECALL)
    first = joined(graph, K, tmp_path)
    recalls = json.loads((tmp_path / "recall_per_round.json").read_text())
    assert len(recalls) > 1
    names = sorted(path.name for path in tmp_path.iterdir())
    # Of the rounds, only the last is kept.
    last = f"round{len(recalls) - 1}"
    assert names == [
        "ranked.numbers", "ranked.similarities", "recall_per_round.json", f"{last}.entries",
        f"{last}.scores",
    ]  # fmt: skip

    made = []
    fill = Stage.fill

    def counting_fill(self, make, block_rows, description):
        def counting_make(first, last):
            made.append((self.name, first))
            return make(first, last)

        return fill(self, counting_make, block_rows, description)

    monkeypatch.setattr(Stage, "fill", counting_fill)
    assert same_bits(joined(graph, K, tmp_path), first)
    assert made == []
    # The last row is gone, and with it its block.
    path = tmp_path / "ranked.numbers"
    os.truncate(path, path.stat().st_size - 1)
    assert same_bits(joined(graph, K, tmp_path), first)
    assert made == [("ranked", N_VECTORS // (BLOCK_ROWS // 4) * (BLOCK_ROWS // 4) - 100)]


@pytest.mark.parametrize("method", ["ivf", "descent"])
def test_a_graph_on_disk_is_that_in_memory(monkeypatch, tmp_path, method):
    monkeypatch.setattr(descent, "BLOCK_ROWS", BLOCK_ROWS)
    monkeypatch.setattr(descent, "_MIN_LINK_ROWS", 700)
    index = index_in_memory(vectors(), "ivf", 0.9)
    graph = background_graph(index, vectors(), K, method, TARGET_RECALL)
    in_memory = joined(graph, K)
    monkeypatch.setattr(MemoryBudget, "left", 0)
    assert same_bits(joined(graph, K, tmp_path), in_memory)
    scratch = {path.stem for path in tmp_path.glob("*.scratch")}
    scratch -= {"checksums", "ordered checksums"}
    # Pools get wider with the links that are followed, since few neighbours are wanted.
    of_descent = {"links", "wider entries", "wider scores"} if method == "descent" else set()
    assert scratch == {"codes", *of_descent}
    assert_well_formed(in_memory, vectors(), K)
    assert recall_of(in_memory.indices, vectors(), vectors(), K) > 0.96


def test_the_size_of_blocks_changes_nothing(monkeypatch):
    index = index_in_memory(vectors(), "ivf", 0.9)
    graph = background_graph(index, vectors(), K, "descent", TARGET_RECALL)
    whole = joined(graph, K)
    monkeypatch.setattr(descent, "BLOCK_ROWS", 333)
    assert same_bits(joined(graph, K), whole)
    assert np.isfinite(whole.similarities).all()
