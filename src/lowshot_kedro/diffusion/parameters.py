"""The parameters of the propagation: section `diffusion`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lowshot_kedro.diffusion.backends import BACKENDS, PRECISIONS
from lowshot_kedro.diffusion.edge_weights import EDGE_WEIGHTS
from lowshot_kedro.diffusion.variants import CLASS_PRIORS
from lowshot_kedro.parameters import (
    AUTO,
    MAX_NUMBER,
    bytes_of,
    is_list,
    is_number,
    refuse,
    require_boolean,
    require_gigabytes,
    require_integer,
    require_number,
    require_one_of,
)


@dataclass(frozen=True)
class DiffusionParameters:
    """The propagation of labels over the graph."""

    n_iterations: int | str
    class_slice: int | str
    memory_budget_gb: float | None
    backend: str
    precision: str
    edge_weight: str
    sigma: float
    local_neighbor: int
    reciprocal: bool
    sinkhorn_rounds: int
    power: float
    clamping: bool
    class_prior: str | tuple[float, ...]

    def __post_init__(self) -> None:
        if self.n_iterations != AUTO:
            require_integer("n_iterations", self.n_iterations, 0, 10_000, alternative=AUTO)
        if self.class_slice != AUTO:
            require_integer("class_slice", self.class_slice, 0, alternative=AUTO)
        require_gigabytes("memory_budget_gb", self.memory_budget_gb)
        require_one_of("backend", self.backend, BACKENDS)
        require_one_of("precision", self.precision, PRECISIONS)
        require_one_of("edge_weight", self.edge_weight, list(EDGE_WEIGHTS))
        require_number("sigma", self.sigma, 1e-3)
        require_integer("local_neighbor", self.local_neighbor, 1, 1024)
        require_boolean("reciprocal", self.reciprocal)
        require_integer("sinkhorn_rounds", self.sinkhorn_rounds, 0, 10_000)
        require_number("power", self.power, 0.01, below=100)
        require_boolean("clamping", self.clamping)
        if not is_list(self.class_prior):
            require_one_of("class_prior", self.class_prior, CLASS_PRIORS)
        else:
            numbers: tuple[Any, ...] = tuple(self.class_prior)
            if not all(is_number(number, 0) for number in numbers):
                expected = f"numbers of at least 0 and at most {MAX_NUMBER:g}"
                raise refuse("class_prior", self.class_prior, expected)
            object.__setattr__(self, "class_prior", numbers)
        if self.precision == "bfloat16":
            if self.backend not in ("auto", "native"):
                raise refuse("precision", "bfloat16", "float32, or backend native")
            if self.power != 1 or self.clamping:
                raise refuse("precision", "bfloat16", "float32 with power or clamping")

    @property
    def memory_budget_bytes(self) -> int | None:
        """The budget, 1 GB being 10⁹ bytes; None: what is free."""
        return bytes_of(self.memory_budget_gb)
