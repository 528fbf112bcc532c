"""Exact solutions of many small transport problems."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ._library import (
    MAX_THREADS,
    call,
    check_array,
    ffi,
    get_num_threads,
    lib,
)

MAX_TRANSPORT_NODES = 2**20
MAX_TRANSPORT_NUMBER = 1e150
_NAMES = ("costs", "supplies", "demands")


class TransportOptima(NamedTuple):
    """The optima of P transport problems of n supplies and m demands.

    Attributes:
        total: float64 (P,): Σ flow · cost.
        flow: float64 (P, n, m): what goes from each supply to each demand.
        supply_potential: float64 (P, n): dual variables u.
        demand_potential: float64 (P, m): dual variables v.
    """

    total: npt.NDArray[np.float64]
    flow: npt.NDArray[np.float64]
    supply_potential: npt.NDArray[np.float64]
    demand_potential: npt.NDArray[np.float64]


def solve_transport(
    costs: npt.NDArray[np.float64],
    supplies: npt.NDArray[np.float64],
    demands: npt.NDArray[np.float64],
    n_threads: int | None = None,
) -> TransportOptima:
    """The cheapest ways to bring supplies to demands, by the transportation simplex.

    The sum of a problem's demands may differ from that of its supplies by a millionth; demands are
    scaled to the sum of the supplies. Potentials are such that u + v ≤ cost but for rounding, with
    equality where something flows. That of the largest demand, of equal ones the first, is 0. A
    node of weight 0 has the highest potential that it may have; demands come after supplies. If
    all weights of a problem are 0, nothing flows.

    Args:
        costs: float64 (P, n, m), of any sign.
        supplies: float64 (P, n), at least 0.
        demands: float64 (P, m), at least 0.
        n_threads: Threads; None: as many as other functions take.

    Returns:
        The optima, in new arrays: to check others would take longer.

    Memory: besides the result, 4 n (m + 7) + 110 (n + m + 14) bytes a thread.

    Raises:
        ValueError: Wrong types, shapes or layouts; no nodes or more than 2²⁰ on a side; NaN,
            infinity or a number above 10¹⁵⁰; a weight below 0; different sums; or a problem that
            rounding keeps from being solved.
        MemoryError: No room.
    """
    check_array("costs", costs, np.float64, ("P", "n", "m"))
    count, n_supplies, n_demands = costs.shape
    check_array("supplies", supplies, np.float64, (count, n_supplies))
    check_array("demands", demands, np.float64, (count, n_demands))
    for name, nodes in (("supplies", n_supplies), ("demands", n_demands)):
        if not 1 <= nodes <= MAX_TRANSPORT_NODES:
            raise ValueError(
                f"{name}: expected 1..{MAX_TRANSPORT_NODES} nodes in each problem, got {nodes}"
            )
    if n_threads is None:
        n_threads = get_num_threads()
    elif not 1 <= n_threads <= MAX_THREADS:
        raise ValueError(f"n_threads: expected 1..{MAX_THREADS}, got {n_threads}")
    optima = TransportOptima(
        np.empty(count), np.empty(costs.shape), np.empty(supplies.shape), np.empty(demands.shape)
    )

    def explain(kind: int, which: int, row: int, column: int) -> str:
        if kind == lib.LOWSHOT_UNBALANCED:
            sums = supplies[row].sum(), demands[row].sum()
            return (
                f"supplies, demands: those of problem {row} have sums {sums[0]} and {sums[1]}, "
                "expected equal ones (up to a millionth)"
            )
        if kind == lib.LOWSHOT_NO_OPTIMUM:
            return (
                f"costs: no optimum of problem {row} is found, expected costs and weights that "
                "differ less in size"
            )
        given = (costs, supplies, demands)[which]
        place = np.unravel_index(column, given.shape[1:])
        where = ", ".join(str(index) for index in (row, *place))
        found = f"{_NAMES[which]}: entry ({where}) holds {given[row][place]}"
        least, most = (0.0 if which else -MAX_TRANSPORT_NUMBER), MAX_TRANSPORT_NUMBER
        return f"{found}, expected finite numbers from {least:g} to {most:g}"

    inputs = (count, n_supplies, n_demands, *map(_doubles, (costs, supplies, demands)))
    call(
        lib.lowshot_solve_transport,
        ffi.new("struct lowshot_transport *", inputs),
        n_threads,
        ffi.new("struct lowshot_transport_optima *", tuple(map(_doubles, optima))),
        explain=explain,
    )
    return optima


def _doubles(array: npt.NDArray[np.float64]) -> Any:
    # In a seventh of the time of an address by way of ctypes. Problems may take as little as that.
    return ffi.from_buffer("double[]", array)
