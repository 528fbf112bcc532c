"""Who finds the cheapest flows between the nodes of images: solvers of transport problems.

They get many small problems at a time: costs, and on either side weights of the same sum. All but
QPTH are exact. The native solver and POT also return potentials, by which the optimal cost changes
with the weights. OpenCV returns none, so that weights count as constant in gradients. QPTH solves a
quadratic program beside the transport problem and has gradients of its own.
"""

from __future__ import annotations

import importlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowshot_kedro.blocks import row_ranges
from lowshot_kedro.deepemd.parameters import SOLVERS
from lowshot_kedro.deepemd.transport import earth_movers_distance
from lowshot_kedro.extras import MissingLibraryError, require
from lowshot_kedro.parameters import refuse, require_number, require_one_of
from lowshot_kedro.torch_threads import torch_threads

if TYPE_CHECKING:
    import torch

# One core solves as many in about 3 ms. Threads that have to wait for a core take longer to meet.
_NODE_PAIRS_OF_THREADS = 2**16
# POT stops at 10^5 steps unless it is told otherwise, with a plan that moves a part of the weights.
_MAX_STEPS = 10**8
# Numbers that QPTH may hold at a time, of which a pair of n × m nodes takes some (n·m)².
_QPTH_NUMBERS = 2**27
_QPTH_MATRICES = 6
_QP_RIDGE = 1e-4


class Transport(NamedTuple):
    """Solutions of P problems of n × m nodes.

    Attributes:
        flow: float64 (P, n, m), what goes from each node to each.
        supply_potential: float64 (P, n), the derivative of the optimal cost by the supplies; None
            from a solver that has none.
        demand_potential: float64 (P, m), that by the demands.
    """

    flow: NDArray[np.float64]
    supply_potential: NDArray[np.float64] | None = None
    demand_potential: NDArray[np.float64] | None = None


class Solver(ABC):
    """Finds cheapest flows.

    Attributes:
        weight_offset: What is added to every weight before weights are scaled.
    """

    weight_offset: ClassVar[float] = 0.0

    @abstractmethod
    def solve(
        self,
        costs: NDArray[np.float64],
        supplies: NDArray[np.float64],
        demands: NDArray[np.float64],
    ) -> Transport:
        """The cheapest flows of P problems.

        All arrays are in C order.

        Args:
            costs: float64 (P, n, m), finite.
            supplies: float64 (P, n), at least 0.
            demands: float64 (P, m), at least 0, of the same sums but for rounding.
        """


@dataclass(frozen=True)
class NativeSolver(Solver):
    """The compiled solver of this package: exact, float64, with potentials.

    Args:
        n_jobs: Threads, as for :func:`earth_movers_distance`; None: one for a call that takes no
            longer than threads take to meet, else as many as OpenMP has been told to take.
    """

    n_jobs: int | None = None

    def solve(
        self,
        costs: NDArray[np.float64],
        supplies: NDArray[np.float64],
        demands: NDArray[np.float64],
    ) -> Transport:
        """All problems in one call."""
        n_jobs = 1 if self.n_jobs is None and costs.size < _NODE_PAIRS_OF_THREADS else self.n_jobs
        found = earth_movers_distance(costs, supplies, demands, n_jobs)
        return Transport(found.flow, found.supply_potential, found.demand_potential)


class POTSolver(Solver):
    """The network simplex of POT (`ot.emd`): exact, float64, with potentials.

    Raises:
        MissingLibraryError: If it is not installed.
    """

    def __init__(self) -> None:
        require("ot", parameter="solver", found="pot")

    def solve(
        self,
        costs: NDArray[np.float64],
        supplies: NDArray[np.float64],
        demands: NDArray[np.float64],
    ) -> Transport:
        """One problem after the other.

        Raises:
            RuntimeError: If POT stops before the optimum.
        """
        import ot

        n_problems, n, m = costs.shape
        flow = np.empty(costs.shape)
        supply_potential, demand_potential = np.empty((n_problems, n)), np.empty((n_problems, m))
        for problem in range(n_problems):
            flow[problem], found = ot.emd(
                supplies[problem], demands[problem], costs[problem],
                numItermax=_MAX_STEPS, log=True,
            )  # fmt: skip
            if found["warning"] is not None:
                raise RuntimeError(f"ot.emd: {found['warning']}")
            supply_potential[problem], demand_potential[problem] = found["u"], found["v"]
        return Transport(flow, supply_potential, demand_potential)


class OpenCVSolver(Solver):
    """`cv2.EMD` as DeepEMD calls it: float32, weights 1e-5 larger, and no potentials.

    Raises:
        MissingLibraryError: If OpenCV is not installed.
    """

    weight_offset = 1e-5

    def __init__(self) -> None:
        require("cv2", parameter="solver", found="opencv")

    def solve(
        self,
        costs: NDArray[np.float64],
        supplies: NDArray[np.float64],
        demands: NDArray[np.float64],
    ) -> Transport:
        """One problem after the other. Of sums that differ by rounding the smaller one is moved."""
        import cv2

        arrays = (costs, supplies[..., None], demands[..., None])
        ground, left, right = (np.ascontiguousarray(array, np.float32) for array in arrays)
        flow = np.empty(costs.shape)
        for problem in range(len(costs)):
            flow[problem] = cv2.EMD(
                left[problem], right[problem], cv2.DIST_USER, ground[problem]
            )[2]  # fmt: skip
        return Transport(flow)


@dataclass(frozen=True)
class QPTHSolver(Solver):
    """The interior point method of QPTH, in the two forms of DeepEMD: near the optimum, and slow.

    It needs about 50 (n·m)² bytes for each pair of n × m nodes, some of it until the backward pass.
    With the form L2, that pass now and then raises the error of torch about a singular matrix: for
    75 pairs of 9 × 9 nodes, once in ten to fifteen times.

    B. Amos and J. Z. Kolter, "OptNet: Differentiable Optimization as a Layer in Neural Networks",
    ICML 2017.

    Args:
        form: "L2" minimises cost·flow + ½ l2_strength ‖flow‖², "QP" ½ (cost·flow)² +
            ½ 1e-4 ‖flow‖².
        l2_strength: Above 0.

    Raises:
        InputError: If an argument cannot be used.
        MissingLibraryError: If QPTH is not installed.
    """

    form: str = "L2"
    l2_strength: float = 1e-6

    def __post_init__(self) -> None:
        require_one_of("form", self.form, ("L2", "QP"))
        require_number("l2_strength", self.l2_strength, 0)
        if self.l2_strength == 0:
            raise refuse("l2_strength", self.l2_strength, "a number above 0")
        _load_qpth()

    def solve(
        self,
        costs: NDArray[np.float64],
        supplies: NDArray[np.float64],
        demands: NDArray[np.float64],
    ) -> Transport:
        """The flows of all problems."""
        import torch

        with torch.no_grad(), torch_threads(1):
            flow = self.flow(*(torch.from_numpy(array) for array in (costs, supplies, demands)))
        return Transport(flow.numpy())

    def flow(
        self, costs: torch.Tensor, supplies: torch.Tensor, demands: torch.Tensor
    ) -> torch.Tensor:
        """The flows of all problems, differentiable in all arguments.

        Both passes are to be called in `torch_threads(1)`: with several ones torch 2.14 decomposes
        batches of matrices of 200 rows wrongly, or never ends.

        Args:
            costs: float64 (P, n, m).
            supplies: float64 (P, n).
            demands: float64 (P, m).
        """
        import torch

        n_pairs = max(1, _QPTH_NUMBERS // (_QPTH_MATRICES * costs[0].numel() ** 2))
        parts = [
            self._flow_of_part(costs[first:last], supplies[first:last], demands[first:last])
            for first, last in row_ranges(len(costs), n_pairs)
        ]
        return torch.cat(parts)

    def _flow_of_part(
        self, costs: torch.Tensor, supplies: torch.Tensor, demands: torch.Tensor
    ) -> torch.Tensor:
        import torch

        n_problems, n, m = costs.shape
        like: dict[str, Any] = {"dtype": costs.dtype, "device": costs.device}
        flat = costs.reshape(n_problems, n * m)
        one = torch.eye(n * m, **like)
        if self.form == "L2":
            quadratic, linear = self.l2_strength * one, flat
        else:
            quadratic = flat[:, :, None] * flat[:, None, :] + _QP_RIDGE * one
            linear = torch.zeros_like(flat)
        rows = torch.eye(n, **like).repeat_interleave(m, 1)
        columns = torch.eye(m, **like).repeat(1, n)
        at_most = torch.cat([torch.zeros_like(flat), supplies, demands], 1)
        total = torch.minimum(supplies.sum(1), demands.sum(1))[:, None]
        function = _load_qpth().QPFunction(verbose=-1)
        found = function(
            quadratic.expand(n_problems, -1, -1),
            linear,
            torch.cat([-one, rows, columns]).expand(n_problems, -1, -1),
            at_most,
            torch.ones(n_problems, 1, n * m, **like),
            total,
        )
        solution: torch.Tensor = found.reshape(n_problems, n, m)
        return solution


def _load_qpth() -> Any:
    """Import QPTH, which imports CVXPY for something that is not used here."""
    if "qpth.qp" in sys.modules:
        return sys.modules["qpth.qp"]
    if find_spec("qpth") is None:
        raise MissingLibraryError(
            "needs qpth, which is not installed; type: pip install --no-deps qpth",
            parameter="solver",
            found="qpth",
        )
    stands_in = sys.modules.get("cvxpy") is None and find_spec("cvxpy") is None
    if stands_in:
        sys.modules["cvxpy"] = ModuleType("cvxpy")
    try:
        return importlib.import_module("qpth.qp")
    finally:
        if stands_in:
            del sys.modules["cvxpy"]


_MAKERS: dict[str, Callable[[], Solver]] = {
    "native": NativeSolver,
    "pot": POTSolver,
    "opencv": OpenCVSolver,
    "qpth": lambda: QPTHSolver("L2"),
    "qpth_qp": lambda: QPTHSolver("QP"),
}


def solver_named(name: str) -> Solver:
    """The solver of a name of `SOLVERS`.

    Raises:
        InputError: If there is none of this name.
        MissingLibraryError: If its library is not installed.
    """
    require_one_of("solver", name, SOLVERS)
    return _MAKERS[name]()


def as_solver(solver: str | Solver) -> Solver:
    """A solver that is given as such, or by its name."""
    return solver if isinstance(solver, Solver) else solver_named(solver)
