"""The graph of nearest neighbours of a million vectors, beside other ways to make it.

Everything counts: reading vectors, training, adding, searching, and writing to disk. Everybody is
measured in a process of its own, and on the CPU. Recall is taken on a sample of vectors, whose true
neighbours are found by comparison with all.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import faiss
import numpy as np

from common import knn, machine
from common.before import checkout, in_checkout
from common.knn import InsertionTask, Outcome, Task
from common.memory import in_new_process
from common.options import positive
from common.output import note, print_json, print_ratios, print_table, ratio
from common.timing import Seconds, Statistic
from common.truth import Recall, Truth, truth_among
from common.vectors import VectorFile, image_vectors, vectors_of_file

OURS = ("descent", "ivf", "pynndescent", "auto")
OUR_ROWS = tuple(f"ours-{method}" for method in OURS)
BEFORE = "before"
PEERS = (BEFORE, "pynndescent", "original", "exact", "big-batch")
# What takes long and is measured only if asked for; auto is descent at the default size.
ONLY_IF_ASKED = {
    "ours-pynndescent": "--with-our-pynndescent",
    "ours-auto": "--with-auto",
    "big-batch": "--with-big-batch",
    BEFORE: "--before",
}
SMALL = ("small-auto", "small-exact")
INSERTION = "insertion"
LIBRARIES = "libraries"
PARTS = (*OUR_ROWS, *PEERS, *SMALL, INSERTION)
# What is compared with the peers, and what the insertion continues.
MAIN_METHOD = "descent"
MAIN_ROW = f"ours-{MAIN_METHOD}"

# 17 copies of 60 thousand images.
DEFAULT_ROWS = 1_020_000
# How many times faster than the peer, at the default sizes.
WANTED = {"original_vs_ours": 20.0, "pynndescent_vs_ours": 2.0, "small_exact_vs_ours": 3.0}
# The insertion's seconds as a part of the graph's, at most.
WANTED_SHARE = 0.08
# The part of the links to labelled points that is found, at least.
WANTED_LINKS = 0.999
# faiss' comparison with every vector gives the truth, but for rounding.
EXACT_RECALL = 0.999


class GraphBenchmark:
    """Everything that is measured, and what was found.

    Args:
        options: Of the command line.
        vectors: The background first, then labelled points, then test points.
        folder: For the files that are written.
    """

    def __init__(self, options: argparse.Namespace, vectors: VectorFile, folder: Path) -> None:
        self._options, self._vectors, self._folder = options, vectors, folder
        self._seconds_of_index: dict[str, float] = {}
        self.seconds = Seconds()
        self.phases: dict[str, tuple[str, ...]] = {}
        self.skipped: dict[str, str] = {}
        self.recall: dict[str, Recall] = {}
        self.memory: dict[str, int] = {}
        self.measured_queries: dict[str, dict[str, int]] = {}
        self.links: tuple[int, int] | None = None

    def measure_graphs(self) -> Task:
        """The whole graph, by everybody.

        Returns:
            What everybody got. The files of our main method are still there.
        """
        task = self._task(self._options.rows)
        self.memory[LIBRARIES] = in_new_process(knn.nothing, task)
        contestants: dict[str, Callable[[Task], Outcome]] = {
            **{f"ours-{method}": partial(knn.ours, method=method) for method in OURS},
            BEFORE: partial(knn.ours, method=MAIN_METHOD),
            "pynndescent": knn.pynndescent_alone,
            "original": knn.original,
            "big-batch": knn.big_batch,
            "exact": knn.exact,
        }
        wanted = {name: function for name, function in contestants.items() if self._wants(name)}
        if "big-batch" in wanted and "original" not in wanted:
            self.skipped["big-batch"] = "needs the index of the original"
            del wanted["big-batch"]
        self._measure(wanted, task)
        return task

    def measure_small_graphs(self) -> None:
        """The graph of the first vectors, by us and by comparison of all with all."""
        n_rows = self._options.small_rows
        contestants: dict[str, Callable[[Task], Outcome]] = {
            "small-auto": partial(knn.ours, method="auto"),
            "small-exact": knn.exact,
        }
        if n_rows >= self._options.rows:
            reason = "the whole graph is as small"
            self.skipped.update(dict.fromkeys(contestants, reason))
            return
        wanted = {name: function for name, function in contestants.items() if self._wants(name)}
        self._measure(wanted, self._task(n_rows))

    def measure_insertion(self, background: Task) -> None:
        """Labelled and test points come to the graph of our main method."""
        if not self._wants(INSERTION):
            return
        if MAIN_ROW not in self.seconds:
            self.skipped[INSERTION] = f"needs the graph of {MAIN_ROW}"
            return
        task = InsertionTask(
            background,
            MAIN_METHOD,
            self._vectors,
            self._options.labeled,
            self._options.test,
            self._options.sample,
        )
        for _ in range(self._options.repeat):
            note(INSERTION)
            outcome = in_new_process(knn.insertion, task)
            self.seconds.add(INSERTION, {INSERTION: outcome.seconds})
            self.seconds.add(f"{INSERTION}-loading", {"loading": outcome.loading_seconds})
        self.memory[INSERTION] = outcome.peak
        self.links = outcome.links
        note("true neighbours of labelled, background and test points")
        for name, truth in task.truths().items():
            self.recall[f"{INSERTION}-{name}"] = truth.recall(outcome.neighbors[name])

    def ratios(self, of: Statistic) -> dict[str, float]:
        """How many times faster we are."""
        result = {}
        for peer in PEERS:
            if MAIN_ROW in self.seconds and peer in self.seconds:
                result[f"{peer.replace('-', '_')}_vs_ours"] = ratio(of(peer), of(MAIN_ROW))
        if all(name in self.seconds for name in SMALL):
            result["small_exact_vs_ours"] = ratio(of("small-exact"), of("small-auto"))
        return result

    def insertion_share(self, of: Statistic) -> float | None:
        """Of the time that the background graph took, index included."""
        if INSERTION not in self.seconds:
            return None
        return ratio(of(INSERTION), of(MAIN_ROW))

    def print_tables(self) -> None:
        """For people."""
        options = self._options
        self._print_graphs(f"Graph of {options.rows} vectors", (*OUR_ROWS, *PEERS))
        self._print_graphs(f"Graph of the first {options.small_rows} vectors", SMALL)
        self._print_insertion()
        print(
            f"A process that does nothing takes {self.memory[LIBRARIES] / 1e9:.2f} GB, for Python "
            "and its libraries; it is part of every peak."
        )

    def _task(self, n_rows: int) -> Task:
        """Of the first rows."""
        options = self._options
        order = np.random.default_rng(options.seed).permutation(n_rows)
        n_queries, n_exact = (
            max(n, options.sample) for n in (options.queries, options.exact_sample)
        )
        return Task(
            self._vectors.part(n_rows),
            options.k,
            options.threads,
            options.target_recall,
            self._folder,
            order[: options.sample],
            order[:n_queries],
            order[:n_exact],
        )

    def _wants(self, name: str) -> bool:
        """Whether to measure this; if not, the reason is kept for the notes."""
        reason = None
        if name in self._options.skip:
            reason = "asked to"
        elif name == BEFORE:
            reason = None if self._options.before else f"only with {ONLY_IF_ASKED[name]}"
        elif name in ONLY_IF_ASKED and name not in self._options.extra:
            reason = f"only with {ONLY_IF_ASKED[name]}"
        elif name.endswith("pynndescent"):
            reason = knn.pynndescent_missing()
        if reason is not None:
            self.skipped[name] = reason
        return reason is None

    def _measure(self, contestants: dict[str, Callable[[Task], Outcome]], task: Task) -> None:
        if not contestants:
            return
        note(f"true neighbours of {len(task.sample)} of {task.vectors.n_rows} vectors")
        truth = truth_among(task.vectors, task.sample, task.k)
        for _ in range(self._options.repeat):
            task.remove_files()
            for name, function in contestants.items():
                note(name)
                self._keep(name, self._outcome(name, function, task), truth)

    def _outcome(self, name: str, function: Callable[[Task], Outcome], task: Task) -> Outcome:
        if name != BEFORE:
            return in_new_process(function, task)
        # Ours would find its files of the same names done.
        with tempfile.TemporaryDirectory(dir=task.folder) as name_of_folder:
            folder = Path(name_of_folder)
            return in_checkout(self._options.before, function, folder, replace(task, folder=folder))

    def _keep(self, name: str, outcome: Outcome, truth: Truth) -> None:
        """Note what was found, once it is seen to be right."""
        try:
            recall = truth.recall(outcome.neighbors)
        except ValueError as error:
            raise SystemExit(f"{name}: {error}") from error
        if name in ("exact", "small-exact") and recall.ties < EXACT_RECALL:
            raise SystemExit(f"{name}: recall {recall.ties:.4f} of a comparison with every vector")
        seconds = outcome.seconds
        if name == "big-batch":
            # It searches the index that the original has made.
            seconds = {**self._seconds_of_index, **seconds}
        elif name == "original":
            self._seconds_of_index = {
                phase: seconds[phase] for phase in seconds if phase in knn.INDEX_PHASES
            }
        self.seconds.add(name, seconds)
        if outcome.first_call is not None:
            self.seconds.add(f"{name}-first-call", {"first call": outcome.first_call})
        self.phases[name] = tuple(seconds)
        self.recall[name] = recall
        self.memory[name] = outcome.peak
        if outcome.measured_queries:
            self.measured_queries[name] = outcome.measured_queries

    def _print_graphs(self, title: str, names: Sequence[str]) -> None:
        rows = []
        for name in names:
            if name not in self.seconds:
                continue
            phases = self.phases[name]
            of_index = sum(
                self.seconds.best(name, phase) for phase in phases if phase in knn.INDEX_PHASES
            )
            total = self.seconds.best(name)
            remarks = [f"{phase} extrapolated" for phase in self.measured_queries.get(name, {})]
            # A sample tells no more than this.
            rounded = round(self.recall[name].ids, 3)
            if name in (*OUR_ROWS, BEFORE) and rounded < self._options.target_recall:
                remarks.append("recall below its target")
            rows.append(
                [
                    name,
                    *(f"{seconds:.2f}" for seconds in (of_index, total - of_index, total)),
                    *(f"{part:.4f}" for part in self.recall[name]),
                    f"{self.memory[name] / 1e9:.2f}",
                    ", ".join(remarks),
                ]
            )
        columns = ("row", "index s", "graph s", "total s", "recall", "with ties", "peak GB", "")
        if rows:
            print_table(title, columns, rows)
        first_calls = [
            [name, f"{self.seconds.best(f'{name}-first-call'):.2f}"]
            for name in names
            if f"{name}-first-call" in self.seconds
        ]
        if first_calls:
            print_table("Compiled or loaded before, in no total", ("row", "s"), first_calls)

    def _print_insertion(self) -> None:
        share = self.insertion_share(self.seconds.best)
        if share is None:
            return
        rows = [
            ["seconds", f"{self.seconds.best(INSERTION):.2f}", ""],
            ["seconds of loading before", f"{self.seconds.best(f'{INSERTION}-loading'):.2f}", ""],
            [f"part of {MAIN_ROW}'s seconds", f"{share:.3f}", f"≤ {WANTED_SHARE:g}"],
            ["peak GB", f"{self.memory[INSERTION] / 1e9:.2f}", ""],
        ]
        assert self.links is not None
        n_found, n_wanted = self.links
        share = n_found / max(n_wanted, 1)
        rows.append(["part of the links to labelled points", f"{share:.5f}", f"≥ {WANTED_LINKS}"])
        rows.append(["  of so many", str(n_wanted), ""])
        for name, recall in self.recall.items():
            if name.startswith(f"{INSERTION}-"):
                what = name.removeprefix(f"{INSERTION}-")
                rows.append([f"recall of {what} points", f"{recall.ids:.4f}", ""])
                rows.append(["  with ties", f"{recall.ties:.4f}", ""])
        options = self._options
        title = f"Insertion with {options.labeled} labelled and {options.test} test points"
        print_table(title, ("figure", "found", "wanted"), rows)


def make_vectors(
    parser: argparse.ArgumentParser, options: argparse.Namespace, folder: Path
) -> VectorFile:
    """The vectors of the command line, and the number of rows of the background."""
    held_out = options.labeled + options.test
    if options.vectors is None:
        options.rows = options.rows or DEFAULT_ROWS
        return image_vectors(
            folder, options.rows + held_out, options.columns, options.seed, options.fashion_mnist
        )
    try:
        n_rows = None if options.rows is None else options.rows + held_out
        vectors = vectors_of_file(options.vectors, options.columns, n_rows)
    except (OSError, ValueError) as error:
        parser.error(f"--vectors: {error}")
    options.rows = vectors.n_rows - held_out
    if options.rows < 1:
        parser.error(
            f"--vectors: {vectors.n_rows} rows, of which {held_out} are labelled or test points"
        )
    return vectors


def parser_of_options() -> argparse.ArgumentParser:
    """Sizes, data, and what to measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    knn.add_options(parser)
    add = parser.add_argument
    add("--rows", type=positive, help=f"vectors; default: {DEFAULT_ROWS}, or those of the file")
    add("--small-rows", type=positive, default=100_000, help="vectors of the second part")
    add("--labeled", type=positive, default=10_000, help="labelled points of the insertion")
    add("--test", type=positive, default=5_000, help="test points of the insertion")
    add("--queries", type=positive, default=2_000, help="vectors that the original searches for")
    add("--exact-sample", type=positive, default=2_000, help="the same for the exact search")
    add("--before", type=checkout, metavar="FOLDER", help="a built checkout, measured as `before`")
    for name, option in ONLY_IF_ASKED.items():
        if name == BEFORE:
            continue
        add(option, dest="extra", action="append_const", const=name, help=f"measure {name} too")
    add("--skip", nargs="+", default=[], choices=PARTS, metavar="NAME", help=", ".join(PARTS))
    parser.set_defaults(extra=[])
    return parser


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options, if they go together."""
    options = parser.parse_args(arguments)
    knn.require_options(parser, options)
    return options


def measure(options: argparse.Namespace, vectors: VectorFile, folder: Path) -> GraphBenchmark:
    """All parts, one after the other."""
    benchmark = GraphBenchmark(options, vectors, folder)
    background = benchmark.measure_graphs()
    benchmark.measure_insertion(background)
    benchmark.measure_small_graphs()
    return benchmark


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print tables, and the line of JSON last."""
    parser = parser_of_options()
    options = parse(parser, arguments)
    # Processes to come inherit this. The peers have no GPU, so ours gets none either.
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ["NUMBA_NUM_THREADS"] = str(options.threads)
    machine.set_threads(options.threads)
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="knn-graph-", dir=options.folder) as temporary:
        folder = Path(temporary)
        note("vectors")
        vectors = make_vectors(parser, options, options.folder or folder)
        if options.k + knn.MORE_STORED > options.rows:
            parser.error(f"--k: {options.k} and {knn.MORE_STORED} more of {options.rows} vectors")
        (folder / "files").mkdir()
        benchmark = measure(options, vectors, folder / "files")
    print(
        f"{options.rows} vectors ({vectors.description}), {vectors.n_columns} columns, "
        f"{options.k} neighbours, {options.threads} threads, asked for a recall of "
        f"{options.target_recall:g}, shortest of {options.repeat}"
    )
    benchmark.print_tables()
    ratios = benchmark.ratios(benchmark.seconds.best)
    of_medians = benchmark.ratios(benchmark.seconds.median)
    if ratios:
        print_ratios(ratios, of_medians, WANTED)
    for name, reason in benchmark.skipped.items():
        print(f"skipped {name}: {reason}")
    print_json(
        {
            "benchmark": "knn_graph",
            "machine": machine.describe(),
            "versions": versions(),
            "sizes": {
                "rows": options.rows,
                "columns": vectors.n_columns,
                "k": options.k,
                "stored_columns": options.k + knn.MORE_STORED,
                "target_recall": options.target_recall,
                "small_rows": options.small_rows,
                "labeled": options.labeled,
                "test": options.test,
                "sample": min(options.sample, options.rows),
                "threads": options.threads,
                "repeat": options.repeat,
                "seed": options.seed,
                "vectors": vectors.description,
            },
            "seconds": benchmark.seconds.summary(),
            "measured_queries": benchmark.measured_queries,
            "recall": {name: found._asdict() for name, found in benchmark.recall.items()},
            "memory": benchmark.memory,
            "ratios": ratios,
            "ratios_of_medians": of_medians,
            "wanted": WANTED,
            "insertion_share": benchmark.insertion_share(benchmark.seconds.best),
            "wanted_insertion_share": WANTED_SHARE,
            "links_to_labeled": benchmark.links,
            "wanted_links": WANTED_LINKS,
            "skipped": benchmark.skipped,
        }
    )


def versions() -> dict[str, str | None]:
    """Of the libraries that only this benchmark uses."""
    found: dict[str, str | None] = {"faiss": faiss.__version__}
    for name in ("pynndescent", "numba"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


if __name__ == "__main__":
    main()
