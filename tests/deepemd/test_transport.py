"""The earth mover's distance beside linear programming, POT and finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import linear_sum_assignment, linprog

from lowshot_kedro import native
from lowshot_kedro.deepemd import EarthMoversDistance, earth_movers_distance
from lowshot_kedro.errors import InputError

Array = NDArray[Any]


def problems(
    shape: tuple[int, int, int], seed: int = 0, ties: bool = False
) -> tuple[Array, Array, Array]:
    """Costs and weights; with ties, costs and weights of which many are equal."""
    rng = np.random.default_rng(seed)
    if ties:
        costs = rng.integers(-2, 3, shape).astype(float)
        supplies = rng.integers(0, 4, shape[:2]) * float(shape[2])
        demands = np.zeros((shape[0], shape[2]))
        supplies[:, 0] += 1.0 * shape[2]
        demands += supplies.sum(1, keepdims=True) / shape[2]
        return costs, supplies, demands
    costs = rng.normal(size=shape)
    supplies = rng.random(shape[:2]) + 1e-3
    demands = rng.random(shape[::2]) + 1e-3
    return costs, supplies, demands * (supplies.sum(1, keepdims=True) / demands.sum(1)[:, None])


def linear_program(costs: Array, supplies: Array, demands: Array) -> float:
    """The smallest cost of one problem, by HiGHS."""
    n, m = costs.shape
    rows = sparse.kron(sparse.eye(n), np.ones((1, m)))
    columns = sparse.kron(np.ones((1, n)), sparse.eye(m))
    found = linprog(
        costs.ravel(),
        A_eq=sparse.vstack([rows, columns]).tocsr(),
        b_eq=np.concatenate([supplies, demands]),
        method="highs",
    )
    assert found.status == 0
    return float(found.fun)


SHAPES = [(3, 1, 1), (3, 1, 5), (3, 6, 1), (4, 2, 3), (4, 9, 9), (3, 13, 25), (1, 38, 25)]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_costs_are_those_of_linear_programs(shape: tuple[int, int, int], ties: bool) -> None:
    given = problems(shape, ties=ties)
    found = earth_movers_distance(*given)
    for cost, problem in zip(found.cost, zip(*given, strict=True), strict=True):
        assert cost == pytest.approx(linear_program(*problem), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("nodes", [9, 25, 36, 100])
def test_costs_and_flows_are_those_of_pot(nodes: int) -> None:
    ot = pytest.importorskip("ot")
    costs, supplies, demands = problems((3, nodes, nodes), nodes)
    found = earth_movers_distance(costs, supplies, demands)
    for p in range(len(costs)):
        flow = ot.emd(supplies[p], demands[p], costs[p], numItermax=10**6)
        assert found.cost[p] == pytest.approx((flow * costs[p]).sum(), rel=1e-12)
        # Of random costs the optimum is one only.
        np.testing.assert_allclose(found.flow[p], flow, atol=1e-12)


def test_equal_weights_give_an_assignment() -> None:
    costs, ones = np.random.default_rng(0).random((4, 20, 20)), np.ones((4, 20))
    found = earth_movers_distance(costs, ones, ones)
    for p in range(4):
        rows, columns = linear_sum_assignment(costs[p])
        expected = np.zeros((20, 20))
        expected[rows, columns] = 1
        assert (found.flow[p] == expected).all()


def test_flows_and_potentials_are_the_derivatives() -> None:
    costs, supplies, demands = problems((1, 9, 7))
    found = earth_movers_distance(costs, supplies, demands)
    rng, step = np.random.default_rng(1), 1e-6

    def derivative(of_costs: Array, of_supplies: Array, of_demands: Array) -> float:
        more, less = (
            earth_movers_distance(
                costs + s * of_costs, supplies + s * of_supplies, demands + s * of_demands
            ).cost[0]
            for s in (step, -step)
        )
        return float((more - less) / (2 * step))

    for _ in range(5):
        of_costs = rng.normal(size=costs.shape)
        expected = (found.flow * of_costs).sum()
        assert derivative(of_costs, 0 * supplies, 0 * demands) == pytest.approx(expected, rel=1e-7)
        of_supplies, of_demands = rng.normal(size=(1, 9)), rng.normal(size=(1, 7))
        of_demands += (of_supplies.sum() - of_demands.sum()) / 7
        expected = (found.supply_potential * of_supplies).sum()
        expected += (found.demand_potential * of_demands).sum()
        assert derivative(0 * costs, of_supplies, of_demands) == pytest.approx(expected, rel=1e-7)


def test_the_largest_demand_has_potential_zero() -> None:
    costs, supplies, demands = problems((5, 8, 6))
    found = earth_movers_distance(costs, supplies, demands)
    assert (found.demand_potential[np.arange(5), demands.argmax(1)] == 0).all()


def same(found: EarthMoversDistance, expected: EarthMoversDistance) -> bool:
    return all((x == y).all() for x, y in zip(found, expected, strict=True))


def test_any_layout_and_type_is_taken() -> None:
    costs, supplies, demands = problems((3, 5, 4), ties=True)
    expected = earth_movers_distance(costs, supplies, demands)
    twice = np.repeat(np.asfortranarray(costs), 2, axis=2)[:, :, ::2]
    assert same(earth_movers_distance(twice, supplies.tolist(), demands[::-1][::-1]), expected)
    integers = costs.astype(np.int8), supplies.astype(np.float32), demands.astype(">f8")
    assert same(earth_movers_distance(*integers), expected)


@pytest.mark.parametrize("n_jobs", [1, 3, -1, -100, np.int64(2)])
def test_threads_change_nothing(n_jobs: int) -> None:
    given = problems((30, 12, 11))
    before = native.get_num_threads()
    assert same(earth_movers_distance(*given, n_jobs=n_jobs), earth_movers_distance(*given))
    assert native.get_num_threads() == before


@pytest.mark.parametrize("n_jobs", [0, 1.5, "all", True])
def test_numbers_of_threads_that_cannot_be(n_jobs: Any) -> None:
    with pytest.raises(InputError, match=r"n_jobs: got .*, expected a number of threads, or -1"):
        earth_movers_distance(*problems((1, 2, 2)), n_jobs=n_jobs)


COSTS, SUPPLIES, DEMANDS = problems((2, 3, 4))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"costs": COSTS[0]}, r"costs: got shape (3, 4), expected 3 axes"),
        ({"supplies": SUPPLIES[0]}, r"supplies: got shape (3,), expected 2 axes"),
        ({"demands": SUPPLIES}, "demands: got shape (2, 3), expected (2, 4) for costs of shape"),
        ({"supplies": SUPPLIES[:1]}, "supplies: got shape (1, 3), expected (2, 3) for costs of"),
        ({"costs": COSTS[:, :0]}, "costs: got shape (2, 0, 4), expected 1 to 1048576 supplies"),
        ({"costs": COSTS[:, :, :0]}, "costs: got shape (2, 3, 0), expected 1 to 1048576 demands"),
        ({"costs": COSTS * 1j}, "costs: got complex128, expected an array of real numbers"),
        ({"costs": [[["a"]]]}, "costs: got <U1, expected an array of real numbers"),
        ({"demands": [[1], [1, 2]]}, "demands: got lists of different lengths, expected an array"),
        ({"costs": np.where(COSTS[1, 2, 3] == COSTS, np.nan, COSTS)},
         "costs: entry (1, 2, 3) holds nan, expected finite numbers from -1e+150 to 1e+150"),
        ({"demands": -DEMANDS}, "demands: entry (0, 0) holds -"),
        ({"supplies": 2 * SUPPLIES}, "supplies, demands: those of problem 0 have sums"),
    ],
)  # fmt: skip
def test_what_cannot_be_solved(changes: dict[str, Any], message: str) -> None:
    given = {"costs": COSTS, "supplies": SUPPLIES, "demands": DEMANDS, **changes}
    with pytest.raises(InputError) as raised:
        earth_movers_distance(**given)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
