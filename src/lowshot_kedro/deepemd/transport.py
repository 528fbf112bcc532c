"""The earth mover's distance: exact optimal transport of many small problems at a time."""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lowshot_kedro import native
from lowshot_kedro.errors import InputError
from lowshot_kedro.parameters import is_integer

_MAX_THREADS = 1024


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
    """The cheapest ways to bring supplies to demands, exactly.

    Every problem is solved by the transportation simplex: F. L. Hitchcock, "The distribution of a
    product from several sources to numerous localities" (Journal of Mathematics and Physics 20,
    1941). Where several flows are cheapest, it is one of them, and always the same.

    The costs' derivatives with respect to costs, supplies and demands are the flow and the
    potentials. Of these one constant is free: the potential of the largest demand of a problem, of
    equal ones the first, is 0. A node without weight has the highest potential that it may have,
    supplies before demands. Where all weights of a problem are 0, nothing flows and the cost is 0.

    Args:
        costs: (P, n, m), of any sign; worked on in float64.
        supplies: (P, n), at least 0.
        demands: (P, m), at least 0. The sums of a problem's supplies and demands may differ by a
            millionth of the larger; demands are then scaled to the sum of the supplies.
        n_jobs: Threads; None: as many as OpenMP has been told to take; -1: as many as there are
            processors, -2 all but one, and so on. Changes no result.

    Returns:
        The optima. Memory: costs, supplies and demands in float64 where they are not already, and
        the result.

    Raises:
        InputError: Wrong shapes; NaN, infinity or numbers above 10¹⁵⁰; a weight below 0; different
            sums; or costs that differ so much in size that rounding hides the optimum.
    """
    n_threads = _n_threads(n_jobs)
    costs = _numbers("costs", costs, 3)
    supplies = _numbers("supplies", supplies, 2)
    demands = _numbers("demands", demands, 2)
    n_problems, n_supplies, n_demands = costs.shape
    sides = (("supplies", supplies, n_supplies), ("demands", demands, n_demands))
    for name, weights, n_nodes in sides:
        if not 1 <= n_nodes <= native.MAX_TRANSPORT_NODES:
            raise InputError(
                f"costs: got shape {costs.shape}, expected 1 to {native.MAX_TRANSPORT_NODES} {name}"
            )
        if weights.shape != (n_problems, n_nodes):
            raise InputError(
                f"{name}: got shape {weights.shape}, expected {(n_problems, n_nodes)} for costs of "
                f"shape {costs.shape}"
            )
    try:
        return EarthMoversDistance(*native.solve_transport(costs, supplies, demands, n_threads))
    except ValueError as error:
        raise InputError(str(error)) from None


def _numbers(name: str, array: ArrayLike, n_axes: int) -> NDArray[np.float64]:
    try:
        numbers = np.asarray(array)
    except ValueError:
        raise InputError(f"{name}: got lists of different lengths, expected an array") from None
    if numbers.dtype.kind not in "fiub":
        raise InputError(f"{name}: got {numbers.dtype}, expected an array of real numbers")
    if numbers.ndim != n_axes:
        raise InputError(f"{name}: got shape {numbers.shape}, expected {n_axes} axes")
    return np.require(numbers, np.float64, ("C", "A"))


def _n_threads(n_jobs: int | None) -> int | None:
    if n_jobs is None:
        return None
    if not is_integer(n_jobs, -_MAX_THREADS) or n_jobs == 0:
        raise InputError(
            parameter="n_jobs",
            found=n_jobs,
            expected="a number of threads, or -1 for as many as there are processors",
        )
    # As everywhere in scikit-learn, -1 is all processors and -2 all but one.
    count = n_jobs if n_jobs > 0 else max(1, (os.cpu_count() or 1) + 1 + n_jobs)
    return min(count, _MAX_THREADS)
