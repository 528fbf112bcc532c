"""A grid of logistic regressions side by side, beside a plain loop of each and a bare product.

The grid is that of the publication: three learning rates, three weight decays, three batch sizes.
This project trains the nine configurations of a batch size side by side; everything counts, from
the initial weights on. The plain loop trains one configuration with torch.nn.Linear, cross_entropy
and optim.SGD, and draws a batch by a few calls of torch; it is timed with all threads and with one,
and only what it does for every batch counts. First weights of both after the same batches are
compared. The bare product is one of two large square matrices; the products that are part of the
training are also timed alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from common import machine
from common.options import positive
from common.output import note, print_json, print_ratios, print_table, ratio
from common.timing import Contestant, Seconds, Statistic, run_rounds
from lowshot_kedro import native
from lowshot_kedro.classifiers.gradient_descent import (
    BalancedBatches,
    iterations_of_a_block,
    padded_rows,
)
from lowshot_kedro.classifiers.logistic_regression import LogisticRegressions
from lowshot_kedro.torch_threads import single_threaded_tasks

LR = (0.01, 0.001, 0.0001)
WEIGHT_DECAY = (0.0, 0.01, 0.1)
BATCH_SIZES = (16, 64, 128)
# Learning rate and weight decay of what is trained side by side.
CONFIGURATIONS = [(lr, decay) for lr in LR for decay in WEIGHT_DECAY]
PLAIN = ("plain, all threads", "plain, one thread")
PARTS = ("plain", "one-thread", "product", "products")
PRODUCTS = ("product by torch", "product by numpy")
# Of the weights, in a part of the products that are timed alone.
PART_ROWS = 250
COMPARED_ITERATIONS = 40
# Of the weights, in the sum of squares.
LARGEST_DIFFERENCE = 1e-4


@dataclass(frozen=True)
class Task:
    """What everybody gets.

    Attributes:
        features: float32 (n, d).
        classes: int32 (n,).
        n_classes: C.
        batch_size: Of all configurations.
        n_iterations: Of each.
        seed: Of weights and batches.
        n_threads: For whoever takes all.
    """

    features: NDArray[np.float32]
    classes: NDArray[np.int32]
    n_classes: int
    batch_size: int
    n_iterations: int
    seed: int
    n_threads: int

    def name(self, contestant: str) -> str:
        """Of a row."""
        return f"{contestant}, {self.n_classes} classes, batch {self.batch_size}"

    @property
    def operations(self) -> int:
        """Useful ones of an iteration of a configuration: logits and gradients."""
        return 4 * self.batch_size * self.features.shape[1] * self.n_classes


def clustered_features(
    n_rows: int, n_columns: int, n_classes: int, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Rectified points around centres in random order; the sizes of classes fall with the rank."""
    rng = np.random.default_rng(seed)
    shares = 1 / np.arange(10, 10 + n_classes)
    drawn = rng.choice(n_classes, n_rows - n_classes, p=shares / shares.sum())
    classes = rng.permutation(np.concatenate([np.arange(n_classes), drawn])).astype(np.int32)
    centers = rng.standard_normal((n_classes, n_columns), np.float32)
    features = rng.standard_normal((n_rows, n_columns), np.float32)
    features += centers[classes]
    return np.maximum(features, 0, out=features), classes


def ours(task: Task) -> LogisticRegressions:
    """All configurations side by side."""
    regressions = LogisticRegressions(
        task.n_classes,
        lr=[lr for lr, _ in CONFIGURATIONS],
        weight_decay=[decay for _, decay in CONFIGURATIONS],
        batch_size=task.batch_size,
        max_iterations=task.n_iterations,
        seed=task.seed,
    )
    regressions.fit(task.features, task.classes)
    return regressions


class PlainLoop:
    """One configuration at a time.

    Args:
        task: What to train on.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._features = torch.from_numpy(task.features)
        self._classes = torch.from_numpy(task.classes.astype(np.int64))
        self._images_by_class = torch.argsort(self._classes)
        self._sizes = torch.bincount(self._classes)
        self._starts = torch.cumsum(self._sizes, 0) - self._sizes

    def prepare(self, lr: float, weight_decay: float) -> None:
        """Initial weights, the same for a seed."""
        n_columns = self._features.shape[1]
        self.generator = torch.Generator().manual_seed(self._task.seed)
        self.layer = torch.nn.Linear(n_columns, self._task.n_classes)
        bound = n_columns**-0.5
        with torch.no_grad():
            self.layer.weight.uniform_(-bound, bound, generator=self.generator)
            self.layer.bias.uniform_(-bound, bound, generator=self.generator)
        self._optimizer = torch.optim.SGD(self.layer.parameters(), lr=lr, weight_decay=weight_decay)

    def drawn(self) -> Iterator[torch.Tensor]:
        """Batches, a class uniformly and then an image of it, each when it is needed."""
        shape = (self._task.batch_size,)
        for _ in range(self._task.n_iterations):
            classes = torch.randint(len(self._sizes), shape, generator=self.generator)
            fraction = torch.rand(shape, generator=self.generator, dtype=torch.float64)
            position = self._starts[classes] + (fraction * self._sizes[classes]).long()
            yield self._images_by_class[position]

    def train(self, batches: Iterable[torch.Tensor]) -> None:
        """Step by step."""
        for batch in batches:
            self._optimizer.zero_grad()
            logits = self.layer(self._features[batch])
            functional.cross_entropy(logits, self._classes[batch]).backward()
            self._optimizer.step()


def plain(loop: PlainLoop, n_threads: int) -> None:
    """One configuration with a number of threads."""
    n_before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    loop.train(loop.drawn())
    torch.set_num_threads(n_before)


def largest_difference(task: Task) -> float:
    """Between our weights and those of the plain loop on the same batches, as a part of them."""
    found = ours(task)
    loop = PlainLoop(task)
    largest = 0.0
    for number, settings in enumerate(CONFIGURATIONS):
        loop.prepare(*settings)
        batches = BalancedBatches(task.classes, task.n_classes, task.batch_size, loop.generator)
        loop.train(batches.images(0, task.n_iterations))
        expected = loop.layer.weight.detach()
        difference = found.state_dict(number)["weight"] - expected
        largest = max(largest, float(difference.norm() / expected.norm()))
    return largest


def products_alone(task: Task) -> Callable[[], None]:
    """The two products of an iteration of all configurations, in blocks, with all threads."""
    n_columns, n_rows = task.features.shape[1] + 1, len(CONFIGURATIONS) * task.n_classes
    n_iterations = iterations_of_a_block(task.batch_size, n_columns - 1, n_rows)
    block_rows = n_iterations * task.batch_size
    weights, features = (
        padded_rows(count, n_columns, torch.device("cpu")) for count in (n_rows, block_rows)
    )
    logits = torch.zeros(n_rows, block_rows)
    part_rows = min(PART_ROWS, -(-n_rows // 2))

    def multiply(first: int, n_images: int) -> None:
        part = slice(first, first + part_rows)
        torch.mm(weights[part], features[:n_images].T, out=logits[part, :n_images])
        weights[part].addmm_(logits[part, :n_images], features[:n_images])

    def run_all() -> None:
        with single_threaded_tasks(task.n_threads) as run:
            for done in range(0, task.n_iterations, n_iterations):
                n_images = min(n_iterations, task.n_iterations - done) * task.batch_size
                run([partial(multiply, first, n_images) for first in range(0, n_rows, part_rows)])

    return run_all


class LogisticRegressionBenchmark:
    """Everything that is measured, and what was found.

    Args:
        options: Of the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self.seconds = Seconds()
        self.differences: dict[str, float] = {}
        self._tasks: list[Task] = []
        for n_classes, n_iterations in (
            (options.classes, options.iterations),
            (options.few_classes, options.few_iterations),
        ):
            made = clustered_features(options.rows, options.columns, n_classes, options.seed)
            self._tasks += [
                Task(*made, n_classes, size, n_iterations, options.seed, options.threads)
                for size in BATCH_SIZES
            ]

    def compare(self) -> None:
        """End with an error if ours are wrong."""
        for task in self._tasks:
            name = task.name("weights")
            note(name)
            short = Task(**{**vars(task), "n_iterations": COMPARED_ITERATIONS})
            self.differences[name] = largest_difference(short)
            if not self.differences[name] < LARGEST_DIFFERENCE:
                raise SystemExit(f"{name}: differ by {self.differences[name]:.2g}")

    def measure(self) -> None:
        """In rounds; the first one does not count."""
        contestants = [*self._bare_products()]
        for task in self._tasks:
            contestants += self._contestants(task)
        note("first round")
        run_rounds(contestants, 1, Seconds())
        for number in range(self._options.repeat):
            note(f"round {number + 1}")
            run_rounds(contestants, 1, self.seconds)

    def _bare_products(self) -> Iterator[Contestant]:
        if "product" in self._options.skip:
            return
        square = np.ones((self._options.product, self._options.product), np.float32)
        tensor = torch.from_numpy(square)
        yield Contestant(PRODUCTS[0], {"product": lambda: torch.mm(tensor, tensor)})
        yield Contestant(PRODUCTS[1], {"product": lambda: square @ square})

    def _contestants(self, task: Task) -> Iterator[Contestant]:
        yield Contestant(task.name("ours"), {"training": partial(ours, task)})
        if "products" not in self._options.skip:
            yield Contestant(task.name("products"), {"products": products_alone(task)})
        if "plain" in self._options.skip:
            return
        loop = PlainLoop(task)
        # Every one of the nine takes as long.
        loop.prepare(*CONFIGURATIONS[4])
        for name, n_threads in zip(PLAIN, (task.n_threads, 1), strict=True):
            if name == PLAIN[0] or "one-thread" not in self._options.skip:
                yield Contestant(task.name(name), {"training": partial(plain, loop, n_threads)})

    def iteration(self, task: Task, contestant: str, of: Statistic) -> float:
        """Seconds of an iteration of a configuration."""
        side_by_side = 1 if contestant in PLAIN else len(CONFIGURATIONS)
        return of(task.name(contestant)) / task.n_iterations / side_by_side

    def best_plain(self, task: Task, of: Statistic) -> float:
        """The same of the plain loop, with as many threads as are best."""
        found = [name for name in PLAIN if task.name(name) in self.seconds]
        return min(self.iteration(task, name, of) for name in found)

    def product_rate(self, of: Statistic) -> float:
        """Operations a second of the bare product, of the library that is faster."""
        return 2 * self._options.product**3 / min(of(name) for name in PRODUCTS)

    def tasks(self, n_classes: int) -> list[Task]:
        """By batch size."""
        return [task for task in self._tasks if task.n_classes == n_classes]

    def rate(self, n_classes: int, of: Statistic) -> float:
        """Useful operations a second, the whole grid."""
        tasks = self.tasks(n_classes)
        seconds = sum(self.iteration(task, "ours", of) for task in tasks)
        return sum(task.operations for task in tasks) / seconds

    def ratios(self, of: Statistic) -> dict[str, float]:
        """How many times as fast as the peers we are, for the grid and for each batch size."""
        found = {}
        for n_classes in (self._options.classes, self._options.few_classes):
            tasks = self.tasks(n_classes)
            ours_seconds = [self.iteration(task, "ours", of) for task in tasks]
            label = f"{n_classes}_classes"
            if "plain" not in self._options.skip:
                plains = [self.best_plain(task, of) for task in tasks]
                found[f"{label}_vs_plain"] = ratio(sum(plains), sum(ours_seconds))
                for task, peer, own in zip(tasks, plains, ours_seconds, strict=True):
                    found[f"{label}_batch_{task.batch_size}_vs_plain"] = ratio(peer, own)
                if "one-thread" not in self._options.skip:
                    one = [self.iteration(task, PLAIN[1], of) for task in tasks]
                    found[f"{label}_vs_plain_one_thread"] = ratio(sum(one), sum(ours_seconds))
            if "product" not in self._options.skip:
                found[f"{label}_vs_product"] = ratio(
                    self.rate(n_classes, of), self.product_rate(of)
                )
        return found

    def wanted(self) -> dict[str, float]:
        """What the ratios of the grid should be at least, at the default sizes."""
        many, few = self._options.classes, self._options.few_classes
        return {
            f"{many}_classes_vs_plain": 3.0,
            f"{many}_classes_vs_product": 0.8,
            f"{few}_classes_vs_plain": 10.0,
        }

    def print_tables(self) -> None:
        """For people."""
        of = self.seconds.best
        for n_classes in (self._options.classes, self._options.few_classes):
            rows = []
            for task in self.tasks(n_classes):
                for contestant in ("ours", "products", *PLAIN):
                    if task.name(contestant) in self.seconds:
                        seconds = self.iteration(task, contestant, of)
                        rows.append(
                            [
                                f"batch {task.batch_size}, {contestant}",
                                f"{1e6 * seconds:.1f}",
                                f"{1 / seconds:.0f}",
                                f"{task.operations / seconds / 1e9:.1f}",
                            ]
                        )
            columns = ("row", "µs", "configurations × iterations / s", "useful GFLOP/s")
            print_table(f"{n_classes} classes", columns, rows)
            seconds = sum(self.iteration(task, "ours", of) for task in self.tasks(n_classes))
            print(
                f"All of the grid, as many iterations of each: {len(BATCH_SIZES) / seconds:.0f} "
                f"configurations × iterations / s, {self.rate(n_classes, of) / 1e9:.1f} GFLOP/s"
            )
        for name in PRODUCTS:
            if name in self.seconds:
                rate = 2 * self._options.product**3 / of(name) / 1e9
                print(
                    f"{name}, {self._options.product} × {self._options.product}: {rate:.1f} GFLOP/s"
                )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options, if they go together."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--rows", type=positive, default=20_000, help="labelled images")
    add("--columns", type=positive, default=2048, help="of the features")
    add("--classes", type=positive, default=500, help="of the large problem")
    add("--few-classes", type=positive, default=10, help="of the small one")
    add("--iterations", type=positive, default=128, help="of the large problem, in a round")
    add("--few-iterations", type=positive, default=1024, help="of the small one")
    add("--product", type=positive, default=4096, help="rows and columns of the bare product")
    add("--threads", type=positive, default=native.get_num_threads(), help="for everybody")
    add("--repeat", type=positive, default=4, help="rounds of measurement")
    add("--seed", type=int, default=0, help="of features, weights and batches")
    add("--skip", nargs="+", default=[], choices=PARTS, metavar="NAME", help=", ".join(PARTS))
    options = parser.parse_args(arguments)
    if options.few_classes >= options.classes:
        parser.error(f"--few-classes: {options.few_classes} are no fewer than {options.classes}")
    if options.classes > options.rows:
        parser.error(f"--classes: {options.classes} of only {options.rows} rows")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print tables, and the line of JSON last."""
    options = parse(arguments)
    machine.set_threads(options.threads)
    benchmark = LogisticRegressionBenchmark(options)
    benchmark.compare()
    benchmark.measure()
    print(
        f"{options.rows} rows of {options.columns} columns, {len(CONFIGURATIONS)} configurations "
        f"of each batch size, {options.threads} threads, shortest of {options.repeat}"
    )
    benchmark.print_tables()
    ratios = benchmark.ratios(benchmark.seconds.best)
    of_medians = benchmark.ratios(benchmark.seconds.median)
    wanted = benchmark.wanted()
    if ratios:
        print_ratios(ratios, of_medians, wanted)
    print(f"Weights differ by at most {max(benchmark.differences.values()):.1e}.")
    for name in options.skip:
        print(f"skipped {name}: asked to")
    print_json(
        {
            "benchmark": "logistic_regression",
            "machine": machine.describe(),
            "sizes": {
                "rows": options.rows,
                "columns": options.columns,
                "classes": options.classes,
                "few_classes": options.few_classes,
                "configurations": len(CONFIGURATIONS),
                "batch_sizes": BATCH_SIZES,
                "iterations": options.iterations,
                "few_iterations": options.few_iterations,
                "product": options.product,
                "threads": options.threads,
                "repeat": options.repeat,
                "seed": options.seed,
            },
            "seconds": benchmark.seconds.summary(),
            "differences": benchmark.differences,
            "ratios": ratios,
            "ratios_of_medians": of_medians,
            "wanted": wanted,
            "skipped": dict.fromkeys(options.skip, "asked to"),
        }
    )


if __name__ == "__main__":
    main()
