"""The runs of each phase of a sweep, done by workers as far as they are not there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, NamedTuple

from lowshot_kedro.blocks import Runs
from lowshot_kedro.parameters import SweepParameters
from lowshot_kedro.sweep import plan
from lowshot_kedro.sweep.choice import Hyperparameters
from lowshot_kedro.sweep.jobs import Job, Workers, run_jobs
from lowshot_kedro.sweep.methods import (
    Inputs,
    Results,
    ScoreStore,
    memory_bytes,
    run_combination,
    run_group,
)
from lowshot_kedro.sweep.plan import Group, Settings, SweepData
from lowshot_kedro.sweep.runs import Run

NamedResults = Iterator[tuple[str, Mapping[str, Any]]]


class PreparedSweep(NamedTuple):
    """What all runs of a sweep have in common.

    Attributes:
        inputs: Where workers find the data.
        settings: All parameters.
        data: Sizes and checksums.
    """

    inputs: Inputs
    settings: Settings
    data: SweepData


def workers_of(sweep: SweepParameters) -> Workers:
    """Who does the runs."""
    return Workers(
        scheduler=sweep.scheduler,
        cluster=sweep.cluster,
        n_workers=sweep.n_workers,
        memory_budget_bytes=sweep.memory_budget_bytes,
        max_tries=sweep.max_tries,
        is_kept=True,
    )


def validation_results(prepared: PreparedSweep, store: ScoreStore) -> Runs:
    """All runs of the grid on the validation classes.

    Args:
        prepared: Data and parameters.
        store: Not written to: which scores are wanted is not known yet.
    """
    sweep = prepared.settings.sweep
    runs = {run.key: run for run in plan.validation_runs(sweep, prepared.data)}
    n_iterations = {
        "logistic_regression": sweep.logistic_regression.max_iterations,
        "diffusion": sweep.diffusion.n_iterations,
    }

    def compute(missing: Sequence[str]) -> NamedResults:
        groups = [
            Group(group, n_iterations.get(group[0].method, 0), frozenset(run.key for run in group))
            for group in plan.groups_of([runs[key] for key in missing])
        ]
        return _run_groups(groups, prepared, store, "validation")

    made_from = {
        key: plan.made_from(run, n_iterations.get(run.method, 0), prepared.settings, prepared.data)
        for key, run in runs.items()
    }
    return Runs(made_from, compute)


def test_results(prepared: PreparedSweep, chosen: Hyperparameters, store: ScoreStore) -> Runs:
    """All methods but the combination with the hyper-parameters chosen, over the seeds.

    Args:
        prepared: Data and parameters.
        chosen: Hyper-parameters.
        store: Gets the scores of the methods that will be combined.
    """
    sweep = prepared.settings.sweep
    runs = {run.key: run for run in plan.chosen_runs(sweep, prepared.data, chosen)}

    def n_iterations(run: Run) -> int:
        wanted = plan.iterations_of(run, chosen)
        # All numbers of steps come from one propagation, and a plot shows them.
        return max(wanted, sweep.diffusion.n_iterations) if run.method == "diffusion" else wanted

    def compute(missing: Sequence[str]) -> NamedResults:
        groups = []
        for group in plan.groups_of([runs[key] for key in missing]):
            keys = frozenset(run.key for run in group)
            kept = {}
            if "combined" in sweep.methods and group[0].method in plan.COMBINED:
                kept = {run.key: plan.iterations_of(run, chosen) for run in group}
            groups.append(Group(group, n_iterations(group[0]), keys, kept))
        return _run_groups(groups, prepared, store, "test")

    made_from = {
        key: plan.made_from(run, n_iterations(run), prepared.settings, prepared.data)
        for key, run in runs.items()
    }
    return Runs(made_from, compute)


def combination_results(
    mode: str, prepared: PreparedSweep, chosen: Hyperparameters, store: ScoreStore
) -> Runs:
    """Logistic regression and diffusion combined with all weights.

    Args:
        mode: `val` or `test`.
        prepared: Data and parameters.
        chosen: Hyper-parameters of the two methods.
        store: Their scores; those that are missing are computed first.
    """
    inputs, settings, data = prepared
    runs = {run.key: run for run in plan.combined_runs(settings.sweep, data, mode, chosen)}

    def compute(missing: Sequence[str]) -> NamedResults:
        parts = {
            part.key: part for key in missing for part in plan.parts_of(runs[key], chosen).values()
        }
        kept = {key: plan.iterations_of(part, chosen) for key, part in parts.items()}
        absent = [
            part
            for key, part in parts.items()
            if not store.has(key, plan.scores_made_from(part, kept[key], settings, data))
        ]
        groups = [
            Group(group, kept[group[0].key], kept={run.key: kept[run.key] for run in group})
            for group in plan.groups_of(absent)
        ]
        yield from _run_groups(groups, prepared, store, "scores to be combined")
        jobs = [
            Job(
                key,
                run_combination,
                (runs[key], inputs, settings, data, store, chosen),
                memory_bytes(Group((runs[key],)), settings, data),
            )
            for key in missing
        ]
        yield from _results_of(jobs, settings, "combination")

    made_from = {
        key: plan.combination_made_from(run, chosen, settings, data) for key, run in runs.items()
    }
    return Runs(made_from, compute)


def _run_groups(
    groups: Iterable[Group], prepared: PreparedSweep, store: ScoreStore, description: str
) -> NamedResults:
    inputs, settings, data = prepared
    jobs = [
        Job(
            group.name,
            run_group,
            (group, inputs, settings, data, store),
            memory_bytes(group, settings, data),
            len(group.runs),
        )
        for group in groups
    ]
    return _results_of(jobs, settings, description)


def _results_of(jobs: Sequence[Job[Results]], settings: Settings, description: str) -> NamedResults:
    with closing(run_jobs(jobs, workers_of(settings.sweep), description)) as done:
        for _, results in done:
            yield from results.items()
