"""Exact solutions of many small transport problems."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ._library import (
    MAX_THREADS,
    call,
    check_array,
    check_no_overlap,
    ffi,
    get_num_threads,
    lib,
    pointer,
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


def transport_optima(n_problems: int, n_supplies: int, n_demands: int) -> TransportOptima:
    """Room for the optima of problems of a size."""
    return TransportOptima(
        np.empty(n_problems),
        np.empty((n_problems, n_supplies, n_demands)),
        np.empty((n_problems, n_supplies)),
        np.empty((n_problems, n_demands)),
    )


def solve_transport(
    costs: npt.NDArray[np.float64],
    supplies: npt.NDArray[np.float64],
    demands: npt.NDArray[np.float64],
    n_threads: int | None = None,
    out: TransportOptima | None = None,
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
        out: Where the optima go, in memory of their own.

    Returns:
        ``out``, or new arrays.

    Memory: besides the result, 8 n (m + 7) + 100 (n + m + 14) bytes a thread.

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
    if out is None:
        out = transport_optima(count, n_supplies, n_demands)
    else:
        shapes = ((count,), costs.shape, supplies.shape, demands.shape)
        inputs = dict(zip(_NAMES, (costs, supplies, demands), strict=True))
        for name, array, shape in zip(out._fields, out, shapes, strict=True):
            check_array(f"out.{name}", array, np.float64, shape, writeable=True)
            check_no_overlap(f"out.{name}", array, **inputs)
            inputs[f"out.{name}"] = array

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

    call(
        lib.lowshot_solve_transport,
        ffi.new(
            "struct lowshot_transport *",
            (count, n_supplies, n_demands, pointer(costs), pointer(supplies), pointer(demands)),
        ),
        n_threads,
        ffi.new("struct lowshot_transport_optima *", tuple(map(pointer, out))),
        explain=explain,
    )
    return out
