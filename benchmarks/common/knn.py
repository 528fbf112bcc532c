"""Ways to find the nearest neighbours of all vectors, each a function for a process of its own."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import logging
import math
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np
from faiss.contrib.big_batch_search import big_batch_search
from numpy.typing import NDArray

from common.machine import set_threads
from common.options import positive
from common.truth import BLOCK_ROWS, TIE, Truth, truth_of
from common.vectors import FASHION_MNIST, PIXELS, VectorFile
from lowshot_kedro import native
from lowshot_kedro.blocks import KnnGraph
from lowshot_kedro.datasets import FaissIndexDataset, KnnGraphDataset
from lowshot_kedro.graph import (
    UnlabeledNodes,
    background_graph,
    build_index,
    insert_labeled_nodes,
)
from lowshot_kedro.memory import peak_rss_bytes
from lowshot_kedro.progress import Stopwatch

# Columns that are stored beyond k, as in the published experiment: 32 for k = 30.
MORE_STORED = 2
ORIGINAL_PROBES = 256
BIG_BATCH_PROBES = 32
# Of more vectors, only a sample is compared with every vector.
EXACT_IN_FULL = 200_000
WARM_UP_ROWS = 5_000
WARM_UP_QUERIES = 100
DEFAULT_COLUMNS = 256
# What comes before there is anything to search in; the other phases belong to the graph.
INDEX_PHASES = ("read", "train", "add", "write index", "index")


@dataclass(frozen=True)
class Task:
    """What everybody gets.

    Attributes:
        vectors: Each of them is a query.
        k: Neighbours of each, itself included.
        n_threads: To be used.
        target_recall: That ours is asked for.
        folder: Where files are written.
        sample: int64 (s,), rows whose neighbours are compared with the truth.
        queries: int64 (q,), rows that are timed where all would take too long, the sample first.
        exact_queries: The same for a comparison with every vector.
        memory_budget_bytes: Bytes that ours may take; None: four fifths of what is free.
    """

    vectors: VectorFile
    k: int
    n_threads: int
    target_recall: float
    folder: Path
    sample: NDArray[np.int64]
    queries: NDArray[np.int64]
    exact_queries: NDArray[np.int64]
    memory_budget_bytes: int | None = None

    @property
    def original_index(self) -> Path:
        """The file that :func:`original` leaves."""
        return self.folder / "original.index"

    def datasets(self, method: str) -> tuple[FaissIndexDataset, KnnGraphDataset]:
        """The files that :func:`ours` leaves."""
        path = self.folder / f"ours-{method}"
        return (
            FaissIndexDataset(filepath=f"{path}.index", n_columns=self.vectors.n_columns),
            KnnGraphDataset(filepath=str(path), k=self.k + MORE_STORED),
        )

    def remove_files(self) -> None:
        """Leave nothing that ours would find done, or could continue."""
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


class Outcome(NamedTuple):
    """What came of it.

    Attributes:
        seconds: By phase.
        neighbors: int32 (s, k) of the rows of the sample, -1 for none.
        peak: Largest resident memory of the process, in bytes.
        measured_queries: By phase, how many queries were timed where it was not all.
        first_call: Seconds of a first call with few vectors, which no phase contains.
    """

    seconds: dict[str, float]
    neighbors: NDArray[np.int32]
    peak: int
    measured_queries: dict[str, int]
    first_call: float | None = None


def add_options(parser: argparse.ArgumentParser) -> None:
    """The vectors, what is asked for, and how often it is measured."""
    parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    add = parser.add_argument
    add("--k", type=positive, default=30, help="neighbours of a vector, itself included")
    add("--target-recall", type=float, default=0.99, help="that ours is asked for")
    add("--sample", type=positive, default=1_000, help="vectors whose true neighbours are found")
    add("--threads", type=positive, default=native.get_num_threads(), help="for everybody")
    add("--repeat", type=positive, default=1, help="rounds of measurement")
    add("--seed", type=int, default=0, help="of vectors and samples")
    add("--vectors", type=Path, help="raw float32 matrix, in random order, to use instead")
    add("--columns", type=positive, default=DEFAULT_COLUMNS, help="of the vectors")
    add("--fashion-mnist", type=Path, default=FASHION_MNIST, help="folder of the images")
    add("--folder", type=Path, help="where vectors are kept for the next time; default: nowhere")


def require_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End with a message if the options do not go together."""
    if options.vectors is None and options.columns > PIXELS:
        parser.error(f"--columns: at most {PIXELS}, got {options.columns}")
    if not 0 < options.target_recall <= 1:
        parser.error(f"--target-recall: between 0 and 1, got {options.target_recall:g}")


class Phases:
    """Seconds from one phase to the next."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._watch = Stopwatch()

    def begin(self) -> None:
        """Let what was done since the last phase count nowhere."""
        self._watch = Stopwatch()

    def end(self, name: str, times: float = 1.0) -> None:
        """Note a phase, which would take so many times as long in full."""
        self.seconds[name] = self._watch.seconds * times
        self._watch = Stopwatch()


def ours(task: Task, method: str) -> Outcome:
    """This project's index and graph, from the file of vectors to files of their own."""
    _begin(task)
    first_call_seconds = None
    if method == "pynndescent":
        with tempfile.TemporaryDirectory(dir=task.folder) as folder:
            few = task.vectors.part(min(WARM_UP_ROWS, task.vectors.n_rows))
            seconds = _ours(replace(task, vectors=few, folder=Path(folder)), method)
        first_call_seconds = sum(seconds.values())
    seconds = _ours(task, method)
    peak = peak_rss_bytes()
    neighbors = np.array(task.datasets(method)[1].load().indices[task.sample, : task.k])
    return Outcome(seconds, neighbors, peak, {}, first_call_seconds)


def _ours(task: Task, method: str) -> dict[str, float]:
    """Seconds by phase. The work is done while results are saved."""
    vectors = task.vectors.mapped()
    index_dataset, graph_dataset = task.datasets(method)
    asked: dict[str, Any] = {
        "method": method,
        "target_recall": task.target_recall,
        "memory_budget_bytes": task.memory_budget_bytes,
    }
    phases = Phases()
    index_dataset.save(build_index(vectors, **asked))
    phases.end("index")
    index = index_dataset.load()
    graph_dataset.save(background_graph(index, vectors, task.k + MORE_STORED, **asked))
    phases.end("graph")
    return phases.seconds


def nothing(task: Task) -> int:
    """The peak memory, in bytes, of a process that only imports what the others do."""
    _begin(task)
    return peak_rss_bytes()


def pynndescent_missing() -> str | None:
    """Why pynndescent cannot run here, or None."""
    if importlib.util.find_spec("pynndescent") is None:
        return "pynndescent is not installed"
    return None


def pynndescent_alone(task: Task) -> Outcome:
    """The package pynndescent as its users call it, with its defaults.

    It is compiled, or what was compiled before is loaded, when it is first called. This happens
    before anything is timed, with a few vectors.
    """
    from pynndescent import NNDescent  # type: ignore[import-untyped,unused-ignore]

    _begin(task)

    # It normalises a copy by itself; vectors that have length 1 would only cost time.
    def graph(vectors: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        index = NNDescent(
            vectors, "cosine", n_neighbors=task.k, n_jobs=task.n_threads, random_state=0
        )
        neighbors, distances = index.neighbor_graph
        return neighbors, distances

    first_call = Stopwatch()
    graph(task.vectors.read(0, min(WARM_UP_ROWS, task.vectors.n_rows)))
    first_call_seconds = first_call.seconds
    phases = Phases()
    vectors = task.vectors.read()
    phases.end("read")
    neighbors, distances = graph(vectors)
    phases.end("graph")
    _write_graph(task, neighbors, 1 - distances)
    phases.end("write")
    found = neighbors[task.sample]
    return Outcome(phases.seconds, found, peak_rss_bytes(), {}, first_call_seconds)


def original(task: Task) -> Outcome:
    """The published experiment's search: faiss, 4·√n inverted lists, 256 of them for a query."""
    _begin(task)
    n_rows, dimension = task.vectors.n_rows, task.vectors.n_columns
    phases = Phases()
    vectors = task.vectors.normalized()
    phases.end("read")
    n_lists = 4 * math.isqrt(n_rows)
    quantizer = faiss.IndexFlatL2(dimension)
    index = faiss.IndexIVFFlat(quantizer, dimension, n_lists, faiss.METRIC_INNER_PRODUCT)
    index.nprobe = min(ORIGINAL_PROBES, n_lists)
    index.train(vectors)
    phases.end("train")
    index.add(vectors)
    phases.end("add")
    faiss.write_index(index, str(task.original_index))
    phases.end("write index")
    queries = vectors[task.queries]
    index.search(queries[:WARM_UP_QUERIES], task.k)
    phases.begin()
    neighbors = index.search(queries, task.k)[1]
    phases.end("search", n_rows / len(queries))
    found = neighbors[: len(task.sample)].astype(np.int32)
    return Outcome(phases.seconds, found, peak_rss_bytes(), {"search": len(queries)})


def big_batch(task: Task) -> Outcome:
    """The index of the original, searched by faiss list by list, 32 lists for a vector."""
    _begin(task)
    index: Any = faiss.read_index(str(task.original_index))
    index.nprobe = min(BIG_BATCH_PROBES, index.nlist)
    vectors = task.vectors.normalized()
    phases = Phases()
    # Without verbose=1 it would print a line for every list, and standard output is for results.
    with contextlib.redirect_stdout(sys.stderr):
        similarities, neighbors = big_batch_search(  # type: ignore[no-untyped-call]
            index, vectors, task.k, threaded=1, verbose=1
        )
    phases.end("search")
    _write_graph(task, neighbors, similarities)
    phases.end("write")
    found = neighbors[task.sample].astype(np.int32)
    return Outcome(phases.seconds, found, peak_rss_bytes(), {})


def exact(task: Task) -> Outcome:
    """Comparison with every vector, by faiss: of all vectors if they are few, else of a sample."""
    _begin(task)
    phases = Phases()
    index = faiss.IndexFlatIP(task.vectors.n_columns)
    for block in task.vectors.normalized_blocks():
        index.add(block)
    phases.end("read")
    if task.vectors.n_rows > EXACT_IN_FULL:
        queries = task.vectors.taken(task.exact_queries)
        index.search(queries[:WARM_UP_QUERIES], task.k)
        phases.begin()
        neighbors = index.search(queries, task.k)[1]
        phases.end("search", task.vectors.n_rows / len(queries))
        found = neighbors[: len(task.sample)].astype(np.int32)
        return Outcome(phases.seconds, found, peak_rss_bytes(), {"search": len(queries)})
    blocks = [index.search(block, task.k) for block in task.vectors.normalized_blocks()]
    phases.end("search")
    neighbors = np.concatenate([block[1] for block in blocks])
    _write_graph(task, neighbors, np.concatenate([block[0] for block in blocks]))
    phases.end("write")
    found = neighbors[task.sample].astype(np.int32)
    return Outcome(phases.seconds, found, peak_rss_bytes(), {})


@dataclass(frozen=True)
class InsertionTask:
    """Labelled and test points that come to the graph of all others.

    Attributes:
        background: What the graph was made for.
        method: That it was made with.
        all_vectors: The background first, then labelled points, then test points.
        n_labeled: L.
        n_test: T.
        n_sampled: How many of each are compared with the truth: the first, as their order is
            random, and those of the background's sample.
    """

    background: Task
    method: str
    all_vectors: VectorFile
    n_labeled: int
    n_test: int
    n_sampled: int

    def labeled(self) -> NDArray[np.float32]:
        """Float32 (L, d), normalised."""
        first = self.background.vectors.n_rows
        return self.all_vectors.normalized(first, first + self.n_labeled)

    def test(self) -> NDArray[np.float32]:
        """Float32 (T, d), normalised."""
        first = self.background.vectors.n_rows + self.n_labeled
        return self.all_vectors.normalized(first, first + self.n_test)

    def truths(self) -> dict[str, Truth]:
        """The true neighbours of those that are compared, by what they are."""
        samples = {
            "labelled": self.labeled()[: self.n_sampled],
            "background": self.background.vectors.taken(self.background.sample[: self.n_sampled]),
            "test": self.test()[: self.n_sampled],
        }
        queries = np.concatenate(list(samples.values()))
        truth = truth_of(queries, self._nodes(), self.background.k, self._taken)
        result, first = {}, 0
        for name, sample in samples.items():
            result[name] = truth.part(first, first + len(sample))
            first += len(sample)
        return result

    def _nodes(self) -> Iterator[NDArray[np.float32]]:
        """The vectors of all nodes in their order, the labelled first."""
        yield self.labeled()
        yield from self.background.vectors.normalized_blocks(BLOCK_ROWS)

    def _taken(self, nodes: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors of some nodes."""
        after_background = self.background.vectors.n_rows + nodes
        rows = np.where(nodes < self.n_labeled, after_background, nodes - self.n_labeled)
        return self.all_vectors.taken(rows)


class InsertionOutcome(NamedTuple):
    """What came of it.

    Attributes:
        seconds: Of the insertion.
        loading_seconds: Of reading what it starts from.
        neighbors: int32 (s, k), nodes, of those that are compared, by what they are.
        peak: Largest resident memory of the process, in bytes.
        links: Links from the background to a sample of labelled points: how many were found, and
            how many should have been.
    """

    seconds: float
    loading_seconds: float
    neighbors: dict[str, NDArray[np.int32]]
    peak: int
    links: tuple[int, int]


def insertion(task: InsertionTask) -> InsertionOutcome:
    """This project's insertion of the graph that :func:`ours` has left in files."""
    background = task.background
    _begin(background)
    phases = Phases()
    index_dataset, graph_dataset = background.datasets(task.method)
    index, graph = index_dataset.load(), graph_dataset.load()
    labeled, test = task.labeled(), task.test()
    phases.end("loading")
    nodes = UnlabeledNodes(background.vectors.mapped(), index, graph)
    completed = insert_labeled_nodes(labeled, test, nodes, background.k)
    phases.end("insertion")
    sampled = background.sample[: task.n_sampled]
    neighbors = {
        "labelled": completed.neighbors[: min(task.n_sampled, task.n_labeled)],
        "background": completed.neighbors[task.n_labeled + sampled],
        "test": completed.test_neighbors.indices[: task.n_sampled],
    }
    seconds, peak = phases.seconds, peak_rss_bytes()
    links = links_to_labeled(task, labeled, graph, completed.neighbors)
    return InsertionOutcome(seconds["insertion"], seconds["loading"], neighbors, peak, links)


def links_to_labeled(
    task: InsertionTask,
    labeled: NDArray[np.float32],
    stored: KnnGraph,
    neighbors: NDArray[np.int32],
) -> tuple[int, int]:
    """Links from the background to the first labelled points, found by comparison with all.

    Args:
        task: What was completed.
        labeled: float32 (L, d), normalised.
        stored: The graph of the background.
        neighbors: int32 (N, k), the completed graph.

    Returns:
        How many there are, and how many there should be: a labelled point should be the neighbour
        of a background point that has fewer than k others more similar to it.
    """
    vectors, k, n_labeled = task.background.vectors, task.background.k, len(labeled)
    sample = labeled[: task.n_sampled]
    n_found = n_wanted = first = 0
    for block in vectors.normalized_blocks(BLOCK_ROWS):
        similarities = block @ sample.T
        least = np.asarray(stored.similarities[first : first + len(block), k - 1])
        rows, points = np.nonzero(similarities > least[:, None] + TIE)
        of_rows = neighbors[n_labeled + first + rows]
        is_linked = (of_rows == points[:, None]).any(axis=1)
        n_found += int(is_linked.sum())
        n_wanted += int(is_linked.sum())
        for pair in np.flatnonzero(~is_linked):
            # Where k nearer ones have come in between, the link is not wanted any more.
            last = int(of_rows[pair, -1])
            number = last - n_labeled
            vector = labeled[last] if number < 0 else vectors.normalized(number, number + 1)[0]
            n_wanted += similarities[rows[pair], points[pair]] > block[rows[pair]] @ vector + TIE
        first += len(block)
    return n_found, int(n_wanted)


def _begin(task: Task) -> None:
    """Use as many threads as asked for, and let ours say what it is doing."""
    set_threads(task.n_threads)
    logging.basicConfig(format="  %(message)s")  # to standard error
    logging.getLogger("lowshot_kedro").setLevel(logging.INFO)


def _write_graph(task: Task, neighbors: NDArray[Any], similarities: NDArray[Any]) -> None:
    """Into files as ours has them: int32 and float32.

    Args:
        task: Names the folder. The files are of no use to anybody, so the next overwrites them.
        neighbors: Integers (n, k).
        similarities: Floats (n, k).
    """
    neighbors.astype(np.int32, copy=False).tofile(task.folder / "peer.int32")
    similarities.astype(np.float32, copy=False).tofile(task.folder / "peer.float32")
