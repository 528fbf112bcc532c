"""Exact optimal transport of many small problems, beside OpenCV, POT and scipy.

The problems are those of DeepEMD: images of five classes have features at some places, of which one
part is that of the class; costs are 1 less the cosine of centred features, and weights follow from
the features of the other image. `ours` is earth_movers_distance: flows and potentials of all
problems in one call. `opencv` is a loop over cv2.EMD, in single precision and without potentials.
`pot` is a loop over ot.emd with potentials, and `pot-threads` the same in a pool of threads.
`assignment` is a loop over scipy's linear_sum_assignment, which knows no weights: it finds
something else, and stands for what a short exact method takes. In each round everybody has a turn.
Costs are compared with those of ot.emd.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from common import machine
from common.options import positive
from common.output import note, print_json, print_ratios, print_table, ratio
from common.timing import Seconds, Statistic
from lowshot_kedro import native
from lowshot_kedro.deepemd import earth_movers_distance

OURS, OPENCV, POT, POT_THREADS, ASSIGNMENT = (
    "ours", "opencv", "pot", "pot-threads", "assignment",
)  # fmt: skip
PEERS = (OPENCV, POT, POT_THREADS, ASSIGNMENT)
MODULES = {OPENCV: "cv2", POT: "ot", POT_THREADS: "ot"}
SIZES = ("nodes", "problems", "columns", "threads", "repeat", "seed")
NODES = (9, 25, 36, 38, 100, 196)
CLASSES = 5
NOISE = 0.8
# How many times as fast as the peer, by nodes.
WANTED = {
    **{(nodes, OPENCV): 5.0 for nodes in (25, 36, 38)},
    (100, OPENCV): 10.0,
    **{(nodes, POT_THREADS): 2.5 for nodes in (25, 36, 38, 100)},
}
# Of costs, as a part of them.
LARGEST_DIFFERENCE = 1e-9
MAX_POT_ITERATIONS = 10**7

Array = NDArray[np.float64]


class Problems(NamedTuple):
    """Problems of one size.

    Attributes:
        costs: (P, N, N).
        supplies: (P, N), of sum N.
        demands: (P, N), of sum N.
    """

    costs: Array
    supplies: Array
    demands: Array


def problems_of(count: int, nodes: int, columns: int, seed: int) -> Problems:
    """Pairs of a query and a prototype."""
    random = np.random.default_rng(seed)
    classes = random.normal(size=(CLASSES, nodes, columns))

    def images() -> Array:
        features = classes[random.integers(CLASSES, size=count)]
        features = features + NOISE * random.normal(size=features.shape)
        return np.where(features < 0, 0.1 * features, features)

    def centered(features: Array) -> Array:
        features = features - features.mean(-1, keepdims=True)
        return features / np.linalg.norm(features, axis=-1, keepdims=True)

    def weights(features: Array, other: Array) -> Array:
        products = np.einsum("pnc,pc->pn", features, other.mean(1))
        found = np.maximum(products, 0) + 1e-3
        return nodes * found / found.sum(1, keepdims=True)

    queries, prototypes = images(), images()
    return Problems(
        1 - centered(queries) @ centered(prototypes).transpose(0, 2, 1),
        weights(queries, prototypes),
        weights(prototypes, queries),
    )


def ours(problems: Problems, n_threads: int) -> Array:
    """This project."""
    return earth_movers_distance(*problems, n_jobs=n_threads).cost


def opencv(problems: Problems, n_threads: int) -> Array:
    """A loop over OpenCV; it returns the mean cost of what flows."""
    import cv2

    found = [
        cv2.EMD(a[:, None], b[:, None], cv2.DIST_USER, costs)[0]
        for costs, a, b in zip(*(array.astype(np.float32) for array in problems), strict=True)
    ]
    return np.array(found) * problems.supplies.shape[1]


def _pot(costs: Array, supplies: Array, demands: Array) -> float:
    import ot

    _, log = ot.emd(supplies, demands, costs, numItermax=MAX_POT_ITERATIONS, log=True)
    return float(log["cost"])


def pot(problems: Problems, n_threads: int) -> Array:
    """A loop over POT."""
    return np.array([_pot(*problem) for problem in zip(*problems, strict=True)])


def pot_threads(problems: Problems, n_threads: int) -> Array:
    """The same in threads, which POT lets run side by side."""
    with ThreadPoolExecutor(n_threads) as pool:
        return np.array(list(pool.map(_pot, *problems)))


def assignment(problems: Problems, n_threads: int) -> Array:
    """A loop over scipy, as if all weights were 1."""
    return np.array([costs[linear_sum_assignment(costs)].sum() for costs in problems.costs])


CONTESTANTS: dict[str, Callable[[Problems, int], Array]] = {
    OURS: ours, OPENCV: opencv, POT: pot, POT_THREADS: pot_threads, ASSIGNMENT: assignment,
}  # fmt: skip


def difference(found: Array, expected: Array) -> float:
    """The largest, as a part of the cost."""
    return float(np.max(np.abs(found / expected - 1)))


class EmdBenchmark:
    """Everything that is measured, and what was found.

    Args:
        options: Of the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self.cpu, self.wall = Seconds(), Seconds()
        self.differences: dict[str, float] = {}
        self.skipped = dict.fromkeys(options.skip, "asked to")
        for name, module in MODULES.items():
            if name not in self.skipped and not _can_be_imported(module):
                self.skipped[name] = "not installed"
        self.present = [name for name in CONTESTANTS if name not in self.skipped]

    def n_problems(self, nodes: int) -> int:
        """As many as an episode has, fewer of large ones."""
        if self._options.problems is not None:
            return int(self._options.problems)
        return 375 if nodes <= 64 else 75 if nodes <= 128 else 12

    def name(self, contestant: str, nodes: int) -> str:
        """Of a row."""
        return f"{contestant}, {nodes} nodes × {self.n_problems(nodes)}"

    def measure(self) -> None:
        """In rounds; the one before the first does not count, and its costs are compared."""
        n_threads = self._options.threads
        machine.set_threads(n_threads)
        for nodes in self._options.nodes:
            problems = problems_of(
                self.n_problems(nodes), nodes, self._options.columns, self._options.seed
            )
            note(f"{nodes} nodes")
            found = {name: CONTESTANTS[name](problems, n_threads) for name in self.present}
            if POT in found:
                self._compare(nodes, found)
            for number in range(self._options.repeat):
                first = number % len(self.present)
                for contestant in [*self.present[first:], *self.present[:first]]:
                    begun = time.process_time(), time.perf_counter()
                    CONTESTANTS[contestant](problems, n_threads)
                    ended = time.process_time(), time.perf_counter()
                    name = self.name(contestant, nodes)
                    self.cpu.add(name, {"problems": ended[0] - begun[0]})
                    self.wall.add(name, {"problems": ended[1] - begun[1]})

    def _compare(self, nodes: int, found: dict[str, Array]) -> None:
        for contestant in (OURS, OPENCV):
            if contestant in found:
                name = self.name(contestant, nodes)
                self.differences[name] = difference(found[contestant], found[POT])
        largest = self.differences[self.name(OURS, nodes)]
        if not largest <= LARGEST_DIFFERENCE:
            raise SystemExit(
                f"{self.name(OURS, nodes)}: a cost differs from POT's by {largest:.2g}"
            )

    def ratios(self, of: Statistic) -> dict[str, float]:
        """How many times as fast as the peers we are."""
        return {
            self.ratio_name(nodes, peer): ratio(
                of(self.name(peer, nodes)), of(self.name(OURS, nodes))
            )
            for nodes in self._options.nodes
            for peer in self.present
            if peer != OURS
        }

    def wanted(self) -> dict[str, float]:
        """What ratios should be at least."""
        return {
            self.ratio_name(nodes, peer): WANTED[nodes, peer]
            for nodes in self._options.nodes
            for peer in self.present
            if (nodes, peer) in WANTED
        }

    @staticmethod
    def ratio_name(nodes: int, peer: str) -> str:
        """Of a ratio, as JSON has it."""
        return f"{nodes}_nodes_vs_{peer.replace('-', '_')}"

    def print_tables(self) -> None:
        """For people."""
        for nodes in self._options.nodes:
            count = self.n_problems(nodes)
            rows = [
                [
                    contestant,
                    f"{1e3 * self.wall.best(name):.2f}",
                    f"{1e3 * self.wall.median(name):.2f}",
                    f"{1e3 * self.cpu.best(name):.2f}",
                    f"{1e6 * self.cpu.best(name) / count:.1f}",
                    f"{self.differences[name]:.1e}" if name in self.differences else "",
                ]
                for contestant in self.present
                for name in [self.name(contestant, nodes)]
            ]
            columns = ("solver", "wall ms", "median", "CPU ms", "CPU µs each", "cost off by")
            print_table(f"{nodes} nodes × {count}", columns, rows)


def _can_be_imported(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True


def versions() -> dict[str, str]:
    """Of those that take part."""
    found = {"scipy": importlib.metadata.version("scipy")}
    if _can_be_imported("cv2"):
        found["opencv"] = importlib.import_module("cv2").__version__
    if _can_be_imported("ot"):
        found["pot"] = importlib.import_module("ot").__version__
    return found


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--nodes", type=positive, nargs="+", default=list(NODES), help="on each side")
    add("--problems", type=positive, help="of each size; 375, of 100 nodes 75, of 196 12")
    add("--columns", type=positive, default=64, help="of the features")
    add("--threads", type=positive, default=native.get_num_threads(), help="ours and pot-threads'")
    add("--repeat", type=positive, default=7, help="rounds of measurement")
    add("--seed", type=int, default=0, help="of the problems")
    add("--skip", nargs="+", default=[], choices=PEERS, metavar="NAME", help=", ".join(PEERS))
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print tables, and the line of JSON last."""
    options = parse(arguments)
    benchmark = EmdBenchmark(options)
    benchmark.measure()
    named = ", ".join(f"{name} {version}" for name, version in versions().items())
    threads = "thread" if options.threads == 1 else "threads"
    print(f"{named}; {options.threads} {threads}; shortest of {options.repeat}")
    benchmark.print_tables()
    ratios, of_medians = (
        benchmark.ratios(of) for of in (benchmark.wall.best, benchmark.wall.median)
    )
    if ratios:
        print_ratios(ratios, of_medians, benchmark.wanted())
    for name, reason in benchmark.skipped.items():
        print(f"skipped {name}: {reason}")
    print_json(
        {
            "benchmark": "emd",
            "machine": machine.describe(),
            "versions": versions(),
            "sizes": {name: getattr(options, name) for name in SIZES},
            "seconds": benchmark.wall.summary(),
            "cpu_seconds": benchmark.cpu.summary(),
            "differences": benchmark.differences,
            "ratios": ratios,
            "ratios_of_medians": of_medians,
            "ratios_of_cpu": benchmark.ratios(benchmark.cpu.best),
            "wanted": benchmark.wanted(),
            "skipped": benchmark.skipped,
        }
    )


if __name__ == "__main__":
    main()
