"""The runs of each phase of a sweep, done by workers as far as they are not there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, NamedTuple

from lowshot_kedro.blocks import Runs
from lowshot_kedro.methods import METHODS
from lowshot_kedro.sweep import plan
from lowshot_kedro.sweep.choice import Hyperparameters
from lowshot_kedro.sweep.jobs import Job, Workers, run_jobs
from lowshot_kedro.sweep.parameters import SweepParameters
from lowshot_kedro.sweep.plan import Group, SweepData, SweepSettings
from lowshot_kedro.sweep.runs import Run
from lowshot_kedro.sweep.work import (
    Inputs,
    Results,
    ScoreStore,
    memory_bytes,
    run_combination,
    run_group,
)

NamedResults = Iterator[tuple[str, Mapping[str, Any]]]


class PreparedSweep(NamedTuple):
    """What all runs of a sweep have in common.

    Attributes:
        inputs: The data, which workers open.
        settings: All parameters.
        data: Sizes and checksums.
    """

    inputs: Inputs
    settings: SweepSettings
    data: SweepData


def workers_of(sweep: SweepParameters) -> Workers:
    """The workers that do the runs, as the parameters of the sweep say."""
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
    n_steps = {name: METHODS[name].n_steps(sweep.grids.get(name)) for name in sweep.methods}

    def compute(missing: Sequence[str]) -> NamedResults:
        groups = [
            Group(group, n_steps[group[0].method], frozenset(run.key for run in group))
            for group in plan.groups_of([runs[key] for key in missing])
        ]
        return _run_groups(groups, prepared, store, "validation")

    provenance = {
        key: plan.provenance(run, n_steps[run.method], prepared.settings, prepared.data)
        for key, run in runs.items()
    }
    return Runs(provenance, compute)


def test_results(prepared: PreparedSweep, chosen: Hyperparameters, store: ScoreStore) -> Runs:
    """All methods but combinations with the hyper-parameters chosen, over the seeds.

    Args:
        prepared: Data and parameters.
        chosen: Hyper-parameters.
        store: Gets the scores of the methods that will be combined.
    """
    sweep = prepared.settings.sweep
    runs = {run.key: run for run in plan.chosen_runs(sweep, prepared.data, chosen)}

    combined = plan.combined_methods(sweep)

    def n_steps(run: Run) -> int:
        n_chosen = plan.steps_of(run, chosen)
        return METHODS[run.method].n_test_steps(sweep.grids.get(run.method), n_chosen)

    def compute(missing: Sequence[str]) -> NamedResults:
        groups = []
        for group in plan.groups_of([runs[key] for key in missing]):
            keys = frozenset(run.key for run in group)
            kept = {}
            if group[0].method in combined:
                kept = {run.key: plan.steps_of(run, chosen) for run in group}
            groups.append(Group(group, n_steps(group[0]), keys, kept))
        return _run_groups(groups, prepared, store, "test")

    provenance = {
        key: plan.provenance(run, n_steps(run), prepared.settings, prepared.data)
        for key, run in runs.items()
    }
    return Runs(provenance, compute)


def combination_results(
    mode: str, prepared: PreparedSweep, chosen: Hyperparameters, store: ScoreStore
) -> Runs:
    """Scores of other methods combined with all weights.

    Args:
        mode: `val` or `test`.
        prepared: Data and parameters.
        chosen: Hyper-parameters of these methods.
        store: Their scores; those that are missing are computed first.
    """
    inputs, settings, data = prepared
    runs = {run.key: run for run in plan.combined_runs(settings.sweep, data, mode, chosen)}

    def compute(missing: Sequence[str]) -> NamedResults:
        parts = {
            part.key: part for key in missing for part in plan.parts_of(runs[key], chosen).values()
        }
        kept = {key: plan.steps_of(part, chosen) for key, part in parts.items()}
        absent = [
            part
            for key, part in parts.items()
            if not store.has(key, plan.scores_provenance(part, kept[key], settings, data))
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

    provenance = {
        key: plan.combination_provenance(run, chosen, settings, data) for key, run in runs.items()
    }
    return Runs(provenance, compute)


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


def _results_of(
    jobs: Sequence[Job[Results]], settings: SweepSettings, description: str
) -> NamedResults:
    with closing(run_jobs(jobs, workers_of(settings.sweep), description)) as done:
        for _, results in done:
            yield from results.items()
