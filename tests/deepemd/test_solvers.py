"""Solvers of transport problems, beside a linear-programming solver."""

import sys
from importlib.util import find_spec

import numpy as np
import pytest
from numpy.typing import NDArray

from lowshot_kedro.deepemd import solvers
from lowshot_kedro.deepemd.parameters import SOLVERS
from lowshot_kedro.deepemd.solvers import (
    NativeSolver,
    QPTHSolver,
    as_solver,
    solver_named,
)
from lowshot_kedro.errors import InputError
from lowshot_kedro.extras import MissingLibraryError
from tests.deepemd.linear_programs import least_cost
from tests.deepemd.solver_names import LIBRARIES, installed

# The part of the costs by which a solver may miss the optimum, and the part of weights by flows.
PRECISION = {"native": 1e-12, "pot": 1e-12, "opencv": 1e-5, "qpth": 1e-3, "qpth_qp": 1e-3}

Problems = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


@pytest.fixture(scope="module")
def problems() -> Problems:
    """Three of 5 × 3 nodes."""
    rng = np.random.default_rng(0)
    supplies, demands = rng.uniform(0.1, 1, (3, 5)), rng.uniform(0.1, 1, (3, 3))
    return (
        rng.uniform(0, 2, (3, 5, 3)),
        5 * supplies / supplies.sum(1, keepdims=True),
        5 * demands / demands.sum(1, keepdims=True),
    )


@pytest.mark.parametrize("name", SOLVERS)
def test_flows_are_cheapest(name: str, problems: Problems) -> None:
    found = solver_named(installed(name)).solve(*problems)
    precision = PRECISION[name]
    for costs, supplies, demands, flow in zip(*problems, found.flow, strict=True):
        np.testing.assert_allclose(flow.sum(1), supplies, rtol=precision, atol=precision)
        np.testing.assert_allclose(flow.sum(0), demands, rtol=precision, atol=precision)
        expected = least_cost(costs, supplies, demands)
        assert (flow * costs).sum() == pytest.approx(expected, rel=precision)


@pytest.mark.parametrize("name", SOLVERS)
def test_potentials_prove_the_optimum(name: str, problems: Problems) -> None:
    found = solver_named(installed(name)).solve(*problems)
    if name not in ("native", "pot"):
        assert found.supply_potential is None
        assert found.demand_potential is None
        return
    assert found.supply_potential is not None
    assert found.demand_potential is not None
    costs, supplies, demands = problems
    sums = found.supply_potential[:, :, None] + found.demand_potential[:, None, :]
    assert (sums <= costs + 1e-12).all()
    total = (found.supply_potential * supplies).sum(1) + (found.demand_potential * demands).sum(1)
    np.testing.assert_allclose(total, (found.flow * costs).sum((1, 2)), rtol=1e-12)


def test_threads_change_nothing(problems: Problems) -> None:
    one, two = (NativeSolver(n_jobs).solve(*problems) for n_jobs in (1, 2))
    for first, second in zip(one, two, strict=True):
        np.testing.assert_array_equal(first, second)


def test_a_solver_may_be_given_instead_of_its_name() -> None:
    solver = NativeSolver(n_jobs=1)
    assert as_solver(solver) is solver
    assert isinstance(as_solver("native"), NativeSolver)


def test_other_names_are_refused() -> None:
    with pytest.raises(InputError, match=r"^solver: got 'nativ', expected one of: .*mean native"):
        as_solver("nativ")


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_missing_library_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    library = LIBRARIES[name]
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, "qpth.qp", raising=False)
    command = "pip install --no-deps qpth" if library == "qpth" else "pip install .*episodes"
    with pytest.raises(MissingLibraryError, match=rf"^solver: got .*needs {library}.*{command}"):
        solver_named(name)


def test_pot_does_not_stop_early_unnoticed(
    problems: Problems, monkeypatch: pytest.MonkeyPatch
) -> None:
    solver = solver_named(installed("pot"))
    monkeypatch.setattr(solvers, "_MAX_STEPS", 1)
    with pytest.warns(UserWarning), pytest.raises(RuntimeError, match=r"ot\.emd"):
        solver.solve(*problems)


def test_qpth_leaves_no_module_in_place_of_cvxpy(monkeypatch: pytest.MonkeyPatch) -> None:
    installed("qpth")
    if find_spec("cvxpy") is not None:
        pytest.skip("cvxpy is installed")
    for name in [name for name in sys.modules if name.partition(".")[0] == "qpth"]:
        monkeypatch.delitem(sys.modules, name)
    QPTHSolver()
    assert "qpth.qp" in sys.modules
    assert "cvxpy" not in sys.modules


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "L1"}, "form: got 'L1', expected one of: L2, QP"),
        ({"l2_strength": 0}, "l2_strength: got 0, expected a number above 0"),
        ({"l2_strength": -1.0}, r"l2_strength: got -1\.0"),
    ],
)
def test_qpth_refuses_other_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        QPTHSolver(**options)  # type: ignore[arg-type]


def test_a_larger_l2_strength_spreads_flows(problems: Problems) -> None:
    installed("qpth")
    sharp, flat = (QPTHSolver("L2", strength).solve(*problems) for strength in (1e-6, 10.0))
    assert (flat.flow**2).sum() < 0.9 * (sharp.flow**2).sum()


def test_qpth_takes_some_problems_at_a_time(
    problems: Problems, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed("qpth")
    together = QPTHSolver("L2", 1e-2).solve(*problems)
    monkeypatch.setattr(solvers, "_QPTH_NUMBERS", 1)
    apart = QPTHSolver("L2", 1e-2).solve(*problems)
    np.testing.assert_allclose(apart.flow, together.flow, atol=1e-6)
