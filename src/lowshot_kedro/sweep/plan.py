"""Which runs a sweep consists of, what each follows from, and which are computed together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lowshot_kedro.errors import InputError
from lowshot_kedro.graph.parameters import GraphParameters
from lowshot_kedro.methods import METHODS, Method, Options
from lowshot_kedro.methods.method import Sizes
from lowshot_kedro.metrics import GROUPS, EvaluationParameters
from lowshot_kedro.protocol import MODES
from lowshot_kedro.sweep.choice import Hyperparameters
from lowshot_kedro.sweep.parameters import SweepParameters
from lowshot_kedro.sweep.runs import Run, UnlabeledImages, labeled_name


@dataclass(frozen=True)
class SweepSettings:
    """All parameters that the runs of a sweep follow.

    Attributes:
        sections: By name: `sweep`, `graph`, `evaluation`, and those of the methods.

    Raises:
        ValueError: For a `sweep.metric` that is not evaluated.
    """

    sections: Mapping[str, Any]

    def __post_init__(self) -> None:
        metric, top_k = self.sweep.metric, self.evaluation.top_k
        allowed = [f"top{k}{group}" for group in GROUPS for k in top_k]
        if metric not in allowed:
            raise InputError(
                f"but evaluation.top_k is {list(top_k)}",
                parameter="sweep.metric",
                found=metric,
                expected=f"one of: {', '.join(allowed)}",
            )

    @property
    def sweep(self) -> SweepParameters:
        """What is searched, repeated and compared."""
        sweep: SweepParameters = self.sections["sweep"]
        return sweep

    @property
    def graph(self) -> GraphParameters:
        """How graphs are built."""
        graph: GraphParameters = self.sections["graph"]
        return graph

    @property
    def evaluation(self) -> EvaluationParameters:
        """Which accuracies are measured."""
        evaluation: EvaluationParameters = self.sections["evaluation"]
        return evaluation

    def options(self, method: str) -> Options:
        """What the runs of a method follow besides their settings."""
        return Options(self.sweep.grids.get(method), self.sections)


@dataclass(frozen=True)
class ImageCounts:
    """How many images of what kind a choice of images has."""

    n_labeled: int
    n_unlabeled: int
    n_test: int
    n_classes: int


@dataclass(frozen=True)
class SweepData:
    """What a sweep runs on: sizes, and what tells these data from others.

    Attributes:
        counts: By mode and labelled images of a novel class.
        n_background: Rows of each background by `graph.n_background`, None being all.
        n_features: Columns of the features.
        n_components: Columns of the vectors.
        facts: Sizes and checksums of class split, features and transform.
        background_facts: Sizes and checksums of vectors, index and graph, by `graph.n_background`.
    """

    counts: Mapping[tuple[str, int | None], ImageCounts]
    n_background: Mapping[int | None, int]
    n_features: int
    n_components: int
    facts: Mapping[str, Any]
    background_facts: Mapping[int | None, Mapping[str, Any]]

    def rows_of(self, unlabeled: UnlabeledImages, mode: str, n_labeled: int | None) -> int:
        """How many unlabelled images there are."""
        counts = self.counts[mode, n_labeled]
        n_training = 0 if unlabeled.kind == "background" else counts.n_unlabeled
        return n_training + self.background_rows(unlabeled)

    def n_images(self, n_labeled: int | None, unlabeled: UnlabeledImages | None) -> tuple[int, ...]:
        """How many labelled and unlabelled images there are, in each mode."""
        return tuple(
            self.counts[mode, n_labeled].n_labeled
            + (0 if unlabeled is None else self.rows_of(unlabeled, mode, n_labeled))
            for mode in MODES
        )

    def background_rows(self, unlabeled: UnlabeledImages) -> int:
        """How many background images there are among the unlabelled ones."""
        return 0 if unlabeled.kind == "train" else self.n_background[unlabeled.n_background]


@dataclass(frozen=True)
class Group:
    """Runs that are computed together because they share most of their work.

    All are of one method, mode, number of labelled images, seed and kind of unlabelled images, and
    of the settings that a method shares.

    Attributes:
        runs: The runs.
        n_steps: Steps to be done; 0 for methods without.
        measured: Keys of the runs whose metrics are wanted.
        kept: The step after which scores are kept, by key; 0 for methods without steps.
    """

    runs: tuple[Run, ...]
    n_steps: int = 0
    measured: frozenset[str] = frozenset()
    kept: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Key of the first run, and how many other runs come with it."""
        others = f" and {len(self.runs) - 1} more" if len(self.runs) > 1 else ""
        return self.runs[0].key + others


def validation_runs(sweep: SweepParameters, data: SweepData) -> list[Run]:
    """All runs among which hyper-parameters are chosen."""
    return [
        Run(name, "val", n_labeled, seed, unlabeled, METHODS[name].without_usual(settings))
        for name in _in_order(sweep)
        if not METHODS[name].parts and METHODS[name].expected()
        for n_labeled, unlabeled in possible_images(sweep, data, METHODS[name])
        for settings in _candidates(sweep, data, METHODS[name], n_labeled, unlabeled)
        for seed in sweep.validation_seeds
    ]


def chosen_runs(sweep: SweepParameters, data: SweepData, chosen: Hyperparameters) -> list[Run]:
    """The test runs of all methods but combinations, with the hyper-parameters chosen.

    Raises:
        ValueError: If they are missing, or ask for more neighbours than the graphs have.
    """
    runs = [
        Run(name, "test", n_labeled, seed, unlabeled, settings)
        for name in sweep.methods
        if not METHODS[name].parts
        for n_labeled, unlabeled in possible_images(sweep, data, METHODS[name])
        for settings in [_chosen_settings(name, n_labeled, unlabeled, chosen)]
        for seed in sweep.seeds
    ]
    for run in runs:
        _require_possible_neighbors(run, sweep, data)
    return runs


def combined_runs(
    sweep: SweepParameters, data: SweepData, mode: str, chosen: Hyperparameters
) -> list[Run]:
    """The runs of the combinations that are asked for."""
    return [
        Run(name, mode, n_labeled, seed, unlabeled, settings)
        for name in sweep.methods
        if METHODS[name].parts
        for n_labeled, unlabeled in possible_images(sweep, data, _first_part(name))
        for settings in [_chosen_settings(_first_part(name).name, n_labeled, unlabeled, chosen)]
        for seed in (sweep.seeds if mode == "test" else sweep.validation_seeds)
    ]


def parts_of(run: Run, chosen: Hyperparameters) -> dict[str, Run]:
    """The runs that a combined one puts together, by method."""
    return {
        part: replace(
            run,
            method=part,
            unlabeled=run.unlabeled if METHODS[part].uses_unlabeled else None,
            settings=_chosen_settings(part, run.n_labeled, run.unlabeled, chosen),
        )
        for part in METHODS[run.method].parts
    }


def combined_methods(sweep: SweepParameters) -> set[str]:
    """The methods whose scores are kept to be combined."""
    return {part for name in sweep.methods for part in METHODS[name].parts}


def largest_k(sweep: SweepParameters) -> int:
    """Neighbours of the graphs that are stored; runs use the first of them."""
    return max((METHODS[name].max_neighbors(grid) for name, grid in sweep.grids.items()), default=1)


def possible_images(
    sweep: SweepParameters, data: SweepData, method: Method
) -> list[tuple[int | None, UnlabeledImages | None]]:
    """The numbers of labelled images and the unlabelled ones that a method can do in both modes."""
    return [
        (n_labeled, unlabeled)
        for n_labeled in sweep.n_labeled
        for unlabeled in unlabeled_images(sweep, method)
        if method.fits(sweep.grids.get(method.name), data.n_images(n_labeled, unlabeled))
    ]


def unlabeled_images(sweep: SweepParameters, method: Method) -> Sequence[UnlabeledImages | None]:
    """The unlabelled images that a method is run with; None for a method without."""
    return sweep.unlabeled_images if method.uses_unlabeled else [None]


def possible_methods(sweep: SweepParameters, data: SweepData) -> list[str]:
    """The methods that can do some of the sets of images."""
    return [
        name
        for name in sweep.methods
        if not METHODS[name].parts and possible_images(sweep, data, METHODS[name])
    ]


def steps_of(run: Run, chosen: Hyperparameters) -> int:
    """The number of steps chosen for a run; 0 for methods without."""
    axis = METHODS[run.method].axis
    if axis is None or not axis.is_steps:
        return 0
    return int(chosen.of(run.method, run.n_labeled, run.unlabeled)[axis.parameter])


def _in_order(sweep: SweepParameters) -> list[str]:
    """The methods of a sweep in the order of the registry."""
    return [name for name in METHODS if name in sweep.methods]


def _first_part(method: str) -> Method:
    return METHODS[METHODS[method].parts[0]]


def _candidates(
    sweep: SweepParameters,
    data: SweepData,
    method: Method,
    n_labeled: int | None,
    unlabeled: UnlabeledImages | None,
) -> list[dict[str, Any]]:
    # The settings are the same in both modes, or there would be nothing to choose from.
    n_images = min(data.n_images(n_labeled, unlabeled))
    return method.candidates(sweep.grids.get(method.name), n_images)


def _chosen_settings(
    name: str,
    n_labeled: int | None,
    unlabeled: UnlabeledImages | None,
    chosen: Hyperparameters,
) -> dict[str, Any]:
    method = METHODS[name]
    if not method.settings:
        return {}
    values = chosen.of(name, n_labeled, unlabeled if method.uses_unlabeled else None)
    return method.without_usual(values)


def _require_possible_neighbors(run: Run, sweep: SweepParameters, data: SweepData) -> None:
    """Refuse more neighbours than the graphs have; a file that people change can ask for them."""
    most = METHODS[run.method].max_neighbors(sweep.grids.get(run.method))
    if not most:
        return
    most = min(most, *data.n_images(run.n_labeled, run.unlabeled))
    if run.settings["k"] > most:
        assert run.unlabeled is not None
        raise InputError(
            f"hyperparameters: {run.method}.{labeled_name(run.n_labeled)}.{run.unlabeled.name}.k "
            f"is {run.settings['k']}, but graphs are stored for sweep.{run.method}.k up to {most}; "
            "expected no more, or a larger one in that list where there are as many images"
        )


def provenance(run: Run, n_steps: int, settings: SweepSettings, data: SweepData) -> dict[str, Any]:
    """All that the metrics of a run follow from, but for a combination."""
    method = METHODS[run.method]
    facts = {
        **_followed(run, settings, data),
        "top_k": list(settings.evaluation.top_k),
        **method.places_provenance(settings.options(run.method), _n_images(run, data)),
    }
    if method.axis is not None and method.axis.is_steps:
        facts["n_iterations"] = n_steps
    return facts


def scores_provenance(
    run: Run, step: int, settings: SweepSettings, data: SweepData
) -> dict[str, Any]:
    """All that the scores of a run after a step follow from."""
    return {**_followed(run, settings, data), "iteration": step}


def combination_provenance(
    run: Run, chosen: Hyperparameters, settings: SweepSettings, data: SweepData
) -> dict[str, Any]:
    """All that the metrics of a combination follow from."""
    return {
        "parts": {
            method: scores_provenance(part, steps_of(part, chosen), settings, data)
            for method, part in parts_of(run, chosen).items()
        },
        "weights": list(settings.sweep.combination_weights),
        "top_k": list(settings.evaluation.top_k),
    }


def _followed(run: Run, settings: SweepSettings, data: SweepData) -> dict[str, Any]:
    method = METHODS[run.method]
    facts: dict[str, Any] = {
        "run": run.key,
        "data": dict(data.facts),
        **method.provenance(run.settings, settings.options(run.method), _n_images(run, data)),
    }
    if run.unlabeled is not None and run.unlabeled.kind != "train":
        background = data.background_facts[run.unlabeled.n_background]
        # A method that needs vectors alone makes a graph of its own.
        used = background if method.needs == "graph" else {"vectors": background["vectors"]}
        facts["background"] = dict(used)
    elif method.needs == "graph":
        facts["graph"] = {
            name: getattr(settings.graph, name) for name in ("method", "target_recall")
        }
    return facts


def _n_images(run: Run, data: SweepData) -> int:
    return min(data.n_images(run.n_labeled, run.unlabeled))


def sizes_of(run: Run, data: SweepData) -> Sizes:
    """How large the data of a run are."""
    counts = data.counts[run.mode, run.n_labeled]
    unlabeled = run.unlabeled
    return Sizes(
        n_labeled=counts.n_labeled,
        n_unlabeled=0 if unlabeled is None else data.rows_of(unlabeled, run.mode, run.n_labeled),
        n_background=0 if unlabeled is None else data.background_rows(unlabeled),
        n_test=counts.n_test,
        n_classes=counts.n_classes,
        n_features=data.n_features,
        n_components=data.n_components,
    )


def groups_of(runs: Sequence[Run]) -> list[tuple[Run, ...]]:
    """Runs that are computed together, in the order of their first ones."""
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        shared = (
            run.method, run.mode, run.n_labeled, run.seed, run.unlabeled,
            *(run.settings[name] for name in METHODS[run.method].shared),
        )  # fmt: skip
        groups.setdefault(shared, []).append(run)
    return [tuple(group) for group in groups.values()]
