"""The choice of hyper-parameters: the best on the validation classes, mean over their seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from lowshot_kedro.errors import InputError, shown
from lowshot_kedro.sweep.runs import AXES, Run, UnlabeledImages, labeled_name

Metrics = Mapping[str, Callable[[], Mapping[str, Any]]]

# How the place along a method's axis is called as a parameter.
_CHOSEN_NAMES = {
    "nearest_neighbors": "k",
    "logistic_regression": "max_iterations",
    "diffusion": "n_iterations",
    "combined": "combination_weight",
}

_MAX_COUNT = 2**31 - 1
# Its square is a number of single precision.
_MAX_RATE = 1e18

_COUNT, _STEPS = f"an integer from 1 to {_MAX_COUNT}", f"an integer from 0 to {_MAX_COUNT}"
_NAME = "a name"
_RATE, _PART = f"a number from 0 to {_MAX_RATE:g}", "a number above 0 and below 1"
# What has to stand in the file of the hyper-parameters, which people may change.
_EXPECTED = {
    "nearest_neighbors": {"k": _COUNT},
    "label_spreading": {"alpha": _PART},
    "logistic_regression": {
        "lr": _RATE, "weight_decay": _RATE, "batch_size": _COUNT, "max_iterations": _COUNT,
    },
    "diffusion": {"k": _COUNT, "edge_weight": _NAME, "n_iterations": _STEPS},
    "combined": {"combination_weight": _RATE},
}  # fmt: skip
_TYPES: dict[str, type] = {_COUNT: Integral, _STEPS: Integral, _RATE: Real, _PART: Real}
_IN_RANGE: dict[str, Callable[[Any], bool]] = {
    _COUNT: lambda value: 1 <= value <= _MAX_COUNT,
    _STEPS: lambda value: 0 <= value <= _MAX_COUNT,
    _RATE: lambda value: 0 <= value <= _MAX_RATE,
    _PART: lambda value: 0 < value < 1,
}


def _is_valid(value: Any, expected: str) -> bool:
    if expected == _NAME:
        return isinstance(value, str)
    is_number = isinstance(value, _TYPES[expected]) and not isinstance(value, bool)
    return is_number and _IN_RANGE[expected](value)


class Hyperparameters:
    """What was chosen, by method, number of labelled images, and unlabelled images.

    Args:
        content: As it stands in the YAML file: `diffusion: {nl2: {nbg1000000: {k: 30, …}}}`.
    """

    def __init__(self, content: Mapping[str, Any]) -> None:
        self.content = content

    def of(
        self, method: str, n_labeled: int | None, unlabeled: UnlabeledImages | None = None
    ) -> Mapping[str, Any]:
        """The values of one method.

        Raises:
            ValueError: If they are missing, or are no values.
        """
        names = [method, labeled_name(n_labeled), *([] if unlabeled is None else [unlabeled.name])]
        values: Any = self.content
        for depth, name in enumerate(names):
            if not isinstance(values, Mapping) or name not in values:
                place = ".".join(names[: depth + 1])
                raise InputError(
                    f"hyperparameters: {place} is missing; choose it with: kedro run --pipelines "
                    "sweep_validation (which writes no file that was changed by hand: remove it, "
                    "or write down what is missing)"
                )
            values = values[name]
        place = ".".join(names)
        if not isinstance(values, Mapping):
            raise InputError(
                f"hyperparameters: {place} is {shown(values)}, expected names and values"
            )
        for name, expected in _EXPECTED[method].items():
            if not _is_valid(values.get(name), expected):
                raise InputError(
                    f"hyperparameters: {place}.{name} is {shown(values.get(name))}, expected "
                    f"{expected}"
                )
        return values


def entries_of(run: Run, metrics: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What a run measured: an entry for every iteration, k or weight, or its only one."""
    axis = AXES.get(run.method)
    entries: list[Mapping[str, Any]] = metrics[f"per_{axis}"] if axis else [metrics["final"]]
    return entries


def entry_at(run: Run, metrics: Mapping[str, Any], chosen: Hyperparameters) -> Mapping[str, Any]:
    """The entry of a run that was chosen on the validation classes.

    Raises:
        ValueError: If it has none such.
    """
    entries = entries_of(run, metrics)
    if run.method not in _CHOSEN_NAMES:
        return entries[0]
    name, axis = _CHOSEN_NAMES[run.method], AXES[run.method]
    wanted = chosen.of(run.method, run.n_labeled, run.unlabeled)[name]
    for entry in entries:
        if entry[axis] == wanted:
            return entry
    raise InputError(
        f"hyperparameters: {run.method} {name} = {wanted} was not run; {run.key} has "
        f"{axis} {entries[0][axis]} to {entries[-1][axis]}"
    )


def choose(runs: Sequence[Run], metrics: Metrics, metric: str) -> dict[str, Any]:
    """The best settings of each method, number of labelled images, and unlabelled images.

    Best is the highest mean over the validation seeds; of equals the one that comes first in the
    grid, and of a run's entries the earliest.

    Args:
        runs: The validation runs.
        metrics: A function for every run that reads its metrics.
        metric: Which accuracy, for instance `top5`.

    Returns:
        As :class:`Hyperparameters` holds it; with each the accuracy it was chosen for.

    Raises:
        ValueError: If a run is missing, or has no such accuracy.
    """
    candidates: dict[tuple[str, ...], dict[tuple[Any, ...], list[float]]] = {}
    for run in runs:
        place = [run.method, labeled_name(run.n_labeled)]
        if run.unlabeled is not None:
            place.append(run.unlabeled.name)
        of_place = candidates.setdefault(tuple(place), {})
        for settings, accuracy in accuracies_of(run, metrics_of(run, metrics), metric):
            of_place.setdefault(tuple(settings.items()), []).append(accuracy)
    chosen: dict[str, Any] = {}
    for place_names, of_place in candidates.items():
        # Means that differ by rounding alone are equal.
        means = {
            settings: round(sum(found) / len(found), 12) for settings, found in of_place.items()
        }
        best = max(means, key=means.__getitem__)
        section = chosen
        for name in place_names[:-1]:
            section = section.setdefault(name, {})
        section[place_names[-1]] = {**dict(best), metric: round(means[best], 6)}
    return chosen


def metrics_of(run: Run, metrics: Metrics) -> Mapping[str, Any]:
    """Read the metrics of a run.

    Raises:
        ValueError: If the run is missing, with the command that makes it.
    """
    if run.key not in metrics:
        pipeline = "sweep_test" if run.mode == "test" else "sweep_validation"
        raise InputError(
            f"{run.key}: this run is missing; make it with: kedro run --pipelines {pipeline}"
        )
    return metrics[run.key]()


def accuracies_of(
    run: Run, metrics: Mapping[str, Any], metric: str
) -> list[tuple[dict[str, Any], float]]:
    """Settings as they are chosen, and their accuracy, for every entry of a run.

    Raises:
        ValueError: If the run has no such accuracy.
    """
    settings = dict(run.settings)
    if run.method == "diffusion":
        settings["edge_weight"] = run.edge_weight
    axis, name = AXES.get(run.method), _CHOSEN_NAMES.get(run.method)
    if run.method == "combined":
        settings = {}
    found = []
    for entry in entries_of(run, metrics):
        accuracy = entry.get(metric)
        if accuracy is None:
            raise InputError(
                f"sweep.metric: got {metric!r}, but {run.key} has none: no test image belongs to it"
            )
        place = {} if axis is None or name is None else {name: entry[axis]}
        found.append(({**settings, **place}, float(accuracy)))
    return found
