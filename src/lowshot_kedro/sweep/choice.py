"""The choice of hyper-parameters: the best on the validation classes, mean over their seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lowshot_kedro.errors import InputError, shown
from lowshot_kedro.methods import METHODS
from lowshot_kedro.sweep.runs import Run, UnlabeledImages, labeled_name

Metrics = Mapping[str, Callable[[], Mapping[str, Any]]]


class Hyperparameters:
    """What was chosen, by method, number of labelled images, and unlabelled images.

    Args:
        content: What the YAML file holds: `diffusion: {nl2: {nbg1000000: {k: 30, …}}}`.
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
                    f"hyperparameters: {place} is missing; write it down, or remove the file, "
                    "since one that was changed by hand is not written anew",
                    made_by="sweep_validation",
                )
            values = values[name]
        place = ".".join(names)
        if not isinstance(values, Mapping):
            raise InputError(
                f"hyperparameters: {place} is {shown(values)}, expected names and values"
            )
        for name, expected in METHODS[method].expected().items():
            if not expected.holds(values.get(name)):
                raise InputError(
                    f"hyperparameters: {place}.{name} is {shown(values.get(name))}, expected "
                    f"{expected.text}"
                )
        return values


def entries_of(run: Run, metrics: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What a run measured: an entry for every iteration, k or weight, or its only one."""
    axis = METHODS[run.method].axis
    name = f"per_{axis.name}" if axis else "final"
    if name not in metrics:
        raise InputError(
            f"{run.key}: its metrics have no {name}; remove the file, and run the sweep again"
        )
    entries: list[Mapping[str, Any]] = metrics[name] if axis else [metrics[name]]
    return entries


def entry_at(run: Run, metrics: Mapping[str, Any], chosen: Hyperparameters) -> Mapping[str, Any]:
    """The entry of a run that was chosen on the validation classes.

    Raises:
        ValueError: If the run has no such entry.
    """
    entries = entries_of(run, metrics)
    axis = METHODS[run.method].axis
    if axis is None:
        return entries[0]
    wanted = chosen.of(run.method, run.n_labeled, run.unlabeled)[axis.parameter]
    for entry in entries:
        if entry[axis.name] == wanted:
            return entry
    raise InputError(
        f"hyperparameters: {run.method} {axis.parameter} = {wanted} was not run; {run.key} has "
        f"{axis.name} {entries[0][axis.name]} to {entries[-1][axis.name]}"
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
        raise InputError(f"{run.key}: this run is missing", made_by=pipeline)
    return metrics[run.key]()


def accuracies_of(
    run: Run, metrics: Mapping[str, Any], metric: str
) -> list[tuple[dict[str, Any], float]]:
    """Settings as they are chosen, and their accuracy, for every entry of a run.

    Raises:
        ValueError: If the run has no such accuracy.
    """
    method = METHODS[run.method]
    # Those of a combination are chosen for its parts.
    settings = {} if method.parts else method.with_usual(run.settings)
    found = []
    for entry in entries_of(run, metrics):
        accuracy = entry.get(metric)
        if accuracy is None:
            raise InputError(
                f"sweep.metric: got {metric!r}, but {run.key} has none: no test image belongs to it"
            )
        axis = method.axis
        place = {} if axis is None else {axis.parameter: entry[axis.name]}
        found.append(({**settings, **place}, float(accuracy)))
    return found
