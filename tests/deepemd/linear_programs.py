"""Transport problems by a linear-programming solver."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog


def least_cost(
    costs: NDArray[np.float64], supplies: NDArray[np.float64], demands: NDArray[np.float64]
) -> float:
    """The least total cost of one problem (n, m), (n,), (m,)."""
    n, m = costs.shape
    rows = np.kron(np.eye(n), np.ones(m))
    columns = np.kron(np.ones(n), np.eye(m))
    sums = np.concatenate([supplies, demands * supplies.sum() / demands.sum()])
    # One of the sums follows from the others.
    found = linprog(costs.ravel(), A_eq=np.vstack([rows, columns])[:-1], b_eq=sums[:-1])
    assert found.status == 0
    return float(found.fun)
