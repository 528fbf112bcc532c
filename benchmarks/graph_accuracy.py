"""What a background graph that is not exact costs in accuracy, and which links insertion misses.

Background graphs of several recalls are made from the same vectors. Into each the same labelled
nodes are inserted, their labels are spread, and the accuracies are compared with those over the
exact graph. The links of labelled nodes and test images are compared with the true ones.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import os
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np

from common import links, machine, published
from common.links import KINDS, Collection, Count, TrueLinks
from common.options import positive
from common.output import note, print_json, print_table
from common.published import PublishedData, PublishedFiles
from common.timing import Seconds
from common.vectors import FASHION_MNIST
from lowshot_kedro import native
from lowshot_kedro.blocks import KnnGraph
from lowshot_kedro.datasets import FaissIndexDataset, KnnGraphDataset
from lowshot_kedro.diffusion import (
    PropagationOptions,
    choose_node_ordering,
    propagate,
    propagation_matrix,
)
from lowshot_kedro.errors import InputError
from lowshot_kedro.graph import (
    UnlabeledNodes,
    background_graph,
    build_index,
    insert_labeled_nodes,
    measure_quality,
    require_method,
)
from lowshot_kedro.methods.images import vectors_of
from lowshot_kedro.metrics import accuracies
from lowshot_kedro.progress import Stopwatch
from lowshot_kedro.protocol import (
    MODES,
    ExperimentParameters,
    ImageSelection,
    choose_images,
    read_class_split,
)

FASHION, MADE_UP = "fashion-mnist", "synthetic"
DATA = (FASHION, MADE_UP)
EXACT = "exact"
# The methods that are asked for a recall.
WITH_TARGET = ("descent", "ivf", "auto")
TARGET_RECALLS = (0.9, 0.95, 0.99, 0.995, 0.999)
FASHION_COLUMNS, MADE_UP_COLUMNS = 256, 64
# Columns that are stored beyond k, as in the published experiment: 32 for k = 30.
MORE_STORED = 2
# What counts beside top-1, where there are more classes than that, or else.
TOP, TOP_OF_FEW = 5, 2
# The comparison with every vector that all others are compared with.
EXACT_RECALL = 0.9999
WANTED_DIFFERENCE, WANTED_SHARE = 0.002, 0.999
WANTED_KINDS = (links.INTO_LABELED, links.INTO_NOVEL, links.OUT_OF_LABELED, links.OUT_OF_NOVEL)


class Way(NamedTuple):
    """How a background graph is made.

    Attributes:
        method: As for `background_graph`.
        target_recall: That it is asked for; None: the method takes none.
    """

    method: str
    target_recall: float | None = None

    @property
    def name(self) -> str:
        """Of its rows."""
        return self.method if self.target_recall is None else f"{self.method} {self.target_recall}"

    def asked(self) -> dict[str, Any]:
        """Arguments of `build_index` and `background_graph`."""
        target = {} if self.target_recall is None else {"target_recall": self.target_recall}
        return {"method": self.method, **target}


class Background(NamedTuple):
    """A background graph.

    Attributes:
        index: Of the vectors.
        graph: (n, stored columns).
        quality: What `measure_quality` says.
    """

    index: faiss.Index
    graph: KnnGraph
    quality: dict[str, Any]


class Run(NamedTuple):
    """Labelled nodes inserted into a background graph, and their labels spread.

    Attributes:
        graph: Name of the way in which the background graph was made.
        mode: Of the classes.
        seed: Of the choice of labelled images.
        n_labeled: Of every novel class.
        seconds: Of the insertion.
        counts: Links, by kind.
        n_wrong: Links from background images to labelled nodes that the exact graph has not.
        accuracies: By number of steps and name.
    """

    graph: str
    mode: str
    seed: int
    n_labeled: int
    seconds: float
    counts: dict[str, Count]
    n_wrong: int
    accuracies: dict[int, dict[str, float | None]]

    @property
    def choice(self) -> tuple[str, int, int]:
        """Which images are labelled."""
        return self.mode, self.seed, self.n_labeled

    def summary(self) -> dict[str, Any]:
        """For the line of JSON."""
        counts = {kind: list(count) for kind, count in self.counts.items()}
        return {**self._asdict(), "counts": counts}


class AccuracyBenchmark:
    """All background graphs of a data set, and what comes of them.

    Args:
        options: Of the command line.
        data: The files.
        folder: For index and graph files.
    """

    def __init__(self, options: argparse.Namespace, data: PublishedData, folder: Path) -> None:
        self._options, self._data, self._folder = options, data, folder
        self._ways = [Way(EXACT)]
        for method in options.methods:
            if method == EXACT:
                continue
            targets = options.target_recalls if method in WITH_TARGET else [None]
            self._ways += [Way(method, target) for target in targets]
        self._backgrounds: dict[str, Background] = {}
        self.seconds = Seconds()
        self.runs: list[Run] = []
        splits = [read_class_split(data.class_split, mode) for mode in options.modes]
        n_classes = min(len(split.base_classes) + len(split.novel_classes) for split in splits)
        self.top = TOP if n_classes > TOP else TOP_OF_FEW

    def measure(self) -> None:
        """Make all graphs, then insert and propagate on each."""
        for number, way in itertools.product(range(self._options.repeat), self._ways):
            note(f"background graph: {way.name}")
            self._make(way, number)
        recall = self._backgrounds[EXACT].quality["recall"]
        if recall < EXACT_RECALL:
            raise SystemExit(f"{EXACT}: recall {recall:.5f} of a comparison with every vector")
        note("true links")
        train, test = (
            vectors_of(features, np.arange(features.n_rows), self._data.transform, features.name)
            for features in (self._data.train, self._data.test)
        )
        collection = Collection(
            self._data.background, self._backgrounds[EXACT].graph, train, test, self._options.k
        )
        for mode, seed, n_labeled in self._choices():
            note(f"mode {mode}, seed {seed}, {n_labeled} labels")
            experiment = ExperimentParameters(mode, n_labeled, seed, "background")
            selection = choose_images(
                self._data.class_split, self._data.train, self._data.test, experiment
            )
            true_links = collection.true_links(selection)
            for way in self._ways:
                self.runs.append(self._run(way, experiment, selection, true_links, train, test))

    def print_tables(self, description: str) -> None:
        """For people."""
        self._print_graphs(description)
        self._print_links()
        for n_steps in self._options.iterations:
            self._print_accuracies(n_steps)
        if len(self._ways) > 1:
            self._print_targets()

    def summary(self) -> dict[str, Any]:
        """For the line of JSON."""
        data = self._data
        return {
            "sizes": {
                "background": len(data.background),
                "columns": data.background.shape[1],
                "train": data.train.n_rows,
                "test": data.test.n_rows,
            },
            "seconds": self.seconds.summary(),
            "quality": {name: found.quality for name, found in self._backgrounds.items()},
            "links": {
                way.name: {kind: self._links(way, kind).share for kind in KINDS}
                for way in self._ways
            },
            "differences": {
                way.name: {
                    str(n_steps): {
                        name: statistics.fmean(self._differences(way, n_steps, name))
                        for name in self._names()
                    }
                    for n_steps in self._options.iterations
                }
                for way in self._ways[1:]
            },
            "runs": [run.summary() for run in self.runs],
        }

    def _choices(self) -> Iterator[tuple[str, int, int]]:
        options = self._options
        return itertools.product(options.modes, options.seeds, options.labels)

    def _make(self, way: Way, number: int) -> None:
        """From the file of vectors to files of index and graph, as the pipeline makes them."""
        vectors = self._data.background
        # A name of their own: what is there already would not be made again.
        path = self._folder / f"{self._ways.index(way)}-{number}"
        index_dataset = FaissIndexDataset(filepath=f"{path}.index", n_columns=vectors.shape[1])
        stored_k = self._options.k + MORE_STORED
        graph_dataset = KnnGraphDataset(filepath=str(path), k=stored_k)
        watch = Stopwatch()
        index_dataset.save(build_index(vectors, **way.asked()))
        index = index_dataset.load()
        seconds_of_index = watch.seconds
        graph_dataset.save(background_graph(index, vectors, stored_k, **way.asked()))
        seconds = {"index": seconds_of_index, "graph": watch.seconds - seconds_of_index}
        self.seconds.add(way.name, seconds)
        if way.name not in self._backgrounds:
            graph = graph_dataset.load()
            quality = measure_quality(graph, vectors, self._options.k, self._options.sample)
            self._backgrounds[way.name] = Background(index, graph, quality)

    def _run(
        self,
        way: Way,
        experiment: ExperimentParameters,
        selection: ImageSelection,
        true_links: TrueLinks,
        train: np.ndarray[Any, np.dtype[np.float32]],
        test: np.ndarray[Any, np.dtype[np.float32]],
    ) -> Run:
        background = self._backgrounds[way.name]
        labeled, tested = train[selection.labeled_positions], test[selection.test_positions]
        watch = Stopwatch()
        completed = insert_labeled_nodes(
            labeled,
            tested,
            UnlabeledNodes(self._data.background, background.index, background.graph),
            self._options.k,
        )
        seconds = watch.seconds
        neighbors, test_neighbors = completed.neighbors, completed.test_neighbors.indices
        try:
            counts = true_links.counts(neighbors, test_neighbors)
        except ValueError as error:
            raise SystemExit(f"{way.name}: {error}") from error
        n_steps, n_classes = max(self._options.iterations), selection.n_classes
        node_ordering = choose_node_ordering(len(neighbors), n_classes, n_steps)
        scores = propagate(
            propagation_matrix(neighbors, node_ordering=node_ordering),
            selection.labeled_classes,
            test_neighbors,
            n_classes,
            n_steps,
            PropagationOptions(0, "native"),
        )
        found = {
            step: accuracies(
                scores[step], selection.test_classes, selection.is_novel, (1, self.top)
            )
            for step in self._options.iterations
        }
        return Run(
            way.name,
            experiment.mode,
            experiment.seed,
            experiment.n_labeled,
            seconds,
            counts,
            true_links.n_wrong(neighbors),
            found,
        )

    def _runs_of(self, way: Way, n_labeled: int | None = None) -> list[Run]:
        return [
            run for run in self.runs if run.graph == way.name and n_labeled in (None, run.n_labeled)
        ]

    def _links(self, way: Way, kind: str) -> Count:
        """Of all runs together."""
        counts = [run.counts[kind] for run in self._runs_of(way)]
        return Count(*(sum(numbers) for numbers in zip(*counts, strict=True)))

    def _names(self) -> list[str]:
        """Of the accuracies that are shown."""
        return ["top1", "top1_novel", "top1_base", f"top{self.top}", f"top{self.top}_novel"]

    def _accuracies(
        self, way: Way, n_steps: int, name: str, n_labeled: int | None = None
    ) -> list[float]:
        """Of all runs, in the same order for every way; there are none of classes there are not."""
        found = [run.accuracies[n_steps][name] for run in self._runs_of(way, n_labeled)]
        return [accuracy for accuracy in found if accuracy is not None]

    def _differences(
        self, way: Way, n_steps: int, name: str, n_labeled: int | None = None
    ) -> list[float]:
        """To the exact graph, of the same labelled images."""
        pairs = zip(
            self._accuracies(way, n_steps, name, n_labeled),
            self._accuracies(self._ways[0], n_steps, name, n_labeled),
            strict=True,
        )
        return [found - exact for found, exact in pairs]

    def _print_graphs(self, description: str) -> None:
        rows = []
        for way in self._ways:
            name, quality = way.name, self._backgrounds[way.name].quality
            index, graph = (self.seconds.best(name, part) for part in ("index", "graph"))
            insertions = [run.seconds for run in self._runs_of(way)]
            rows.append(
                [
                    name,
                    *(f"{seconds:.2f}" for seconds in (index, graph, index + graph)),
                    f"{quality['recall']:.4f}",
                    f"{quality['recall_error']:.4f}",
                    f"{statistics.median(insertions):.2f}",
                ]
            )
        n_rows, n_columns = self._data.background.shape
        title = f"{description}: graph of {n_rows} vectors with {n_columns} columns"
        columns = ("graph", "index s", "graph s", "total s", "recall", "±", "insertion s")
        print_table(title, columns, rows)

    def _print_links(self) -> None:
        rows = []
        for way in self._ways:
            runs = self._runs_of(way)
            least = min(run.counts[kind].share for run in runs for kind in WANTED_KINDS)
            true = sum(run.counts[links.INTO_LABELED].true for run in runs)
            wrong = sum(run.n_wrong for run in runs)
            shares = [f"{self._links(way, kind).share:.4f}" for kind in KINDS]
            rows.append([way.name, *shares, f"{least:.4f}", f"{wrong / max(true, 1):.4f}"])
        columns = ("graph", *KINDS, "least of a run", "not true")
        print_table("Part of the true links that was found", columns, rows)

    def _print_accuracies(self, n_steps: int) -> None:
        names = self._names()
        rows = []
        for n_labeled in self._options.labels:
            for way in self._ways:
                row = [f"{way.name}, {n_labeled} label{'s' * (n_labeled > 1)}"]
                if way.name == EXACT:
                    found = (self._accuracies(way, n_steps, name, n_labeled) for name in names)
                    rows.append([*row, *(_mean(part, "{:.4f}") for part in found), ""])
                    continue
                found = [self._differences(way, n_steps, name, n_labeled) for name in names]
                largest = max((abs(part) for parts in found for part in parts), default=0)
                rows.append([*row, *(_mean(part, "{:+.4f}") for part in found), f"{largest:.4f}"])
        columns = ("graph", *(name.replace("_", " ") for name in names), "largest")
        title = f"Accuracy after {n_steps} steps; for the others, less that of {EXACT}"
        print_table(title, columns, rows)

    def _is_within(self, way: Way, n_steps: int) -> bool:
        """Whether top-1, top-1 of novel classes and their top-5 are as near as wanted."""
        names = ["top1", "top1_novel"]
        # With few classes there is only top-2, which ties decide where labels have not arrived.
        if self.top == TOP:
            names.append(f"top{TOP}_novel")
        found = (self._differences(way, n_steps, name) for name in names)
        return all(abs(statistics.fmean(parts)) <= WANTED_DIFFERENCE for parts in found if parts)

    def _print_targets(self) -> None:
        names = [name for name in self._names() if not name.endswith("_base")]
        rows = []
        for way in self._ways[1:]:
            for n_steps in self._options.iterations:
                found = [self._differences(way, n_steps, name) for name in names]
                cells = [_mean_and_error(parts) for parts in found]
                verdict = "reached" if self._is_within(way, n_steps) else "missed"
                rows.append([f"{way.name}, {n_steps}", *cells, verdict])
        columns = ("graph, steps", *(name.replace("_", " ") for name in names), "")
        title = f"Mean difference to {EXACT} over all runs, wanted: at most {WANTED_DIFFERENCE:g}"
        print_table(title, columns, rows)


def _mean(numbers: Sequence[float], form: str) -> str:
    return form.format(statistics.fmean(numbers)) if numbers else ""


def _mean_and_error(numbers: Sequence[float]) -> str:
    """Mean ± standard error."""
    if len(numbers) < 2:
        return _mean(numbers, "{:+.4f}")
    error = statistics.stdev(numbers) / len(numbers) ** 0.5
    return f"{statistics.fmean(numbers):+.4f}±{error:.4f}"


def files_of(options: argparse.Namespace, data: str, folder: Path) -> PublishedFiles:
    """The files of a data set, made where they are missing."""
    if data == MADE_UP:
        n_columns = options.columns or MADE_UP_COLUMNS
        return published.made_up(folder, options.rows, options.classes, n_columns, options.seed)
    n_columns = options.columns or FASHION_COLUMNS
    if options.features is None:
        return published.fashion_mnist(folder, options.fashion_mnist, n_columns)
    name = f"features in {options.features.name}"
    return PublishedFiles(options.features, options.class_split, n_columns, name)


def parser_of_options() -> argparse.ArgumentParser:
    """Data, graphs and runs."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--data", nargs="+", default=[FASHION], choices=DATA, help="what to measure on")
    add("--features", type=Path, help=f"folder of features in the published layout for {FASHION}")
    add("--class-split", type=Path, default=published.CLASS_SPLIT, help="of --features")
    add("--fashion-mnist", type=Path, default=FASHION_MNIST, help="folder of the images")
    columns = f"of the vectors; default: {FASHION_COLUMNS}, {MADE_UP_COLUMNS} for {MADE_UP}"
    add("--columns", type=positive, help=columns)
    add("--rows", type=positive, default=100_000, help=f"background vectors of {MADE_UP}")
    add("--classes", type=positive, default=100, help=f"of {MADE_UP}, a multiple of 4")
    methods = f"of graph.method, or for faiss.index_factory; {EXACT} is always measured"
    add("--methods", nargs="+", default=["descent"], metavar="METHOD", help=methods)
    add("--target-recalls", nargs="+", type=float, default=TARGET_RECALLS, help="asked for")
    add("--k", type=positive, default=30, help="neighbours of a node, itself included")
    add("--modes", nargs="+", default=MODES, choices=MODES, help="of the classes")
    add("--seeds", nargs="+", type=positive, default=[1, 2, 3, 4, 5], help="of labelled images")
    add("--labels", nargs="+", type=positive, default=[1, 2, 5], help="images of a novel class")
    add("--iterations", nargs="+", type=positive, default=[3, 6], help="steps")
    add("--sample", type=positive, default=1_000, help="rows whose neighbours give the recall")
    add("--threads", type=positive, default=native.get_num_threads(), help="for everybody")
    add("--repeat", type=positive, default=1, help="rounds in which graphs are made")
    add("--seed", type=int, default=0, help=f"of the points of {MADE_UP}")
    add("--folder", type=Path, help="where data is kept for the next time; default: nowhere")
    return parser


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options, if they go together."""
    options = parser.parse_args(arguments)
    for target in options.target_recalls:
        if not 0 < target <= 1:
            parser.error(f"--target-recalls: between 0 and 1, got {target:g}")
    if options.classes % 4:
        parser.error(f"--classes: a multiple of 4, got {options.classes}")
    for method in options.methods:
        try:
            require_method(method, options.columns or FASHION_COLUMNS)
        except InputError as error:
            parser.error(str(error.renamed("--methods")))
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print tables, and the line of JSON last."""
    parser = parser_of_options()
    options = parse(parser, arguments)
    # Exact search would use it, and nothing else.
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    machine.set_threads(options.threads)
    logging.basicConfig(format="  %(message)s")  # to standard error
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    for name in options.data:
        with tempfile.TemporaryDirectory(prefix="graph-accuracy-", dir=options.folder) as temporary:
            folder = Path(temporary)
            note(f"files of {name}")
            try:
                files = files_of(options, name, options.folder or folder)
                data = files.load()
            except (FileNotFoundError, ValueError) as error:
                skipped[name] = str(error)
                continue
            if options.k + MORE_STORED > len(data.background):
                parser.error(
                    f"--k: {options.k} and {MORE_STORED} more of {len(data.background)} vectors"
                )
            benchmark = AccuracyBenchmark(options, data, folder)
            benchmark.measure()
            benchmark.print_tables(files.description)
            results[name] = {"description": files.description, **benchmark.summary()}
    for name, reason in skipped.items():
        print(f"skipped {name}: {reason}")
    print(
        f"{options.k} neighbours, {options.threads} threads, modes {' '.join(options.modes)}, "
        f"seeds {' '.join(map(str, options.seeds))}, shortest of {options.repeat}"
    )
    settings = {
        key: str(value) if isinstance(value, Path) else value
        for key, value in vars(options).items()
        if key not in ("features", "class_split", "fashion_mnist", "folder")
    }
    print_json(
        {
            "benchmark": "graph_accuracy",
            "machine": machine.describe(),
            "options": settings,
            "results": results,
            "wanted": {"difference": WANTED_DIFFERENCE, "share": WANTED_SHARE},
            "skipped": skipped,
        }
    )


if __name__ == "__main__":
    main()
