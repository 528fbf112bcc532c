"""One step of the propagation, L ← W L with columns scaled to sum 1, beside other libraries.

A full step of ours is one call of `native.multiply`, as `NativeBackend.step` makes it for dense
scores. Columns are scaled where they are read: the factors that make the columns of L sum to 1
come from the sums of the step before, and the sums of the new columns are taken while they are
computed. So each step scales once, like a step of the peers, which need two more passes for it.

Also measured: making the symmetrised graph, its node_ordering, and the memory of both.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from common import machine, memory
from common.graphs import Graph, clustered_graph, graph_of_file
from common.options import add_options, require_sizes
from common.output import note, print_json, print_ratios, print_table, ratio
from common.peers import MklPeer, Peer, ScipyPeer, TorchPeer, neighbor_matrix, to_scipy
from common.timing import Contestant, Seconds, Statistic, relative_l1, run_rounds
from lowshot_kedro import native
from lowshot_kedro.diffusion import PRECISIONS, PropagationMatrix, propagation_matrix
from lowshot_kedro.diffusion.backends.native_backend import aligned_empty, inverse
from lowshot_kedro.progress import Stopwatch

NODE_ORDERINGS = ("given", "clustered")
PEERS = ("mkl", "mkl-clustered", "torch", "scipy")
OURS = tuple(
    f"native-{precision}-{node_ordering}"
    for precision in PRECISIONS
    for node_ordering in NODE_ORDERINGS
)
GRAPH = (
    "symmetrize-native", "symmetrize-scipy", "node_ordering", "symmetrize-clustered",
    "column-totals",
)  # fmt: skip
PARTS = (*PEERS, *OURS, *GRAPH, "memory", "bandwidth")

# Largest relative L1 distance to the float64 result.
TOLERANCE = {"float32": 1e-6, "bfloat16": 1e-2}
# How many times faster than the peer, at the default sizes.
WANTED = {
    "float32_vs_mkl": 4.0,
    "bfloat16_vs_mkl": 6.0,
    "symmetrize_vs_scipy": 2.0,
}
WANTED_BEYOND = 0.1
TRUTH_COLUMNS = 16


class PeerStep:
    """A product and a scaling by another library.

    Args:
        peer: The library, with its matrix.
        scores: float32 (n, c), columns with sum 1, in the order of the matrix.
        out: float32 (n, c), shared by all peers.
        rank: Of the nodes in that order; None: as given.
    """

    def __init__(
        self,
        peer: Peer,
        scores: NDArray[np.float32],
        out: NDArray[np.float32],
        rank: NDArray[np.int32] | None = None,
    ) -> None:
        self._peer, self._scores, self._out, self._rank = peer, scores, out, rank
        self._product = out

    def parts(self) -> dict[str, Callable[[], object]]:
        """What is timed."""
        return {"product": self._multiply, "scaling": self._normalize}

    def result(self) -> NDArray[np.float32]:
        """Of the last step, until another one uses the same array."""
        return self._product if self._rank is None else self._product[self._rank]

    def _multiply(self) -> None:
        self._product = self._peer.multiply(self._scores, self._out)

    def _normalize(self) -> None:
        self._peer.normalize(self._product)


class NativeStep:
    """A step of ours: what `NativeBackend.step` does with dense scores.

    Args:
        matrix: W.
        scores: float32 (n, c) or the bits of bfloat16, in the order of the matrix.
        out: Of the same type and shape.
    """

    def __init__(
        self, matrix: PropagationMatrix, scores: native.DenseScores, out: native.DenseScores
    ) -> None:
        self._matrix, self._scores, self._out = matrix, scores, out
        # Later steps have these from the step before.
        self._sums = native.column_sums(scores)
        self._new_sums = self._sums

    def parts(self) -> dict[str, Callable[[], object]]:
        """What is timed."""
        return {"product and scaling": self._step}

    def result(self) -> NDArray[np.float32]:
        """Of the last step, scaled as it would be when it is read."""
        out: NDArray[Any] = self._out
        scores: NDArray[np.float32] = (
            native.from_bfloat16(out) if out.dtype == np.uint16 else out.copy()
        )
        native.scale_columns(scores, inverse(self._new_sums))
        return scores if self._matrix.rank is None else scores[self._matrix.rank]

    def minimum_bytes(self) -> int:
        """Scores read once and written once, and the matrix read once."""
        return self._scores.nbytes + self._out.nbytes + self._matrix.rows.n_bytes

    def gathered_bytes(self) -> int:
        """A row of scores for every entry of the matrix, from cache or memory."""
        return int(self._matrix.n_edges * self._scores.shape[1] * self._scores.itemsize)

    def _step(self) -> None:
        factors = inverse(self._sums)
        self._new_sums = native.multiply(self._matrix.rows, self._scores, factors, self._out)


class StepBenchmark:
    """Everything that is measured, and what was found.

    Args:
        options: Of the command line.
        graph: To be measured on.
    """

    def __init__(self, options: argparse.Namespace, graph: Graph) -> None:
        self._options = options
        self._neighbors = graph.neighbors
        self.seconds = Seconds()
        self.skipped: dict[str, str] = {}
        self.errors: dict[str, float] = {}
        self.memory: dict[str, memory.BuildMemory] = {}
        self.bytes_per_node: dict[str, float] = {}
        self.bandwidth: dict[str, Any] = {}
        self.n_edges = 0

    def measure_graph(self) -> None:
        """Times of A + Aᵀ, the numbering and the column totals."""
        neighbors = self._neighbors
        links = neighbor_matrix(neighbors, len(neighbors))
        built = native.symmetrize(neighbors)
        _require_same_graph(built, links)
        order = native.cluster_nodes(neighbors)
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order), dtype=np.int32)
        renumbered = native.renumber(neighbors, order, rank)
        contestants = [
            Contestant("symmetrize-native", {"A + At": lambda: native.symmetrize(neighbors)}),
            Contestant("symmetrize-scipy", {"A + At": lambda: links + links.T}),
            Contestant(
                "node_ordering",
                {
                    "cluster_nodes": lambda: native.cluster_nodes(neighbors),
                    "renumber": lambda: native.renumber(neighbors, order, rank),
                },
            ),
            Contestant("symmetrize-clustered", {"A + At": lambda: native.symmetrize(renumbered)}),
            Contestant("column-totals", {"totals": lambda: native.column_totals(built)}),
        ]
        wanted = [contestant for contestant in contestants if self._wants(contestant.name)]
        run_rounds(wanted, self._options.repeat, self.seconds)

    def measure_memory(self) -> None:
        """Peaks of A + Aᵀ, each in a process of its own."""
        if not self._wants("memory", memory.missing):
            return
        for name, build in (("native", memory.native_build), ("scipy", memory.scipy_build)):
            if self._wants(f"symmetrize-{name}"):
                self.memory[f"symmetrize-{name}"] = memory.in_new_process(
                    build, self._neighbors, self._options.threads
                )

    def measure_steps(self) -> None:
        """Compare every result with that of scipy in float64, then measure."""
        matrices = {
            node_ordering: propagation_matrix(self._neighbors, node_ordering=node_ordering)
            for node_ordering in NODE_ORDERINGS
        }
        self.n_edges = matrices["given"].n_edges
        self.bytes_per_node = {
            node_ordering: matrix.n_bytes / matrix.n_nodes
            for node_ordering, matrix in matrices.items()
        }
        scores = {"given": _random_scores(len(self._neighbors), self._options)}
        scores["clustered"] = np.empty_like(scores["given"])
        scores["clustered"][matrices["clustered"].rank] = scores["given"]
        note("the result in float64")
        truth = _true_step(matrices["given"], scores["given"])
        steps: dict[str, PeerStep | NativeStep] = {
            **self._peer_steps(matrices, scores),
            **self._native_steps(matrices, scores),
        }
        for name, step in steps.items():
            for function in step.parts().values():
                function()
            self.errors[name] = relative_l1(step.result(), truth)
            allowed = TOLERANCE["bfloat16" if "bfloat16" in name else "float32"]
            if not self.errors[name] < allowed:
                raise SystemExit(
                    f"{name}: relative L1 distance to scipy's float64 result "
                    f"{self.errors[name]:.3g}, expected less than {allowed:g}"
                )
        del truth
        note("steps")
        contestants = [Contestant(name, step.parts()) for name, step in steps.items()]
        run_rounds(contestants, self._options.repeat, self.seconds)
        self._measure_bandwidth(steps)

    def ratios(self, of: Statistic) -> dict[str, float]:
        """How many times faster we are, with our numbering if not stated otherwise."""
        result = {}
        for precision in PRECISIONS:
            for node_ordering, text in (("clustered", ""), ("given", "_given")):
                for peer in PEERS:
                    name = f"native-{precision}-{node_ordering}"
                    if name in self.seconds and peer in self.seconds:
                        key = f"{precision}{text}_vs_{peer.replace('-', '_')}"
                        result[key] = ratio(of(peer), of(name))
        if "symmetrize-native" in self.seconds and "symmetrize-scipy" in self.seconds:
            result["symmetrize_vs_scipy"] = ratio(of("symmetrize-scipy"), of("symmetrize-native"))
        once = ("node_ordering", "symmetrize-clustered")
        if "symmetrize-scipy" in self.seconds and all(name in self.seconds for name in once):
            result["numbered_graph_vs_scipy"] = ratio(
                of("symmetrize-scipy"),
                sum(of(name) for name in once),
            )
        return result

    def print_tables(self) -> None:
        """For people."""
        self._print_steps()
        self._print_graph()
        self._print_memory()
        self._print_bandwidth()

    def _wants(self, name: str, missing: Callable[[], str | None] = lambda: None) -> bool:
        """Whether to measure this; if not, the reason is kept for the notes."""
        reason = "asked to" if name in self._options.skip else missing()
        if reason is not None:
            self.skipped[name] = reason
        return reason is None

    def _peer_steps(
        self,
        matrices: Mapping[str, PropagationMatrix],
        scores: Mapping[str, NDArray[np.float32]],
    ) -> dict[str, PeerStep]:
        out = aligned_empty(scores["given"].shape, np.dtype(np.float32))
        given, clustered = matrices["given"], matrices["clustered"]
        steps: dict[str, PeerStep] = {}
        for name, matrix in (("mkl", given), ("mkl-clustered", clustered)):
            if self._wants(name, MklPeer.missing):
                watch = Stopwatch()
                peer = MklPeer(matrix, self._options.classes, self._options.repeat + 1)
                self.seconds.add(f"{name}-inspection", {"inspection": watch.seconds})
                node_ordering = "given" if matrix is given else "clustered"
                steps[name] = PeerStep(peer, scores[node_ordering], out, matrix.rank)
        if self._wants("torch", TorchPeer.missing):
            steps["torch"] = PeerStep(TorchPeer(given), scores["given"], out)
        if self._wants("scipy"):
            steps["scipy"] = PeerStep(ScipyPeer(given), scores["given"], out)
        return steps

    def _native_steps(
        self,
        matrices: Mapping[str, PropagationMatrix],
        scores: Mapping[str, NDArray[np.float32]],
    ) -> dict[str, NativeStep]:
        steps: dict[str, NativeStep] = {}
        for precision in PRECISIONS:
            dtype = np.dtype(np.uint16 if precision == "bfloat16" else np.float32)
            out: NDArray[Any] = aligned_empty(scores["given"].shape, dtype)
            for node_ordering, matrix in matrices.items():
                name = f"native-{precision}-{node_ordering}"
                if not self._wants(name):
                    continue
                start: NDArray[Any] = scores[node_ordering]
                if precision == "bfloat16":
                    start = aligned_empty(start.shape, dtype)
                    start[:] = native.to_bfloat16(scores[node_ordering])
                steps[name] = NativeStep(matrix, start, out)
        return steps

    def _measure_bandwidth(self, steps: Mapping[str, PeerStep | NativeStep]) -> None:
        for name, step in steps.items():
            if isinstance(step, NativeStep):
                seconds = self.seconds.best(name)
                self.bandwidth[name] = {
                    "minimum": round(step.minimum_bytes() / seconds),
                    "gathered": round(step.gathered_bytes() / seconds),
                }
        if self._wants("bandwidth"):
            self.bandwidth["copy"] = round(machine.copy_bandwidth(self._options.threads))

    def _print_steps(self) -> None:
        seconds, rows = self.seconds, []
        for name in (*PEERS, *OURS):
            if name not in seconds:
                continue
            parts = ["", ""]
            if name in PEERS:
                parts = [f"{seconds.best(name, part):.3f}" for part in ("product", "scaling")]
            faster = ""
            if "mkl" in seconds:
                faster = f"{seconds.best('mkl') / seconds.best(name):.2f}"
            times = [f"{seconds.best(name):.3f}", f"{seconds.median(name):.3f}"]
            rows.append([name, *parts, *times, faster, f"{self.errors[name]:.1e}"])
        columns = ("row", "product s", "scaling s", "step s", "median s", "mkl / row", "error")
        print_table("One step with scaled columns", columns, rows)

    def _print_graph(self) -> None:
        seconds, rows = self.seconds, []
        names = (*GRAPH, "mkl-inspection", "mkl-clustered-inspection")
        for name in names:
            if name in seconds:
                rows.append([name, f"{seconds.best(name):.3f}", f"{seconds.median(name):.3f}"])
            if name == "node_ordering" and name in seconds:
                rows += [
                    [
                        f"  {part}",
                        *(f"{of(name, part):.3f}" for of in (seconds.best, seconds.median)),
                    ]
                    for part in ("cluster_nodes", "renumber")
                ]
        print_table("Work done once for a graph", ("row", "s", "median s"), rows)

    def _print_memory(self) -> None:
        rows = []
        for name, found in self.memory.items():
            figures = [f"{figure / 1e6:.1f}" for figure in found]
            limit = f"≤ {WANTED_BEYOND:.0%}" if name == "symmetrize-native" else ""
            rows.append([name, *figures, f"{found.part_beyond:.1%}", limit])
        columns = ("row", "input MB", "output MB", "beyond MB", "part", "wanted")
        if rows:
            print_table("Peak memory beyond input and output", columns, rows)
        limit = 2 * self._neighbors.shape[1] * 4 + 24
        sizes = [
            [node_ordering, f"{size:.1f}", f"≤ {limit}"]
            for node_ordering, size in self.bytes_per_node.items()
        ]
        print_table("Memory of the graph", ("node_ordering", "bytes a node", "wanted"), sizes)

    def _print_bandwidth(self) -> None:
        rows = [
            [name, f"{found['minimum'] / 1e9:.1f}", f"{found['gathered'] / 1e9:.1f}"]
            for name, found in self.bandwidth.items()
            if name != "copy"
        ]
        if "copy" in self.bandwidth:
            rows.insert(0, ["copy of an array", f"{self.bandwidth['copy'] / 1e9:.1f}", ""])
        columns = ("row", "least traffic GB/s", "gathered GB/s")
        print_table("Bytes moved in a second", columns, rows)


def _random_scores(n_nodes: int, options: argparse.Namespace) -> NDArray[np.float32]:
    """Float32 (n, c) without zeros, columns with sum 1: what scores are after the first steps."""
    scores: NDArray[np.float32] = aligned_empty((n_nodes, options.classes), np.dtype(np.float32))
    np.random.default_rng(options.seed).random(dtype=np.float32, out=scores)
    native.scale_columns(scores, inverse(native.column_sums(scores)))
    return scores


def _true_step(matrix: PropagationMatrix, scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """The step in float64 by scipy and numpy."""
    links = to_scipy(matrix, np.float64)
    truth = np.empty(scores.shape)
    for first in range(0, scores.shape[1], TRUTH_COLUMNS):
        columns = np.s_[:, first : first + TRUTH_COLUMNS]
        product = links @ scores[columns].astype(np.float64)
        sums = product.sum(axis=0)
        truth[columns] = product / np.where(sums == 0, 1, sums)
    return truth


def _require_same_graph(built: native.SparseMatrix, links: sparse.csr_array) -> None:
    """End with a message unless ours is A + Aᵀ as scipy computes it."""
    truth = (links + links.T).tocsr()
    truth.sort_indices()
    values = PropagationMatrix(built).values()
    # Rows of ours sum to 1.
    values *= np.repeat(np.asarray(truth.sum(axis=1)).ravel(), np.diff(built.indptr))
    ours = sparse.csr_array((np.rint(values), built.indices, built.indptr), shape=truth.shape)
    ours.sort_indices()
    same = np.array_equal(ours.indptr, truth.indptr)
    same = same and np.array_equal(ours.indices, truth.indices)
    if not (same and np.array_equal(ours.data, truth.data)):
        raise SystemExit(
            "symmetrize: the graph is not scipy's A + At (a neighbour twice in a row?)"
        )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_options(parser, nodes=1_000_000, classes=128, repeat=5, parts=PARTS)
    options = parser.parse_args(arguments)
    require_sizes(parser, options)
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print tables, and the line of JSON last."""
    options = parse(arguments)
    machine.set_threads(options.threads)
    note("graph")
    if options.graph is None:
        graph = clustered_graph(options.nodes, options.neighbors, options.seed)
    else:
        graph = graph_of_file(options.graph)
    n_nodes, n_neighbors = graph.neighbors.shape
    benchmark = StepBenchmark(options, graph)
    note("A + At, node_ordering, memory")
    benchmark.measure_graph()
    benchmark.measure_memory()
    benchmark.measure_steps()
    print(
        f"{n_nodes} nodes ({graph.description}), {n_neighbors} neighbours, {benchmark.n_edges} "
        f"entries of A + At, {options.classes} classes, {options.threads} threads, shortest and "
        f"median of {options.repeat}"
    )
    benchmark.print_tables()
    ratios = benchmark.ratios(benchmark.seconds.best)
    of_medians = benchmark.ratios(benchmark.seconds.median)
    print_ratios(ratios, of_medians, WANTED)
    for name, reason in benchmark.skipped.items():
        print(f"skipped {name}: {reason}")
    print_json(
        {
            "benchmark": "diffusion_step",
            "machine": machine.describe(),
            "sizes": {
                "nodes": n_nodes,
                "neighbors": n_neighbors,
                "edges": benchmark.n_edges,
                "classes": options.classes,
                "threads": options.threads,
                "repeat": options.repeat,
                "seed": options.seed,
                "graph": graph.description,
            },
            "seconds": benchmark.seconds.summary(),
            "ratios": ratios,
            "ratios_of_medians": of_medians,
            "wanted": WANTED,
            "bandwidth": benchmark.bandwidth,
            "memory": {
                **{name: found._asdict() for name, found in benchmark.memory.items()},
                "graph_bytes_per_node": benchmark.bytes_per_node,
            },
            "errors": benchmark.errors,
            "skipped": benchmark.skipped,
        }
    )


if __name__ == "__main__":
    main()
