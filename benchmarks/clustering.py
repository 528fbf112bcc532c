"""k-means from the same first centroids: ours beside faiss, the original's way and scikit-learn.

Rows of length 1 are either around as many centres as there are clusters, or even on the sphere, as
whitened features are. Everybody has a process of its own, gets the same first centroids, updates
them `--iterations` times and assigns once more; what counts are the seconds of all threads (CPU) of
that, beside wall time and memory. `ours` and `faiss` (Kmeans on all rows) do the same work, so that
their objectives agree. `original` is the way of DeeperCluster, written from its description:
batches of 48 rows, each assigned by a flat index of faiss, and a loop over the labels that occur in
it, which adds up their rows. `scikit-learn` is MiniBatchKMeans with as many passes. Two levels are
n super-clusters and clusters in each of them. The last table is the memory of ours over a file.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans

from common import machine
from common.memory import give_back, in_new_process, missing
from common.options import above_zero, positive
from common.output import note, print_json, print_ratios, print_table, ratio
from common.timing import Seconds
from lowshot_kedro import native
from lowshot_kedro.blocks import row_ranges
from lowshot_kedro.deepercluster import hierarchical_kmeans, kmeans
from lowshot_kedro.memory import recent_peak_rss_bytes, restart_peak, rss_bytes

OURS, FAISS, ORIGINAL, SKLEARN = "ours", "faiss", "original", "scikit-learn"
PEERS = (FAISS, ORIGINAL, SKLEARN, "two-level", "memory")
DATA = ("clustered", "uniform")
ORIGINAL_BATCH = 48
BLOCK_ROWS = 8192
WANTED = {"clustered_flat_vs_faiss": 1.0, "uniform_flat_vs_faiss": 1.0}
WANTED_OF_ORIGINAL = 15.0
# Of objectives of the same work, and of a budget of memory.
LARGEST_DIFFERENCE, LARGEST_EXCESS = 1e-3, 1.1
# What labels take beside a budget, for each row.
LABEL_BYTES = 20


@dataclass(frozen=True)
class Task:
    """What everybody gets.

    Attributes:
        path: A raw float32 file.
        n_rows: Rows of it that count.
        n_columns: Of these.
        n_clusters: Of all levels.
        n_super: Super-clusters; 1: there is one level.
        n_iterations: Updates of centroids.
        n_threads: Of every library.
    """

    path: Path
    n_rows: int
    n_columns: int
    n_clusters: int
    n_super: int
    n_iterations: int
    n_threads: int

    @property
    def case(self) -> str:
        """The task in words that name rows of tables."""
        level = "flat" if self.n_super == 1 else f"two-level {self.n_super}"
        return f"{self.path.stem} {level}, {self.n_rows} rows, {self.n_clusters} clusters"

    def rows(self) -> NDArray[np.float32]:
        """The rows, in memory."""
        n_numbers = self.n_rows * self.n_columns
        return np.fromfile(self.path, np.float32, n_numbers).reshape(-1, self.n_columns)


class Outcome(NamedTuple):
    """What was measured in one process.

    Attributes:
        cpu: Seconds of all threads.
        wall: Seconds.
        extra: Bytes at the peak beyond Python, its libraries and the rows.
        objective: Mean squared distance of a row from the nearest mean of its cluster's rows.
    """

    cpu: float
    wall: float
    extra: int
    objective: float


def write_rows(path: Path, n_rows: int, n_columns: int, n_centers: int, seed: int) -> None:
    """Rows of length 1 around centres, or without any, by the name of the file."""
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((n_centers, n_columns), np.float32)
    with path.open("wb") as file:
        for first, last in row_ranges(n_rows, BLOCK_ROWS):
            rows = rng.standard_normal((last - first, n_columns), np.float32)
            if path.stem == "clustered":
                rows += centers[rng.integers(n_centers, size=len(rows))]
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            file.write(rows.tobytes())


def first_centroids(rows: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """Different rows, always the same for as many."""
    return rows[np.random.default_rng(0).choice(len(rows), k, replace=False)]


def ours(rows: NDArray[np.float32], k: int, n_iterations: int) -> NDArray[np.int64]:
    """k-means of this project."""
    return kmeans(rows, k, init=first_centroids(rows, k), n_iterations=n_iterations).labels


def by_faiss(rows: NDArray[np.float32], k: int, n_iterations: int) -> NDArray[np.int64]:
    """faiss.Kmeans on all rows."""
    found = faiss.Kmeans(
        rows.shape[1],
        k,
        niter=n_iterations,
        min_points_per_centroid=1,
        max_points_per_centroid=len(rows),
    )
    found.train(rows, init_centroids=first_centroids(rows, k))
    labels: NDArray[np.int64] = found.index.search(rows, 1)[1][:, 0]
    return labels


def original(rows: NDArray[np.float32], k: int, n_iterations: int) -> NDArray[np.int64]:
    """Batches of few rows, and a loop over the labels of each of them.

    Rows and sums are tensors of PyTorch, whose processes add them up there. By NumPy alone the loop
    takes about a quarter of the time.
    """
    data = torch.from_numpy(rows)
    centroids = torch.from_numpy(first_centroids(rows, k))
    labels = np.empty(len(rows), np.int64)
    for number in range(n_iterations + 1):
        index = faiss.IndexFlatL2(rows.shape[1])
        index.add(centroids.numpy())
        sums, counts = torch.zeros_like(centroids), torch.zeros(k)
        for first, last in row_ranges(len(rows), ORIGINAL_BATCH):
            batch = data[first:last]
            found = labels[first:last] = index.search(batch.numpy(), 1)[1][:, 0]
            for label in np.unique(found):
                chosen = np.flatnonzero(found == label)
                sums[label] += batch[chosen].sum(0)
                counts[label] += len(chosen)
        if number < n_iterations:
            filled = counts > 0
            centroids[filled] = sums[filled] / counts[filled, None]
    return labels


def by_sklearn(rows: NDArray[np.float32], k: int, n_iterations: int) -> NDArray[np.int64]:
    """MiniBatchKMeans with its own batches."""
    found = MiniBatchKMeans(k, init=first_centroids(rows, k), n_init=1, max_iter=n_iterations)
    return found.fit_predict(rows).astype(np.int64)


Flat = Callable[[NDArray[np.float32], int, int], NDArray[np.int64]]
CONTESTANTS: dict[str, Flat] = {
    OURS: ours, FAISS: by_faiss, ORIGINAL: original, SKLEARN: by_sklearn,
}  # fmt: skip


def cluster(name: str, task: Task, rows: NDArray[np.float32]) -> NDArray[np.int64]:
    """Labels in one or two levels, those of the second one after the other."""
    if name == OURS and task.n_super > 1:
        found = hierarchical_kmeans(
            rows, task.n_super, task.n_clusters, n_iterations=task.n_iterations
        )
        return found.super_labels * task.n_clusters + found.sub_labels
    flat = CONTESTANTS[name]
    if task.n_super == 1:
        return flat(rows, task.n_clusters, task.n_iterations)
    labels = flat(rows, task.n_super, task.n_iterations) * task.n_clusters
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        k = min(task.n_clusters // task.n_super, len(own))
        labels[own] += flat(np.ascontiguousarray(rows[own]), k, task.n_iterations)
    return labels


def objective_of(rows: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Σ |x|² − Σ n |mean|², divided by the rows, in float64."""
    places = np.unique(labels, return_inverse=True)[1].reshape(-1)
    sums, total = np.zeros((places.max() + 1, rows.shape[1])), 0.0
    for first, last in row_ranges(len(rows), BLOCK_ROWS):
        block = rows[first:last].astype(np.float64)
        total += float((block**2).sum())
        order = np.argsort(places[first:last], kind="stable")
        found, begins = np.unique(places[first:last][order], return_index=True)
        sums[found] += np.add.reduceat(block[order], begins)
    within = total - float(((sums**2).sum(1) / np.bincount(places)).sum())
    return within / len(rows)


def measure(name: str, task: Task) -> Outcome:
    """One run of somebody."""
    machine.set_threads(task.n_threads)
    rows = task.rows()
    # What libraries take for their first call is not counted.
    cluster(name, task, rows[: 2 * task.n_clusters])
    give_back()
    before = rss_bytes()
    if missing() is None:
        restart_peak()
    begun = time.process_time(), time.perf_counter()
    labels = cluster(name, task, rows)
    cpu, wall = time.process_time() - begun[0], time.perf_counter() - begun[1]
    extra = max(recent_peak_rss_bytes() - before, 0) if missing() is None else 0
    return Outcome(cpu, wall, extra, objective_of(rows, labels))


def measure_memory(task: Task, budget: float) -> int:
    """Bytes that ours takes at the peak over a file, beside labels, with a budget in GB."""
    machine.set_threads(task.n_threads)

    def run(n_rows: int) -> None:
        rows = np.memmap(task.path, np.float32, "r", shape=(n_rows, task.n_columns))
        kmeans(rows, task.n_clusters, n_iterations=1, memory_budget_gb=budget)

    run(task.n_clusters)
    give_back()
    before = rss_bytes()
    restart_peak()
    run(task.n_rows)
    return recent_peak_rss_bytes() - before - LABEL_BYTES * task.n_rows


class ClusteringBenchmark:
    """Everything that is measured, and what was found.

    Args:
        options: Of the command line.
        folder: Where rows are written.
    """

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self._options, self._folder = options, folder
        self.cpu, self.wall = Seconds(), Seconds()
        self.memory: dict[str, int] = {}
        self.objectives: dict[str, float] = {}
        self.excess: float | None = None

    def run(self) -> None:
        """Everything that is not left out."""
        options = self._options
        for data in options.data:
            path = self._folder / f"{data}.f32"
            note(f"{data}: writing {options.rows} rows")
            write_rows(path, options.rows, options.columns, options.clusters, options.seed)
            for task in self._tasks(path):
                self._measure(task)
            path.unlink()
        if "memory" not in options.skip and missing() is None:
            self._measure_memory()

    def _tasks(self, path: Path) -> list[Task]:
        options = self._options
        sizes = [(options.rows, 1, options.clusters), (options.few_rows, 1, options.clusters)]
        if "two-level" not in options.skip:
            per_super = options.clusters // options.super_clusters + 1
            n_super = options.super_clusters
            sizes.append((options.few_rows, n_super, n_super * per_super))
        return [
            Task(path, n, options.columns, k, n_super, options.iterations, options.threads)
            for n, n_super, k in sizes
        ]

    def _measure(self, task: Task) -> None:
        options = self._options
        names = [name for name in CONTESTANTS if name not in options.skip]
        if task.n_rows > options.few_rows:
            # It would take an hour.
            names = [name for name in names if name != ORIGINAL]
        for _ in range(options.repeat):
            for name in names:
                note(f"{task.case}: {name}")
                outcome = in_new_process(measure, name, task)
                key = f"{name}, {task.case}"
                self.cpu.add(key, {"k-means": outcome.cpu})
                self.wall.add(key, {"k-means": outcome.wall})
                self.memory[key] = outcome.extra
                self.objectives[key] = outcome.objective
        # On two levels they start from other centroids.
        if FAISS in names and task.n_super == 1:
            self.require_as_good(task.case)

    def require_as_good(self, case: str) -> None:
        """End if ours is worse than faiss, which starts from the same centroids."""
        ours_, peer = (self.objectives[f"{name}, {case}"] for name in (OURS, FAISS))
        if ours_ > peer * (1 + self._options.allowed):
            raise SystemExit(f"{case}: objective of ours {ours_:.6g}, of faiss {peer:.6g}")

    def _measure_memory(self) -> None:
        options = self._options
        path = self._folder / "uniform.f32"
        note(f"memory: writing {options.memory_rows} rows")
        write_rows(path, options.memory_rows, options.columns, 1, options.seed)
        task = Task(
            path, options.memory_rows, options.columns, options.clusters, 1, 1, options.threads
        )
        taken = in_new_process(measure_memory, task, options.budget_gb)
        path.unlink()
        self.memory["budget"] = taken
        self.excess = taken / (options.budget_gb * 1e9)

    def ratios(self) -> dict[str, float]:
        """How many times less seconds ours takes, by case and peer."""
        found = {}
        for key in self.objectives:
            name, case = key.split(", ", 1)
            if name == OURS:
                continue
            level = case.split(",")[0].replace(" ", "_")
            few = "_few" if f" {self._options.few_rows} rows" in case and "flat" in level else ""
            ratio_ = ratio(self.cpu.best(key), self.cpu.best(f"{OURS}, {case}"))
            found[f"{level}{few}_vs_{name}"] = ratio_
        return found

    def report(self) -> None:
        """Tables for people, and the line of JSON."""
        options = self._options
        cases = dict.fromkeys(key.split(", ", 1)[1] for key in self.objectives)
        for case in cases:
            rows = [
                [
                    name,
                    f"{self.cpu.best(key):.3f}",
                    f"{self.wall.best(key):.3f}",
                    f"{self.memory[key] / 1e6:.0f}",
                    f"{self.objectives[key]:.6f}",
                ]
                for name in CONTESTANTS
                if (key := f"{name}, {case}") in self.objectives
            ]
            print_table(case, ("k-means", "CPU s", "wall s", "MB", "objective"), rows)
        if self.excess is not None:
            columns = ("memory of ours", "budget GB", "taken GB", "part", "wanted")
            row = [
                f"{options.memory_rows} rows",
                f"{options.budget_gb:g}",
                f"{self.memory['budget'] / 1e9:.3f}",
                f"{self.excess:.2f}",
                f"≤ {LARGEST_EXCESS}",
            ]
            print_table("From a file", columns, [row])
        ratios = self.ratios()
        wanted = {name: WANTED[name] for name in ratios if name in WANTED}
        wanted |= {
            name: WANTED_OF_ORIGINAL for name in ratios if "two" in name and ORIGINAL in name
        }
        at_these_sizes = (options.rows, options.few_rows, options.columns) == (200_000, 9_600, 256)
        print_ratios(ratios, ratios, wanted if at_these_sizes else {})
        print_json(
            {
                "benchmark": "clustering",
                "machine": machine.describe(),
                "options": dict(vars(options)),
                "seconds": self.cpu.summary(),
                "wall_seconds": self.wall.summary(),
                "memory": self.memory,
                "objectives": self.objectives,
                "budget_part": self.excess,
                "ratios": ratios,
                "wanted": wanted if at_these_sizes else {},
            }
        )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options, checked."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0] if __doc__ else None,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--rows", type=positive, default=200_000, help="of one level")
    parser.add_argument("--few-rows", type=positive, default=9_600, help="with the original")
    parser.add_argument("--columns", type=positive, default=256, help="of the rows")
    parser.add_argument("--clusters", type=positive, default=1000, help="of one level")
    parser.add_argument("--super-clusters", type=positive, default=16, help="of two levels")
    parser.add_argument("--iterations", type=positive, default=10, help="updates of centroids")
    parser.add_argument("--data", nargs="+", default=list(DATA), choices=DATA, help="rows")
    parser.add_argument("--memory-rows", type=positive, default=1_000_000, help="of the file")
    parser.add_argument("--budget-gb", type=above_zero, default=0.1, help="for that file")
    parser.add_argument(
        "--allowed", type=above_zero, default=LARGEST_DIFFERENCE, help="part of the objective"
    )
    parser.add_argument(
        "--threads", type=positive, default=native.get_num_threads(), help="for everybody"
    )
    parser.add_argument("--repeat", type=positive, default=1, help="rounds of measurement")
    parser.add_argument("--seed", type=int, default=0, help="of the rows")
    parser.add_argument(
        "--skip", nargs="+", default=[], choices=PEERS, metavar="NAME", help=", ".join(PEERS)
    )
    options = parser.parse_args(arguments)
    if options.clusters > min(options.few_rows, options.rows) // 2:
        parser.error(f"--clusters: {options.clusters} of only {options.few_rows} rows")
    if options.few_rows > options.rows:
        parser.error(f"--few-rows: {options.few_rows} of only {options.rows} rows")
    return options


def main() -> None:
    """Measure and print."""
    options = parse()
    with tempfile.TemporaryDirectory() as folder:
        benchmark = ClusteringBenchmark(options, Path(folder))
        benchmark.run()
    benchmark.report()


if __name__ == "__main__":
    main()
