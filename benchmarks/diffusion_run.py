"""A whole propagation in the shape of the published experiment, beside plain products.

Ours is `propagate`, from the labels to the scores of the test points after the last step. A peer
does the same with dense scores: as many products and scalings of columns as there are steps, and
then the product of the test points' neighbour lists with the scores.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from common import machine, memory
from common.graphs import Graph, clustered_graph, graph_of_file
from common.options import add_options, positive, require_sizes
from common.output import note, print_json, print_ratios, print_table, ratio
from common.peers import MklPeer, Peer, ScipyPeer, TorchPeer, neighbor_matrix
from common.timing import Contestant, Seconds, Statistic, relative_l1, run_rounds
from lowshot_kedro.diffusion import (
    PRECISIONS,
    LabeledRows,
    PropagationMatrix,
    PropagationOptions,
    labeled_rows,
    propagate,
    propagation_matrix,
)
from lowshot_kedro.diffusion.backends.native_backend import aligned_empty
from lowshot_kedro.progress import Stopwatch

NODE_ORDERINGS = ("given", "clustered")
PEERS = ("mkl", "mkl-clustered", "torch", "scipy")
OURS = tuple(
    f"native-{precision}-{node_ordering}"
    for precision in PRECISIONS
    for node_ordering in NODE_ORDERINGS
)
PARTS = ("mkl", "mkl-clustered", "torch", *OURS, "memory")

# Largest relative L1 distance to the first peer's scores.
TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2}
# How many times faster than the peer, at the default sizes.
WANTED = {"float32_vs_mkl": 10.0}

# The published experiment: 196 of 500 base classes, a fifth of the nodes labelled, a fiftieth as
# many test points as nodes, 2 labelled images of a novel class.
BASE_PART = 196 / 500
LABELED_PART = 1 / 5
TEST_PART = 1 / 50
NOVEL_SHOTS = 2


class Problem(NamedTuple):
    """What a propagation starts from.

    Attributes:
        neighbors: int32 (N, k), labelled nodes first.
        labeled_classes: int32 (L,), of nodes 0..L-1.
        test_neighbors: int32 (T, k).
        n_classes: C.
    """

    neighbors: NDArray[np.int32]
    labeled_classes: NDArray[np.int32]
    test_neighbors: NDArray[np.int32]
    n_classes: int


def make_problem(graph: Graph, options: argparse.Namespace) -> Problem:
    """Choose labelled nodes and test points.

    A test point has the neighbours of a node chosen at random.

    Args:
        graph: Its nodes are put into another order.
        options: Of the command line.
    """
    n_nodes = len(graph.neighbors)
    rng = np.random.default_rng(options.seed)
    if options.labels == "cluster":
        assert graph.clusters is not None
        classes = graph.clusters % options.classes
    else:
        classes = rng.integers(0, options.classes, n_nodes)
    novel = [
        rng.permutation(np.flatnonzero(classes == number))[: options.novel_shots]
        for number in range(options.base_classes, options.classes)
    ]
    novel_nodes = np.concatenate([np.empty(0, np.int64), *novel])
    base_nodes = np.flatnonzero(classes < options.base_classes)
    n_base = options.labeled - len(novel_nodes)
    if not 0 <= n_base <= len(base_nodes):
        raise SystemExit(
            f"--labeled: {options.labeled} nodes, of which {len(novel_nodes)} are of novel classes "
            f"and at most {len(base_nodes)} of base classes"
        )
    labeled = np.concatenate([rng.choice(base_nodes, n_base, replace=False), novel_nodes])
    is_labeled = np.zeros(n_nodes, np.bool_)
    is_labeled[labeled] = True
    order = np.concatenate([labeled, np.flatnonzero(~is_labeled)])
    # One more, so that -1 stays -1.
    rank = np.full(n_nodes + 1, -1, np.int32)
    rank[order] = np.arange(n_nodes, dtype=np.int32)
    neighbors = rank[graph.neighbors[order]]
    tests = rng.choice(n_nodes, options.test, replace=False)
    labeled_classes = classes[labeled].astype(np.int32)
    return Problem(neighbors, labeled_classes, neighbors[tests], options.classes)


def plain_run(
    peer: Peer, labeled: LabeledRows, tests: sparse.csr_array, n_iterations: int
) -> NDArray[np.float32]:
    """The scores of the test points by plain products.

    Args:
        peer: Holds W, of N nodes.
        labeled: L₀.
        tests: (T, N), the neighbours of each test point.
        n_iterations: Steps.

    Returns:
        float32 (T, C).
    """
    shape = (tests.shape[1], labeled.n_columns)
    scores: NDArray[np.float32] = aligned_empty(shape, np.dtype(np.float32))
    spare: NDArray[np.float32] = aligned_empty(shape, np.dtype(np.float32))
    scores[:] = 0
    scores[labeled.rows, labeled.columns] = labeled.values
    for _ in range(n_iterations):
        product = peer.multiply(scores, spare)
        peer.normalize(product)
        scores, spare = product, scores
    result: NDArray[np.float32] = tests @ scores
    return result


class RunBenchmark:
    """Everything that is measured, and what was found.

    Args:
        options: Of the command line.
        problem: To be measured on.
    """

    def __init__(self, options: argparse.Namespace, problem: Problem) -> None:
        self._options = options
        self._problem = problem
        self.seconds = Seconds()
        self.skipped: dict[str, str] = {}
        self.errors: dict[str, float] = {}
        self.memory: dict[str, memory.RunMemory] = {}
        self.n_edges = 0

    def measure_memory(self) -> None:
        """Peaks of our runs, in a process for each numbering."""
        if not self._wants("memory", memory.missing):
            return
        for node_ordering in NODE_ORDERINGS:
            precisions = [
                precision
                for precision in PRECISIONS
                if self._wants(f"native-{precision}-{node_ordering}")
            ]
            found = memory.in_new_process(
                memory.native_runs,
                *self._problem,
                self._options.iterations,
                node_ordering,
                precisions,
                self._options.threads,
            )
            self.memory |= {
                f"native-{precision}-{node_ordering}": of_run for precision, of_run in found.items()
            }

    def measure_runs(self) -> None:
        """Compare all results, then measure."""
        matrices = {node_ordering: self._build(node_ordering) for node_ordering in NODE_ORDERINGS}
        self.n_edges = matrices["given"].n_edges
        runs = {**self._peer_runs(matrices), **self._native_runs(matrices)}
        self._compare(runs)
        note("runs")
        contestants = [Contestant(name, {"run": run}) for name, run in runs.items()]
        contestants += [
            Contestant(f"graph-{node_ordering}", {"graph": partial(self._build, node_ordering)})
            for node_ordering in NODE_ORDERINGS
        ]
        run_rounds(contestants, self._options.repeat, self.seconds)

    def ratios(self, of: Statistic) -> dict[str, float]:
        """How many times faster we are, with our numbering if not stated otherwise.

        Where the time of our graph is counted, peers still get theirs for nothing.
        """
        result = {}
        for precision in PRECISIONS:
            for node_ordering, text in (("clustered", ""), ("given", "_given")):
                name = f"native-{precision}-{node_ordering}"
                for peer in PEERS:
                    if name not in self.seconds or peer not in self.seconds:
                        continue
                    theirs, ours = of(peer), of(name)
                    graph = of(f"graph-{node_ordering}")
                    key = peer.replace("-", "_")
                    result[f"{precision}{text}_vs_{key}"] = ratio(theirs, ours)
                    result[f"{precision}{text}_with_graph_vs_{key}"] = ratio(theirs, ours + graph)
        return result

    def print_tables(self) -> None:
        """For people."""
        seconds, rows = self.seconds, []
        once = [f"graph-{node_ordering}" for node_ordering in NODE_ORDERINGS]
        once += [f"{peer}-preparation" for peer in PEERS]
        for name in (*PEERS, *OURS, *once):
            if name not in seconds:
                continue
            with_graph = faster = faster_with_graph = error = ""
            if name not in once:
                total = seconds.best(name)
                if name in OURS:
                    total += seconds.best(f"graph-{name.split('-')[-1]}")
                    with_graph = f"{total:.2f}"
                if "mkl" in seconds:
                    faster = f"{seconds.best('mkl') / seconds.best(name):.2f}"
                    faster_with_graph = f"{seconds.best('mkl') / total:.2f}"
                error = f"{self.errors[name]:.1e}" if name in self.errors else ""
            times = [f"{seconds.best(name):.2f}", f"{seconds.median(name):.2f}", with_graph]
            rows.append([name, *times, faster, faster_with_graph, error])
        columns = (
            "row", "s", "median s", "s with graph", "mkl / row", "mkl / with graph", "error",
        )  # fmt: skip
        print_table("From the labels to the scores of the test points", columns, rows)
        if self.memory:
            print_table(
                "Peak memory of the run",
                ("row", "graph MB", "one slice MB", "run MB", "allowed MB", "process MB"),
                [
                    [name, *(f"{figure / 1e6:.0f}" for figure in found)]
                    for name, found in self.memory.items()
                ],
            )

    def _wants(self, name: str, missing: Callable[[], str | None] = lambda: None) -> bool:
        """Whether to measure this; if not, the reason is kept for the notes."""
        reason = "asked to" if name in self._options.skip else missing()
        if reason is not None:
            self.skipped[name] = reason
        return reason is None

    def _build(self, node_ordering: str) -> PropagationMatrix:
        matrix = propagation_matrix(self._problem.neighbors, node_ordering=node_ordering)
        _ = matrix.column_totals  # used by the last step, made when first asked for
        return matrix

    def _peer_runs(
        self, matrices: Mapping[str, PropagationMatrix]
    ) -> dict[str, Callable[[], NDArray[np.float32]]]:
        given, clustered = matrices["given"], matrices["clustered"]
        n_columns, n_iterations = self._problem.n_classes, self._options.iterations
        n_products = n_iterations * (self._options.repeat + 1)
        available: list[
            tuple[str, PropagationMatrix, Callable[[], str | None], Callable[[], Peer]]
        ] = [
            ("mkl", given, MklPeer.missing, lambda: MklPeer(given, n_columns, n_products)),
            (
                "mkl-clustered",
                clustered,
                MklPeer.missing,
                lambda: MklPeer(clustered, n_columns, n_products),
            ),
            ("torch", given, TorchPeer.missing, lambda: TorchPeer(given)),
        ]
        if self._options.with_scipy:
            available.append(("scipy", given, ScipyPeer.missing, lambda: ScipyPeer(given)))
        runs: dict[str, Callable[[], NDArray[np.float32]]] = {}
        for name, matrix, missing, make in available:
            if self._wants(name, missing):
                watch = Stopwatch()
                peer = make()
                self.seconds.add(f"{name}-preparation", {"preparation": watch.seconds})
                classes = self._problem.labeled_classes
                labeled = labeled_rows(classes, 0, n_columns, matrix.rank)
                test_rows = matrix.rows_of(self._problem.test_neighbors)
                tests = neighbor_matrix(test_rows, matrix.n_nodes)
                runs[name] = partial(plain_run, peer, labeled, tests, n_iterations)
        return runs

    def _native_runs(
        self, matrices: Mapping[str, PropagationMatrix]
    ) -> dict[str, Callable[[], NDArray[np.float32]]]:
        def run(node_ordering: str, precision: str) -> NDArray[np.float32]:
            problem = self._problem
            scores: NDArray[np.float32] = propagate(
                matrices[node_ordering],
                problem.labeled_classes,
                problem.test_neighbors,
                problem.n_classes,
                self._options.iterations,
                PropagationOptions(0, "native", precision),
                every_step=False,
            )[0]
            return scores

        return {
            f"native-{precision}-{node_ordering}": partial(run, node_ordering, precision)
            for precision in PRECISIONS
            for node_ordering in NODE_ORDERINGS
            if self._wants(f"native-{precision}-{node_ordering}")
        }

    def _compare(self, runs: dict[str, Callable[[], Any]]) -> None:
        """End with a message unless all scores are those of the first peer."""
        reference = None
        for name, run in runs.items():
            note(f"comparing {name}")
            scores = run()
            if reference is None:
                if name not in PEERS:
                    note("there is no peer to compare results with")
                    return
                reference = scores
                continue
            self.errors[name] = relative_l1(scores, reference)
            allowed = TOLERANCE["bfloat16" if "bfloat16" in name else "float32"]
            if not self.errors[name] < allowed:
                raise SystemExit(
                    f"{name}: relative L1 distance to the scores of {next(iter(runs))} "
                    f"{self.errors[name]:.3g}, expected less than {allowed:g}"
                )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options, with sizes that depend on others filled in."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_options(parser, nodes=1_250_000, classes=500, repeat=2, parts=PARTS)
    parser.add_argument("--iterations", type=positive, default=3, help="steps")
    parser.add_argument("--labeled", type=positive, help="labelled nodes (None: a fifth)")
    parser.add_argument("--test", type=positive, help="test points (None: a fiftieth of the nodes)")
    parser.add_argument(
        "--base-classes", type=positive, help="classes that most labels are of (None: 39.2 %%)"
    )
    parser.add_argument(
        "--novel-shots", type=positive, default=NOVEL_SHOTS, help="labelled nodes of other classes"
    )
    parser.add_argument(
        "--labels",
        choices=("cluster", "random"),
        help="class of a node: that of its cluster, or any, so that sparse scores fill up at once "
        "(None: cluster; random for --graph)",
    )
    parser.add_argument(
        "--with-scipy", action="store_true", help="measure scipy too, which is slow"
    )
    options = parser.parse_args(arguments)
    require_sizes(parser, options)
    if options.labels == "cluster" and options.graph is not None:
        parser.error("--labels cluster: the clusters of a graph from a file are not known")
    if options.labels is None:
        options.labels = "cluster" if options.graph is None else "random"
    if options.base_classes is None:
        options.base_classes = max(round(BASE_PART * options.classes), 1)
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print tables, and the line of JSON last."""
    options = parse(arguments)
    machine.set_threads(options.threads)
    note("graph")
    if options.graph is None:
        # As many clusters as classes at least, so that each class has nodes.
        n_clusters = max(options.nodes // 500, options.classes)
        graph = clustered_graph(options.nodes, options.neighbors, options.seed, n_clusters)
    else:
        graph = graph_of_file(options.graph)
    n_nodes, n_neighbors = graph.neighbors.shape
    options.labeled = options.labeled or round(LABELED_PART * n_nodes)
    options.test = options.test or max(round(TEST_PART * n_nodes), 1)
    problem = make_problem(graph, options)
    description = graph.description
    del graph
    benchmark = RunBenchmark(options, problem)
    note("memory")
    benchmark.measure_memory()
    benchmark.measure_runs()
    print(
        f"{n_nodes} nodes ({description}), {n_neighbors} neighbours, {options.classes} classes, "
        f"{len(problem.labeled_classes)} labelled nodes (classes: {options.labels}), "
        f"{options.iterations} steps, {options.test} test points, {options.threads} threads, "
        f"shortest and median of {options.repeat}"
    )
    benchmark.print_tables()
    ratios = benchmark.ratios(benchmark.seconds.best)
    of_medians = benchmark.ratios(benchmark.seconds.median)
    print_ratios(ratios, of_medians, WANTED)
    for name, reason in benchmark.skipped.items():
        print(f"skipped {name}: {reason}")
    print_json(
        {
            "benchmark": "diffusion_run",
            "machine": machine.describe(),
            "sizes": {
                "nodes": n_nodes,
                "neighbors": n_neighbors,
                "edges": benchmark.n_edges,
                "classes": options.classes,
                "base_classes": options.base_classes,
                "novel_shots": options.novel_shots,
                "labeled": options.labeled,
                "test": options.test,
                "iterations": options.iterations,
                "labels": options.labels,
                "threads": options.threads,
                "repeat": options.repeat,
                "seed": options.seed,
                "graph": description,
            },
            "seconds": benchmark.seconds.summary(),
            "ratios": ratios,
            "ratios_of_medians": of_medians,
            "wanted": WANTED,
            "memory": {name: found._asdict() for name, found in benchmark.memory.items()},
            "errors": benchmark.errors,
            "skipped": benchmark.skipped,
        }
    )


if __name__ == "__main__":
    main()
