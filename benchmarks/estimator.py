"""LabelDiffusion beside scikit-learn's LabelSpreading and graphlearning's Poisson learning.

All get the same rows, the same labels and the same n_neighbors, in one run, and each its defaults
and all processors. A size and method has a process of its own, in which libraries are imported and
rows read before the time begins; nobody is called for practice. A method that takes too long or too
much memory is stopped, and not tried on more rows.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import operator
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# The processes that are measured import all that stands here: nothing large.
from common import spreading
from common.limits import STOPPED, Limits, run_within
from common.options import positive
from common.output import note, print_json, print_table, ratio
from common.spreading import (
    FAR_LABEL_SPREADING,
    LABEL_SPREADING,
    METHODS,
    OURS,
    POISSON,
    Draw,
    Fit,
    Ready,
    Task,
)
from lowshot_kedro.memory import available_bytes

TABULAR, IMAGES, EQUAL = "tabular", "images", "equal"
CASES = (TABULAR, IMAGES, EQUAL)
TABULAR_ROWS = (10_000, 50_000, 100_000, 300_000, 700_000, 1_000_000)
IMAGE_ROWS = (10_000, 70_000, 300_000, 1_000_000)
IMAGE_COLUMNS = 256
EQUAL_ROWS = (25_000, 50_000)
EQUAL_COLUMNS = 32
LABELS_PER_CLASS = (1, 2, 5)
# Of each class of a table.
LABELED_PART = 0.02
LABELS_OF_TABLE = "2 % labelled"
# Of the free memory, where no limit is given.
MEMORY_PART = 0.8
# What should be reached, at these sizes.
TARGET_TABULAR_ROWS, TARGET_IMAGE_ROWS = 700_000, 70_000
WANTED_SECONDS, WANTED_GB, WANTED_RATIO = 120.0, 2.0, 20.0
TARGET_EQUAL_ROWS, WANTED_EQUAL_SECONDS = 50_000, 10.0

REACHED, MISSED, UNKNOWN = "reached", "missed", "not measured"


class Cell(NamedTuple):
    """What is measured.

    Attributes:
        case: Of :data:`CASES`.
        n_rows: Of the case.
        labels: How many, in words.
        method: Of :data:`METHODS`.
    """

    case: str
    n_rows: int
    labels: str
    method: str

    def of(self, method: str) -> Cell:
        """The same for another method."""
        return self._replace(method=method)

    @property
    def name(self) -> str:
        """Of a row of the table of the case."""
        labels = f", {self.labels}" if self.case == IMAGES else ""
        return f"{self.n_rows}{labels}, {self.method}"


@dataclass
class Result:
    """What was found.

    Attributes:
        seconds: Of a fit, the graph included; None: it was not finished.
        peak: Largest resident memory, in bytes; of a fit that was not finished, until then.
        before: The same before the fit, for libraries and rows; None: unknown.
        accuracies: Of the draws.
        n_draws: How many there should have been.
        reason: Why it ended early, or never began; None: it did not.
        stopped_after: At least so many seconds would have been needed, where it was stopped.
    """

    n_draws: int
    seconds: float | None = None
    peak: int | None = None
    before: int | None = None
    accuracies: list[float] = field(default_factory=list)
    reason: str | None = None
    stopped_after: float | None = None

    @property
    def accuracy(self) -> float | None:
        """Mean over all draws; None where one is missing, since means of others do not compare."""
        if len(self.accuracies) < self.n_draws:
            return None
        return statistics.fmean(self.accuracies)


class Target(NamedTuple):
    """Something that should be reached.

    Attributes:
        name: What.
        found: As it is printed.
        wanted: As it is printed.
        verdict: `reached`, `missed` or `not measured`.
    """

    name: str
    found: str
    wanted: str
    verdict: str


class EstimatorBenchmark:
    """Everything that is measured, and what was found.

    Args:
        n_neighbors: Of everybody.
        limits: Of everybody.
    """

    def __init__(self, n_neighbors: int, limits: Limits) -> None:
        self._n_neighbors, self._limits = n_neighbors, limits
        self.results: dict[Cell, Result] = {}
        self.skipped: dict[str, str] = {}
        # By case and method, what it ended with, and at how many rows.
        self._ended: dict[tuple[str, str], tuple[str, int]] = {}

    def measure(
        self, case: str, vectors: Path, classes: NDArray[np.int64], draws: tuple[Draw, ...]
    ) -> None:
        """All methods that can run, one after the other, on rows of a case.

        Args:
            case: Of :data:`CASES`.
            vectors: An npy file of float32 (n, d).
            classes: int64 (n,).
            draws: For everybody.
        """
        task = Task(vectors, classes, self._n_neighbors, draws)
        for method in METHODS:
            if method not in self.skipped:
                self._measure(Cell(case, len(classes), "", method), task)

    def _measure(self, size: Cell, task: Task) -> None:
        cells = {draw.labels: size._replace(labels=draw.labels) for draw in task.draws}
        for labels, cell in cells.items():
            n_draws = sum(draw.labels == labels for draw in task.draws)
            self.results[cell] = Result(n_draws)
        ended = self._ended.get((size.case, size.method))
        if ended is not None:
            for cell in cells.values():
                self.results[cell].reason = f"not tried: {ended[0]} at {ended[1]} rows"
            return

        def say(report: Ready | Fit) -> None:
            if isinstance(report, Fit) and report.seconds is not None:
                note(f"{cells[report.labels].name}: {report.seconds:.2f} s")

        note(f"{size.case}, {size.n_rows} rows, {size.method}")
        arguments = (spreading.measure, size.method, task)
        reports, reason, peak = run_within(self._limits, *arguments, report_to=say)
        before = None
        for report in reports:
            if isinstance(report, Ready):
                before = report.peak
                continue
            result = self.results[cells[report.labels]]
            result.accuracies.append(report.accuracy)
            if report.seconds is not None:
                result.seconds, result.peak = report.seconds, report.peak
        for cell in cells.values():
            self.results[cell].before = before
        if reason is not None:
            note(f"{size.case}, {size.n_rows} rows, {size.method}: {reason}")
            self._ended[size.case, size.method] = (reason, size.n_rows)
            self._note_end(reason, peak, [self.results[cell] for cell in cells.values()])

    def _note_end(self, reason: str, peak: int, results: Sequence[Result]) -> None:
        """Why the process ended belongs to whatever was not complete by then."""
        incomplete = [result for result in results if len(result.accuracies) < result.n_draws]
        for result in incomplete:
            result.reason = reason
        interrupted = next((result for result in incomplete if result.seconds is None), None)
        if interrupted is not None:
            interrupted.peak = peak or None
            if reason.startswith(STOPPED):
                interrupted.stopped_after = self._limits.seconds

    def ratio(self, cell: Cell) -> float | None:
        """How many times as long as ours it takes; of what was stopped, at least."""
        own = self.results.get(cell.of(OURS))
        if own is None or own.seconds is None:
            return None
        result = self.results[cell]
        seconds = result.seconds if result.seconds is not None else result.stopped_after
        return None if seconds is None else ratio(seconds, own.seconds)

    def targets(self) -> Iterator[Target]:
        """What is wanted of ours, and whether it is so."""
        own = self._found(Cell(TABULAR, TARGET_TABULAR_ROWS, LABELS_OF_TABLE, OURS))
        name = f"{TABULAR}, {TARGET_TABULAR_ROWS} rows"
        yield target(f"{name}: seconds", own, own.seconds, "<", WANTED_SECONDS)
        gigabytes = None if own.seconds is None or own.peak is None else own.peak / 1e9
        yield target(f"{name}: peak GB", own, gigabytes, "<", WANTED_GB)
        equal = self._found(Cell(EQUAL, TARGET_EQUAL_ROWS, LABELS_OF_TABLE, OURS))
        name = f"{EQUAL}, {TARGET_EQUAL_ROWS} rows: seconds"
        yield target(name, equal, equal.seconds, "<", WANTED_EQUAL_SECONDS)
        for count in LABELS_PER_CLASS:
            cell = Cell(IMAGES, TARGET_IMAGE_ROWS, labels_per_class(count), OURS)
            yield from self._image_targets(cell)

    def _image_targets(self, cell: Cell) -> Iterator[Target]:
        name = f"{IMAGES}, {cell.n_rows} rows, {cell.labels}"
        own, peer = self._found(cell), cell.of(LABEL_SPREADING)
        speed = self.ratio(peer) if peer in self.results else None
        if speed is not None and speed < WANTED_RATIO and self.results[peer].seconds is None:
            speed = None  # It was stopped too early to tell.
        yield target(f"{name}: {LABEL_SPREADING}'s seconds / ours", own, speed, "≥", WANTED_RATIO)
        for method in (LABEL_SPREADING, FAR_LABEL_SPREADING, POISSON):
            accuracies = (self._found(cell.of(each)).accuracy for each in (OURS, method))
            found, wanted = (None if each is None else 100 * each for each in accuracies)
            yield target(f"{name}: accuracy, and {method}'s", own, found, "≥", wanted)

    def _found(self, cell: Cell) -> Result:
        return self.results.get(cell, Result(1))

    def print_tables(self, contents: dict[str, str]) -> None:
        """For people.

        Args:
            contents: What the cases that were measured are.
        """
        for case, content in contents.items():
            cells = sorted(
                (cell for cell in self.results if cell.case == case),
                key=lambda cell: (
                    cell.n_rows,
                    _count(cell.labels),
                    list(METHODS).index(cell.method),
                ),
            )
            columns = ("row", "seconds", "× ours", "peak GB", "before", "accuracy")
            print(content)
            print_table(case, columns, [self._table_row(cell) for cell in cells])
            for cell in cells:
                result = self.results[cell]
                if result.reason is not None:
                    done = f"{len(result.accuracies)} of {result.n_draws} fits"
                    print(f"{cell.name}: {result.reason} ({done})")
        print_table("Targets", Target._fields, list(self.targets()))

    def _table_row(self, cell: Cell) -> list[str]:
        result = self.results[cell]
        finished = result.seconds is not None
        more_than, at_least = ("", "") if finished else ("> ", "≥ ")
        seconds = result.seconds if finished else result.stopped_after
        times, peak, before = self.ratio(cell), result.peak, result.before
        return [
            cell.name,
            _reason_in_short(result) if seconds is None else f"{more_than}{seconds:.2f}",
            "" if times is None else f"{more_than}{times:.3g}",
            "" if peak is None else f"{at_least}{peak / 1e9:.2f}",
            "" if before is None else f"{before / 1e9:.2f}",
            format_accuracies(result.accuracies),
        ]

    def summary(self) -> list[dict[str, Any]]:
        """All results, for the line of JSON."""
        return [
            {**cell._asdict(), **vars(result), "times_ours": self.ratio(cell)}
            for cell, result in self.results.items()
        ]


def target(
    name: str, own: Result, found: float | None, comparison: str, wanted: float | None
) -> Target:
    """Compare what was found with what is wanted.

    Args:
        name: What.
        own: What our figure is from.
        found: Our figure, or None.
        comparison: `<` or `≥`.
        wanted: A promise, or what a peer has reached; None: nobody knows.
    """
    compare: Callable[[float, float], bool] = {"<": operator.lt, "≥": operator.ge}[comparison]
    if found is None:
        return Target(name, _reason_in_short(own), "", MISSED if own.reason else UNKNOWN)
    if wanted is None:
        return Target(name, f"{found:.4g}", "", UNKNOWN)
    verdict = REACHED if compare(found, wanted) else MISSED
    return Target(name, f"{found:.4g}", f"{comparison} {wanted:.4g}", verdict)


def _reason_in_short(result: Result) -> str:
    """Without the details behind a colon."""
    return (result.reason or "").split(":")[0]


def _count(labels: str) -> int:
    return int(labels.split()[0])


def format_accuracies(accuracies: Sequence[float]) -> str:
    """Percent: mean ± standard deviation over draws."""
    if not accuracies:
        return ""
    mean = f"{100 * statistics.fmean(accuracies):.2f}"
    if len(accuracies) == 1:
        return mean
    return f"{mean} ± {100 * statistics.stdev(accuracies):.2f}"


def labels_per_class(count: int) -> str:
    """In words."""
    return f"{count} a class"


def drawn_rows(
    classes: NDArray[np.int64], counts: Sequence[int], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Rows of every class at random: int64 (sum of counts,).

    Args:
        classes: int64 (n,), 0..C-1.
        counts: How many of each class.
        rng: Which.
    """
    parts = [
        rng.choice(np.flatnonzero(classes == number), count, replace=False)
        for number, count in enumerate(counts)
    ]
    return np.concatenate(parts)


def draws_of_table(classes: NDArray[np.int64], seed: int) -> tuple[Draw, ...]:
    """One: a fiftieth of each class."""
    counts = [max(1, round(LABELED_PART * count)) for count in np.bincount(classes)]
    rows = drawn_rows(classes, counts, np.random.default_rng(seed))
    return (Draw(LABELS_OF_TABLE, rows, timed=True),)


def draws_of_images(
    classes: NDArray[np.int64], counts: Sequence[int], n_draws: int, seed: int
) -> tuple[Draw, ...]:
    """As many of each class; the first draw of each count is timed and comes before all others."""
    n_classes = int(classes.max()) + 1
    return tuple(
        Draw(
            labels_per_class(count),
            drawn_rows(classes, [count] * n_classes, np.random.default_rng([seed, count, number])),
            timed=number == 0,
        )
        for number in range(n_draws)
        for count in counts
    )


def measure_tables(benchmark: EstimatorBenchmark, options: argparse.Namespace, folder: Path) -> str:
    """The tables of scikit-learn; returns what they are."""
    from common import labeled

    for n_rows in options.rows:
        note(f"{TABULAR}, {n_rows} rows")
        vectors, classes = labeled.table(folder / "table.npy", n_rows, options.seed)
        benchmark.measure(TABULAR, vectors, classes, draws_of_table(classes, options.seed))
    return (
        f"{TABULAR}: scikit-learn's make_classification, {labeled.TABLE_COLUMNS} columns of which "
        f"{labeled.INFORMATIVE_COLUMNS} are informative, 2 classes, {LABELS_OF_TABLE}"
    )


def measure_images(benchmark: EstimatorBenchmark, options: argparse.Namespace, folder: Path) -> str:
    """The images of Fashion-MNIST; returns what they are."""
    from common import labeled

    images = labeled.read_images(options.fashion_mnist)
    counts = sorted(options.labels)
    for n_rows in options.image_rows:
        note(f"{IMAGES}, {n_rows} rows")
        arguments = (images, n_rows, options.columns, options.seed)
        vectors, classes = labeled.image_rows(folder / "images.npy", *arguments)
        if n_rows <= len(images.classes):
            draws = draws_of_images(classes, counts, options.draws, options.seed)
        else:
            # Copies are there for time and memory; their accuracy is that of nothing real.
            draws = draws_of_images(classes, counts[-1:], 1, options.seed)
        benchmark.measure(IMAGES, vectors, classes, draws)
    return (
        f"{IMAGES}: Fashion-MNIST, {options.columns} columns, 10 classes, up to {options.draws} "
        "draws of the labels"
    )


def measure_equal(benchmark: EstimatorBenchmark, options: argparse.Namespace, folder: Path) -> str:
    """Rows that are all equal, so that no accuracy says anything; returns what they are."""
    from common.labeled import Labeled

    for n_rows in options.equal_rows:
        note(f"{EQUAL}, {n_rows} rows")
        rng = np.random.default_rng(options.seed)
        row = rng.normal(size=EQUAL_COLUMNS).astype(np.float32)
        vectors = Labeled(folder / "equal.npy", rng.integers(0, 2, n_rows))
        np.save(vectors.vectors, np.tile(row, (n_rows, 1)))
        benchmark.measure(EQUAL, *vectors, draws_of_table(vectors.classes, options.seed))
    return f"{EQUAL}: one row of {EQUAL_COLUMNS} columns again and again, {LABELS_OF_TABLE}"


def parser_of_options() -> argparse.ArgumentParser:
    """Cases, sizes and limits."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--cases", nargs="+", default=CASES, choices=CASES, help="what to measure")
    add("--rows", nargs="+", type=positive, default=TABULAR_ROWS, help=f"of the case {TABULAR}")
    add("--image-rows", nargs="+", type=positive, default=IMAGE_ROWS, help=f"of the case {IMAGES}")
    add("--equal-rows", nargs="+", type=positive, default=EQUAL_ROWS, help=f"of the case {EQUAL}")
    add("--columns", type=positive, default=IMAGE_COLUMNS, help="of the images' PCA")
    add("--labels", nargs="+", type=positive, default=LABELS_PER_CLASS, help="images of a class")
    add("--draws", type=positive, default=8, help="choices of the labelled images")
    add("--n-neighbors", type=positive, default=10, help="of everybody")
    add("--time-limit", type=float, default=300.0, help="seconds of a fit")
    add("--memory-limit-gb", type=float, help="of a process; default: four fifths of what is free")
    add("--seed", type=int, default=0, help="of rows and labels")
    add("--fashion-mnist", type=Path, help="folder of the images; default: Debian's")
    add("--folder", type=Path, help="where rows are kept meanwhile; default: a temporary one")
    skippable = (LABEL_SPREADING, FAR_LABEL_SPREADING, POISSON)
    add("--skip", nargs="+", default=[], choices=skippable, metavar="NAME", help=str(skippable))
    return parser


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options, if they go together."""
    from common import labeled, vectors

    parser = parser_of_options()
    options = parser.parse_args(arguments)
    options.rows, options.image_rows = sorted(set(options.rows)), sorted(set(options.image_rows))
    options.equal_rows = sorted(set(options.equal_rows))
    options.labels = sorted(set(options.labels))
    if options.fashion_mnist is None:
        options.fashion_mnist = vectors.FASHION_MNIST
    if options.memory_limit_gb is None:
        options.memory_limit_gb = MEMORY_PART * available_bytes() / 1e9
    if options.columns > vectors.PIXELS:
        parser.error(f"--columns: at most {vectors.PIXELS}, got {options.columns}")
    for name in ("time_limit", "memory_limit_gb"):
        if not getattr(options, name) > 0:
            parser.error(f"--{name.replace('_', '-')}: above 0, got {getattr(options, name):g}")
    most = labeled.MAX_COPIES * TARGET_IMAGE_ROWS
    if options.image_rows[-1] > most:
        parser.error(f"--image-rows: at most {most}, got {options.image_rows[-1]}")
    return options


def measure(options: argparse.Namespace, folder: Path) -> tuple[EstimatorBenchmark, dict[str, str]]:
    """All cases, and what they are."""
    limits = Limits(options.time_limit, options.memory_limit_gb * 1e9)
    benchmark = EstimatorBenchmark(options.n_neighbors, limits)
    for method in METHODS:
        reason = "asked to" if method in options.skip else spreading.missing(method)
        if reason is not None:
            benchmark.skipped[method] = reason
    contents = {}
    functions = {TABULAR: measure_tables, IMAGES: measure_images, EQUAL: measure_equal}
    for case, function in functions.items():
        if case not in options.cases:
            benchmark.skipped[case] = "not asked for"
            continue
        try:
            contents[case] = function(benchmark, options, folder)
        except FileNotFoundError as error:
            benchmark.skipped[case] = str(error)
    return benchmark, contents


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print tables, and the line of JSON last."""
    from common import machine

    options = parse(arguments)
    # Processes to come inherit this. The peers have no GPU, so ours gets none either.
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="estimator-", dir=options.folder) as folder:
        benchmark, contents = measure(options, Path(folder))
    print(
        f"n_neighbors {options.n_neighbors}, at most {options.time_limit:g} s a fit and "
        f"{options.memory_limit_gb:.1f} GB of resident memory, on the CPU"
    )
    benchmark.print_tables(contents)
    for name, reason in benchmark.skipped.items():
        print(f"skipped {name}: {reason}")
    neighbors_of_poisson = "annoy" if spreading.annoy_installed() else "scikit-learn"
    if POISSON not in benchmark.skipped:
        print(f"The neighbours for {POISSON} are found by {neighbors_of_poisson}.")
    print_json(
        {
            "benchmark": "estimator",
            "machine": machine.describe(),
            "versions": versions(),
            "sizes": {
                "rows": options.rows,
                "image_rows": options.image_rows,
                "columns": options.columns,
                "labels": options.labels,
                "draws": options.draws,
                "n_neighbors": options.n_neighbors,
                "time_limit": options.time_limit,
                "memory_limit_gb": options.memory_limit_gb,
                "seed": options.seed,
            },
            "results": benchmark.summary(),
            "targets": [found._asdict() for found in benchmark.targets()],
            "neighbors_of_poisson": neighbors_of_poisson,
            "skipped": benchmark.skipped,
        }
    )
    failed = [cell for cell, found in benchmark.results.items() if found.reason is not None]
    if any(cell.method == OURS for cell in failed):
        raise SystemExit(f"{OURS} did not finish: see the table")


def versions() -> dict[str, str | None]:
    """Of the libraries that only this benchmark uses."""
    found: dict[str, str | None] = {}
    for name in ("scikit-learn", "graphlearning", "annoy"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


if __name__ == "__main__":
    main()
