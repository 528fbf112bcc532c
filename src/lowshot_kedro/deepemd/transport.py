"""The earth mover's distance: exact optimal transport of many small problems at a time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class EarthMoversDistance(NamedTuple):
    """The optima of P transport problems of n supplies and m demands.

    Attributes:
        cost: float64 (P,): the total costs Σ flow·cost.
        flow: float64 (P, n, m): what goes from each supply to each demand.
        supply_potential: float64 (P, n): dual variables u.
        demand_potential: float64 (P, m): dual variables v; u + v ≤ cost, with equality where
            something flows.
    """

    cost: NDArray[np.float64]
    flow: NDArray[np.float64]
    supply_potential: NDArray[np.float64]
    demand_potential: NDArray[np.float64]


def earth_movers_distance(
    costs: ArrayLike, supplies: ArrayLike, demands: ArrayLike, n_jobs: int | None = None
) -> EarthMoversDistance:
    """The cheapest ways to bring supplies to demands."""
    raise NotImplementedError
