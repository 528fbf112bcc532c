"""The parameters of a sweep: section `sweep`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lowshot_kedro.methods import METHODS
from lowshot_kedro.metrics import GROUPS
from lowshot_kedro.parameters import (
    AUTO,
    bytes_of,
    distinct_values,
    field_names,
    read_section,
    refuse,
    require_gigabytes,
    require_integer,
    require_names,
    require_one_of,
    require_part,
)
from lowshot_kedro.protocol import UNLABELED
from lowshot_kedro.sweep.runs import UnlabeledImages


@dataclass(frozen=True)
class SweepParameters:
    """The experiments of a sweep: what is searched on the validation classes, and what is repeated.

    Attributes:
        grids: What is searched for each method that has a section of its own in the sweep, by name.
    """

    methods: tuple[str, ...]
    n_labeled: tuple[int | None, ...]
    seeds: tuple[int, ...]
    validation_seeds: tuple[int, ...]
    metric: str
    unlabeled: tuple[str, ...]
    n_background: tuple[int | None, ...]
    combination_weights: tuple[float, ...]
    scheduler: str
    cluster: Mapping[str, Any]
    n_workers: int | str
    memory_budget_gb: float | None
    max_tries: int
    grids: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checks: dict[str, Callable[[str, Any], None]] = {
            "methods": lambda name, value: require_one_of(name, value, list(METHODS)),
            "n_labeled": lambda name, value: require_integer(
                name, value, 1, null="all that are given"
            ),
            "seeds": lambda name, value: require_integer(name, value, 0),
            "validation_seeds": lambda name, value: require_integer(name, value, 0),
            "unlabeled": lambda name, value: require_one_of(
                name, value, [kind for kind in UNLABELED if kind != "none"]
            ),
            "n_background": lambda name, value: require_integer(name, value, 0, null="all"),
            "combination_weights": require_part,
        }
        for name, check in checks.items():
            object.__setattr__(self, name, distinct_values(name, getattr(self, name), check))
        groups = "|".join(GROUPS)
        if not isinstance(self.metric, str) or not re.fullmatch(
            rf"top[1-9][0-9]*({groups})", self.metric
        ):
            expected = "top1, top1_novel, top1_base or the same of another of evaluation.top_k"
            raise refuse("metric", self.metric, expected)
        for method in self.methods:
            missing = [part for part in METHODS[method].parts if part not in self.methods]
            if missing:
                raise refuse("methods", list(self.methods), f"{missing[0]} beside {method}")
        if not isinstance(self.scheduler, str) or not self.scheduler:
            expected = "local, the address of a Dask scheduler, or a batch system such as slurm"
            raise refuse("scheduler", self.scheduler, expected)
        if not isinstance(self.cluster, Mapping):
            raise refuse("cluster", self.cluster, "a section, such as {queue: short}")
        if self.n_workers != AUTO:
            require_integer("n_workers", self.n_workers, 0, 100_000, alternative=AUTO)
        require_gigabytes("memory_budget_gb", self.memory_budget_gb)
        require_integer("max_tries", self.max_tries, 1, 1000)

    @property
    def unlabeled_images(self) -> list[UnlabeledImages]:
        """Every kind of unlabelled images with every size of background it can have."""
        return [
            UnlabeledImages(kind, n_background)
            for kind in self.unlabeled
            for n_background in ((0,) if kind == "train" else self.n_background)
        ]

    @property
    def memory_budget_bytes(self) -> int | None:
        """The budget, 1 GB being 10⁹ bytes; None: what is free."""
        return bytes_of(self.memory_budget_gb)


def read_sweep(values: object) -> SweepParameters:
    """The section `sweep` as people type it, with a section for each method that has a grid.

    Args:
        values: Parameter name → value. The section of a method whose grid has defaults for
            everything may be missing.

    Raises:
        InputError: For what :func:`~lowshot_kedro.parameters.read_section` refuses.
    """
    if isinstance(values, SweepParameters):
        return values
    if not isinstance(values, Mapping):
        raise refuse("sweep", values, "a section of parameters")
    grid_classes = {name: method.grid for name, method in METHODS.items() if method.grid}
    own = {name: needed for name, needed in field_names(SweepParameters).items() if name != "grids"}
    needed = {name: any(field_names(grid).values()) for name, grid in grid_classes.items()}
    require_names("sweep.", values, {**own, **needed})
    grids: dict[str, Any] = {
        name: read_section(f"sweep.{name}", grid, values.get(name, {}))
        for name, grid in grid_classes.items()
    }
    return read_section(
        "sweep",
        SweepParameters,
        {**{name: values[name] for name in own}, "grids": grids},
    )
