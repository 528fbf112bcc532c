"""How the seconds of a graph of nearest neighbours grow with the number of vectors.

Seconds per vector would stay the same if neither lists nor memory counted. All sizes are the first
rows of one file in random order, so that their vectors are spread alike. Everything counts, from
reading vectors to writing index and graph, and every size is measured in a process of its own.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import faiss
import numpy as np

from common import knn, machine
from common.knn import Task
from common.memory import in_new_process
from common.options import above_zero, positive
from common.output import note, print_json, print_table, ratio
from common.timing import Seconds, Statistic
from common.truth import Recall, truth_among
from common.vectors import VectorFile, image_vectors, vectors_of_file
from lowshot_kedro.memory import format_gigabytes

METHODS = ("descent", "ivf", "auto")
DEFAULT_ROWS = (250_000, 1_000_000, 4_000_000)
# What the others stand beside, if it is measured.
REFERENCE_ROWS = 1_000_000
# Seconds per vector beside those of the reference, at most.
WANTED = {10_000_000: 1.6}
# Candidates on disk for each neighbour stored, two rounds of them, a number and a score each.
CANDIDATE_BYTES = 1.5 * 2 * 8


class GrowthBenchmark:
    """Everything that is measured, and what was found, by the number of vectors.

    Args:
        options: Of the command line.
        vectors: As many as the largest size.
        folder: For the files that are written.
    """

    def __init__(self, options: argparse.Namespace, vectors: VectorFile, folder: Path) -> None:
        self._options, self._vectors, self._folder = options, vectors, folder
        self.seconds = Seconds()
        self.recall: dict[str, Recall] = {}
        self.memory: dict[str, int] = {}
        self.skipped: dict[str, str] = {}

    def measure(self) -> None:
        """The sizes, the smallest first, as often as asked for."""
        for n_rows in self._options.rows:
            self._measure(n_rows)

    @property
    def measured(self) -> list[int]:
        """The sizes that have been measured."""
        return [n_rows for n_rows in self._options.rows if str(n_rows) in self.seconds]

    @property
    def reference_rows(self) -> int:
        """The size that the others stand beside."""
        if REFERENCE_ROWS in self.measured or not self.measured:
            return REFERENCE_ROWS
        return self.measured[0]

    def microseconds(self, n_rows: int, of: Statistic) -> float:
        """Of one vector."""
        return ratio(1e6 * of(str(n_rows)), n_rows)

    def ratios(self, of: Statistic) -> dict[str, float]:
        """How many times as long a vector takes as one of the reference."""
        each = {n_rows: of(str(n_rows)) / n_rows for n_rows in self.measured}
        return {str(n_rows): ratio(each[n_rows], each[self.reference_rows]) for n_rows in each}

    def print_table(self) -> None:
        """For people."""
        best, ratios = self.seconds.best, self.ratios(self.seconds.best)
        rows = []
        for n_rows in self.measured:
            name = str(n_rows)
            rows.append(
                [
                    name,
                    *(f"{best(name, phase):.2f}" for phase in ("index", "graph")),
                    f"{self.microseconds(n_rows, best):.2f}",
                    f"{ratios[name]:.2f}",
                    *(f"{part:.4f}" for part in self.recall[name]),
                    f"{self.memory[name] / 1e9:.2f}",
                    ", ".join(self._remarks(n_rows, ratios[name])),
                ]
            )
        columns = (
            "vectors",
            "index s",
            "graph s",
            "µs each",
            f"beside {self.reference_rows}",
            "recall",
            "with ties",
            "peak GB",
            "",
        )
        print_table("Growth of index and graph", columns, rows)

    def _remarks(self, n_rows: int, of_reference: float) -> list[str]:
        options, remarks = self._options, []
        # A sample tells no more than this.
        if round(self.recall[str(n_rows)].ids, 3) < options.target_recall:
            remarks.append("recall below its target")
        if options.budget_bytes is not None and self.memory[str(n_rows)] > options.budget_bytes:
            remarks.append("peak above the budget")
        if n_rows in WANTED:
            met = "" if of_reference <= WANTED[n_rows] else "missed: "
            remarks.append(f"{met}wanted ≤ {WANTED[n_rows]:g}")
        return remarks

    def _measure(self, n_rows: int) -> None:
        options, name = self._options, str(n_rows)
        needed = _bytes_on_disk(n_rows, self._vectors.n_columns, options.k + knn.MORE_STORED)
        free = shutil.disk_usage(self._folder).free
        if needed > free:
            self.skipped[name] = (
                f"needs about {format_gigabytes(needed)} of disk, {format_gigabytes(free)} are free"
            )
            return
        sample = np.random.default_rng(options.seed).permutation(n_rows)[: options.sample]
        task = Task(
            self._vectors.part(n_rows),
            options.k,
            options.threads,
            options.target_recall,
            self._folder,
            sample,
            sample,
            sample,
            options.budget_bytes,
        )
        note(f"true neighbours of {len(sample)} of {n_rows} vectors")
        truth = truth_among(task.vectors, sample, task.k)
        for _ in range(options.repeat):
            note(f"{n_rows} vectors")
            outcome = in_new_process(knn.ours, task, options.method)
            self.seconds.add(name, outcome.seconds)
            self.memory[name] = max(outcome.peak, self.memory.get(name, 0))
            self.recall[name] = truth.recall(outcome.neighbors)
            task.remove_files()


def _bytes_on_disk(n_rows: int, n_columns: int, stored_k: int) -> int:
    """About what index, graph, and the work before it take."""
    graph_bytes = 2 * 8 * stored_k
    return int(n_rows * (4 * n_columns + 8 + graph_bytes + CANDIDATE_BYTES * stored_k))


def make_vectors(
    parser: argparse.ArgumentParser, options: argparse.Namespace, folder: Path
) -> VectorFile:
    """The vectors of the command line, as many as the largest size."""
    most = max(options.rows)
    if options.vectors is None:
        return image_vectors(folder, most, options.columns, options.seed, options.fashion_mnist)
    try:
        return vectors_of_file(options.vectors, options.columns, most)
    except (OSError, ValueError) as error:
        parser.error(f"--vectors: {error}")


def parser_of_options() -> argparse.ArgumentParser:
    """Sizes, data, and memory."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    knn.add_options(parser)
    add = parser.add_argument
    add("--rows", type=positive, nargs="+", default=DEFAULT_ROWS, help="numbers of vectors")
    add("--memory-budget-gb", type=above_zero, help="of each process; default: what is free")
    add("--method", choices=METHODS, default="descent", help="how graphs are made")
    return parser


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options, if they go together."""
    options = parser.parse_args(arguments)
    knn.require_options(parser, options)
    options.rows = sorted(set(options.rows))
    if options.k + knn.MORE_STORED > options.rows[0]:
        parser.error(f"--k: {options.k} and {knn.MORE_STORED} more of {options.rows[0]} vectors")
    budget = options.memory_budget_gb
    options.budget_bytes = None if budget is None else int(budget * 1e9)
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, and the line of JSON last."""
    parser = parser_of_options()
    options = parse(parser, arguments)
    # Processes to come inherit this.
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    machine.set_threads(options.threads)
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="growth-", dir=options.folder) as temporary:
        folder = Path(temporary)
        note("vectors")
        vectors = make_vectors(parser, options, options.folder or folder)
        (folder / "files").mkdir()
        benchmark = GrowthBenchmark(options, vectors, folder / "files")
        benchmark.measure()
    budget = options.budget_bytes
    print(
        f"{vectors.description}, {vectors.n_columns} columns, {options.k} neighbours, "
        f"{options.method}, {options.threads} threads, asked for a recall of "
        f"{options.target_recall:g}, shortest of {options.repeat}, memory: "
        f"{'what is free' if budget is None else format_gigabytes(budget)}"
    )
    benchmark.print_table()
    for name, reason in benchmark.skipped.items():
        print(f"skipped {name}: {reason}")
    print_json(
        {
            "benchmark": "growth",
            "machine": machine.describe(),
            "versions": {"faiss": faiss.__version__},
            "sizes": {
                "rows": options.rows,
                "columns": vectors.n_columns,
                "k": options.k,
                "stored_columns": options.k + knn.MORE_STORED,
                "method": options.method,
                "target_recall": options.target_recall,
                "memory_budget_bytes": budget,
                "sample": options.sample,
                "threads": options.threads,
                "repeat": options.repeat,
                "seed": options.seed,
                "vectors": vectors.description,
            },
            "seconds": benchmark.seconds.summary(),
            "microseconds": {
                str(n_rows): benchmark.microseconds(n_rows, benchmark.seconds.best)
                for n_rows in benchmark.measured
            },
            "recall": {name: found._asdict() for name, found in benchmark.recall.items()},
            "memory": benchmark.memory,
            "reference_rows": benchmark.reference_rows,
            "ratios": benchmark.ratios(benchmark.seconds.best),
            "ratios_of_medians": benchmark.ratios(benchmark.seconds.median),
            "wanted": {str(n_rows): most for n_rows, most in WANTED.items()},
            "skipped": benchmark.skipped,
        }
    )


if __name__ == "__main__":
    main()
