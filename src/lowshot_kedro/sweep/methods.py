"""What a worker does: a group of runs, from the data to metrics and scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.blocks import FeatureMatrix, take_rows
from lowshot_kedro.classifiers import (
    LogisticRegressions,
    NearestNeighbors,
    combined_at_weights,
    create_classifier,
)
from lowshot_kedro.devices import choose_device
from lowshot_kedro.experiment import (
    choose_images,
    diffusion_scores,
    first_columns,
    training_vectors,
    unlabeled_training_images,
    vectors_of,
)
from lowshot_kedro.graph import UnlabeledNodes, insert_labeled_nodes
from lowshot_kedro.memory import recent_peak_rss_bytes, restart_peak
from lowshot_kedro.metrics import Scores, accuracies, build_metrics
from lowshot_kedro.parameters import ExperimentParameters
from lowshot_kedro.progress import Stopwatch
from lowshot_kedro.protocol import ImageSelection
from lowshot_kedro.sweep.choice import Hyperparameters
from lowshot_kedro.sweep.plan import (
    Group,
    Settings,
    SweepData,
    extended_k,
    iterations_of,
    largest_k,
    made_from,
    parts_of,
    possible_k,
    scores_made_from,
)
from lowshot_kedro.sweep.runs import Run

# What the libraries take in a process before there is any data.
_PROCESS_BYTES = 1_000_000_000

Results = dict[str, dict[str, Any]]


class Inputs(Protocol):
    """Where a worker finds the data. It is sent there, and opens what is asked for."""

    @property
    def class_split(self) -> Mapping[str, Any]:
        """Content of the class split file."""
        ...

    @property
    def train_features(self) -> FeatureMatrix:
        """The training set."""
        ...

    @property
    def test_features(self) -> FeatureMatrix:
        """The test set."""
        ...

    @property
    def pca_transform(self) -> faiss.VectorTransform:
        """From features to vectors."""
        ...

    def background(self, n_background: int | None, k: int) -> UnlabeledNodes:
        """The first background images with index and graph, None being all."""
        ...


class ScoreStore(Protocol):
    """Where scores lie between runs."""

    def read(self, key: str, made_from: Mapping[str, Any]) -> NDArray[np.float32] | None:
        """float32 (T, C), or None if there are none made from the same."""
        ...

    def has(self, key: str, made_from: Mapping[str, Any]) -> bool:
        """Whether there are."""
        ...

    def write(self, key: str, made_from: Mapping[str, Any], scores: NDArray[np.float32]) -> None:
        """Keep them."""
        ...

    def unfinished(self, key: str) -> AbstractContextManager[Path]:
        """A file for what a run has done so far, in a folder that is there, for one process."""
        ...


class _Work:
    """A group of runs, what it needs, and what it measures."""

    def __init__(
        self, group: Group, inputs: Inputs, settings: Settings, data: SweepData, store: ScoreStore
    ) -> None:
        self.group = group
        self.inputs = inputs
        self.settings = settings
        self.data = data
        self.store = store
        run = group.runs[0]
        self.experiment = experiment_of(run)
        self.selection: ImageSelection = choose_images(
            inputs.class_split, inputs.train_features, inputs.test_features, self.experiment
        )

    def labeled_features(self) -> NDArray[np.float32]:
        """float32 (L, d)."""
        return take_rows(self.inputs.train_features, self.selection.labeled_positions)

    def test_features(self) -> NDArray[np.float32]:
        """float32 (T, d)."""
        return take_rows(self.inputs.test_features, self.selection.test_positions)

    def accuracies(self, scores: NDArray[np.float32]) -> dict[str, float | None]:
        """Of all test images."""
        selection = self.selection
        top_k = self.settings.evaluation.top_k
        return accuracies(scores, selection.test_classes, selection.is_novel, top_k)

    def keep(self, run: Run, iteration: int, scores: NDArray[np.float32]) -> None:
        """Keep the scores of a run if they are wanted, and this is the iteration."""
        if self.group.kept.get(run.key) == iteration:
            made_from = scores_made_from(run, iteration, self.settings, self.data)
            self.store.write(run.key, made_from, scores)

    def metrics(
        self,
        entries: Sequence[Mapping[str, Any]],
        seconds: Mapping[str, float],
        axis: str | None = None,
        n_nodes: int | None = None,
        **parameters: Any,
    ) -> dict[str, Any]:
        """The content of a metrics file."""
        no_scores = np.empty((0, len(self.selection.test_classes), self.selection.n_classes), "f4")
        experiment = asdict(self.experiment)
        unlabeled = self.group.runs[0].unlabeled
        if unlabeled is None:
            del experiment["unlabeled"]
        else:
            experiment["n_background"] = self.data.background_rows(unlabeled)
        metrics = build_metrics(
            Scores.of_selection(no_scores, [], self.selection),
            entries,
            experiment={**experiment, **parameters},
            n_nodes=n_nodes,
            seconds=seconds,
            peak_rss_bytes=recent_peak_rss_bytes(),
        )
        if axis != "iteration":
            of_axis = metrics.pop("per_iteration")
            if axis is not None:
                metrics[f"per_{axis}"] = of_axis
        return metrics


def experiment_of(run: Run) -> ExperimentParameters:
    """The parameters that choose the images of a run."""
    unlabeled = "none" if run.unlabeled is None else run.unlabeled.kind
    return ExperimentParameters(run.mode, run.n_labeled, run.seed, unlabeled)


def run_group(
    group: Group, inputs: Inputs, settings: Settings, data: SweepData, store: ScoreStore
) -> Results:
    """Do the runs of a group.

    Args:
        group: Of one method.
        inputs: The data.
        settings: All parameters.
        data: Sizes and checksums.
        store: Gets the scores that are to be kept.

    Returns:
        Metrics by key, for the runs that are to be measured. In memory: as :func:`memory_bytes`
        says.
    """
    restart_peak()
    work = _Work(group, inputs, settings, data, store)
    found = dict(_METHODS[group.runs[0].method](work))
    return {key: metrics for key, metrics in found.items() if key in group.measured}


def run_combination(
    run: Run,
    inputs: Inputs,
    settings: Settings,
    data: SweepData,
    store: ScoreStore,
    chosen: Hyperparameters,
) -> Results:
    """Combine scores of two runs at all weights.

    Raises:
        ValueError: If scores are missing.
    """
    restart_peak()
    work = _Work(Group((run,)), inputs, settings, data, store)
    watch = Stopwatch()
    scores, parameters = {}, {}
    for method, part in parts_of(run, chosen).items():
        iteration = iterations_of(part, chosen)
        of_part = store.read(part.key, scores_made_from(part, iteration, settings, data))
        if of_part is None:
            raise RuntimeError(f"{run.key}: the scores of {part.key} are missing")
        scores[method] = of_part
        parameters[method] = {**part.settings, "n_iterations": iteration}
    weights = settings.sweep.combination_weights
    combined = combined_at_weights(scores["diffusion"], scores["logistic_regression"], weights)
    entries = [
        {"weight": weight, **work.accuracies(of_weight)}
        for weight, of_weight in zip(weights, combined, strict=True)
    ]
    n_nodes = _n_nodes(run, data)
    seconds = {"combination": watch.seconds}
    return {run.key: work.metrics(entries, seconds, "weight", n_nodes, **parameters)}


def _nearest_class_mean(work: _Work) -> Iterator[tuple[str, dict[str, Any]]]:
    (run,) = work.group.runs
    watch = Stopwatch()
    classifier = create_classifier(run.method, work.selection.n_classes)
    classifier.fit(work.labeled_features(), work.selection.labeled_classes)
    entry = work.accuracies(classifier.scores(work.test_features()))
    yield run.key, work.metrics([entry], {"classification": watch.seconds})


def _nearest_neighbors(work: _Work) -> Iterator[tuple[str, dict[str, Any]]]:
    (run,) = work.group.runs
    watch = Stopwatch()
    ks = possible_k(work.settings.sweep, work.data, run.method, run.n_labeled, None)
    classifier = NearestNeighbors(work.selection.n_classes, k=max(ks))
    classifier.fit(work.labeled_features(), work.selection.labeled_classes)
    scores = classifier.scores_per_k(work.test_features(), ks)
    entries = [{"k": k, **work.accuracies(of_k)} for k, of_k in zip(ks, scores, strict=True)]
    yield run.key, work.metrics(entries, {"classification": watch.seconds}, "k")


def _label_spreading(work: _Work) -> Iterator[tuple[str, dict[str, Any]]]:
    selection, inputs = work.selection, work.inputs
    unlabeled = work.group.runs[0].unlabeled
    assert unlabeled is not None
    # Labelled images first, then the training images not chosen, then the background.
    vectors = training_vectors(
        selection,
        inputs.train_features,
        inputs.pca_transform,
        "background" if unlabeled.kind == "background" else "both",
    )
    n_labeled = len(selection.labeled_positions)
    others = vectors[n_labeled:]
    if unlabeled.kind != "train":
        k = largest_k(work.settings.sweep)
        background = inputs.background(unlabeled.n_background, k).vectors
        others = np.concatenate([others, np.asarray(background)])
    test = vectors_of(
        inputs.test_features,
        selection.test_positions,
        inputs.pca_transform,
        "vectors of the test images",
    )
    parameters = asdict(work.settings.sweep.label_spreading)
    del parameters["alpha"]
    for run in work.group.runs:
        watch = Stopwatch()
        classifier = create_classifier(
            run.method, selection.n_classes, unlabeled=others, **run.settings, **parameters
        )
        classifier.fit(vectors[:n_labeled], selection.labeled_classes)
        entry = work.accuracies(classifier.scores(test))
        seconds = {"classification": watch.seconds}
        n_nodes = n_labeled + len(others)
        described = {**run.settings, **parameters}
        yield run.key, work.metrics([entry], seconds, None, n_nodes, label_spreading=described)


def _logistic_regression(work: _Work) -> Iterator[tuple[str, dict[str, Any]]]:
    runs, group, settings = work.group.runs, work.group, work.settings
    reading = Stopwatch()
    labeled, test = work.labeled_features(), work.test_features()
    seconds = {"reading": reading.seconds}
    fixed = {
        "batch_size": runs[0].settings["batch_size"],
        "momentum": settings.logistic_regression.momentum,
        "max_iterations": group.n_iterations,
    }
    classifiers = LogisticRegressions(
        work.selection.n_classes,
        lr=[run.settings["lr"] for run in runs],
        weight_decay=[run.settings["weight_decay"] for run in runs],
        seed=runs[0].seed,
        device=choose_device("auto"),
        **fixed,
    )

    def evaluate(iteration: int) -> dict[str, Any]:
        entries = {}
        for number, run in enumerate(runs):
            scores = classifiers.scores(test, number)
            work.keep(run, iteration, scores)
            if run.key in group.measured:
                entries[run.key] = {"iteration": iteration, **work.accuracies(scores)}
        return entries

    training = Stopwatch()
    with work.store.unfinished(runs[0].key) as checkpoint:
        entries = classifiers.fit(
            labeled,
            work.selection.labeled_classes,
            evaluate,
            settings.sweep.logistic_regression.eval_every if group.measured else None,
            checkpoint,
            {
                run.key: made_from(run, 0, settings, work.data)
                for run in runs
                if run.key in group.measured
            },
        )
    # Those that were trained side by side share the time.
    seconds = {
        "reading": seconds["reading"] / len(runs),
        "training": training.seconds / len(runs),
    }
    for run in runs:
        if run.key in group.measured:
            described = {**run.settings, **fixed, "trained_side_by_side": len(runs)}
            of_run = [entry[run.key] for entry in entries]
            yield (
                run.key,
                work.metrics(of_run, seconds, "iteration", logistic_regression=described),
            )


def _diffusion(work: _Work) -> Iterator[tuple[str, dict[str, Any]]]:
    group, selection, inputs = work.group, work.selection, work.inputs
    unlabeled = group.runs[0].unlabeled
    assert unlabeled is not None
    # As for the whole grid, whichever runs are left: an approximate search may find other
    # neighbours when more are wanted.
    n_neighbors = extended_k(work.settings.sweep, work.data, group.runs[0])
    weights = {run.edge_weight for run in group.runs}
    watch = Stopwatch()
    training = training_vectors(
        selection, inputs.train_features, inputs.pca_transform, unlabeled.kind
    )
    test = vectors_of(
        inputs.test_features,
        selection.test_positions,
        inputs.pca_transform,
        "vectors of the test images",
    )
    graph = replace(work.settings.graph, k=n_neighbors)
    if unlabeled.kind == "train":
        nodes = unlabeled_training_images(
            selection, inputs.train_features, inputs.pca_transform, graph
        )
    else:
        nodes = inputs.background(unlabeled.n_background, largest_k(work.settings.sweep))
    reading = watch.seconds
    watch = Stopwatch()
    completed = insert_labeled_nodes(
        training,
        test,
        nodes,
        k=n_neighbors,
        keep_similarities=weights != {"constant"},
        memory_budget_bytes=graph.memory_budget_bytes,
    )
    n_nodes = len(completed.neighbors)
    del training, test
    # The runs share this time.
    seconds = {
        "reading": reading / len(group.runs),
        "graph": watch.seconds / len(group.runs),
    }
    for run in group.runs:
        watch = Stopwatch()
        k = run.settings["k"]
        parameters = work.settings.diffusion_of(run, group.n_iterations)
        is_measured = run.key in group.measured
        scores = diffusion_scores(
            first_columns(completed.neighbors, k),
            None if completed.similarities is None else first_columns(completed.similarities, k),
            first_columns(completed.test_neighbors.indices, k),
            selection,
            parameters,
            every_step=is_measured or group.kept.get(run.key) != group.n_iterations,
        )
        propagated = watch.seconds
        entries = []
        for iteration, of_step in zip(
            scores.iterations.tolist(), scores.scores_per_iteration, strict=True
        ):
            work.keep(run, iteration, of_step)
            if is_measured:
                entries.append({"iteration": iteration, **work.accuracies(of_step)})
        if entries:
            yield (
                run.key,
                work.metrics(
                    entries,
                    {**seconds, "diffusion": propagated},
                    "iteration",
                    n_nodes,
                    graph={**asdict(graph), "k": k, "n_background": unlabeled.n_background},
                    diffusion=asdict(parameters),
                ),
            )


_METHODS: dict[str, Callable[[_Work], Iterator[tuple[str, dict[str, Any]]]]] = {
    "nearest_class_mean": _nearest_class_mean,
    "nearest_neighbors": _nearest_neighbors,
    "label_spreading": _label_spreading,
    "logistic_regression": _logistic_regression,
    "diffusion": _diffusion,
}


def _n_nodes(run: Run, data: SweepData) -> int:
    assert run.unlabeled is not None
    counts = data.counts[run.mode, run.n_labeled]
    return counts.n_labeled + data.rows_of(run.unlabeled, run.mode, run.n_labeled)


def memory_bytes(group: Group, settings: Settings, data: SweepData) -> int:
    """How much memory the process that does a group will take, about.

    Args:
        group: Of one method.
        settings: All parameters.
        data: Sizes.
    """
    run = group.runs[0]
    counts = data.counts[run.mode, run.n_labeled]
    n_labeled, n_test, n_classes = counts.n_labeled, counts.n_test, counts.n_classes
    scores = 4 * n_test * n_classes
    if run.method == "combined":
        return _PROCESS_BYTES + 5 * scores
    if run.unlabeled is None:
        features = 4 * (n_labeled + n_test) * data.n_features
        weights = 4 * len(group.runs) * n_classes * data.n_features
        return _PROCESS_BYTES + 2 * features + 4 * weights + 3 * scores
    n_nodes = _n_nodes(run, data)
    vectors = 4 * data.n_components * (2 * n_nodes + n_test)
    if run.method == "label_spreading":
        n_neighbors = settings.sweep.label_spreading.n_neighbors
        return _PROCESS_BYTES + vectors + n_nodes * (24 * n_neighbors + 40 * n_classes) + 3 * scores
    k = extended_k(settings.sweep, data, run)
    class_slice = settings.diffusion.class_slice
    width = (
        min(n_classes, class_slice) if isinstance(class_slice, int) and class_slice else n_classes
    )
    n_background = data.background_rows(run.unlabeled)
    in_memory = 8 * data.n_components * (n_nodes - n_background) + 4 * data.n_components * n_test
    codes = (data.n_components + 16) * n_background
    is_weighted = any(member.edge_weight != "constant" for member in group.runs)
    # Neighbours, W and what ordering them takes; with weights as much again.
    graph = ((32 if is_weighted else 16) * k + 24) * n_nodes + 8 * k * n_test
    return (
        _PROCESS_BYTES
        + in_memory
        + max(codes + 4 * k * n_nodes, graph + 8 * width * n_nodes)
        + scores * (group.n_iterations + 2)
    )
