"""What a worker does: a group of runs, from the data to metrics and scores."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.blocks import FeatureMatrix
from lowshot_kedro.graph import UnlabeledNodes
from lowshot_kedro.memory import recent_peak_rss_bytes, restart_peak
from lowshot_kedro.methods import METHODS, ChosenImages, Outcome, Work
from lowshot_kedro.metrics import Scores, accuracies, build_metrics
from lowshot_kedro.protocol import ExperimentParameters, choose_images
from lowshot_kedro.sweep import plan
from lowshot_kedro.sweep.choice import Hyperparameters
from lowshot_kedro.sweep.plan import Group, SweepData, SweepSettings
from lowshot_kedro.sweep.runs import Run

# What the libraries take in a process before there is any data.
_PROCESS_BYTES = 1_000_000_000

Results = dict[str, dict[str, Any]]


class Inputs(Protocol):
    """The data of a sweep, sent to a worker closed; each part is opened when it is asked for."""

    @property
    def class_split(self) -> Mapping[str, Any]:
        """Content of the class split file."""
        ...

    @property
    def train_features(self) -> FeatureMatrix:
        """Features and labels of the training set."""
        ...

    @property
    def test_features(self) -> FeatureMatrix:
        """Features and labels of the test set."""
        ...

    @property
    def pca_transform(self) -> faiss.VectorTransform:
        """The PCA that turns features into vectors."""
        ...

    def background(self, n_background: int | None, k: int) -> UnlabeledNodes:
        """The first n_background background images, None being all, with index and graph."""
        ...


class ScoreStore(Protocol):
    """Keeps the scores of runs for those that combine them."""

    def read(self, key: str, provenance: Mapping[str, Any]) -> NDArray[np.float32] | None:
        """The scores of a run, float32 (T, C); None if there are none of that provenance."""
        ...

    def has(self, key: str, provenance: Mapping[str, Any]) -> bool:
        """Whether there are scores of a run of that provenance."""
        ...

    def write(self, key: str, provenance: Mapping[str, Any], scores: NDArray[np.float32]) -> None:
        """Keep the scores of a run, float32 (T, C)."""
        ...

    def unfinished(self, key: str) -> AbstractContextManager[Path]:
        """A file for what a run has done so far, in a folder that is there, for one process."""
        ...


@dataclass(frozen=True)
class _Vectors:
    """Inputs as the methods see them: the sweep knows how many neighbours are stored."""

    inputs: Inputs
    stored_k: int

    @property
    def pca_transform(self) -> faiss.VectorTransform:
        """The PCA that turns features into vectors."""
        return self.inputs.pca_transform

    def background(self, n_background: int | None) -> UnlabeledNodes:
        """The first n_background background images, with index and graph."""
        return self.inputs.background(n_background, self.stored_k)


class _GroupOfRuns:
    """A group of runs with its images, and what it measures."""

    def __init__(
        self, group: Group, inputs: Inputs, settings: SweepSettings, data: SweepData
    ) -> None:
        run = group.runs[0]
        self.group, self.settings, self.data = group, settings, data
        self.method = METHODS[run.method]
        self.experiment = experiment_of(run)
        self.images = ChosenImages(
            choose_images(
                inputs.class_split, inputs.train_features, inputs.test_features, self.experiment
            ),
            inputs.train_features,
            inputs.test_features,
            run.seed,
            self.experiment.unlabeled,
            None if run.unlabeled is None else run.unlabeled.n_background,
            _Vectors(inputs, plan.largest_k(settings.sweep)),
        )

    def entry(self, place: Any, scores: NDArray[np.float32]) -> dict[str, Any]:
        """Accuracies of all test images, with the place along the axis."""
        selection, axis = self.images.selection, self.method.axis
        found: dict[str, Any] = {} if axis is None else {axis.name: place}
        top_k = self.settings.evaluation.top_k
        return found | accuracies(scores, selection.test_classes, selection.is_novel, top_k)

    def metrics(self, outcome: Outcome, **described: Any) -> dict[str, Any]:
        """The content of a metrics file."""
        selection, unlabeled = self.images.selection, self.group.runs[0].unlabeled
        no_scores = np.empty((0, len(selection.test_classes), selection.n_classes), "f4")
        experiment = asdict(self.experiment)
        if unlabeled is None:
            del experiment["unlabeled"]
        else:
            experiment["n_background"] = self.data.background_rows(unlabeled)
        metrics = build_metrics(
            Scores.of_selection(no_scores, [], selection),
            outcome.entries,
            experiment={**experiment, **outcome.described, **described},
            n_nodes=outcome.n_nodes,
            seconds=outcome.seconds,
            peak_rss_bytes=recent_peak_rss_bytes(),
        )
        of_axis = metrics.pop("per_iteration")
        if self.method.axis is not None:
            metrics[f"per_{self.method.axis.name}"] = of_axis
        return metrics


def experiment_of(run: Run) -> ExperimentParameters:
    """The parameters that choose the images of a run."""
    unlabeled = "none" if run.unlabeled is None else run.unlabeled.kind
    return ExperimentParameters(run.mode, run.n_labeled, run.seed, unlabeled)


def run_group(
    group: Group, inputs: Inputs, settings: SweepSettings, data: SweepData, store: ScoreStore
) -> Results:
    """Do the runs of a group.

    Args:
        group: Runs of one method.
        inputs: The data.
        settings: All parameters.
        data: Sizes and checksums.
        store: Gets the scores that are to be kept.

    Returns:
        Metrics by key, for the runs that are to be measured. In memory: as :func:`memory_bytes`
        says.
    """
    restart_peak()
    runs = group.runs
    of_group = _GroupOfRuns(group, inputs, settings, data)
    method, options = of_group.method, settings.options(runs[0].method)
    n_images = min(data.n_images(runs[0].n_labeled, runs[0].unlabeled))

    def judge(number: int, place: Any, scores: NDArray[np.float32]) -> dict[str, Any]:
        run, step = runs[number], place or 0
        if group.kept.get(run.key) == step:
            facts = plan.scores_provenance(run, step, settings, data)
            store.write(run.key, facts, scores)
        return of_group.entry(place, scores) if run.key in group.measured else {}

    work = Work(
        images=of_group.images,
        settings=[run.settings for run in runs],
        options=options,
        judge=judge,
        places=method.places(options.grid, n_images),
        n_steps=group.n_steps,
        n_images=n_images,
        names=[run.key for run in runs],
        is_measured=bool(group.measured) or set(group.kept.values()) != {group.n_steps},
        unfinished=lambda: store.unfinished(runs[0].key),
        provenance={
            run.key: plan.provenance(run, 0, settings, data)
            for run in runs
            if run.key in group.measured
        },
    )
    return {
        runs[outcome.run].key: of_group.metrics(outcome)
        for outcome in method.run(work)
        if runs[outcome.run].key in group.measured
    }


def run_combination(
    run: Run,
    inputs: Inputs,
    settings: SweepSettings,
    data: SweepData,
    store: ScoreStore,
    chosen: Hyperparameters,
) -> Results:
    """Combine scores of several runs at all weights.

    Raises:
        RuntimeError: If scores are missing.
    """
    restart_peak()
    of_run = _GroupOfRuns(Group((run,)), inputs, settings, data)
    parts, parameters = {}, {}
    for name, part in plan.parts_of(run, chosen).items():
        steps = plan.steps_of(part, chosen)
        scores = store.read(part.key, plan.scores_provenance(part, steps, settings, data))
        if scores is None:
            raise RuntimeError(f"{run.key}: the scores of {part.key} are missing")
        parts[name] = METHODS[name].probabilities(scores)
        parameters[name] = {**part.settings, "n_iterations": steps}
    work = Work(
        images=of_run.images,
        settings=[run.settings],
        options=settings.options(run.method),
        judge=lambda _, place, scores: of_run.entry(place, scores),
        places=settings.sweep.combination_weights,
        names=[run.key],
        parts=parts,
    )
    (outcome,) = of_run.method.run(work)
    n_nodes = plan.sizes_of(run, data).n_nodes
    return {run.key: of_run.metrics(outcome._replace(n_nodes=n_nodes), **parameters)}


def memory_bytes(group: Group, settings: SweepSettings, data: SweepData) -> int:
    """How much memory the process that does a group will take, about.

    Args:
        group: Runs of one method.
        settings: All parameters.
        data: Sizes.
    """
    run = group.runs[0]
    of_method = METHODS[run.method].memory_bytes(
        plan.sizes_of(run, data),
        [member.settings for member in group.runs],
        settings.options(run.method),
        group.n_steps,
    )
    return _PROCESS_BYTES + of_method
