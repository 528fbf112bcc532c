"""Which runs a sweep consists of, what each follows from, and which are computed together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from typing import Any

from lowshot_kedro.errors import InputError
from lowshot_kedro.metrics import GROUPS
from lowshot_kedro.parameters import (
    DiffusionParameters,
    EvaluationParameters,
    GraphParameters,
    LogisticRegressionParameters,
    SweepParameters,
)
from lowshot_kedro.protocol import MODES
from lowshot_kedro.sweep.choice import Hyperparameters
from lowshot_kedro.sweep.runs import Run, UnlabeledImages, labeled_name

# Methods whose hyper-parameters are searched, and those whose scores are combined.
SEARCHED = ("nearest_neighbors", "label_spreading", "logistic_regression", "diffusion")
COMBINED = ("logistic_regression", "diffusion")
_WITH_UNLABELED = ("label_spreading", "diffusion", "combined")

# Of the diffusion, how it is computed and not what.
_EXECUTION = ("class_slice", "memory_budget_gb", "n_iterations")


@dataclass(frozen=True)
class Settings:
    """All parameters that the runs of a sweep follow.

    Raises:
        ValueError: For a `sweep.metric` that is not evaluated.
    """

    sweep: SweepParameters
    graph: GraphParameters
    diffusion: DiffusionParameters
    logistic_regression: LogisticRegressionParameters
    evaluation: EvaluationParameters

    def __post_init__(self) -> None:
        metric, top_k = self.sweep.metric, self.evaluation.top_k
        allowed = [f"top{k}{group}" for group in GROUPS for k in top_k]
        if metric not in allowed:
            raise InputError(
                f"sweep.metric: got {metric!r}, but evaluation.top_k is {list(top_k)}; expected "
                f"one of: {', '.join(allowed)}"
            )

    def diffusion_of(self, run: Run, n_iterations: int) -> DiffusionParameters:
        """The parameters of a run's propagation."""
        return replace(self.diffusion, edge_weight=run.edge_weight, n_iterations=n_iterations)


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
        n_background: Rows of a background by its parameter, None being all.
        n_features: Columns of the features.
        n_components: Columns of the vectors.
        facts: Sizes and checksums of class split, features and transform.
        background_facts: The same of vectors, index and graph, by parameter.
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
        """How many of them are background images."""
        return 0 if unlabeled.kind == "train" else self.n_background[unlabeled.n_background]


@dataclass(frozen=True)
class Group:
    """Runs that are computed together because they share most of their work.

    All are of one method, mode, number of labelled images, seed and kind of unlabelled images:
    diffusion shares its completed graph, logistic regression the batches.

    Attributes:
        runs: The runs.
        n_iterations: Steps or batches to be done; 0 for methods without.
        measured: Keys of the runs whose metrics are wanted.
        kept: The iteration whose scores are kept, by key; 0 for methods without iterations.
    """

    runs: tuple[Run, ...]
    n_iterations: int = 0
    measured: frozenset[str] = frozenset()
    kept: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of the first run, and how many come with it."""
        others = f" and {len(self.runs) - 1} more" if len(self.runs) > 1 else ""
        return self.runs[0].key + others


def validation_runs(sweep: SweepParameters, data: SweepData) -> list[Run]:
    """All runs among which hyper-parameters are chosen."""
    return [
        Run(method, "val", n_labeled, seed, unlabeled, settings)
        for method in SEARCHED
        if method in sweep.methods
        for n_labeled in sweep.n_labeled
        for unlabeled in _unlabeled_images(sweep, method)
        if fits(sweep, data, method, n_labeled, unlabeled)
        for settings in _grid(sweep, data, method, n_labeled, unlabeled)
        for seed in sweep.validation_seeds
    ]


def chosen_runs(sweep: SweepParameters, data: SweepData, chosen: Hyperparameters) -> list[Run]:
    """The test runs of all methods but the combination, with the hyper-parameters chosen.

    Raises:
        ValueError: If they are missing, or ask for more neighbours than the graphs have.
    """
    runs = [
        Run(method, "test", n_labeled, seed, unlabeled, settings)
        for method in sweep.methods
        if method != "combined"
        for n_labeled in sweep.n_labeled
        for unlabeled in _unlabeled_images(sweep, method)
        if fits(sweep, data, method, n_labeled, unlabeled)
        for settings in [_chosen_settings(method, n_labeled, unlabeled, chosen)]
        for seed in sweep.seeds
    ]
    for run in runs:
        _require_possible_neighbors(run, sweep, data)
    return runs


def largest_k(sweep: SweepParameters) -> int:
    """Neighbours of the graphs that are stored; runs use the first of them."""
    return max(sweep.diffusion.k)


def possible_k(
    sweep: SweepParameters,
    data: SweepData,
    method: str,
    n_labeled: int | None,
    unlabeled: UnlabeledImages | None,
) -> tuple[int, ...]:
    """The numbers of neighbours of a method's grid that are no more than there are images.

    They are the same in both modes, or there would be nothing to choose from.

    Args:
        sweep: The grid.
        data: How many images there are.
        method: nearest_neighbors or diffusion.
        n_labeled: Labelled images of every novel class; None: all.
        unlabeled: Unlabelled images, None for methods without.
    """
    ks = sweep.diffusion.k if method == "diffusion" else sweep.nearest_neighbors.k
    n_images = min(data.n_images(n_labeled, unlabeled))
    return tuple(k for k in ks if k <= n_images)


def extended_k(sweep: SweepParameters, data: SweepData, run: Run) -> int:
    """Neighbours of the completed graph that all runs of a group of the diffusion share."""
    return max(possible_k(sweep, data, "diffusion", run.n_labeled, run.unlabeled))


def _require_possible_neighbors(run: Run, sweep: SweepParameters, data: SweepData) -> None:
    """A file that people may change can ask for more neighbours than the graphs have."""
    if run.method != "diffusion":
        return
    most = extended_k(sweep, data, run)
    if run.settings["k"] > most:
        assert run.unlabeled is not None
        raise InputError(
            f"hyperparameters: diffusion.{labeled_name(run.n_labeled)}.{run.unlabeled.name}.k is "
            f"{run.settings['k']}, but graphs are stored for sweep.diffusion.k up to {most}; "
            "expected no more, or a larger one in that list where there are as many images"
        )


def combined_runs(
    sweep: SweepParameters, data: SweepData, mode: str, chosen: Hyperparameters
) -> list[Run]:
    """The runs of the combination; none if it is not asked for."""
    if "combined" not in sweep.methods:
        return []
    return [
        Run(
            "combined", mode, n_labeled, seed, unlabeled,
            _chosen_settings("diffusion", n_labeled, unlabeled, chosen),
        )
        for n_labeled in sweep.n_labeled
        for unlabeled in sweep.unlabeled_images
        if fits(sweep, data, "diffusion", n_labeled, unlabeled)
        for seed in (sweep.seeds if mode == "test" else sweep.validation_seeds)
    ]  # fmt: skip


def parts_of(run: Run, chosen: Hyperparameters) -> dict[str, Run]:
    """The two runs that a combined one puts together, by method."""
    return {
        method: replace(
            run,
            method=method,
            unlabeled=run.unlabeled if method in _WITH_UNLABELED else None,
            settings=_chosen_settings(method, run.n_labeled, run.unlabeled, chosen),
        )
        for method in COMBINED
    }


def iterations_of(run: Run, chosen: Hyperparameters) -> int:
    """The iteration chosen for a run; 0 for methods without."""
    if run.method not in COMBINED:
        return 0
    name = "n_iterations" if run.method == "diffusion" else "max_iterations"
    return int(chosen.of(run.method, run.n_labeled, run.unlabeled)[name])


def _unlabeled_images(sweep: SweepParameters, method: str) -> Sequence[UnlabeledImages | None]:
    return sweep.unlabeled_images if method in _WITH_UNLABELED else [None]


def _grid(
    sweep: SweepParameters,
    data: SweepData,
    method: str,
    n_labeled: int | None,
    unlabeled: UnlabeledImages | None,
) -> list[dict[str, Any]]:
    if method == "logistic_regression":
        grid = sweep.logistic_regression
        names = ("lr", "weight_decay", "batch_size")
        values: list[tuple[Any, ...]] = [
            (lr, decay, size)
            for size, lr, decay in product(grid.batch_size, grid.lr, grid.weight_decay)
        ]
        return [dict(zip(names, value, strict=True)) for value in values]
    if method == "diffusion":
        ks = possible_k(sweep, data, method, n_labeled, unlabeled)
        pairs = product(ks, sweep.diffusion.edge_weight)
        return [_diffusion_settings(k, edge_weight) for k, edge_weight in pairs]
    if method == "label_spreading":
        return [{"alpha": alpha} for alpha in sweep.label_spreading.alpha]
    return [{}]


def _diffusion_settings(k: int, edge_weight: str) -> dict[str, Any]:
    return {"k": k} | ({} if edge_weight == "constant" else {"edge_weight": edge_weight})


def _chosen_settings(
    method: str,
    n_labeled: int | None,
    unlabeled: UnlabeledImages | None,
    chosen: Hyperparameters,
) -> dict[str, Any]:
    if method in ("nearest_class_mean", "nearest_neighbors"):
        return {}
    values = chosen.of(method, n_labeled, unlabeled if method in _WITH_UNLABELED else None)
    if method == "diffusion":
        return _diffusion_settings(values["k"], values["edge_weight"])
    names = {
        "logistic_regression": ("lr", "weight_decay", "batch_size"),
        "label_spreading": ("alpha",),
    }[method]
    return {name: values[name] for name in names}


def fits(
    sweep: SweepParameters,
    data: SweepData,
    method: str,
    n_labeled: int | None,
    unlabeled: UnlabeledImages | None,
) -> bool:
    """Whether a method can do these sets of images in both modes."""
    n_images = data.n_images(n_labeled, unlabeled)
    if method in ("nearest_neighbors", "diffusion"):
        return bool(possible_k(sweep, data, method, n_labeled, unlabeled))
    if method == "label_spreading":
        spreading = sweep.label_spreading
        return min(n_images) >= spreading.n_neighbors and max(n_images) <= spreading.max_images
    return True


def possible_methods(sweep: SweepParameters, data: SweepData) -> list[str]:
    """The methods that can do some of the sets of images."""
    return [
        method
        for method in sweep.methods
        if method != "combined"
        if any(
            fits(sweep, data, method, n_labeled, unlabeled)
            for n_labeled in sweep.n_labeled
            for unlabeled in _unlabeled_images(sweep, method)
        )
    ]


def made_from(run: Run, n_iterations: int, settings: Settings, data: SweepData) -> dict[str, Any]:
    """All that the metrics of a run follow from, but for the combination."""
    facts = {
        **_followed(run, settings, data),
        "top_k": list(settings.evaluation.top_k),
    }
    if run.method in COMBINED:
        facts["n_iterations"] = n_iterations
    if run.method == "logistic_regression":
        facts["eval_every"] = settings.sweep.logistic_regression.eval_every
    if run.method == "nearest_neighbors":
        facts["k"] = list(possible_k(settings.sweep, data, run.method, run.n_labeled, None))
    return facts


def scores_made_from(
    run: Run, iteration: int, settings: Settings, data: SweepData
) -> dict[str, Any]:
    """All that the scores of a run after an iteration follow from."""
    return {**_followed(run, settings, data), "iteration": iteration}


def combination_made_from(
    run: Run, chosen: Hyperparameters, settings: Settings, data: SweepData
) -> dict[str, Any]:
    """All that the metrics of a combination follow from."""
    return {
        "parts": {
            method: scores_made_from(part, iterations_of(part, chosen), settings, data)
            for method, part in parts_of(run, chosen).items()
        },
        "weights": list(settings.sweep.combination_weights),
        "top_k": list(settings.evaluation.top_k),
    }


def _followed(run: Run, settings: Settings, data: SweepData) -> dict[str, Any]:
    facts: dict[str, Any] = {"run": run.key, "data": dict(data.facts)}
    if run.method == "logistic_regression":
        facts["momentum"] = settings.logistic_regression.momentum
    if run.method == "label_spreading":
        grid = asdict(settings.sweep.label_spreading)
        facts["label_spreading"] = {name: grid[name] for name in ("n_neighbors", "max_iterations")}
    if run.method == "diffusion":
        parameters = asdict(settings.diffusion_of(run, 0))
        facts["diffusion"] = {
            name: value for name, value in parameters.items() if name not in _EXECUTION
        }
        facts["completed_k"] = extended_k(settings.sweep, data, run)
    if run.unlabeled is not None and run.unlabeled.kind != "train":
        background = data.background_facts[run.unlabeled.n_background]
        # Label spreading makes a graph of its own.
        used = background if run.method == "diffusion" else {"vectors": background["vectors"]}
        facts["background"] = dict(used)
    elif run.method == "diffusion":
        facts["graph"] = {
            name: getattr(settings.graph, name) for name in ("method", "target_recall")
        }
    return facts


def groups_of(runs: Sequence[Run]) -> list[tuple[Run, ...]]:
    """Runs that are computed together, in the order of their first ones."""
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        shared: tuple[Any, ...] = (
            run.method, run.mode, run.n_labeled, run.seed, run.unlabeled
        )  # fmt: skip
        if run.method == "logistic_regression":
            shared += (run.settings["batch_size"],)
        groups.setdefault(shared, []).append(run)
    return [tuple(group) for group in groups.values()]
